"""Iterators that the broker runs: a child execution or a job for each item of a collection.

The first turn chooses the items and writes a row for each. The state has only counts, so the cost of an item does not
depend on their number. A turn starts a limited number of items; the execution sends itself `iteration_due` for the
rest. When all have ended, it sends itself `iterator_completed` with the gathered results, which completes the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.wants import want_item_action, want_items
from noetl_broker.broker.flow.transitions import fail_visit
from noetl_broker.broker.model.effects import EventPosted, ItemsCancelled, ItemsChosen
from noetl_broker.broker.model.event_types import ITERATION_DUE, ITERATOR_COMPLETED
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.state.state import (
    RUNNING,
    Counts,
    Token,
    decode_result,
    encode_result,
    indexes_of,
    overlay_inputs,
    remove_inputs,
)
from noetl_broker.broker.undo.draining import drain_items
from noetl_broker.broker.work.children import render_call, start_child
from noetl_broker.broker.work.items import iteration_of, restart_due_items
from noetl_broker.broker.writing.errors import template_error, wrong_value
from noetl_broker.broker.writing.events import emit_iteration, emit_iterator_started
from noetl_broker.broker.writing.inputs import condition_scope, inputs_as_request, inputs_of_job, render_inputs
from noetl_broker.broker.writing.queue import delegate_job, end_job, enqueue_job, timeout_of
from noetl_broker.playbook.diagnostics import json_type_name
from noetl_broker.playbook.keywords import words_of_item
from noetl_broker.playbook.template_reads import ARGS
from noetl_broker.template import NotLoaded, TemplateError
from noetl_broker.template.output import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import Arrival, RenderedInputs, ResultRef
    from noetl_broker.playbook.model import Iteration, Step
    from noetl_broker.template import Scope, Tree

MOST_STARTED = 100  # items that one turn starts
ITEM_STEPS = 100  # template steps of `where` and `order_by` for one item, beside those of the turn
STARTED = ("iteration_started", "STARTED")


def begin_iterator(draft: Draft, step: Step, visit: int, ordinal: int, given: RenderedInputs, arrival: Arrival) -> None:
    """Begin a visit of an iterator: choose its items and start as many as may be open at a time.

    `given` are all inputs of the visit. Raises TemplateError if the collection or an item cannot be rendered.
    """
    iteration = iteration_of(step)
    taken = arrival.items
    values = as_stored(choose_items(draft, iteration, given, arrival.result)) if taken is None else []
    timeout = timeout_of(draft, step, given.values, arrival.result)
    if taken is None:
        counts = Counts(len(values))
        draft.add(ItemsChosen(step.name, visit, values))
        draft.known.set_items(step.name, visit, values)
    else:
        ended = taken.total - len(taken.indexes)
        counts = Counts(taken.total, ended, ended)
    emit_iterator_started(draft, step, visit, counts.total, counts.ended)
    request = {**inputs_as_request(given), "total": counts.total, "result_turn": encode_result(arrival.result)}
    if taken is not None:
        request["again"] = taken.again
    own = [key for key in given.values if key not in arrival.inputs] if step.type != "iterator" else []
    if own:
        request["own"] = own  # of a loop: its other inputs cannot read them
    delegate_job(draft, step, visit, ordinal, request, timeout)
    token = draft.state.tokens[step.name, visit]
    _start_items(draft, step, token._replace(items=counts), lambda: request)


def continue_iterator(draft: Draft, token: Token) -> None:
    """`iteration_due`: start more items, and those again that were due during a pause."""
    step = draft.playbook.steps[token.step]
    start_more(draft, step, restart_due_items(draft, step, token) if token.again else token)


def choose_items(draft: Draft, iteration: Iteration, given: RenderedInputs, result: ResultRef) -> list[JSON]:
    """The items of a list, or the pairs of a mapping, after `where`, `order_by`, `limit`, `enumerate` and `chunk`."""
    collection = draft.templates.evaluate(iteration.collection, draft.templates.scope(given.values, result))
    if isinstance(collection, dict):
        collection = [{"key": key, "value": value} for key, value in collection.items()]
    if not isinstance(collection, list):
        raise wrong_value(iteration.collection, "`collection` must be a list or a mapping", collection)
    total = len(collection)
    draft.allowance.add_steps(total * ITEM_STEPS)

    def scope_of(index: int, item: JSON) -> Scope:
        return condition_scope(draft, given, result, words_of_item(iteration.element, item, index, total))

    scope = draft.templates.scope(given.values, result)
    values = list(collection)
    if iteration.where is not None:
        where = iteration.where
        values = [item for index, item in enumerate(values) if draft.templates.holds(where, scope_of(index, item))]
    if iteration.order_by is not None:
        order_by = iteration.order_by
        ranks = [draft.templates.evaluate(order_by, scope_of(index, item)) for index, item in enumerate(values)]
        order_by.charge(ranks, scope)
        try:
            values = [values[index] for index in sorted(range(len(values)), key=ranks.__getitem__)]
        except TypeError as error:
            kinds = " and ".join(sorted({json_type_name(rank) for rank in ranks}))
            message = f"`order_by` gives values that have no order: {kinds}"
            raise TemplateError(message, order_by.source, order_by.at) from error
    values = values[: _whole_number(draft, "limit", iteration.limit, scope, least=0)]
    if iteration.enumerate:
        values = [{"index": index, "item": item} for index, item in enumerate(values)]
    size = _whole_number(draft, "chunk", iteration.chunk, scope, least=1)
    return values if size is None else [values[first : first + size] for first in range(0, len(values), size)]


def start_more(draft: Draft, step: Step, token: Token) -> None:
    """Start more items; if one cannot be rendered, the step fails."""
    try:
        _start_items(draft, step, token, lambda: draft.templates.request_of(step, token.visit))
    except TemplateError as fault:
        token = draft.state.tokens[step.name, token.visit]  # counts those that were started before
        cancel_items(draft, step, token)
        fail_visit(draft, step, token, template_error(step, fault), continues=False)


def _start_items(draft: Draft, step: Step, token: Token, request_of_visit: Callable[[], dict[str, JSON]]) -> None:
    """Start the items that may be open; `request_of_visit` is called if there are any."""
    iteration, counts = iteration_of(step), token.items or Counts(0)
    room = min(iteration.concurrency - (counts.started - counts.ended), counts.total - counts.started)
    if room > 0 and draft.state.status != RUNNING:
        draft.state.tokens[step.name, token.visit] = token._replace(due=True)
        return
    count = min(room, MOST_STARTED)
    started = 0
    if count > 0:
        request = request_of_visit()
        for index, item in _next_items(draft, step, token, count, request.get("again")):
            if started and draft.allowance.is_nearly_spent:
                break
            words = words_of_item(iteration.element, item, index, counts.total)
            try:
                _start_item(draft, step, token, request, (index, words))
            except TemplateError:
                draft.state.tokens[step.name, token.visit] = _with_started(token, counts, started)
                raise
            started += 1
    draft.state.tokens[step.name, token.visit] = token = _with_started(token, counts, started)
    if room > started > 0:
        draft.add(EventPosted(ITERATION_DUE, step.name, token.visit))
    elif counts.ended == counts.total:
        draft.add(EventPosted(ITERATOR_COMPLETED, step.name, token.visit))


def _with_started(token: Token, counts: Counts, started: int) -> Token:
    return token._replace(items=counts._replace(started=counts.started + started))


def _next_items(draft: Draft, step: Step, token: Token, count: int, again: str | None) -> Iterable[tuple[int, JSON]]:
    """The next items to be started, with their indexes; `again` as in `TakenItems`."""
    counts = token.items or Counts(0)
    if again is None:
        first = counts.started
        return enumerate(draft.known.ask(want_items(step.name, token.visit, first, count)), first)
    indexes = indexes_of(again)
    done = counts.started - (counts.total - len(indexes))
    found: list[tuple[int, JSON]] = []
    wants: frozenset[tuple[object, ...]] = frozenset()
    for index in indexes[done : done + count]:
        try:
            found.append((index, draft.known.ask(want_items(step.name, token.visit, index, 1))[0]))
        except NotLoaded as missing:
            wants |= missing.wants
    if wants:
        raise NotLoaded(wants)
    return found


def _start_item(
    draft: Draft, step: Step, token: Token, request: dict[str, JSON], item: tuple[int, dict[str, JSON]]
) -> None:
    """Start one item; `item` is its index and the names of its templates."""
    iteration, (index, words) = iteration_of(step), item
    task = iteration.task
    given, result = inputs_of_job(request), decode_result(request["result_turn"])
    seen = remove_inputs(given, request.get("own", ()))
    scope = draft.templates.scope(seen.values, result, words)
    if step.type == "iterator":  # the task's inputs replace those of its step
        inputs = overlay_inputs(given, render_inputs(draft, task.inputs, scope))
    else:  # the inputs of the transition replace a loop's own
        inputs = overlay_inputs(render_inputs(draft, task.inputs, scope, given), given)
    ordinal = emit_iteration(draft, step, token.visit, STARTED, index)
    if task.call is not None:
        call = render_call(draft, task.call, inputs, result, words)
        if iteration.keeps_calls:
            timeout = timeout_of(draft, task, inputs.values, result, words)
            delegate_job(draft, task, token.visit, ordinal, call, timeout, index)
        payload = start_child(draft, token, call, (index, ordinal)).payload
        if task.compensate is not None:
            draft.known.answers[want_item_action(step.name, token.visit, index)] = {ARGS: payload}
        draft.allowance.add_repeated(size_of(payload))
    else:
        enqueue_job(draft, task, token.visit, ordinal, inputs, result, item)
        if task.compensate is not None:
            draft.known.answers[want_item_action(step.name, token.visit, index)] = draft.writes.jobs[-1].action
        draft.allowance.add_repeated(size_of([draft.writes.jobs[-1].action, draft.writes.jobs[-1].context]))
    if iteration.keeps_calls or iteration.reads_failed_inputs:
        draft.known.answers[want_item_action(step.name, token.visit, index)] = draft.writes.jobs[-1].action


def cancel_items(draft: Draft, step: Step, token: Token) -> None:
    """Cancel a visit, its open items and children."""
    draft.state.tokens.pop((step.name, token.visit), None)
    end_job(draft, step, token.visit, "dead")
    draft.add(ItemsCancelled(step.name, token.visit))
    drain_items(draft, step, token)


def _whole_number(draft: Draft, key: str, tree: Tree | None, scope: Scope, *, least: int) -> int | None:
    if tree is None:
        return None
    value = draft.templates.render(tree, scope)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise wrong_value(tree, f"`{key}` must be a whole number of at least {least}", value)
    return value
