"""The end of an item, and what it means for the iterator: the next item, the gathered results, or a failed step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.draft.known import ItemState
from noetl_broker.broker.draft.wants import want_item_status
from noetl_broker.broker.flow.transitions import fail_visit, process_completed_steps
from noetl_broker.broker.model.decision import Refused
from noetl_broker.broker.model.effects import EventPosted, ItemChildCancelled, ItemEnded
from noetl_broker.broker.model.event_types import ACTION_COMPLETED, ACTION_FAILED, ITEM_COMPLETED, ITERATOR_COMPLETED
from noetl_broker.broker.model.limits import ITEM_ERROR, shorten_error
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import Counts, Token
from noetl_broker.broker.undo.rows import SUCCESSES, report_item, report_left, report_success, report_unknown_item
from noetl_broker.broker.work.items import catch_item, is_retried, iteration_of, refuse_answered
from noetl_broker.broker.work.iterators import cancel_items, start_more
from noetl_broker.broker.writing.errors import describe_error, error_of, template_error
from noetl_broker.broker.writing.events import emit_caught_iteration, emit_iteration
from noetl_broker.broker.writing.queue import end_job
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.playbook.model import Step


COMPLETED = ("iteration_completed", "COMPLETED")
FAILED = ("iteration_failed", "FAILED")


class ItemOutcome(NamedTuple):
    """How an item ended. `caught` is the entry of `catch` that handled its error, and the result of the entry.

    `fault` is the error of the `catch` itself: then the step fails.
    """

    error: dict[str, JSON] | None
    caught: tuple[int, JSON] | None = None
    fault: dict[str, JSON] | None = None

    @property
    def failure(self) -> dict[str, JSON] | None:
        """The error that counts as a failure of the item."""
        return self.error if self.caught is None else None


def end_item(draft: Draft, token: Token) -> None:
    """Count the end of an item, and start the next items or gather the results. Raises Refused if it is not open."""
    step, index = draft.playbook.steps[token.step], draft.event.item_index or 0
    item = _open_item(draft, token)
    error = _reported_error(draft, step)
    refuse_answered(draft, iteration_of(step), item, completed=error is None)
    if error is not None and (left := report_left(draft, step, token)) is not token:
        draft.state.tokens[token.step, token.visit] = token = left
    if error is not None and is_retried(draft, step, token, index, item, error):
        return
    token = _note_undo(draft, step, token, item)
    outcome = _outcome(draft, step, token, item, error)
    _write_outcome(draft, step, token, outcome)
    _end_work(draft, step, token, outcome)
    token = _count_end(token, outcome)
    if outcome.fault is not None:
        cancel_items(draft, step, token)
        fail_visit(draft, step, token, outcome.fault, continues=False)
    elif not _fails_step(draft, step, token, outcome):
        if _all_failed(draft, token):
            cancel_items(draft, step, token)
            fail_all(draft, step, token, _with_index(draft, outcome.failure))
        else:
            start_more(draft, step, token)


def end_adopted_child(draft: Draft, token: Token) -> None:
    """Count the end of a child that a worker started, and gather the results if it was the last. Raises Refused."""
    step = draft.playbook.steps[token.step]
    item = _open_item(draft, token)
    outcome = ItemOutcome(_reported_error(draft, step))
    token = report_left(draft, step, token) if outcome.error is not None else token
    token = _note_undo(draft, step, token, item)
    _write_outcome(draft, step, token, outcome)
    token = _count_end(token, outcome)
    if not _fails_step(draft, step, token, outcome):
        gather_when_ended(draft, token, _with_index(draft, outcome.failure))


def _open_item(draft: Draft, token: Token) -> ItemState:
    """The item that the event ends. Raises Refused if it is not open: the same end counts once."""
    item: ItemState | None = draft.known.ask(want_item_status(token.step, token.visit, draft.event.item_index or 0))
    if item is None or item.status != "RUNNING":
        raise Refused("not_open" if item is None or item.status == "WAITING" else "duplicate")
    return item


def _reported_error(draft: Draft, step: Step) -> dict[str, JSON] | None:
    """The error of the item; None if the event reports a success."""
    event = draft.event
    completed = event.kind in {ITEM_COMPLETED, ACTION_COMPLETED} and not event.broken and not event.bytes_over
    return None if completed else describe_error(step, error_of(event))


def _outcome(draft: Draft, step: Step, token: Token, item: ItemState, error: dict[str, JSON] | None) -> ItemOutcome:
    """How the item ended, after its `catch`."""
    if error is None:
        return ItemOutcome(None)
    try:
        return ItemOutcome(error, catch_item(draft, step, token, draft.event.item_index or 0, item, error))
    except TemplateError as fault:
        failure = template_error(step, fault)
        return ItemOutcome({**failure, "caused_by": error}, fault=failure)


def _write_outcome(draft: Draft, step: Step, token: Token, outcome: ItemOutcome) -> None:
    """Write the end of an item: its row and its event."""
    index, error, caught = draft.event.item_index or 0, outcome.error, outcome.caught
    kept = None if error is None else shorten_error(error, ITEM_ERROR)
    if caught is not None:
        ordinal = emit_caught_iteration(draft, step, token.visit, index, error, caught)
        draft.add(ItemEnded(step.name, token.visit, index, "COMPLETED", kept, ordinal))
        return
    event = COMPLETED if error is None else FAILED
    draft.add(ItemEnded(step.name, token.visit, index, event[1], kept))
    emit_iteration(draft, step, token.visit, event, index, error)


def _end_work(draft: Draft, step: Step, token: Token, outcome: ItemOutcome) -> None:
    """End the job of an item, or its child that timed out and may still run."""
    event, index, iteration = draft.event, draft.event.item_index or 0, iteration_of(step)
    completed = outcome.error is None
    if iteration.keeps_calls or (iteration.task.call is None and not (completed and event.settled)):
        end_job(draft, step, token.visit, "done" if completed else "dead", index=index)
    if iteration.task.call is not None and event.kind == ACTION_FAILED:
        draft.add(ItemChildCancelled(step.name, token.visit, index))


def _count_end(token: Token, outcome: ItemOutcome) -> Token:
    counts = token.items or Counts(0)
    failed = counts.failed + (outcome.failure is not None)
    return token._replace(items=counts._replace(ended=counts.ended + 1, failed=failed))


def _with_index(draft: Draft, error: dict[str, JSON] | None) -> dict[str, JSON] | None:
    """The error with the index of its item."""
    return None if error is None else {**error, "index": draft.event.item_index or 0}


def _fails_step(draft: Draft, step: Step, token: Token, outcome: ItemOutcome) -> bool:
    """Fail the step if it cannot go on after the error of an item; false if it goes on."""
    error = _with_index(draft, outcome.failure)
    if error is None or not _is_too_much(step, token):
        return False
    cancel_items(draft, step, token)
    fail_visit(draft, step, token, _error_of_items(step, token, error), continues=step.on_error == "continue")
    return True


def _note_undo(draft: Draft, step: Step, token: Token, item: ItemState) -> Token:
    """Note that an item is to be undone: it reported success, or its action may have happened."""
    event, index = draft.event, draft.event.item_index or 0
    if not (draft.playbook.undoes or event.meta):
        return token
    if event.kind in SUCCESSES:
        return report_item(draft, step, token, index)
    report_unknown_item(draft, step, token.visit, index, item)
    return token


def _is_too_much(step: Step, token: Token) -> bool:
    """Whether the step fails because of the item that has just failed."""
    iteration, counts = step.iteration, token.items or Counts(0)
    if iteration is None or iteration.tolerate is None:
        return iteration is None or iteration.on_error == "fail"
    return not iteration.tolerate.allows(counts.failed, counts.total)


def _error_of_items(step: Step, token: Token, error: dict[str, JSON]) -> dict[str, JSON]:
    """The error of a step that fails because of this item: the error of the item, or "too many items failed"."""
    tolerate = step.iteration.tolerate if step.iteration is not None else None
    if tolerate is None or (tolerate.percent is None and tolerate.count == 0):
        return error
    return _too_many_error(step, token.items or Counts(0), error)


def _too_many_error(step: Step, counts: Counts, error: dict[str, JSON] | None) -> dict[str, JSON]:
    message = f"{counts.failed} of {counts.total} items failed, and tolerate is {iteration_of(step).tolerate}"
    if error is not None:
        message += f"; item {error['index']}: {error['message']}" if "index" in error else f": {error['message']}"
    return {**(error or {}), "step": step.name, "message": message, "type": "too_many_items_failed"}


def fail_too_many(draft: Draft, step: Step, token: Token, error: dict[str, JSON] | None, counts: Counts) -> None:
    """Fail the step of a worker that ran all items, because too many failed; `error` is the error of one item."""
    failure = _too_many_error(step, counts, error)
    fail_visit(draft, step, token, failure, continues=step.on_error == "continue" and step.type != "iterator")


def complete_iterator(draft: Draft, token: Token) -> None:
    """`iterator_completed`: complete the step with the gathered results."""
    step, counts = draft.playbook.steps[token.step], token.items
    if counts is None or counts.ended < counts.total:
        raise Refused("recorded")
    if step.compensate is not None:
        token = report_success(draft, step, token)
    process_completed_steps(draft, token)


def gather_when_ended(draft: Draft, token: Token, error: dict[str, JSON] | None = None) -> None:
    """Keep the token; gather the results if the worker is done and all children that it started have ended.

    `error` is the error of the child that has just failed. If all of them failed, the step fails.
    """
    draft.state.tokens[token.step, token.visit] = token
    if token.answered and token.items is not None and token.items.ended == token.items.total:
        if _all_failed(draft, token):
            fail_all(draft, draft.playbook.steps[token.step], token, error)
        else:
            draft.add(EventPosted(ITERATOR_COMPLETED, token.step, token.visit))


def _all_failed(draft: Draft, token: Token) -> bool:
    """Whether there are items and all of them failed, which only `tolerate: 100%` allows."""
    counts, iteration = token.items or Counts(0), draft.playbook.steps[token.step].iteration
    if iteration is not None and iteration.tolerate is not None and iteration.tolerate.allows_all:
        return False
    return 0 < counts.total == counts.failed


def fail_all(
    draft: Draft, step: Step, token: Token, error: dict[str, JSON] | None, *, total: int | None = None
) -> None:
    """Fail the step because all items failed, whatever the `on_error` of the items is.

    `error` is the error of one item. A step with a `loop` has its own `on_error` beside the `on_error` of its items.
    """
    counted = total if total is not None else (token.items or Counts(0)).total
    message = "the only item failed" if counted == 1 else f"all {counted} items failed"
    if error is not None:
        message += f"; item {error['index']}: {error['message']}" if "index" in error else f": {error['message']}"
    failure = {**(error or {}), "step": step.name, "message": message, "type": "all_items_failed"}
    fail_visit(draft, step, token, failure, continues=step.on_error == "continue" and step.type != "iterator")
