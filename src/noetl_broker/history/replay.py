"""Replay: decides the recorded turns of an execution again and reports differences from what was written.

A difference means that somebody changed the log, a job or a tracking row, or that this version decides differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.core import Session
from noetl_broker.broker.model.decision import Decision, ExecutionEnd, JobRow
from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.broker.model.event_types import EXECUTION_UNDO
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import ExecutionState, encode
from noetl_broker.broker.undo.later import version_of
from noetl_broker.broker.writing.events import node_name_of
from noetl_broker.errors import HistoryFault
from noetl_broker.history.record import History, Node, RecordedJob, RecordedRow, RecordedTurn
from noetl_broker.node_ids import UNDO_SUFFIX, visit_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from noetl_broker.broker.draft.known import Known
    from noetl_broker.playbook.model import Playbook


class Difference(NamedTuple):
    """One value that was written differently than it is decided now.

    `turn` is None for a value that all turns make together. `what` names the value: an event by its place in the turn,
    a job by its visit, a row. A side is None if it has no such value. Both are None if `what` says everything.
    """

    turn: int | None
    what: str
    written: JSON = None
    decided: JSON = None

    def sentences(self) -> Iterator[str]:
        """One line for each part that differs."""
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


class ReplayedTurn(NamedTuple):
    """A turn decided again, with the state after it and the differences from its record."""

    recorded: RecordedTurn
    decision: Decision
    state: ExecutionState
    differences: tuple[Difference, ...]


class Replay:
    """Decides one execution again, turn by turn. Its memory does not grow with the length of the history.

    `in_parts`: turns and jobs come in parts (`add_jobs`), and a job may come after the turn that decided it.
    """

    def __init__(self, history: History, *, in_parts: bool = False) -> None:
        """Start before the first turn. Raises HistoryFault if the execution cannot be replayed."""
        if history.broken is not None:
            raise HistoryFault(history.execution_id, history.broken)
        if isinstance(history.playbook, str) and history.workload is not None:
            raise HistoryFault(history.execution_id, history.playbook)
        self.history = history
        self.number = 0  # of the last turn
        self._session = session_of(history, history.playbook)
        self._scope = history.job_scope
        self._in_parts = in_parts
        self._totals = _Totals()
        self._written = dict(history.jobs)  # not yet decided
        self._decided: dict[Node, tuple[int, RecordedJob]] = {}  # not yet read, with their turns

    @property
    def state(self) -> ExecutionState:
        """The state after the last turn."""
        return self._session.state

    @property
    def known(self) -> Known:
        """The facts that the turns so far made known."""
        return self._session.known

    def add_jobs(self, jobs: Mapping[Node, RecordedJob]) -> None:
        """Add more of the written jobs."""
        self._written.update(jobs)

    def apply(self, recorded: RecordedTurn) -> ReplayedTurn:
        """Decide the next turn again. Raises HistoryFault if the record does not allow it."""
        decision = replay_turn(self._session, self.history, recorded)
        if recorded.event.kind == EXECUTION_UNDO:
            version = version_of(recorded.event)
            used = self.history.undo_versions.get(version or 0)
            own = {} if used is None else {"version": version, "catalog_id": used.catalog_id}
            self._scope = {**self.history.job_scope, **own}
        self._totals.add(decision)
        found: list[Difference] = []
        if recorded.turn.number != self.number + 1:
            found.append(Difference(self.number + 1, "it is missing"))
        self.number = recorded.turn.number
        found += _turn_differences(self.history, recorded, decision)
        for job in decision.jobs:
            node = (job.step + UNDO_SUFFIX if job.undo else job.step, job.visit, job.item_index)
            decided = _as_recorded(self._scope, job)
            written = None if job.undo else self._written.pop(node, None)
            if (
                written is not None
                and job.item_index is not None
                and "workload" not in {**written.context, **job.context}
            ):
                decided.context.pop("workload", None)  # the store leaves a large one out of the jobs of items
            if (written is None and self._in_parts) or job.undo:  # a later undo may use its job again
                self._decided[node] = self.number, decided
            elif written != decided:
                found.append(_job_difference(self.number, node, written, decided))
        return ReplayedTurn(recorded, decision, self.state, tuple(found))

    def finish(self, unlinked: Iterable[str] = ()) -> list[Difference]:
        """The differences of what all turns together make, and of jobs that no turn decided.

        `unlinked` are the sentences about events that claim a turn which did not write them.
        """
        found = [Difference(None, unlinked_event) for unlinked_event in unlinked]
        for node, (number, decided) in self._decided.items():
            written = self._written.pop(node, None)
            if written != decided:
                found.append(_job_difference(number, node, written, decided))
        return found + _final_differences(self.history, self._totals, self.state, self._written)


def replay_history(history: History) -> tuple[list[ReplayedTurn], list[Difference]]:
    """Replay all turns; gives them and every difference. Raises HistoryFault if a turn cannot be decided again."""
    replay = Replay(history)
    turns = [replay.apply(recorded) for recorded in history.turns]
    return turns, [*(found for turn in turns for found in turn.differences), *replay.finish(history.unlinked)]


def sentences(differences: Iterable[Difference]) -> list[str]:
    """The differences as text, one line for each part that differs."""
    return [sentence for difference in differences for sentence in difference.sentences()]


def session_of(history: History, playbook: Playbook | str, *, trace: bool = False) -> Session:
    """A session before the first turn of this history, with this playbook."""
    return Session(playbook, history.rules, execution_id=history.execution_id, answers=history.taken, trace=trace)


def replay_turn(session: Session, history: History, recorded: RecordedTurn) -> Decision:
    """Decide a recorded turn again. Raises HistoryFault if the record does not allow it.

    From an `execution_undo` on, the version decides that it names.
    """
    number, event = recorded.turn.number, recorded.event
    if event.kind == EXECUTION_UNDO:
        used = history.undo_versions.get(version_of(event) or 0)
        session.playbook = history.playbook if used is None else used.playbook
    try:
        return session.apply(event, recorded.turn.at, number=number)
    except Exception as error:
        reason = f"its turn {number} cannot be replayed ({type(error).__name__}: {error})"
        raise HistoryFault(session.execution_id, reason) from error


class _Totals:
    """The result of all turns so far: the tracking rows, the start, the end."""

    def __init__(self) -> None:
        self.rows: dict[str, RecordedRow] = {}
        self.begun: ExecutionBegun | None = None
        self.ended: ExecutionEnd | None = None

    def add(self, decision: Decision) -> None:
        self.ended, self.begun = decision.ended or self.ended, decision.last(ExecutionBegun) or self.begun
        for row in decision.rows:
            before = self.rows.get(row.step)
            result = row.result_visit
            if before is not None and before.result_visit is not None:
                result = max(before.result_visit, result or 0)
            self.rows[row.step] = RecordedRow(row.status, row.visits, result)


def _turn_differences(history: History, recorded: RecordedTurn, decision: Decision) -> Iterator[Difference]:
    """How the outcome and the events of a turn differ."""
    number = recorded.turn.number
    for name in ("outcome", "note"):
        written, decided = getattr(recorded, name), getattr(decision, name)
        if written != decided:
            yield Difference(number, name, written, decided)
    if recorded.events != decision.events:
        for index in range(max(len(recorded.events), len(decision.events))):
            was = recorded.events[index] if index < len(recorded.events) else None
            now = decision.events[index] if index < len(decision.events) else None
            if was != now:
                kind = (now or was or recorded.event).type
                yield Difference(number, f"event {index + 1} ({kind})", _as_json(was), _as_json(now))
    for index, (node_name, event) in enumerate(zip(recorded.node_names, recorded.events, strict=False), 1):
        expected = node_name_of(event) or history.name
        if node_name != expected and (event.step or not isinstance(history.playbook, str)):
            yield Difference(number, f"event {index} ({event.type}) node_name", node_name, expected)


def _final_differences(
    history: History, totals: _Totals, state: ExecutionState, undecided: Mapping[Node, RecordedJob]
) -> list[Difference]:
    """How the rows that turns rewrite differ, and the jobs that no turn decided."""
    pairs: list[tuple[str, JSON, JSON]] = []
    if not isinstance(history.playbook, str) and totals.begun is not None:
        for name in history.playbook.steps:
            was, now = history.rows.get(name), totals.rows.get(name, RecordedRow("PENDING", 0, None))
            pairs.append((f"tracking row {name}", _as_json(was), _as_json(now)))
        pairs.append(("workload", history.workload, totals.begun.workload))
    for node, job in undecided.items():
        pairs.append((f"{_job_name(node)}: written, but not decided by any turn", job._asdict(), None))
    ended = totals.ended._replace(answer=None, on_failure=None, undo=False) if totals.ended else None
    pairs.append(("end of the execution", _as_json(history.ended), _as_json(ended)))
    pairs.append(("state", history.state, encode(state)))
    return [Difference(None, what, written, decided) for what, written, decided in pairs if written != decided]


def _job_difference(turn: int, node: Node, written: RecordedJob | None, decided: RecordedJob) -> Difference:
    return Difference(turn, _job_name(node), _as_json(written), _as_json(decided))


def _job_name(node: Node) -> str:
    return f"job {visit_name(*node)}"


def _as_recorded(scope: dict[str, JSON], job: JobRow) -> RecordedJob:
    context = {**job.context, **scope}
    return RecordedJob(job.node_type, job.action, context, job.priority, job.max_attempts, job.timeout)


def _as_json(record: Any) -> JSON:
    return None if record is None else record._asdict()
