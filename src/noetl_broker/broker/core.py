"""The core: one event in, one decision out.

`take_turn` decides one turn; `Session` takes the turns of one execution one after another. Live evaluation, replay,
simulation and tests all use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.arrivals.joins import deliver, release_join
from noetl_broker.broker.compensation import go_on_compensating
from noetl_broker.broker.dispatcher import refusal, route_event
from noetl_broker.broker.draft.beside_noetl import with_noetl_status
from noetl_broker.broker.draft.draft import Draft
from noetl_broker.broker.draft.known import Known
from noetl_broker.broker.draft.memory import FIRST_FORGET, forget, remember
from noetl_broker.broker.finalize import finalize_execution
from noetl_broker.broker.flow.failures import cancel_without_playbook, fail_execution
from noetl_broker.broker.flow.late import end_late_timers
from noetl_broker.broker.holds.pauses import keep_arrival
from noetl_broker.broker.holds.slots import free_slots, freed
from noetl_broker.broker.initial import reject_execution
from noetl_broker.broker.model.decision import Decision, Refused
from noetl_broker.broker.model.effects import ChildUndone, UndoEnded
from noetl_broker.broker.model.event import Event, Turn
from noetl_broker.broker.model.event_types import EXECUTION_CANCEL, EXECUTION_START, EXECUTION_UNDO
from noetl_broker.broker.model.limits import max_fan_out_error, max_turns_error, oversized_start
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import NEW, RUNNING, ExecutionState, is_live
from noetl_broker.broker.undo.later import NOTHING, answer_of
from noetl_broker.broker.undo.rows import late_child_to_undo
from noetl_broker.errors import PlaybookFault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from noetl_broker.broker.model.rules import Rules
    from noetl_broker.playbook.model import Playbook

# What the templates of an undo read, if nobody wants the success of the child.
GIVEN_UP: dict[str, JSON] = {"message": "its parent ended or cancelled it", "type": "cancelled"}
BEFORE_START = (ExecutionState(), 0)


class Session:
    """The turns of one execution, one after another: its state, and what its templates may read.

    `playbook` is the reason if there is no playbook. `answers` are results that are loaded already; with `complete`
    there is nothing else to load. `trace` is for callers that ask why: `draft` keeps the last turn's draft, and nothing
    is forgotten.
    """

    __slots__ = ("_limit", "_trace", "draft", "execution_id", "known", "playbook", "state", "turn")

    def __init__(
        self,
        playbook: Playbook | str,
        rules: Rules | None = None,
        *,
        execution_id: int = 1,
        after: tuple[ExecutionState, int] = BEFORE_START,
        answers: Mapping[tuple[object, ...], object] | None = None,
        complete: bool = True,
        trace: bool = False,
    ) -> None:
        """Start `after` a turn, given as the state after it and its number."""
        self.playbook = playbook
        self.execution_id = execution_id
        self.state, self.turn = after
        self.known = Known(rules, answers, complete=complete)
        self.draft: Draft | None = None
        self._trace = trace
        self._limit = FIRST_FORGET if complete and not trace else None

    def apply(self, event: Event, at: datetime, *, number: int | None = None, last: bool = False) -> Decision:
        """Take a turn: the next one, or turn `number`. With `last`, no turn follows and nothing is remembered for it.

        Raises `NotLoaded` when a template needs a result that is not loaded: then nothing has changed. Add it to
        `known.answers` and call again.
        """
        if self._limit is not None and len(self.known.answers) >= self._limit:
            self._limit = forget(self.known, self.state)
        turn = Turn(self.execution_id, self.turn + 1 if number is None else number, at)
        drafts: list[Draft] | None = [] if self._trace else None
        state, decision = take_turn(self.playbook, self.state, event, turn, self.known, drafts)
        if not last:
            remember(self.known, event, turn, decision)
        self.state, self.turn = state, turn.number
        self.draft = drafts[0] if drafts else None
        return decision


def take_turn(
    playbook: Playbook | str,
    state: ExecutionState,
    event: Event,
    turn: Turn,
    known: Known,
    drafts: list[Draft] | None = None,
) -> tuple[ExecutionState, Decision]:
    """The state after the event, and everything that is to be written; the draft is added to `drafts`.

    `playbook` is the reason if there is no playbook. Raises `NotLoaded` when a template needs what `known` does not
    hold, and `PlaybookFault` when only a playbook could decide.
    """
    if isinstance(playbook, str):
        return _decide_without_playbook(playbook, state, event, turn, known)
    reason = refusal(playbook, state, event, known.rules)
    if reason is not None:
        return state, _refused(playbook, state, event, reason)
    draft = Draft(playbook, state, event, turn, known, traced=drafts is not None)
    try:
        decide(draft)
        if playbook.late_steps:
            end_late_timers(draft, state)
    except Refused as refused:
        return state, _refused(playbook, state, event, str(refused))
    if drafts is not None:
        drafts.append(draft)
    return draft.seal()


def _refused(playbook: Playbook, state: ExecutionState, event: Event, reason: str) -> Decision:
    """The decision about an event that does not change the execution."""
    child = late_child_to_undo(playbook, state.status, event)
    if child is not None:
        return Decision(reason, effects=(ChildUndone(child, {"error": GIVEN_UP}),))
    answer = answer_of(event) if reason == NOTHING else 0
    return Decision(reason, effects=(UndoEnded(answer),)) if answer else Decision(reason)


def decide(draft: Draft) -> None:
    """Let a rule react to the event and move the tokens; raises `Refused` if the event changes nothing after all."""
    route_event(draft)
    _move_tokens(draft)
    finalize_execution(draft)
    if is_live(draft.state.status) and draft.state.compensation is None:
        over = max_turns_error(draft.known.rules, draft.turn.number)
        if over is not None:
            fail_execution(draft, over)
            go_on_compensating(draft)
    if draft.state.slots and not is_live(draft.state.status):
        free_slots(draft)


def _move_tokens(draft: Draft) -> None:
    """Deliver arrivals and release joins until nothing moves; an execution that does not run keeps its arrivals."""
    rules, taken = draft.known.rules, -draft.resumed
    runs = draft.state.status == RUNNING
    while draft.arrivals or (runs and release_join(draft)):
        # All transitions are taken and all routers passed before a waiting join is released.
        while draft.arrivals:
            arrival = draft.arrivals.popleft()
            taken += arrival.arc >= 0
            over = max_fan_out_error(rules, arrival.step, taken)
            if over is not None:
                draft.arrivals.appendleft(arrival)  # lost with the arrivals after it, and restored with them
                fail_execution(draft, over)
            elif runs:
                deliver(draft, arrival)
            else:
                keep_arrival(draft, arrival)


def _decide_without_playbook(
    reason: str, state: ExecutionState, event: Event, turn: Turn, known: Known
) -> tuple[ExecutionState, Decision]:
    """A start fails the execution and a cancel cancels it; any other event waits until the playbook is back."""
    if state.status == NEW:
        if event.kind == EXECUTION_START:
            error = oversized_start(event) if event.oversize else {"message": reason}
            return reject_execution(event, turn, error)
        return state, Decision("unknown_execution")
    if not is_live(state.status) and state.compensation is None and event.kind != EXECUTION_UNDO:
        return state, Decision("after_end")
    if event.kind == EXECUTION_CANCEL:
        ended, decision = cancel_without_playbook(state, event, turn)
        if state.slots:
            ended, change = ended._replace(slots=()), freed(known, state.slots)
            decision = decision if change is None else decision._replace(effects=(*decision.effects, change))
        if known.rules.beside_noetl:
            decision = decision._replace(events=with_noetl_status(decision.events, ended.status))
        return ended, decision
    raise PlaybookFault(reason)
