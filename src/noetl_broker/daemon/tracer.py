"""Sends a span for each execution, visit and item that ended in a committed turn.

The lanes only record each end. A background task sends the spans. It loads the starts of visits and the parents of
executions, for many ends at once. A broker that is killed before loses those spans.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

import structlog

from noetl_broker.broker.model.values import JSON
from noetl_broker.daemon.metrics.registry import SPANS, SPANS_DROPPED
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.node_ids import node_id
from noetl_broker.store.connect.connection import CALL_SECONDS, Pool, borrowed
from noetl_broker.store.connect.sqlstates import log_fields
from noetl_broker.store.queries import sql
from noetl_broker.store.turn.claimed_rows import MICROSECOND, Case, Outcome
from noetl_broker.tracing.spans import Emit, Span, reason_of, span_id_of, trace_id_of

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.5
BATCH_SPANS = 1000
MAX_WAITING = 20_000  # ends; more are dropped and counted

VISIT_ENDS = frozenset({"step_completed", "step_failed", "step_cancelled"})
ITEM_ENDS = frozenset({"iteration_completed", "iteration_failed"})
EXECUTION_ENDS = frozenset({"execution_complete", "execution_failed", "execution_cancelled"})
ENDS = VISIT_ENDS | ITEM_ENDS | EXECUTION_ENDS


class End(NamedTuple):
    """A committed end. `node` None: of the execution itself. `visit`: the visit that an item belongs to."""

    execution_id: int
    node: str | None
    visit: str | None
    name: str
    kind: str
    status: str
    began_at: datetime | None
    ended_at: datetime
    error: JSON


class ExecutionFacts(NamedTuple):
    """What the spans of an execution need from its row."""

    root_execution_id: int
    path: str | None
    version: int | None
    started_at: datetime
    parent_execution_id: int | None
    parent_node_id: str | None


JobFacts = tuple[datetime, int]  # created_at and attempts of a job


class Tracer:
    """Records ends in the lanes, and sends their spans to `emit` from a background task."""

    def __init__(self, emit: Emit, metrics: MetricValues) -> None:
        """Nothing recorded yet."""
        self._emit = emit
        self._metrics = metrics
        self._waiting: deque[End] = deque()

    def record(self, outcomes: Iterable[tuple[Case, Outcome]]) -> None:
        """Record what ended in committed turns."""
        for case, outcome in outcomes:
            for end in _ends(case.execution.execution_id, outcome):
                if len(self._waiting) < MAX_WAITING:
                    self._waiting.append(end)
                else:
                    self._metrics.add(SPANS_DROPPED)

    async def keep_sending(self, pool: Pool) -> None:
        """Send spans at short intervals; never raises."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            await self.send(pool)

    async def send(self, pool: Pool) -> None:
        """Send the spans of all recorded ends; after a fault of the database they are kept for the next call."""
        while self._waiting:
            ends = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_SPANS))]
            try:
                spans = await _spans(pool, ends)
            except BaseException as error:
                self._waiting.extendleft(reversed(ends))
                if not isinstance(error, Exception):
                    raise  # the daemon stops, and calls this once more
                log.warning("spans could not be sent, will try again", spans=len(ends), **log_fields(error))
                return
            self._emit(spans)
            self._metrics.add(SPANS, len(spans))


def _ends(execution_id: int, outcome: Outcome) -> Iterator[End]:
    """The ends in the turns of one execution, with the start of visits that began in the same batch."""
    began: dict[str, datetime] = {}
    for _, turn, decision in outcome.taken:
        for ordinal, event in enumerate(decision.events):
            at = turn.at + ordinal * MICROSECOND
            if event.step is None:
                if event.type in EXECUTION_ENDS:
                    yield End(execution_id, None, None, "", "", event.status, None, at, event.error)
                continue
            visit = node_id(execution_id, event.step, event.visit)
            if event.type == "step_started":
                began[visit] = at
            elif event.type in VISIT_ENDS:
                yield End(
                    execution_id,
                    visit,
                    None,
                    event.step,
                    event.node_type,
                    event.status,
                    began.get(visit),
                    at,
                    event.error,
                )
            elif event.type in ITEM_ENDS:
                index = int(str((event.context or {}).get("index", 0)))
                item = node_id(execution_id, event.step, event.visit, index)
                name = f"{event.step}[{index}]"
                yield End(execution_id, item, visit, name, event.node_type, event.status, None, at, event.error)


async def _spans(pool: Pool, ends: list[End]) -> list[Span]:
    nodes = [(end.execution_id, end.node) for end in ends if end.node is not None]
    async with borrowed(pool, CALL_SECONDS) as connection:
        found = await connection.fetch(sql("trace_executions"), [*{end.execution_id for end in ends}])
        jobs = await connection.fetch(
            sql("trace_jobs"), [execution_id for execution_id, _ in nodes], [node for _, node in nodes]
        )
    executions = {row["execution_id"]: ExecutionFacts(*[*row.values()][1:]) for row in found}
    facts: dict[str, JobFacts] = {row["node_id"]: (row["created_at"], row["attempts"]) for row in jobs}
    return [*_spans_of(ends, executions, facts)]


def _spans_of(
    ends: list[End], executions: Mapping[int, ExecutionFacts], jobs: Mapping[str, JobFacts]
) -> Iterator[Span]:
    for end in ends:
        execution = executions.get(end.execution_id)
        if execution is None:
            continue  # its row was deleted
        failed = reason_of(end.error) if end.status == "FAILED" else None
        attributes: dict[str, str | int] = {"noetl.execution_id": end.execution_id, "noetl.status": end.status}
        trace_id = trace_id_of(execution.root_execution_id)
        if end.node is None:
            above = execution.parent_node_id or execution.parent_execution_id
            attributes |= {"noetl.path": execution.path or "", "noetl.version": execution.version or 0}
            yield Span(
                trace_id, span_id_of(end.execution_id), None if above is None else span_id_of(above),
                execution.path or str(end.execution_id), execution.started_at, end.ended_at, attributes, failed,
            )  # fmt: skip
            continue
        created_at, attempts = jobs.get(end.node, (None, 0))
        began_at = end.began_at or created_at
        if began_at is None and end.visit is not None:
            continue  # an item that is a child execution has the span of that execution
        attributes |= {"noetl.node_id": end.node, "noetl.type": end.kind, "noetl.attempts": attempts}
        yield Span(
            trace_id, span_id_of(end.node), span_id_of(end.visit or end.execution_id),
            end.name, began_at or end.ended_at, end.ended_at, attributes, failed,
        )  # fmt: skip
