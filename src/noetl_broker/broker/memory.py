"""What one turn makes known to the next, where no table says it yet: within a batch, in a story, in a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.context import (
    NOT_LOADED,
    WORKLOAD,
    Found,
    Known,
    failed_item,
    result_of,
    want_action,
    want_child,
    want_failing,
    want_item_status,
    want_step,
    want_turn,
)
from noetl_broker.broker.model import ITERATION_STARTED, Decision, Event, Row, Turn, as_stored
from noetl_broker.template import StepResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.state import ExecutionState

MOST_KEPT = 256  # answers, before it is looked for those that nobody will ask for again
OF_RESULTS = frozenset({"failed", "failing"})  # kinds that belong to the result of a visit
LASTING = frozenset({"workload", "step"})  # kinds of answers that any later turn may ask for


def remember(known: Known, event: Event, turn: Turn, decision: Decision) -> None:
    """Tell the turns that follow what this one made true.

    A result that was left in the database must have been loaded under its turn before. Raises NotLoaded, as a turn
    does.
    """
    ended = [row for row in decision.rows if row.result_visit is not None and not row.taken]
    latest = [row for row in ended if _is_latest(known, row)]  # first of all: nothing is told if this is not loaded
    answers = known.answers
    if decision.begun is not None:
        answers[WORKLOAD] = decision.begun.workload
    # What the visit of an item was given is said by the job of the iterator itself.
    answers |= {want_action(job.step, job.visit): as_stored(job.action) for job in decision.jobs if job.place is None}
    _remember_items(known, decision)
    if ended:
        result = _carried(answers, event, turn, decision)
        answers[want_turn(turn.number)] = result
        answers |= {want_step(row.step): Found(row.result_visit or 1, result) for row in latest}


def _is_latest(known: Known, row: Row) -> bool:
    """Whether no higher visit has ended before: unless this is the highest, only the store knows."""
    visit = row.result_visit or 1
    if visit == row.visits:
        return True
    before = known.ask(want_step(row.step))
    return not isinstance(before, Found) or before.visit < visit


def _remember_items(known: Known, decision: Decision) -> None:
    answers = known.answers
    for items in decision.items:
        known.tell_items(items.step, items.visit, items.values)
    for emitted in decision.events:
        if emitted.type == ITERATION_STARTED and emitted.context is not None:
            answers[want_item_status(emitted.step or "", emitted.visit, emitted.context["index"])] = "RUNNING"
    for adopted in decision.adoptions:
        answers[want_item_status(adopted.step, adopted.visit, adopted.place)] = "RUNNING"
        answers[want_child(adopted.step, adopted.visit, adopted.child_execution_id)] = True
    for end in decision.item_ends:
        answers[want_item_status(end.step, end.visit, end.place)] = end.status
        if end.error is not None:
            failing = answers.setdefault(want_failing(end.step, end.visit), [])
            if isinstance(failing, list):
                failing.append(failed_item(end))


def _lasts(known: Known, state: ExecutionState, want: tuple[object, ...]) -> bool:
    """Whether something of a visit may be asked for: while it lives; its failed items with its result."""
    if want[1:3] in state.tokens:
        return True
    latest = known.answers.get(want_step(str(want[1]))) if want[0] in OF_RESULTS else None
    return isinstance(latest, Found) and latest.visit == want[2]


def _carried(answers: Mapping[tuple[object, ...], object], event: Event, turn: Turn, decision: Decision) -> StepResult:
    if decision.failed is not None:
        return StepResult(None, "FAILED", decision.events[decision.failed].error)
    if event.result is NOT_LOADED:
        answer = answers[want_turn(turn.number)]
        if not isinstance(answer, StepResult):
            raise TypeError(f"the result of turn {turn.number} was not loaded")
        return answer
    return result_of(event.type, event.result, event.error)


def forget(known: Known, state: ExecutionState, limit: int) -> int:
    """Let go of what no later turn can ask for, so that a long history does not fill the memory; gives the next limit.

    Nothing happens below the limit: a look costs next to nothing a turn. The workload stays, and the latest result of
    each step; a visit's own things as long as it lives, and results of turns that something that waits still names.
    """
    if len(known.answers) < limit:
        return limit
    named = {arrival.result for arrivals in state.waiting.values() for arrival in arrivals}
    if state.end is not None:
        named.add(state.end.result)
    for (step, visit), token in state.tokens.items():
        action = known.answers.get(want_action(step, visit)) if token.items is not None else None
        if isinstance(action, dict):
            named.add(action.get("result_turn"))  # which the items that are still to come will see
    known.answers = {
        want: answer
        for want, answer in known.answers.items()
        if want[0] in LASTING or (want[1] in named if want[0] == "turn" else _lasts(known, state, want))
    }
    return MOST_KEPT + 2 * len(known.answers)
