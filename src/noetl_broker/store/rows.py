"""Rows and nouns: how the core's decisions become columns of the database, and rows become the core's events."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.context import NOT_LOADED
from noetl_broker.broker.model import Decision, Emitted, Event, Job, Row, Rules, Turn
from noetl_broker.broker.state import ExecutionState, decode, encode
from noetl_broker.store.codec import dump_json

if TYPE_CHECKING:
    from asyncpg import Record

    from noetl_broker.broker.model import JSON
    from noetl_broker.playbook.model import Playbook

MICROSECOND = timedelta(microseconds=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class Mail(NamedTuple):
    """One event that waits for a decision; `facts` is what is known of it beside its row, for a replay."""

    mail_id: int
    event_id: int
    event: Event
    created_at: datetime
    taken_at: datetime
    facts: dict[str, JSON] | None


class Execution(NamedTuple):
    """An execution as it was found under its lock; `rules` and `tokens` as stored, None before its first turn."""

    execution_id: int
    catalog_id: int | None
    path: str | None
    version: int | None
    name: str
    rules: dict[str, JSON] | None
    turn: int
    last_at: datetime
    tokens: dict[str, JSON] | None


class Case(NamedTuple):
    """One execution of a batch: its mail, its playbook (or why there is none), and what was loaded for it."""

    execution: Execution
    mail: list[Mail]
    playbook: Playbook | str  # or the sentence that says why there is none
    rules: Rules
    state: ExecutionState
    loaded: dict[tuple[object, ...], object]


class Taken(NamedTuple):
    """One turn as it was taken: what the store needs to write it down."""

    mail: Mail
    turn: Turn
    decision: Decision


class Outcome(NamedTuple):
    """The turns of one execution, and the state after the last of them."""

    taken: list[Taken]
    state: ExecutionState


def node_id(execution_id: int, step: str, visit: int) -> str:
    """`<execution_id>:<step>` for the first visit, with `#2` and so on for the next ones (spec section 2)."""
    return f"{execution_id}:{step}" if visit == 1 else f"{execution_id}:{step}#{visit}"


def parse_node(node: str | None, name: str | None) -> tuple[str | None, int | None]:
    """The step and the visit of a node id; where it says neither, the node's name and the first visit."""
    if node and ":" in node:
        step, mark, visit = node.partition(":")[2].partition("#")
        if not mark:
            return step, 1
        if visit.isascii() and visit.isdigit() and len(visit) < 10:  # noqa: PLR2004 - longer is no int4
            return step, int(visit)
    return name, 1 if name else None


def mail_of(row: Record) -> Mail:
    """One row of `take_mail`; whatever a stranger wrote into the event becomes an event that the core can refuse."""
    step, visit = parse_node(row["node_id"], row["node_name"])
    meta = row["meta"] if isinstance(row["meta"], dict) else {}
    attempt = meta.get("attempt")
    facts: dict[str, JSON] = {}
    if not isinstance(attempt, int) or isinstance(attempt, bool):
        attempt = row["job_attempts"] or 0
        if attempt:
            facts["attempt"] = attempt
    if row["broken"]:
        facts["broken"] = True
    event = Event(
        row["event_type"] or "missing",
        step,
        visit,
        NOT_LOADED if row["result_left"] else row["result"],
        row["error"],
        row["context"],
        attempt,
        meta.get("retryable") is not False,
        "queue_id" in meta,
        row["broken"] or False,
    )
    taken_at = row["taken_at"]
    return Mail(row["mail_id"], row["event_id"], event, row["created_at"] or taken_at, taken_at, facts or None)


def execution_of(row: Record) -> Execution:
    """The execution that a row of `take_mail` belongs to."""
    return Execution(
        row["execution_id"],
        row["catalog_id"],
        row["path"],
        row["version"],
        row["name"] or str(row["execution_id"]),
        row["rules"],
        row["turn"] or 0,
        row["last_at"] or LONG_AGO,
        row["tokens"],
    )


def open_case(execution: Execution, mail: list[Mail], playbook: Playbook | str, rules: Rules) -> Case:
    """The execution with its state and rules read (`rules` where it has none yet); raises where they are broken."""
    return Case(
        execution,
        mail,
        playbook,
        Rules(**execution.rules) if execution.rules else rules,
        decode(execution.tokens) if execution.tokens else ExecutionState(),
        {},
    )


def shape_of(playbook: Playbook) -> tuple[str, str, str]:
    """The steps, arcs and workbook actions of a playbook as JSON, for the tracking tables."""
    steps = [
        {"ordinal": step.index, "name": step.name, "type": step.type, "description": step.description,
         "raw": dump_json(step.raw)}
        for step in playbook.steps.values()
    ]  # fmt: skip
    arcs = [
        {"ordinal": arc.ordinal, "source": arc.source, "target": arc.target, "condition": arc.condition,
         "inputs": dump_json(arc.inputs) if arc.inputs else None}
        for arc in playbook.arcs
    ]  # fmt: skip
    tasks = [{"name": task.name, "type": task.type, "raw": dump_json(task.raw)} for task in playbook.workbook]
    return dump_json(steps), dump_json(arcs), dump_json(tasks)


