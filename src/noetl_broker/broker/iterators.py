"""Iterators that the broker runs: a child, or a job, for each item of a collection (spec section 5).

The items are chosen once and become rows; the state holds counts alone, so a wide collection costs per item what a
narrow one does. A bounded number of items is started in a turn; the rest follows in turns of its own, to which the
execution writes itself a letter. When all have ended, another such letter carries the gathered results, and its turn
completes the step like the end of any action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.children import render_call, start_child
from noetl_broker.broker.closing import close
from noetl_broker.broker.context import want_item_status, want_items
from noetl_broker.broker.events import emit_iteration, emit_iterator_started
from noetl_broker.broker.failure import error_of, fail_step, template_error, wrong_value
from noetl_broker.broker.given import lay_over, lay_own, lay_task, without
from noetl_broker.broker.inputs import asked_about, given_by, render_inputs, said_of
from noetl_broker.broker.lengths import brief
from noetl_broker.broker.model import (
    ITEM_COMPLETED,
    ITERATION_DUE,
    ITERATOR_COMPLETED,
    JSON,
    ItemEnd,
    Items,
    Post,
    as_stored,
)
from noetl_broker.broker.queue import change_job, delegate_job, enqueue_job
from noetl_broker.broker.retries import describe_error
from noetl_broker.broker.state import Counts, Token
from noetl_broker.broker.transitions import pass_on, process_completed_steps
from noetl_broker.broker.unfinished import insist_on_values, unfinished_of
from noetl_broker.playbook.findings import kind_of
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.given import Given
    from noetl_broker.broker.state import Arrival
    from noetl_broker.playbook.model import Iteration, Step
    from noetl_broker.template import Scope, Tree

MOST_STARTED = 100  # items that one turn starts at most
ITEM_STEPS = 100  # what `where` and `order_by` may take for one item beside what the turn may take in any case
STARTED = ("iteration_started", "STARTED")
COMPLETED = ("iteration_completed", "COMPLETED")
FAILED = ("iteration_failed", "FAILED")


class Refused(Exception):
    """The event changes nothing, for this reason: found out only with what the store knows of an item."""


def begin_iterator(draft: Draft, step: Step, visit: int, ordinal: int, given: Given, arrival: Arrival) -> None:
    """A visit of an iterator begins: choose its items, and start as many as may be open at a time.

    `given` are all inputs of the visit, those of the `arrival` over the step's own.
    Raises TemplateError where the collection, or what is started of it, cannot be rendered.
    """
    iteration = _iteration(step)
    values = as_stored(choose_items(draft, iteration, given, arrival.result))
    draft.items.append(Items(step.name, visit, values))
    draft.known.tell_items(step.name, visit, values)
    emit_iterator_started(draft, step, visit, len(values))
    request = {**said_of(given), "total": len(values), "result_turn": arrival.result}
    own = [key for key in given.values if key not in arrival.inputs] if step.type != "iterator" else []
    if own:
        request["own"] = own  # of a loop: what its other inputs do not see
    delegate_job(draft, step, visit, ordinal, request)
    token = draft.tokens[step.name, visit]
    _start_items(draft, step, token._replace(items=Counts(len(values))), lambda: request)


def check_iterator_completions(draft: Draft, token: Token) -> None:
    """A child, or a job, of an item ended: count it, and start the next or gather the results.

    Raises Refused where the item is not open: the same end sent twice counts once.
    """
    event, step = draft.event, draft.playbook.steps[token.step]
    index, counts = event.place or 0, token.items or Counts(0)
    stands = draft.known.ask(want_item_status(step.name, token.visit, index))
    if stands != "RUNNING":
        raise Refused("not_open" if stands in {None, "WAITING"} else "duplicate")
    completed = event.kind in {ITEM_COMPLETED, "action_completed"} and not event.broken and not event.bytes_over
    status = "COMPLETED" if completed else "FAILED"
    error = None if completed else describe_error(step, error_of(event))
    told = brief(error) if error is not None and draft.known.rules.failed_items else None
    draft.item_ends.append(ItemEnd(step.name, token.visit, index, status, told))
    if runs_items(step) and _iteration(step).task.call is None and not (completed and event.settled):
        change_job(draft, step, token.visit, "done" if completed else "dead", place=index)
    token = token._replace(items=counts._replace(ended=counts.ended + 1, failed=counts.failed + (not completed)))
    emit_iteration(draft, step, token.visit, COMPLETED if completed else FAILED, index, error)
    if error is not None and (step.iteration is None or step.iteration.on_error == "fail"):
        _fail_step(draft, step, token, {**error, "index": index})
    elif not runs_items(step):
        gather_when_ended(draft, token, error and {**error, "index": index})
    elif _all_failed(draft, token):
        fail_all(draft, step, token, error and {**error, "index": index})
    else:
        _go_on(draft, step, token)


def continue_iterator(draft: Draft, token: Token) -> None:
    """`iteration_due`: the letter to ourselves that more items may be started."""
    _go_on(draft, draft.playbook.steps[token.step], token)


def complete_iterator(draft: Draft, token: Token) -> None:
    """`iterator_completed`: the gathered results are there, and the step completes with them."""
    step, counts = draft.playbook.steps[token.step], token.items
    if counts is None or counts.ended < counts.total or not (token.answered or runs_items(step)):
        raise Refused("recorded")
    process_completed_steps(draft, token)


def runs_items(step: Step) -> bool:
    """Whether the broker itself starts the step's items; else a worker may have started children for it."""
    return step.iteration is not None and step.iteration.expanded


