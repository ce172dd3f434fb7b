"""The timeline of an execution: which visits its tokens made, how they came there, and which results they left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.arrivals.forks import MalformedFork, decode_fork, fork_of
from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.broker.model.event_types import EXECUTION_START
from noetl_broker.broker.state.trail import (
    CancelledArrival,
    CancelledVisit,
    CatchEvaluated,
    Entered,
    NextEvaluated,
    SignalTried,
    SpentAtJoin,
    SpentFailure,
)
from noetl_broker.broker.writing.events import CAUGHT
from noetl_broker.errors import HistoryFault
from noetl_broker.history.replay import replay_turn, session_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.draft.known import Known
    from noetl_broker.broker.model.decision import Decision
    from noetl_broker.broker.model.event import Emitted
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import Arrival, ExecutionState
    from noetl_broker.history.record import History, RecordedTurn
    from noetl_broker.playbook.model import Playbook


Left = NextEvaluated | CatchEvaluated | SpentAtJoin | SpentFailure | CancelledVisit | CancelledArrival
COMPARED = 4  # fields of an event that must agree: type, status, step, visit
UNCHANGED = 4  # fields of an arrival that stay the same while it waits: arc, step, inputs, result


class TracedTurn(NamedTuple):
    """A turn decided again, with its draft; `draft` is None if the event changed nothing.

    The scopes of the draft are valid until the next turn is decided.
    """

    recorded: RecordedTurn
    draft: Draft | None
    decision: Decision
    state: ExecutionState
    known: Known

    @property
    def agrees(self) -> bool:
        """Whether the outcome and the events equal the written ones."""
        recorded, decision = self.recorded, self.decision
        written = [event[:COMPARED] for event in recorded.events]
        return recorded.outcome == decision.outcome and written == [event[:COMPARED] for event in decision.events]


class IncomingToken(NamedTuple):
    """A token that came to a visit: from which visit (None: from outside, or before a fork), and its arrival."""

    source: Visit | None
    arrival: Arrival


class Absorbed(NamedTuple):
    """A token that ended before a visit: its origin, and the turn. `cancelled_by`: the join that cancelled it."""

    source: Visit | None
    arrival: Arrival
    turn: int
    cancelled_by: str | None


class Result(NamedTuple):
    """The result of a visit, by its name in the state; `status` is COMPLETED or FAILED.

    `visit`: it ended in the turn of its beginning, so the name is not its own; its step_completed carries the result.
    """

    name: int
    status: str
    visit: Visit | None = None


def is_result_of(event: Emitted, visit: Visit) -> bool:
    """Whether an event that a turn wrote carries the result of the visit, which the broker ended itself."""
    if (event.step, event.visit) != visit:
        return False
    meta = event.meta or {}
    goes_on = event.type == "step_failed" and (meta.get("status") == CAUGHT or "spent" in meta)
    return goes_on or (event.type in {"step_completed", "step_failed"} and event.result is not None)


def trace_turns(history: History, playbook: Playbook | None = None) -> Iterator[TracedTurn]:
    """Decide the turns again, one by one, and keep their trails; nothing where there is no playbook.

    With `playbook`, as that one decides them. Raises HistoryFault if the record does not allow it.
    """
    if history.broken is not None:
        raise HistoryFault(history.execution_id, history.broken)
    chosen = playbook or history.playbook
    if isinstance(chosen, str):
        return
    session = session_of(history, chosen, trace=True)
    for recorded in history.turns:
        decision = replay_turn(session, history, recorded)
        yield TracedTurn(recorded, session.draft, decision, session.state, session.known)


@dataclass(slots=True, kw_only=True)
class Timeline:
    """The timeline of all turns that were added."""

    entered: dict[Visit, Arrival] = field(default_factory=dict)
    entered_in: dict[Visit, int] = field(default_factory=dict)  # the turn
    incoming: dict[Visit, list[IncomingToken]] = field(default_factory=dict)
    done_in: dict[Visit, int] = field(default_factory=dict)  # the turn
    left: dict[Visit, NextEvaluated | CatchEvaluated] = field(default_factory=dict)
    results: dict[Visit, Result] = field(default_factory=dict)
    absorbed: list[Absorbed] = field(default_factory=list)
    spent_failures: dict[Visit, list[str]] = field(
        default_factory=dict
    )  # failed visits, with the joins they were spent for
    cancelled: dict[Visit, list[str]] = field(default_factory=dict)  # with the joins they were spent for
    pending: dict[str, list[IncomingToken]] = field(default_factory=dict)  # came to a step and began no visit yet
    total: int = 0  # visits

    def add(self, turn: TracedTurn, until: Visit | None = None) -> None:
        """Add a turn. With `until`, only what happened in it before that visit was entered."""
        draft, number = turn.draft, turn.recorded.turn.number
        if draft is None:
            return
        if turn.recorded.event.kind == EXECUTION_START:
            self._add_fork(draft)
        for trace in draft.trail:
            if isinstance(trace, Entered):
                self._enter(draft, trace, number)
                if (trace.step, trace.visit) == until:
                    return
            elif not isinstance(trace, SignalTried):
                self._leave(draft, trace, number)

    def latest(self, step: str) -> int:
        """The highest number of a finished visit of the step; 0 where there is none."""
        return max((visit for name, visit in self.done_in if name == step), default=0)

    def remove(self, visit: Visit) -> None:
        """Remove the result of a visit that will be made again."""
        self.results.pop(visit, None)
        self.done_in.pop(visit, None)

    def _enter(self, draft: Draft, trace: Entered, number: int) -> None:
        visit = (trace.step, trace.visit)
        self.entered[visit], self.entered_in[visit] = trace.arrival, number
        self.total += 1
        gathered = trace.gathered or (trace.arrival,)
        self.incoming[visit] = [self.take(arrival) or IncomingToken(None, arrival) for arrival in gathered]
        step = draft.playbook.steps[trace.step]
        if step.kind == "end":
            self.done_in[visit] = number  # it has no `next` that is read later

    def _leave(self, draft: Draft, trace: Left, number: int) -> None:
        """Add how a token left its visit, or ended before a join."""
        if isinstance(trace, SpentAtJoin | CancelledArrival):
            token = self.take(trace.arrival) or IncomingToken(None, trace.arrival)
            self.absorbed.append(Absorbed(*token, number, trace.join if isinstance(trace, CancelledArrival) else None))
            return
        if isinstance(trace, CatchEvaluated) and trace.entry is None:
            return  # another trace says how the visit ended
        visit = self._finish(draft, trace, number)
        if isinstance(trace, NextEvaluated | CatchEvaluated):
            self.left[visit] = trace
            for arrival in trace.arrivals:
                self.pending.setdefault(arrival.step, []).append(IncomingToken(visit, arrival))
        elif isinstance(trace, SpentFailure):
            self.spent_failures[visit] = trace.joins
        else:
            self.cancelled[visit] = trace.joins

    def take(self, arrival: Arrival) -> IncomingToken | None:
        """Remove the token of this arrival. The join that spends it may have changed while it waited."""
        pending = self.pending.get(arrival.step, [])
        for token in pending:
            if token.arrival[:UNCHANGED] == arrival[:UNCHANGED]:
                pending.remove(token)
                return token
        return None

    def _finish(
        self, draft: Draft, trace: NextEvaluated | CatchEvaluated | SpentFailure | CancelledVisit, number: int
    ) -> Visit:
        visit = (trace.step, trace.visit)
        self.done_in[visit] = number
        if draft.templates.ended_visit == visit:
            position, events = draft.writes.carrier, draft.writes.events
            self.results[visit] = Result(number, "COMPLETED" if position is None else events[position].status)
        else:
            carrier = next((event for event in draft.writes.events if is_result_of(event, visit)), None)
            if carrier is not None:
                self.results[visit] = Result(number, carrier.status, visit)
        return visit

    def _add_fork(self, draft: Draft) -> None:
        """Add what a fork took over: it happened in another execution."""
        if not draft.writes.added(ExecutionBegun):
            return
        try:
            fork = decode_fork(fork_of(draft.event.meta), draft.playbook)
        except MalformedFork:  # or an ordinary start
            return
        for taken in fork.results:
            self.results[taken.step, taken.visit] = Result(-taken.event_id, taken.status)
        for step, visits in fork.visits.items():
            self.done_in[step, visits] = draft.turn.number
        self.total = fork.state.total


def last_entry(history: History, step: str) -> tuple[int, Visit] | None:
    """The turn in which the step was last entered, and the visit. Turns after a disagreement do not count."""
    found = None
    for turn in trace_turns(history):
        if not turn.agrees:
            break
        for trace in turn.draft.trail if turn.draft is not None else ():
            if isinstance(trace, Entered) and trace.step == step:
                found = turn.recorded.turn.number, (trace.step, trace.visit)
    return found
