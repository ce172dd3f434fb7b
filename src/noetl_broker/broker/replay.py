"""Replay: the recorded turns of an execution, retaken through the same core and held against what was written.

Pure like the rest: the store hands over what it remembers as a `History`, and gets back the decisions and the
differences. A difference means that the log, a job or a tracking row was changed, or that the core decides otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn_or_reject
from noetl_broker.broker.history import History, Node, RecordedJob, RecordedRow, RecordedTurn
from noetl_broker.broker.memory import MOST_KEPT, forget, remember
from noetl_broker.broker.model import JSON, Begun, Decision, Ended, Job
from noetl_broker.broker.state import ExecutionState, encode
from noetl_broker.errors import HistoryFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TURN_FIELDS = ("outcome", "note")


class Difference(NamedTuple):
    """One thing that was written otherwise than it is decided now; `turn` None: what all turns together make.

    `what` names it: an event by its place in the turn, a job by its visit, a row. A side is None where it has none,
    both where `what` says it all.
    """

    turn: int | None
    what: str
    written: JSON
    decided: JSON

    def sentences(self) -> Iterator[str]:
        """One line for each part of it that differs."""
        where = self.what if self.turn is None else f"turn {self.turn}: {self.what}"
        if self.written is None and self.decided is None:
            yield where
        elif isinstance(self.written, dict) and isinstance(self.decided, dict):
            for name in {**self.decided, **self.written}:
                written, decided = self.written.get(name), self.decided.get(name)
                if written != decided:
                    yield f"{where} {name}: written {written!r}, decided {decided!r}"
        else:
            yield f"{where}: written {self.written!r}, decided {self.decided!r}"


class Retaken(NamedTuple):
    """One turn, taken again: the event, what is decided now, and how that differs from what was written."""

    recorded: RecordedTurn
    decision: Decision
    state: ExecutionState
    found: tuple[Difference, ...]

    @property
    def differences(self) -> tuple[str, ...]:
        """The differences as sentences."""
        return tuple(sentence for difference in self.found for sentence in difference.sentences())


class Retaking:
    """One execution on its way through the core again; what it keeps does not grow with the length of the history.

    `in_parts`: turns and jobs come piece by piece (`tell_jobs`), and a job may come after the turn that decided it.
    """

    def __init__(self, history: History, *, in_parts: bool = False) -> None:
        """At the beginning; raises HistoryFault where the execution cannot be taken again."""
        if history.broken is not None:
            raise HistoryFault(history.execution_id, history.broken)
        if isinstance(history.playbook, str) and history.workload is not None:
            raise HistoryFault(history.execution_id, history.playbook)
        self.history = history
        self.state = ExecutionState()
        self.known = Known(history.rules, history.taken, complete=True)
        self._in_parts = in_parts
        self._most_kept = MOST_KEPT
        self.number = 0  # of the turn that was taken last
        self._sum = _Sum()
        self._jobs = dict(history.jobs)  # written, and not yet decided
        self._ahead: dict[Node, tuple[int, RecordedJob]] = {}  # decided, and not yet told as written

    def tell_jobs(self, jobs: Mapping[Node, RecordedJob]) -> None:
        """More of the jobs that were written."""
        self._jobs.update(jobs)

    def take(self, recorded: RecordedTurn) -> Retaken:
        """Take one turn again; raises HistoryFault where what was recorded before does not carry it."""
        history, known = self.history, self.known
        try:
            self.state, decision = take_turn_or_reject(
                history.playbook, self.state, recorded.event, recorded.turn, known
            )
            remember(known, recorded.event, recorded.turn, decision)
        except Exception as error:
            reason = f"its turn {recorded.turn.number} cannot be taken again ({type(error).__name__}: {error})"
            raise HistoryFault(history.execution_id, reason) from error
        self._most_kept = forget(known, self.state, self._most_kept)
        self._sum.add(decision)
        found: list[Difference] = []
        if recorded.turn.number != self.number + 1:
            found.append(Difference(self.number + 1, "it is missing", None, None))
        self.number = recorded.turn.number
        _compare_turn(found, recorded, decision)
        for job in decision.jobs:
            node = (job.step, job.visit, job.place)
            decided, written = _as_recorded(history, job), self._jobs.pop(node, None)
            if written is not None and job.place is not None and "workload" not in {**written.context, **job.context}:
                decided.context.pop("workload", None)  # the store leaves a large one out of the jobs of items
            if written is None and self._in_parts:
                self._ahead[node] = self.number, decided
            elif written != decided:
                found.append(_of_job(self.number, node, written, decided))
        return Retaken(recorded, decision, self.state, tuple(found))

    def end(self) -> list[Difference]:
        """What differs of what all turns together make: jobs that no turn decided, and the rows that are rewritten."""
        found: list[Difference] = []
        for node, (number, decided) in self._ahead.items():
            written = self._jobs.pop(node, None)
            if written != decided:
                found.append(_of_job(number, node, written, decided))
        return found + _at_end(self.history, self._sum, self.state, self._jobs)


def retake(history: History) -> Iterator[Retaken]:
    """Take the turns again, one by one, each compared with its record; raises HistoryFault where that cannot be."""
    retaking = Retaking(history)
    for recorded in history.turns:
        yield retaking.take(recorded)


def compare_end(history: History, retaken: Sequence[Retaken]) -> list[str]:
    """How the rows that are rewritten (tracking, execution, state) differ from what all turns together decide."""
    total = _Sum()
    jobs = dict(history.jobs)
    for turn in retaken:
        total.add(turn.decision)
        for job in turn.decision.jobs:
            jobs.pop((job.step, job.visit, job.place), None)
    state = retaken[-1].state if retaken else ExecutionState()
    found = _at_end(history, total, state, jobs)
    return [*history.strays, *(sentence for difference in found for sentence in difference.sentences())]


class _Sum:
    """What the turns so far come to, as the rows that are rewritten say it."""

    def __init__(self) -> None:
        self.rows: dict[str, RecordedRow] = {}
        self.begun: Begun | None = None
        self.ended: Ended | None = None

    def add(self, decision: Decision) -> None:
        """One more turn."""
        self.ended, self.begun = decision.ended or self.ended, decision.begun or self.begun
        for row in decision.rows:
            before = self.rows.get(row.step)
            result = row.result_visit
            if before is not None and before.result_visit is not None:
                result = max(before.result_visit, result or 0)
            self.rows[row.step] = RecordedRow(row.status, row.visits, result)


def _compare_turn(found: list[Difference], recorded: RecordedTurn, decision: Decision) -> None:
    number = recorded.turn.number
    for name in TURN_FIELDS:
        written, decided = getattr(recorded, name), getattr(decision, name)
        if written != decided:
            found.append(Difference(number, name, written, decided))
    if recorded.events == decision.events:
        return
    for place in range(max(len(recorded.events), len(decision.events))):
        was = recorded.events[place] if place < len(recorded.events) else None
        now = decision.events[place] if place < len(decision.events) else None
        if was != now:
            kind = (now or was or recorded.event).type
            found.append(Difference(number, f"event {place + 1} ({kind})", _as_json(was), _as_json(now)))


def _at_end(
    history: History, total: _Sum, state: ExecutionState, undecided: Mapping[Node, RecordedJob]
) -> list[Difference]:
    found: list[Difference] = []
    if not isinstance(history.playbook, str) and total.begun is not None:
        for name in history.playbook.steps:
            was, now = history.rows.get(name), total.rows.get(name, RecordedRow("PENDING", 0, None))
            if was != now:
                found.append(Difference(None, f"tracking row {name}", _as_json(was), _as_json(now)))
        _differ(found, "workload", history.workload, total.begun.workload)
    for (step, visit, place), job in undecided.items():
        item = "" if place is None else f"[{place}]"
        what = f"job {step}#{visit}{item}: written, but not decided by any turn"
        found.append(Difference(None, what, job._asdict(), None))
    ended = total.ended._replace(answer=None) if total.ended else None
    if history.ended != ended:
        found.append(Difference(None, "end of the execution", _as_json(history.ended), _as_json(ended)))
    _differ(found, "state", history.state, encode(state))
    return found


def _differ(found: list[Difference], what: str, written: JSON, decided: JSON) -> None:
    if written != decided:
        found.append(Difference(None, what, written, decided))


def _of_job(turn: int, node: Node, written: RecordedJob | None, decided: RecordedJob) -> Difference:
    step, visit, place = node
    what = f"job {step}#{visit}" if place is None else f"job {step}#{visit}[{place}]"
    return Difference(turn, what, _as_json(written), _as_json(decided))


def _as_recorded(history: History, job: Job) -> RecordedJob:
    context = {**job.context, **history.job_scope}
    return RecordedJob(job.node_type, job.action, context, job.priority, job.max_attempts, job.timeout)


def _as_json(record: Any) -> JSON:
    return None if record is None else record._asdict()