def gather_when_ended(draft: Draft, token: Token, error: dict[str, JSON] | None = None) -> None:
    """Keep the token; where a worker is done and all children that it started have ended, gather their results.

    `error` is that of the child that has just failed. Where all of them failed, the step does.
    """
    draft.tokens[token.step, token.visit] = token
    if token.answered and token.items is not None and token.items.ended == token.items.total:
        if _all_failed(draft, token):
            fail_all(draft, draft.playbook.steps[token.step], token, error)
        else:
            draft.posts.append(Post(ITERATOR_COMPLETED, token.step, token.visit))


def _all_failed(draft: Draft, token: Token) -> bool:
    """Whether there were items and none of them did anything."""
    counts = token.items or Counts(0)
    return draft.known.rules.failed_items and 0 < counts.total == counts.failed


def fail_all(
    draft: Draft, step: Step, token: Token, error: dict[str, JSON] | None, *, total: int | None = None
) -> None:
    """All items failed: the step fails, whatever the iterator's `on_error` says of each of them.

    `error` is that of one of them. A step that a `loop` repeats has an `on_error` of its own, beside that of its items.
    """
    counted = total if total is not None else (token.items or Counts(0)).total
    message = "the only item failed" if counted == 1 else f"all {counted} items failed"
    if error is not None:
        message += f"; item {error['index']}: {error['message']}" if "index" in error else f": {error['message']}"
    told = {**(error or {}), "step": step.name, "message": message, "type": "all_items_failed"}
    if runs_items(step):
        give_up(draft, step, token)
    _leave_failed(draft, step, token, told, goes_on=step.on_error == "continue" and step.type != "iterator")


def choose_items(draft: Draft, iteration: Iteration, given: Given, result: int | None) -> list[JSON]:
    """The items: `where`, `order_by`, `limit`, `enumerate`, `chunk`, in this order, of a list or a mapping's pairs."""
    unfinished = unfinished_of(draft, given)
    insist_on_values(unfinished, iteration.collection, iteration.limit, iteration.chunk)
    words = words_of(iteration, 0, 0, None)
    insist_on_values(unfinished_of(draft, given, words, asked=True), iteration.where, iteration.order_by)
    collection = draft.evaluate(iteration.collection, draft.scope(given.values, result))
    if isinstance(collection, dict):
        collection = [{"key": key, "value": value} for key, value in collection.items()]
    if not isinstance(collection, list):
        raise wrong_value(iteration.collection, "`collection` must be a list or a mapping", collection)
    total = len(collection)
    draft.allowance.widen(total * ITEM_STEPS)

    def scope_of(index: int, item: JSON) -> Scope:
        return asked_about(draft, given, result, words_of(iteration, index, total, item))

    scope = draft.scope(given.values, result)
    values = list(collection)
    if iteration.where is not None:
        where = iteration.where
        values = [item for index, item in enumerate(values) if draft.holds(where, scope_of(index, item))]
    if iteration.order_by is not None:
        order_by = iteration.order_by
        ranks = [draft.evaluate(order_by, scope_of(index, item)) for index, item in enumerate(values)]
        order_by.weigh(ranks, scope)
        try:
            values = [values[place] for place in sorted(range(len(values)), key=ranks.__getitem__)]
        except TypeError as error:
            kinds = " and ".join(sorted({kind_of(rank) for rank in ranks}))
            message = f"`order_by` gives values that have no order: {kinds}"
            raise TemplateError(message, order_by.source, order_by.at) from error
    values = values[: _whole(draft, "limit", iteration.limit, scope, least=0)]
    if iteration.enumerate:
        values = [{"index": index, "item": item} for index, item in enumerate(values)]
    size = _whole(draft, "chunk", iteration.chunk, scope, least=1)
    return values if size is None else [values[first : first + size] for first in range(0, len(values), size)]


