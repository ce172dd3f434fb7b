"""An item of an iterator that failed: it is tried again, counts as done with another result, or has failed for good.

How often an item failed is in its row (`noetl.iteration`), never in the state. `Known` asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.known import OPEN_ITEMS, ItemState
from noetl_broker.broker.draft.wants import want_item_action, want_items
from noetl_broker.broker.model.decision import Refused
from noetl_broker.broker.model.effects import ItemChildCancelled, ItemRetried, JobChanged
from noetl_broker.broker.model.event_types import ACTION_FAILED
from noetl_broker.broker.model.limits import ITEM_ERROR, shorten_error
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.state.state import RUNNING
from noetl_broker.broker.undo.draining import drain
from noetl_broker.broker.undo.rows import item_is_unsure
from noetl_broker.broker.work.children import start_child
from noetl_broker.broker.work.retries import retry_delay, wants_retry
from noetl_broker.broker.writing.errors import complete_error, template_fault
from noetl_broker.broker.writing.events import emit_action_retry
from noetl_broker.broker.writing.inputs import condition_scope, inputs_of_job
from noetl_broker.playbook.keywords import ERROR, words_of_item
from noetl_broker.template import NotLoaded, TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import Token
    from noetl_broker.playbook.model import Iteration, Step
    from noetl_broker.template import Scope


def refuse_answered(draft: Draft, iteration: Iteration, stands: ItemState, *, completed: bool) -> None:
    """Raise Refused for an event about an attempt whose failure was counted.

    The answer of an earlier child counts no more. A worker's late success does.
    """
    attempt = draft.event.attempt
    if iteration.task.call is not None:
        if 0 < attempt <= stands.failures:
            raise Refused("duplicate")
    elif not completed and 0 < attempt <= stands.failed_attempt:
        raise Refused("duplicate")


def is_retried(draft: Draft, step: Step, token: Token, index: int, stands: ItemState, error: dict[str, JSON]) -> bool:
    """Whether the item is tried again after this failure; then it is on its way. Only a task with `retry` is."""
    iteration = iteration_of(step)
    task, retry, failures = iteration.task, iteration.task.retry, stands.failures + 1
    if retry is None or not draft.event.retryable or failures >= retry.max_attempts:
        return False

    def scope_of(words: dict[str, JSON]) -> Scope:
        return _scope(draft, step, token, index, words)

    try:
        if not wants_retry(draft, retry, failures, error, scope_of):
            return False
    except TemplateError as fault:
        error["retry_error"] = template_fault(fault)
        return False
    delay = retry_delay(draft, retry, failures)
    emit_action_retry(draft, step, token.visit, error, (failures, retry.max_attempts, delay), index=index)
    failed_attempt = stands.failed_attempt if task.call is not None else max(draft.event.attempt, stands.failed_attempt)
    kept = shorten_error(error, ITEM_ERROR)
    unsure = stands.unsure or item_is_unsure(draft, step, stands)
    draft.add(ItemRetried(step.name, token.visit, index, failures, failed_attempt, unsure, kept))
    if task.call is not None and draft.event.kind == ACTION_FAILED:  # it timed out: the child may still run
        draft.add(ItemChildCancelled(step.name, token.visit, index))
    restart = "retry" if task.call is None else "delegated"
    change = JobChanged(step.name, token.visit, restart, delay, index, attempt=failed_attempt)
    draft.add(change)
    return True


def catch_item(
    draft: Draft, step: Step, token: Token, index: int, stands: ItemState, error: dict[str, JSON]
) -> tuple[int, JSON] | None:
    """The position of the entry of `catch` that the failed item fits, and its result; None if there is none.

    Raises TemplateError: errors of a `catch` are not caught.
    """
    iteration = iteration_of(step)
    if not iteration.catch:
        return None
    words = {ERROR: as_stored(complete_error(error, stands.failures + 1))}
    scope = _scope(draft, step, token, index, words)
    for position, entry in enumerate(iteration.catch):
        if entry.when is None or draft.templates.holds(entry.when, scope):
            return position, as_stored(draft.templates.render(entry.result, scope))
    return None


def restart_item(draft: Draft, step: Step, token: Token) -> None:
    """`child_due` of an item: start its child again; a paused execution keeps the index. Raises Refused.

    An item of a visit that is only draining ends: nothing of it is tried again.
    """
    index = draft.event.item_index or 0
    iteration = step.iteration
    stands: ItemState | None = draft.known.ask(_want(step, token, index))
    if step.waits_for != "items" or iteration is None or iteration.task.call is None or stands is None:
        raise Refused("not_open")
    waits = stands.status in OPEN_ITEMS and stands.failures > stands.failed_attempt
    if not waits or draft.event.attempt not in {0, stands.failures + 1} or index in token.again:
        raise Refused("duplicate")
    if token.draining:
        drain(draft, token)
        return
    if draft.state.status != RUNNING:
        draft.state.tokens[step.name, token.visit] = token._replace(due=True, again=(*token.again, index))
        return
    _start_again(draft, step, token, index, stands)


def restart_due_items(draft: Draft, step: Step, token: Token) -> Token:
    """Start the children of items that were due while the execution was paused."""
    for index in token.again:
        stands: ItemState | None = draft.known.ask(_want(step, token, index))
        if stands is not None and stands.status == "RUNNING" and stands.failures > stands.failed_attempt:
            _start_again(draft, step, token, index, stands)
    return token._replace(again=())


def _start_again(draft: Draft, step: Step, token: Token, index: int, stands: ItemState) -> None:
    request: dict[str, JSON] = as_stored(draft.known.ask(want_item_action(step.name, token.visit, index)))
    started = ItemRetried(step.name, token.visit, index, stands.failures, stands.failures, stands.unsure)
    draft.add(started)
    start_child(draft, token._replace(failures=stands.failures), request, (index, None))


def _scope(draft: Draft, step: Step, token: Token, index: int, words: dict[str, JSON]) -> Scope:
    """What conditions about a failed item find: its inputs, the element, and these words."""
    iteration, counts = iteration_of(step), token.items
    value, action = want_items(step.name, token.visit, index, 1), want_item_action(step.name, token.visit, index)
    try:
        item = draft.known.ask(value)[0]
    except NotLoaded as missing:
        wanted = {one for one in (value, action) if one not in draft.known.answers}
        raise NotLoaded(missing.wants | wanted) from None
    given = inputs_of_job(as_stored(draft.known.ask(action)))
    of_item = words_of_item(iteration.element, item, index, counts.total if counts else 0)
    return condition_scope(draft, given, None, {**of_item, **words})


def _want(step: Step, token: Token, index: int) -> tuple[str, str, int, int]:
    return ("item", step.name, token.visit, index)


def iteration_of(step: Step) -> Iteration:
    """What an iterator repeats."""
    if step.iteration is None:
        raise TypeError(f"step {step.name} does not iterate")
    return step.iteration
