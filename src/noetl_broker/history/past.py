"""An execution after each of its turns, from a replay: the path that it had taken, and its results."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.draft.known import Found
from noetl_broker.broker.draft.wants import want_step
from noetl_broker.broker.model.values import JSON
from noetl_broker.errors import HistoryFault
from noetl_broker.history.path import ExecutionPath, Items, StepStatus, trace_path
from noetl_broker.history.replay import replay_turn, session_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from noetl_broker.broker.core import Session
    from noetl_broker.broker.model.decision import Decision, StepRow
    from noetl_broker.broker.model.event import Emitted
    from noetl_broker.broker.state.state import ExecutionState
    from noetl_broker.history.record import History, RecordedTurn
    from noetl_broker.playbook.model import Playbook

TRACED = frozenset({
    "step_started", "step_completed", "step_failed", "action_retry", "execution_failed", "execution_compensating",
    "compensation_started", "compensation_completed", "compensation_failed",
})  # fmt: skip
COMPARED = 4  # fields of an event that must agree: type, status, step, visit


class PastTurn(NamedTuple):
    """A turn, decided again, and the state after it. `agrees`: the record has what is decided now."""

    recorded: RecordedTurn
    decision: Decision
    state: ExecutionState
    agrees: bool


class PastResult(NamedTuple):
    """The latest result that a step had: of which visit, `status` COMPLETED or FAILED, its data or its error."""

    visit: int
    status: str
    data: JSON
    error: JSON


@dataclass(slots=True)
class _Series:
    """Values that change from turn to turn, each with the turn from which it holds."""

    turns: list[int] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def add(self, turn: int, value: object) -> None:
        self.turns.append(turn)
        self.values.append(value)

    def at(self, turn: int) -> object:
        count = bisect_right(self.turns, turn)
        return self.values[count - 1] if count else None


class Past:
    """The turns of one execution, decided again one after another; they are added in parts."""

    def __init__(self, history: History) -> None:
        """Before the first turn. Raises HistoryFault if the execution cannot be replayed."""
        if history.broken is not None:
            raise HistoryFault(history.execution_id, history.broken)
        if isinstance(history.playbook, str):
            raise HistoryFault(history.execution_id, history.playbook)
        self.execution_id = history.execution_id
        self.playbook: Playbook = history.playbook
        self.version: int | None = history.job_scope.get("version")
        self.turns: list[PastTurn] = []
        self._history = history
        self._session: Session = session_of(history, history.playbook)
        self._rows: dict[str, _Series] = {}
        self._results: dict[str, _Series] = {}
        self._items: dict[str, _Series] = {}
        self._events: list[Emitted] = []
        self._event_turns: list[int] = []
        self._ends: tuple[int, JSON] | None = None  # the turn of the end, and the error

    def add(self, turns: Iterable[RecordedTurn]) -> None:
        """Decide more turns again. Raises HistoryFault if the record does not allow it."""
        for recorded in turns:
            decision = replay_turn(self._session, self._history, recorded)
            self.turns.append(PastTurn(recorded, decision, self._session.state, _agrees(recorded, decision)))
            number = len(self.turns)
            self._add_steps(number, recorded.turn.at, decision)
            for event in decision.events:
                if event.type in TRACED:
                    self._events.append(event)
                    self._event_turns.append(number)
            if decision.ended is not None:
                self._ends = number, decision.ended.error

    def _add_steps(self, number: int, at: datetime, decision: Decision) -> None:
        for row in decision.rows:
            series = self._rows.setdefault(row.step, _Series())
            series.add(number, _status(series.values[-1] if series.values else None, row, at))
            found = self._session.known.answers.get(want_step(row.step)) if row.result_visit is not None else None
            if isinstance(found, Found):
                result = PastResult(found.visit, found.result.status, found.result.data, found.result.error)
                self._results.setdefault(row.step, _Series()).add(number, result)
        for token in self._session.state.tokens.values():
            if token.items is not None:
                total, started, ended, failed = token.items
                items = Items(total, ended - failed, failed, started - ended)
                known = self._items.setdefault(token.step, _Series())
                if not known.values or known.values[-1] != items:
                    known.add(number, items)

    def path_after(self, number: int, started_at: datetime) -> ExecutionPath:
        """The path that the execution had taken after a turn, from 1."""
        turn = self.turns[number - 1]
        at, state = turn.recorded.turn.at, turn.state
        steps = {name: self._step(name, number, state) for name in self.playbook.steps}
        events = self._events[: bisect_right(self._event_turns, number)]
        waiting = [arrival.arc for arrivals in state.waiting.values() for arrival in arrivals]
        ended = self._ends if self._ends is not None and self._ends[0] <= number else None
        return ExecutionPath(
            execution_id=self.execution_id,
            version=self.version,
            status=state.status,
            started_at=started_at,
            ended_at=None if ended is None else self.turns[ended[0] - 1].recorded.turn.at,
            read_at=at,
            error=None if ended is None else ended[1],
            steps=steps,
            trace=trace_path(self.playbook, events, steps, waiting),
        )

    def _step(self, name: str, number: int, state: ExecutionState) -> StepStatus:
        series = self._rows.get(name)
        status = series.at(number) if series is not None else None
        if not isinstance(status, StepStatus):
            status = StepStatus()
        items = self._items[name].at(number) if name in self._items else None
        arrived = len(state.waiting.get(name, ()))
        return replace(status, arrived=arrived, items=items if isinstance(items, Items) else None)

    def result_after(self, number: int, step: str) -> PastResult | None:
        """The latest result that a step had after a turn."""
        found = self._results[step].at(number) if step in self._results else None
        return found if isinstance(found, PastResult) else None


def _status(before: object, row: StepRow, at: datetime) -> StepStatus:
    earlier = before if isinstance(before, StepStatus) else StepStatus()
    return StepStatus(
        status=row.status,
        visits=row.visits,
        started_at=at if row.started is not None else earlier.started_at,
        ended_at=at if row.ended is not None else None,
    )


def _agrees(recorded: RecordedTurn, decision: Decision) -> bool:
    written = [event[:COMPARED] for event in recorded.events]
    return recorded.outcome == decision.outcome and written == [event[:COMPARED] for event in decision.events]
