"""The whole core in one function: one event in, one decision out.

Live evaluation, replay, simulation and tests all call `take_turn`; nothing else decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.dispatcher import refusal, route_event
from noetl_broker.broker.draft import Draft
from noetl_broker.broker.failure import cancel_without_playbook, fail_execution
from noetl_broker.broker.finalize import finalize_execution
from noetl_broker.broker.initial import reject_execution
from noetl_broker.broker.iterators import Refused
from noetl_broker.broker.joins import deliver, release_join
from noetl_broker.broker.lengths import oversized_start, too_long, too_wide
from noetl_broker.broker.model import EXECUTION_CANCEL, EXECUTION_START, Decision, Event, Turn
from noetl_broker.broker.noetl_status import in_words_of_noetl
from noetl_broker.broker.state import NEW, RUNNING, ExecutionState
from noetl_broker.errors import PlaybookFault

if TYPE_CHECKING:
    from noetl_broker.broker.context import Known
    from noetl_broker.playbook.model import Playbook


def take_turn(
    playbook: Playbook, state: ExecutionState, event: Event, turn: Turn, known: Known
) -> tuple[ExecutionState, Decision]:
    """The state after the event, and everything that is to be written.

    Raises `NotLoaded` when a template needs what `known` does not hold: load it and call again, nothing has changed.
    """
    reason = refusal(playbook, state, event, known.rules)
    if reason is not None:
        return state, Decision(reason)
    draft = Draft(playbook, state, event, turn, known)
    try:
        decide(draft)
    except Refused as refused:
        return state, Decision(str(refused))
    finally:
        draft.trail.clear()  # its scopes know the draft: as a ring, a turn would stay until the collector comes
    return draft.seal()


def decide(draft: Draft) -> None:
    """Let a rule react to the event and move what moves because of it; raises Refused where nothing does after all."""
    route_event(draft)
    taken = 0
    while draft.arrivals or release_join(draft):
        # All transitions are taken and all routers passed before a waiting join is released.
        while draft.arrivals:
            arrival = draft.arrivals.popleft()
            taken += arrival.arc >= 0
            over = too_wide(draft, arrival, taken)
            if over is not None:
                draft.arrivals.appendleft(arrival)  # it is lost as those after it are, and comes back with them
                fail_execution(draft, over)
            else:
                deliver(draft, arrival)
    finalize_execution(draft)
    over = too_long(draft)
    if over is not None:
        fail_execution(draft, over)


def take_turn_or_reject(
    playbook: Playbook | str, state: ExecutionState, event: Event, turn: Turn, known: Known
) -> tuple[ExecutionState, Decision]:
    """As `take_turn`; where there is no playbook but the sentence why, the execution fails at its start with that.

    One that runs already can still be cancelled. Any other decision on it needs the playbook: raises PlaybookFault, so
    that the mail is set aside until the playbook is back.
    """
    if not isinstance(playbook, str):
        return take_turn(playbook, state, event, turn, known)
    if state.status == NEW:
        if event.kind == EXECUTION_START:
            error = oversized_start(event) if event.oversize else {"message": playbook}
            return reject_execution(event, turn, error)
        return state, Decision("unknown_execution")
    if state.status != RUNNING:
        return state, Decision("after_end")
    if event.kind == EXECUTION_CANCEL:
        ended, decision = cancel_without_playbook(state, event, turn)
        if known.rules.beside_noetl:
            decision = decision._replace(events=in_words_of_noetl(decision.events, ended.status))
        return ended, decision
    raise PlaybookFault(playbook)
