"""Tells the spans of what ended in committed turns: when there is time, from what the turns wrote.

The lanes only leave a note of each end. What a note lacks (when the visit began, whose child the execution is) is
looked up later, for many at once and by keys. A broker that is killed in between has told less: a trace is no record.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

import structlog

from noetl_broker.broker.model import JSON
from noetl_broker.broker.spans import Emit, Span, reason_of, span_id_of, trace_id_of
from noetl_broker.daemon.counters import Counters
from noetl_broker.store.faults import told
from noetl_broker.store.pool import CALL_SECONDS, Pool, lent
from noetl_broker.store.queries import sql
from noetl_broker.store.rows import MICROSECOND, Case, Outcome, node_id

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.5
MOST_AT_ONCE = 1000
MOST_NOTES = 20_000  # past which ends are not told: a broker that works has no time for its trace

VISIT_ENDS = frozenset({"step_completed", "step_failed"})
ITEM_ENDS = frozenset({"iteration_completed", "iteration_failed"})
EXECUTION_ENDS = frozenset({"execution_complete", "execution_failed", "execution_cancelled"})
ENDS = VISIT_ENDS | ITEM_ENDS | EXECUTION_ENDS


class Note(NamedTuple):
    """An end that was committed; `node` None: of the execution itself. `inside`: the visit that an item belongs to."""

    execution_id: int
    node: str | None
    inside: str | None
    name: str
    kind: str
    status: str
    began_at: datetime | None
    ended_at: datetime
    error: JSON


class Family(NamedTuple):
    """What an execution's spans need to know of it."""

    root_execution_id: int
    path: str | None
    version: int | None
    started_at: datetime
    parent_execution_id: int | None
    parent_node_id: str | None


Begun = tuple[datetime, int]  # when a job was made, and how often it was leased


class Tracer:
    """Takes notes in the lanes, and gives spans to `emit` from a task of its own."""

    def __init__(self, emit: Emit, counters: Counters) -> None:
        """Nothing noted yet."""
        self._emit = emit
        self._counters = counters
        self._notes: deque[Note] = deque()

    def note(self, outcomes: Iterable[tuple[Case, Outcome]]) -> None:
        """Note what ended in turns that were committed."""
        for case, outcome in outcomes:
            for found in _ends(case.execution.execution_id, outcome):
                if len(self._notes) < MOST_NOTES:
                    self._notes.append(found)
                else:
                    self._counters.spans_dropped += 1

    async def keep_telling(self, pool: Pool) -> None:
        """Tell again and again; never raises."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            await self.tell(pool)

    async def tell(self, pool: Pool) -> None:
        """Tell all that is noted; what the database does not answer for is noted again, once there is room."""
        while self._notes:
            notes = [self._notes.popleft() for _ in range(min(len(self._notes), MOST_AT_ONCE))]
            try:
                spans = await _spans(pool, notes)
            except BaseException as error:
                self._notes.extendleft(reversed(notes))
                if not isinstance(error, Exception):
                    raise  # a stop; what is noted is told at its end
                log.warning("spans cannot be told, will try again", spans=len(notes), **told(error))
                return
            self._emit(spans)
            self._counters.spans += len(spans)


def _ends(execution_id: int, outcome: Outcome) -> Iterator[Note]:
    """Each end in the turns of one execution; what began and ended in the same batch says when itself."""
    began: dict[str, datetime] = {}
    for _, turn, decision in outcome.taken:
        for place, event in enumerate(decision.events):
            at = turn.at + place * MICROSECOND
            if event.step is None:
                if event.type in EXECUTION_ENDS:
                    yield Note(execution_id, None, None, "", "", event.status, None, at, event.error)
                continue
            visit = node_id(execution_id, event.step, event.visit)
            if event.type == "step_started":
                began[visit] = at
            elif event.type in VISIT_ENDS:
                yield Note(
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
                yield Note(execution_id, item, visit, name, event.node_type, event.status, None, at, event.error)


async def _spans(pool: Pool, notes: list[Note]) -> list[Span]:
    nodes = [(note.execution_id, note.node) for note in notes if note.node is not None]
    async with lent(pool, CALL_SECONDS) as connection:
        found = await connection.fetch(sql("trace_executions"), [*{note.execution_id for note in notes}])
        jobs = await connection.fetch(
            sql("trace_jobs"), [execution_id for execution_id, _ in nodes], [node for _, node in nodes]
        )
    families = {row["execution_id"]: Family(*[*row.values()][1:]) for row in found}
    begun: dict[str, Begun] = {row["node_id"]: (row["created_at"], row["attempts"]) for row in jobs}
    return [*_told(notes, families, begun)]


def _told(notes: list[Note], families: Mapping[int, Family], begun: Mapping[str, Begun]) -> Iterator[Span]:
    for note in notes:
        family = families.get(note.execution_id)
        if family is None:
            continue  # somebody took the execution away
        failed = reason_of(note.error) if note.status == "FAILED" else None
        attributes: dict[str, str | int] = {"noetl.execution_id": note.execution_id, "noetl.status": note.status}
        trace_id = trace_id_of(family.root_execution_id)
        if note.node is None:
            above = family.parent_node_id or family.parent_execution_id
            attributes |= {"noetl.path": family.path or "", "noetl.version": family.version or 0}
            yield Span(
                trace_id, span_id_of(note.execution_id), None if above is None else span_id_of(above),
                family.path or str(note.execution_id), family.started_at, note.ended_at, attributes, failed,
            )  # fmt: skip
            continue
        created_at, attempts = begun.get(note.node, (None, 0))
        began_at = note.began_at or created_at
        if began_at is None and note.inside is not None:
            continue  # an item that is a child: its execution has a span of its own
        attributes |= {"noetl.node_id": note.node, "noetl.type": note.kind, "noetl.attempts": attempts}
        yield Span(
            trace_id, span_id_of(note.node), span_id_of(note.inside or note.execution_id),
            note.name, began_at or note.ended_at, note.ended_at, attributes, failed,
        )  # fmt: skip
