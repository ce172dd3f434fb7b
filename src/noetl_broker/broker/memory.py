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
    want_inputs,
    want_item_status,
    want_step,
    want_turn,
)
from noetl_broker.broker.model import Decision, Event, Turn, as_stored
from noetl_broker.template import StepResult

if TYPE_CHECKING:
    from collections.abc import Mapping


def remember(known: Known, event: Event, turn: Turn, decision: Decision) -> None:
    """Tell the turns that follow what this one made true.

    A result that was left in the database must have been loaded under its turn before. Raises NotLoaded, as a turn
    does.
    """
    answers = known.answers
    if decision.begun is not None:
        answers[WORKLOAD] = decision.begun.workload
    _remember_jobs(known, decision)
    _remember_items(known, decision)
    ended = [row for row in decision.rows if row.result_visit is not None]
    if not ended:
        return
    result = _carried(answers, event, turn)
    answers[want_turn(turn.number)] = result
    for row in ended:
        visit = row.result_visit or 1
        # A higher visit may have ended before: unless this is the highest, only the store knows the latest result.
        before = None if visit == row.visits else known.ask(want_step(row.step))
        if not isinstance(before, Found) or before.visit < visit:
            answers[want_step(row.step)] = Found(visit, result)


def _remember_jobs(known: Known, decision: Decision) -> None:
    for job in decision.jobs:
        if job.place is not None:
            continue  # an item's job is not its visit's
        action = as_stored(job.action)
        inputs = action.get("args")
        known.answers[want_action(job.step, job.visit)] = action
        known.answers[want_inputs(job.step, job.visit)] = inputs if isinstance(inputs, dict) else {}


def _remember_items(known: Known, decision: Decision) -> None:
    for items in decision.items:
        known.tell_items(items.step, items.visit, items.values)
    for emitted in decision.events:
        if emitted.type == "iteration_started" and emitted.context is not None:
            item = want_item_status(emitted.step or "", emitted.visit, emitted.context["index"])
            known.answers[item] = "RUNNING"
    for end in decision.item_ends:
        known.answers[want_item_status(end.step, end.visit, end.place)] = end.status


def _carried(answers: Mapping[tuple[object, ...], object], event: Event, turn: Turn) -> StepResult:
    if event.result is NOT_LOADED:
        answer = answers[want_turn(turn.number)]
        if not isinstance(answer, StepResult):
            raise TypeError(f"the result of turn {turn.number} was not loaded")
        return answer
    return result_of(event.type, event.result, event.error)