class Columns:
    """The columns of `begin_executions` and `write_turns`, filled turn by turn."""

    def __init__(self) -> None:
        """Empty: nothing to write yet."""
        self.begun: list[tuple[object, ...]] = []
        self.shapes: dict[int, tuple[str, str, str]] = {}
        self.turns: list[tuple[object, ...]] = []
        self.events: list[tuple[object, ...]] = []
        self.jobs: list[list[object]] = []
        self.changes: list[tuple[object, ...]] = []
        self.withdrawn: list[int] = []
        self.rows: dict[tuple[int, str], list[Any]] = {}
        self.ended: list[tuple[object, ...]] = []
        self.states: list[tuple[object, ...]] = []
        self.read: list[int] = []
        self._placed: dict[tuple[int, str], list[object]] = {}  # jobs of this batch, by their node

    def add(self, case: Case, outcome: Outcome) -> None:
        """Everything that the turns of one execution decided."""
        execution, playbook, taken, state = case.execution, case.playbook, outcome.taken, outcome.state
        last_at, deadline = execution.last_at, None
        for mail, turn, decision in taken:
            self.read.append(mail.mail_id)
            self.turns.append((
                turn.execution_id, turn.number, mail.event_id, decision.outcome, decision.note, turn.at,
                dump_json(mail.facts) if mail.facts else None,
            ))  # fmt: skip
            if decision.begun is not None and not isinstance(playbook, str) and execution.catalog_id is not None:
                deadline = decision.begun.deadline
                self.shapes.setdefault(execution.catalog_id, shape_of(playbook))
                self.begun.append((
                    turn.execution_id, execution.catalog_id, dump_json(decision.begun.workload),
                    dump_json(asdict(case.rules)),
                ))  # fmt: skip
            self._add_decision(execution, mail, turn, decision)
            last_at = turn.at + max(len(decision.events) - 1, 0) * MICROSECOND
        self.states.append((
            execution.execution_id, execution.turn, execution.turn + len(taken), last_at,
            dump_json(encode(state)), deadline,
        ))  # fmt: skip

    def _add_decision(self, execution: Execution, mail: Mail, turn: Turn, decision: Decision) -> None:
        first = len(self.events)
        for ordinal, event in enumerate(decision.events):
            self.events.append(_event_row(execution, mail, turn, ordinal, event))
        for job in decision.jobs:
            self._add_job(execution.execution_id, first, job)
        for step, visit, status, delay in decision.changes:
            node = node_id(execution.execution_id, step, visit)
            placed = self._placed.get((execution.execution_id, node))
            if placed is None:
                self.changes.append((execution.execution_id, node, status, delay))
            else:
                placed[3], placed[7] = status, delay
        for row in decision.rows:
            self._add_row(execution.execution_id, mail, turn, row)
        if decision.withdraw:
            self.withdrawn.append(execution.execution_id)
            for (owner, _), placed in self._placed.items():
                if owner == execution.execution_id and placed[3] in {"queued", "retry"}:
                    placed[3] = "cancelled"
        if decision.ended is not None:
            ended = decision.ended
            self.ended.append((
                execution.execution_id, ended.status, _json_or_null(ended.result), _json_or_null(ended.error),
                turn.at + (len(decision.events) - 1) * MICROSECOND,
            ))  # fmt: skip

    def _add_job(self, execution_id: int, first: int, job: Job) -> None:
        row: list[object] = [
            first + job.ordinal + 1, dump_json(job.action), dump_json(job.context), "queued",
            job.priority, job.max_attempts, job.timeout, 0.0,
        ]  # fmt: skip
        self.jobs.append(row)
        self._placed[execution_id, node_id(execution_id, job.step, job.visit)] = row

    def _add_row(self, execution_id: int, mail: Mail, turn: Turn, row: Row) -> None:
        """One row a step, even where several turns of the batch touched it: an update sees each row once."""
        started = None if row.started is None else turn.at + row.started * MICROSECOND
        ended = None if row.ended is None else turn.at + row.ended * MICROSECOND
        before = self.rows.get((execution_id, row.step))
        result_visit, result_event = row.result_visit, mail.event_id if row.result_visit is not None else None
        if before is not None:
            started = started or before[4]
            if before[6] is not None and (result_visit is None or before[6] > result_visit):
                result_visit, result_event = before[6], before[7]
        self.rows[execution_id, row.step] = [
            execution_id, row.step, row.status, row.visits, started, ended, result_visit, result_event,
        ]  # fmt: skip

    def begin_arguments(self) -> list[list[object]]:
        """The arguments of `begin_executions`."""
        shapes = [(catalog_id, *shape) for catalog_id, shape in self.shapes.items()]
        return [*_columns(self.begun, 4), *_columns(shapes, 4)]

    def write_arguments(self) -> list[list[Any]]:
        """The arguments of `write_turns`."""
        return [
            *_columns(self.turns, 7), *_columns(self.events, 12), *_columns(self.jobs, 8), *_columns(self.changes, 4),
            self.withdrawn, *_columns(list(self.rows.values()), 8), *_columns(self.ended, 5),
            *_columns(self.states, 6), self.read,
        ]  # fmt: skip


def _event_row(execution: Execution, mail: Mail, turn: Turn, ordinal: int, event: Emitted) -> tuple[object, ...]:
    if event.step is None:
        node, name = str(execution.execution_id), execution.name
    else:
        node, name = node_id(execution.execution_id, event.step, event.visit), event.step
    return (
        execution.execution_id, execution.catalog_id, mail.event_id, turn.at + ordinal * MICROSECOND, event.type,
        node, name, event.node_type, event.status, dump_json(event.meta), _json_or_null(event.result),
        _json_or_null(event.error),
    )  # fmt: skip


def _json_or_null(value: JSON) -> str | None:
    return None if value is None else dump_json(value)


def _columns(rows: list[Any], width: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
