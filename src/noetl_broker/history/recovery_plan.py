"""Plans what a retry begins with: the state of a failed execution at its failure.

The retry begins the failed visit and the other open visits again. On another version of the playbook, the state is what
that version makes of the same events. That version must decide the same up to the failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.arrivals.forks import Fork, MalformedFork, decode_fork, encode_fork, fork_of
from noetl_broker.broker.arrivals.steps import NEED_NOT_MET
from noetl_broker.broker.draft.known import ItemState
from noetl_broker.broker.draft.wants import want_all_items, want_item_status
from noetl_broker.broker.model.event_types import EXECUTION_SIGNAL
from noetl_broker.broker.state.state import (
    COMPENSATING,
    FAILED,
    TO_START,
    Arrival,
    ExecutionState,
    Hold,
    KeptSignal,
    TakenItems,
    is_live,
    on_arcs,
)
from noetl_broker.errors import BrokerError, HistoryFault
from noetl_broker.history.compare import Comparison
from noetl_broker.history.fork_inputs import ForkPoint, TakenResults
from noetl_broker.history.fork_plan import ForkPlan, dues_of, plan_of, playbook_of
from noetl_broker.history.timeline import Timeline, trace_turns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import Token
    from noetl_broker.history.record import History
    from noetl_broker.history.timeline import TracedTurn
    from noetl_broker.playbook.model import Playbook


ENDS = frozenset({FAILED, COMPENSATING})  # statuses after the turn that failed
COMPLETED_ITEM = ItemState("COMPLETED")


class OtherWay(BrokerError):
    """On another version, an execution would have gone another way before its failure.

    `turn` is the first that differs; `step` is where, and `what` says how.
    """

    def __init__(self, turn: int, step: str, what: str) -> None:
        super().__init__(f"turn {turn}, step {step}: {what}" if step else f"turn {turn}: {what}")
        self.turn, self.step, self.what = turn, step, what


class _Failure(NamedTuple):
    """An execution at its failure: the failed visit, the tokens before that turn, and when waits end or time out."""

    point: ForkPoint
    failed: Visit | None
    before: Mapping[Visit, Token]
    dues: Mapping[Visit, str]


def plan_recovery(history: History, *, onto: Playbook | None = None) -> ForkPlan:
    """A fork that continues a failed execution from its failure, perhaps `onto` another version of its playbook.

    An execution that has no workload yet, or that has undone something, starts from the start. Raises BrokerError if it
    cannot be replayed, OtherWay where the other version decides differently before the failure.
    """
    if history.broken is not None:
        raise HistoryFault(history.execution_id, history.broken)
    if history.ended is None or history.ended.status != FAILED:
        raise BrokerError(f"execution {history.execution_id} has not failed: there is nothing to retry")
    if history.workload is None or history.undone:
        return plan_restart(history, onto)
    playbook = playbook_of(history)
    failure = _failure_of(history, playbook)
    if onto is not None and onto is not playbook:
        _compare_ways(history, onto, failure)
        failure = _failure_of(history, onto, failure)
    failed, timeline, state = failure.failed, failure.point.timeline, failure.point.state
    if failed is not None:
        timeline.remove(failed)
        if (history.ended.error or {}).get("type") == NEED_NOT_MET and failed[0] in state.waiting:
            failed, timeline.total = None, timeline.total - 1  # its tokens wait again, and are still too few
    enter = [_entered_again(failure, visit) for visit in state.tokens if visit != failed]
    if failed is not None:
        enter.append(_entered_again(failure, failed)._replace(due=None))
        state = state._replace(end=None if failed[0] == "end" else state.end)
    kept = [*enter, *on_arcs(state)]
    if not kept and not state.waiting:
        kept.append(Arrival(TO_START, failure.point.playbook.start.name, {}, visit=1))
    point = failure.point._replace(state=state)
    return plan_of(history, point.playbook, point, tuple(kept), TakenResults(timeline, point.turn, {}))


def plan_restart(history: History, playbook: Playbook | None = None) -> ForkPlan:
    """A fork that begins anew with the payload, and takes nothing over: its workload is made again."""
    used = playbook or history.playbook
    start = Arrival(TO_START, "start" if isinstance(used, str) else used.start.name, {}, visit=1)
    fork = Fork(history.execution_id, len(history.turns), {}, ExecutionState(hold=Hold((start,))))
    return ForkPlan({**encode_fork(fork, ()), "results": [], "anew": True})


def _entered_again(failure: _Failure, visit: Visit) -> Arrival:
    """The arrival that began a visit, which begins again."""
    point, arrival = failure.point, failure.point.timeline.entered[visit]
    token = (failure.before if visit == failure.failed else point.state.tokens).get(visit)
    return arrival._replace(
        visit=visit[1],
        spent=arrival.spent if token is None else token.spent,
        due=failure.dues.get(visit),
        items=_completed_items(point, visit),
    )


def _completed_items(point: ForkPoint, visit: Visit) -> TakenItems | None:
    """The items and results that a repeated visit of an iterator takes over; None if no item completed."""
    answers, again = point.known.answers, 0
    values = answers.get(want_all_items(*visit))
    if not isinstance(values, list) or point.playbook.steps[visit[0]].waits_for != "items":
        return None
    for index in range(len(values)):
        if answers.get(want_item_status(*visit, index)) != COMPLETED_ITEM:
            again |= 1 << index
    return TakenItems(len(values), f"{again:x}") if again.bit_count() < len(values) else None


def _compare_ways(history: History, onto: Playbook, failure: _Failure) -> None:
    """Raises OtherWay if the other version decides a turn before the failure differently.

    In the turn that failed it must come to what a retry enters; there it may end the failed visit in another way.
    """
    fork = fork_of(history.turns[0].event.meta)
    try:
        _ = fork is None or decode_fork(fork, onto)
    except MalformedFork as fault:
        raise OtherWay(1, "", f"on the other version, {fault}") from fault
    comparison = Comparison(history, onto, ways_only=True)
    entered_in, last = failure.point.timeline.entered_in, failure.point.turn
    for recorded in history.turns:
        number = recorded.turn.number
        if number < last:
            found = comparison.apply(recorded)
        else:
            state, failed = failure.point.state, [] if failure.failed is None else [failure.failed]
            reached = [visit[0] for visit in (*state.tokens, *failed) if entered_in.get(visit) == last]
            found = comparison.apply_failure(recorded, [*reached, *(one.step for one in on_arcs(state))])
        if found is not None:
            because = f", because {found.because}" if found.because else ""
            raise OtherWay(number, found.step, f"{found.was} → {found.instead}{because}")
        if number == last:
            return


def _failure_of(history: History, playbook: Playbook, own: _Failure | None = None) -> _Failure:
    """The execution at its failure; with `own`, as another version of the playbook decides the same turns.

    The failed visit is open again, if it was so before the turn. Else that version fails in this turn, too, or goes on:
    then what came of the visit is open. Raises OtherWay if nothing is.
    """
    timeline, before, dues, turn = _before_failure(history, playbook, None if own is None else own.point.turn)
    draft, number = turn.draft, turn.recorded.turn.number
    failed = None if own is None else own.failed
    if failed in before.tokens:
        state = before
    elif draft is not None and draft.stopped_state is not None:
        timeline.add(turn)
        state, failed = draft.stopped_state, _failed_visit(draft)
    elif is_live(turn.state.status):
        timeline.add(turn)
        state, failed = turn.state, None
    else:
        timeline.add(turn, until=failed)
        state = before._replace(tokens={}, waiting={}, hold=None)
        if failed is None or failed not in timeline.entered:
            raise OtherWay(number, "" if failed is None else failed[0], f"fails → ends {turn.state.status}")
    is_signal = turn.recorded.event.kind == EXECUTION_SIGNAL
    if failed is not None and is_signal and playbook.steps[failed[0]].wait is not None:
        state = state._replace(signals=(*state.signals, KeptSignal(number, "")))  # its wait may take it again
    if own is not None:  # a wait keeps its moment if both versions give it this one
        dues = {visit: due for visit, due in dues.items() if own.dues.get(visit) == due}
    return _Failure(ForkPoint(playbook, number, timeline, turn.known, state), failed, before.tokens, dues)


def _before_failure(
    history: History, playbook: Playbook, last: int | None
) -> tuple[Timeline, ExecutionState, dict[Visit, str], TracedTurn]:
    """The execution before the turn that failed, or before turn `last`; due moments of waits, and that turn.

    Raises BrokerError if this version of the program decides an earlier turn differently.
    """
    timeline, state, number = Timeline(), ExecutionState(), 0
    dues: dict[Visit, str] = {}
    for turn in trace_turns(history, playbook):
        number, draft = turn.recorded.turn.number, turn.draft
        if last is None and not turn.agrees:
            break
        dues |= dues_of(turn)
        fails = draft is not None and draft.stopped_state is not None and draft.state.status in ENDS
        if number == last or (last is None and fails):
            return timeline, state, dues, turn
        timeline.add(turn)
        state = turn.state
    raise BrokerError(
        f"execution {history.execution_id} cannot be replayed up to its failure: this version decides turn {number}"
        f" differently (see noetl-broker replay {history.execution_id});"
        f" noetl-broker fork {history.execution_id} --from STEP continues it"
    )


def _failed_visit(draft: Draft) -> Visit | None:
    """The visit whose failure ended the execution; None if none did (a deadline, a limit).

    A visit that failed in the same turn and continued by its `on_error` has another error than the execution.
    """
    error = draft.writes.ended.error if draft.writes.ended is not None else None
    if draft.state.compensation is not None:
        error = draft.state.compensation.error
    failed = [event for event in draft.writes.events if event.type == "step_failed" and event.error == error]
    return (failed[-1].step or "", failed[-1].visit) if failed else None
