"""What one turn makes known to the next, where no table says it yet: within a batch, in a story, in a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.context import (
    NOT_LOADED,
    WORKLOAD,
    Found,
    Known,
    result_of,
    want_action,
    want_item_status,
    want_step,
    want_turn,
)
from noetl_broker.broker.model import ITERATION_STARTED, Decision, Event, Turn
from noetl_broker.template import StepResult

if TYPE_CHECKING:
    from collections.abc import Mapping


def remember(known: Known, event: Event, turn: Turn, decision: Decision) -> None:
    """Tell the turns that follow what this one made true.

    A result that was left in the database must have been loaded under its turn before.
    """
    answers = known.answers
    if decision.begun is not None:
        answers[WORKLOAD] = decision.begun.workload
    # What the visit of an item was given is said by the job of the iterator itself.
    answers |= {want_action(job.step, job.visit): job.action for job in decision.jobs if job.place is None}
    _remember_items(known, decision)
    ended = [row for row in decision.rows if row.result_visit is not None and not row.taken]
    if not ended:
        return
    result = _carried(answers, event, turn)
    answers[want_turn(turn.number)] = result
    for row in ended:
        before = answers.get(want_step(row.step), NOT_LOADED)
        visit = row.result_visit or 1
        if visit == row.visits or not isinstance(before, Found) or before.visit < visit:
            answers[want_step(row.step)] = Found(visit, result)


def _remember_items(known: Known, decision: Decision) -> None:
    answers = known.answers
    for items in decision.items:
        known.tell_items(items.step, items.visit, items.values)
    for emitted in decision.events:
        if emitted.type == ITERATION_STARTED and emitted.context is not None:
            answers[want_item_status(emitted.step or "", emitted.visit, emitted.context["index"])] = "RUNNING"
    for adopted in decision.adoptions:
        answers[want_item_status(adopted.step, adopted.visit, adopted.place)] = "RUNNING"
    for end in decision.item_ends:
        answers[want_item_status(end.step, end.visit, end.place)] = end.status


def _carried(answers: Mapping[tuple[object, ...], object], event: Event, turn: Turn) -> StepResult:
    if event.result is NOT_LOADED:
        answer = answers[want_turn(turn.number)]
        if not isinstance(answer, StepResult):
            raise TypeError(f"the result of turn {turn.number} was not loaded")
        return answer
    return result_of(event.type, event.result, event.error)
