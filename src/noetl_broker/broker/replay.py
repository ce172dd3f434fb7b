"""Replay: the recorded turns of an execution, retaken through the same core and held against what was written.

Pure like the rest: the store hands over what it remembers as a `History`, and gets back the decisions and the
differences. A difference means that the log, a job or a tracking row was changed, or that the core decides otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn_or_reject
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import JSON, Begun, Decision, Emitted, Ended, Event, Job, Rules, Turn
from noetl_broker.broker.state import ExecutionState, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from noetl_broker.playbook.model import Playbook


class RecordedTurn(NamedTuple):
    """One row of `noetl.turn` with the event that it read and the events that it wrote."""

    turn: Turn
    event: Event
    outcome: str
    note: str | None
    events: tuple[Emitted, ...]


class RecordedJob(NamedTuple):
    """What of a job's row never changes."""

    node_type: str
    action: JSON
    context: JSON
    priority: int
    max_attempts: int
    timeout: float | None


class RecordedRow(NamedTuple):
    """The tracking row of a step."""

    status: str
    visits: int
    result_visit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that the store remembers of one execution; `playbook` may be the sentence why there is none."""

    execution_id: int
    playbook: Playbook | str
    rules: Rules
    turns: tuple[RecordedTurn, ...]
    strays: tuple[str, ...] = ()  # events that claim a turn that is not there
    jobs: dict[tuple[str, int, int | None], RecordedJob] = field(default_factory=dict)
    rows: dict[str, RecordedRow] = field(default_factory=dict)
    taken: dict[tuple[object, ...], object] = field(default_factory=dict)  # what a fork brought along, by its wishes
    job_scope: dict[str, JSON] = field(default_factory=dict)  # what the store adds to every job's context
    workload: JSON = None
    ended: Ended | None = None
    state: JSON = None


class Retaken(NamedTuple):
    """One turn, taken again: the event, what is decided now, and how that differs from what was written."""

    recorded: RecordedTurn
    decision: Decision
    state: ExecutionState
    differences: tuple[str, ...]


def retake(history: History) -> Iterator[Retaken]:
    """Take the turns again, one by one, each compared with its record."""
    known = Known(history.rules, history.taken, complete=True)
    state = ExecutionState()
    expected = 0
    for recorded in history.turns:
        expected += 1
        state, decision = take_turn_or_reject(history.playbook, state, recorded.event, recorded.turn, known)
        remember(known, recorded.event, recorded.turn, decision)
        gap = [] if recorded.turn.number == expected else [f"turn {expected} is missing"]
        expected = recorded.turn.number
        yield Retaken(recorded, decision, state, (*gap, *_compare_turn(history, recorded, decision)))


def compare_end(history: History, retaken: list[Retaken]) -> list[str]:
    """How the rows that are rewritten (tracking, execution, state) differ from what all turns together decide."""
    differences = list(history.strays)
    state = retaken[-1].state if retaken else ExecutionState()
    rows: dict[str, RecordedRow] = {}
    ended: Ended | None = None
    begun: Begun | None = None
    jobs: set[tuple[str, int, int | None]] = set()
    for _, decision, _, _ in retaken:
        ended, begun = decision.ended or ended, decision.begun or begun
        jobs.update((job.step, job.visit, job.place) for job in decision.jobs)
        for row in decision.rows:
            before = rows.get(row.step)
            visits = [
                visit for visit in (before.result_visit if before else None, row.result_visit) if visit is not None
            ]
            rows[row.step] = RecordedRow(row.status, row.visits, max(visits, default=None))
    if not isinstance(history.playbook, str) and begun is not None:
        for name in history.playbook.steps:
            _differ(
                differences,
                f"tracking row {name}",
                history.rows.get(name),
                rows.get(name, RecordedRow("PENDING", 0, None)),
            )
        _differ(differences, "workload", history.workload, begun.workload)
    for step, visit, place in history.jobs.keys() - jobs:
        item = "" if place is None else f"[{place}]"
        differences.append(f"job {step}#{visit}{item}: written, but not decided by any turn")
    _differ(differences, "end of the execution", history.ended, ended._replace(answer=None) if ended else None)
    _differ(differences, "state", history.state, encode(state))
    return differences


def _compare_turn(history: History, recorded: RecordedTurn, decision: Decision) -> Iterator[str]:
    differences: list[str] = []
    _differ(differences, "outcome", recorded.outcome, decision.outcome)
    _differ(differences, "note", recorded.note, decision.note)
    for place in range(max(len(recorded.events), len(decision.events))):
        written = recorded.events[place] if place < len(recorded.events) else None
        decided = decision.events[place] if place < len(decision.events) else None
        if written is None or decided is None:
            _differ(differences, f"event {place + 1}", written, decided)
            continue
        for name in Emitted._fields:
            _differ(
                differences,
                f"event {place + 1} ({decided.type}) {name}",
                getattr(written, name),
                getattr(decided, name),
            )
    for job in decision.jobs:
        written_job = history.jobs.get((job.step, job.visit, job.place))
        decided_job = _as_recorded(history, job)
        if written_job is None:
            _differ(differences, f"job {job.step}#{job.visit}", None, decided_job)
            continue
        for name in RecordedJob._fields:
            _differ(
                differences,
                f"job {job.step}#{job.visit} {name}",
                getattr(written_job, name),
                getattr(decided_job, name),
            )
    yield from (f"turn {recorded.turn.number}: {difference}" for difference in differences)


def _as_recorded(history: History, job: Job) -> RecordedJob:
    context = {**job.context, **history.job_scope}
    return RecordedJob(job.node_type, job.action, context, job.priority, job.max_attempts, job.timeout)


def _differ(differences: list[str], what: str, written: object, decided: object) -> None:
    if written != decided:
        differences.append(f"{what}: written {written!r}, decided {decided!r}")