def words_of(iteration: Iteration, index: int, total: int, item: JSON) -> dict[str, JSON]:
    """What an item's templates see beside the rest: the element by its name, and `_loop`."""
    return {iteration.element: item, "_loop": {"index": index, "count": total, "item": item}}


def _go_on(draft: Draft, step: Step, token: Token) -> None:
    """Start what may be started; what cannot be rendered fails the step."""
    try:
        _start_items(draft, step, token, lambda: draft.request_of(step, token.visit))
    except TemplateError as fault:
        give_up(draft, step, token)
        fail_step(draft, step, token, template_error(step, fault))


def _start_items(draft: Draft, step: Step, token: Token, asked: Callable[[], dict[str, JSON]]) -> None:
    """Start what may be started; what the visit was handed is `asked` for only where there is something."""
    iteration, counts = _iteration(step), token.items or Counts(0)
    room = min(iteration.concurrency - (counts.started - counts.ended), counts.total - counts.started)
    count = min(room, MOST_STARTED)
    started = 0
    if count > 0:
        values = draft.known.ask(want_items(step.name, token.visit, counts.started, count))
        request = asked()
        for index, item in enumerate(values, counts.started):
            if started and draft.did_much:
                break
            words = words_of(iteration, index, counts.total, item)
            _start_item(draft, step, token, request, (index, words))
            started += 1
    token = token._replace(items=counts._replace(started=counts.started + started))
    draft.tokens[step.name, token.visit] = token
    if room > started > 0:
        draft.posts.append(Post(ITERATION_DUE, step.name, token.visit))
    elif counts.ended == counts.total:
        draft.posts.append(Post(ITERATOR_COMPLETED, step.name, token.visit))


def _start_item(
    draft: Draft, step: Step, token: Token, request: dict[str, JSON], item: tuple[int, dict[str, JSON]]
) -> None:
    """Begin one item: what the visit was handed, the item's place, and what its templates see of it."""
    task, (index, words) = _iteration(step).task, item
    given, result = given_by(request)._replace(levels=request.get("levels", ())), request["result_turn"]
    seen = without(given, request.get("own", ()))
    scope, unfinished = draft.scope(seen.values, result, words), unfinished_of(draft, seen, words)
    if step.type == "iterator":  # the task's inputs are over those of its step
        own = render_inputs(draft, task.inputs, scope, unfinished=unfinished)
        if own.left:  # what it hides of its step no worker has
            own = close(draft, own, task.inputs, given, given.values.keys() & own.values.keys())
        inputs = lay_task(given, own)
    else:  # a loop's own inputs are under what the transition gave
        own = render_inputs(draft, task.inputs, scope, given, unfinished)
        inputs = lay_own(lay_over(own, without(given, seen.values)), seen)
    ordinal = emit_iteration(draft, step, token.visit, STARTED, index)
    if task.call is not None:
        start_child(draft, token, render_call(draft, task.call, inputs, result, words), (index, ordinal))
        draft.carry(draft.children[-1].payload)
    else:
        enqueue_job(draft, task, token.visit, ordinal, inputs, result, item)
        draft.carry([draft.jobs[-1].action, draft.jobs[-1].context])


def _fail_step(draft: Draft, step: Step, token: Token, error: dict[str, JSON]) -> None:
    """The first failed item fails the step; its other items are given up."""
    give_up(draft, step, token)
    _leave_failed(draft, step, token, error, goes_on=step.on_error == "continue")


def _leave_failed(draft: Draft, step: Step, token: Token, error: dict[str, JSON], *, goes_on: bool) -> None:
    if goes_on:
        draft.tokens[step.name, token.visit] = token
        pass_on(draft, step, token, error)
        return
    draft.tokens.pop((step.name, token.visit), None)
    fail_step(draft, step, token, error)


def give_up(draft: Draft, step: Step, token: Token) -> None:
    """Nobody waits any more for what a visit has started."""
    draft.tokens.pop((step.name, token.visit), None)
    change_job(draft, step, token.visit, "dead")
    draft.abandoned.append((step.name, token.visit))


def _iteration(step: Step) -> Iteration:
    if step.iteration is None:
        raise TypeError(f"step {step.name} does not iterate")
    return step.iteration


def _whole(draft: Draft, key: str, tree: Tree | None, scope: Scope, *, least: int) -> int | None:
    if tree is None:
        return None
    value = draft.render(tree, scope)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise wrong_value(tree, f"`{key}` must be a whole number of at least {least}", value)
    return value
