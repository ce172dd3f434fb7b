"""The one entry for an event: which rule reacts to it, or why nothing does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.adoptions import adopt_child, child_of, complete_action
from noetl_broker.broker.children import start_child_again
from noetl_broker.broker.failure import cancel_execution, error_of, pass_deadline
from noetl_broker.broker.initial import dispatch_first_step
from noetl_broker.broker.iterators import (
    check_iterator_completions,
    complete_iterator,
    continue_iterator,
    runs_items,
)
from noetl_broker.broker.model import (
    ACTION_COMPLETED,
    ACTION_FAILED,
    CHILD_DUE,
    EXECUTION_CANCEL,
    EXECUTION_DEADLINE,
    EXECUTION_START,
    ITEM_COMPLETED,
    ITEM_FAILED,
    ITERATION_DUE,
    ITERATION_STARTED,
    ITERATOR_COMPLETED,
    Event,
)
from noetl_broker.broker.retries import process_failed_action
from noetl_broker.broker.state import NEW, RUNNING, ExecutionState, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.model import Rules
    from noetl_broker.playbook.model import Playbook, Step

# Known types that are facts for readers of the log and ask for no decision.
RECORDED = frozenset({
    "action_started", "step_result", "step_started", "step_completed", "step_failed", "action_retry",
    "iterator_started", "iteration_completed", "iteration_failed",
    "execution_cancelled",
    "error",  # a NoETL server's own note beside an `action_error`
})  # fmt: skip


OF_ITEMS = frozenset({ITEM_COMPLETED, ITEM_FAILED, ITERATION_DUE, ITERATOR_COMPLETED})


def _token(draft: Draft) -> Token:
    return draft.tokens[draft.event.step or "", draft.event.visit or 1]


def _completed(draft: Draft) -> None:
    event, token = draft.event, _token(draft)
    if event.place is not None:
        check_iterator_completions(draft, token)
    elif event.broken or event.bytes_over:
        process_failed_action(draft, token, error_of(event))
    else:
        if isinstance(event.meta, dict) and "child_execution_id" not in event.meta:
            _give_up_child(draft, token)
        complete_action(draft, token)


def _give_up_child(draft: Draft, token: Token) -> None:
    """Somebody answered in place of the child: it is not waited for, and runs for nobody."""
    if draft.playbook.steps[token.step].kind == "playbook":
        draft.abandoned.append((token.step, token.visit))


def _failed(draft: Draft) -> None:
    event, token = draft.event, _token(draft)
    if event.place is not None:
        check_iterator_completions(draft, token)
    else:
        process_failed_action(draft, token, error_of(event))


REACTIONS: dict[str, Callable[[Draft], None]] = {
    EXECUTION_START: dispatch_first_step,
    ACTION_COMPLETED: _completed,
    ACTION_FAILED: _failed,
    ITEM_COMPLETED: lambda draft: check_iterator_completions(draft, _token(draft)),
    ITEM_FAILED: lambda draft: check_iterator_completions(draft, _token(draft)),
    ITERATION_DUE: lambda draft: continue_iterator(draft, _token(draft)),
    ITERATOR_COMPLETED: lambda draft: complete_iterator(draft, _token(draft)),
    ITERATION_STARTED: lambda draft: adopt_child(draft, _token(draft)),
    CHILD_DUE: lambda draft: start_child_again(draft, _token(draft)),
    EXECUTION_CANCEL: cancel_execution,
    EXECUTION_DEADLINE: pass_deadline,
}


def route_event(draft: Draft) -> None:
    """Let the rule for this event write its decision."""
    REACTIONS[draft.event.kind](draft)


def refusal(playbook: Playbook, state: ExecutionState, event: Event, rules: Rules) -> str | None:
    """Why the event changes nothing, as recorded in its turn; None when a rule reacts.

    This is what makes duplicates, latecomers and strangers harmless: they are accounted for, and that is all.
    """
    kind = event.kind
    if kind == ITERATION_STARTED and child_of(event) is None:
        return "recorded"
    if kind not in REACTIONS:
        return "recorded" if kind in RECORDED else "unknown_type"
    if state.status != RUNNING or kind == EXECUTION_START:
        return _status_refusal(state, kind)
    if kind == EXECUTION_DEADLINE:
        return None if playbook.deadline is not None else "recorded"
    if kind == EXECUTION_CANCEL:
        return None
    reason = _visit_refusal(playbook, state, event, kind)
    left = reason is None and kind == ACTION_FAILED and _is_left_to_worker(playbook, event, rules)
    return "recorded" if left else reason


def _is_left_to_worker(playbook: Playbook, event: Event, rules: Rules) -> bool:
    """An error that comes beside the job: the worker says in the job's row whether it tries again, and that decides.

    What comes through the job (a lost lease, a timeout, the end that its row tells) is for the broker, and so is what a
    child answers.
    """
    if rules.retry_owner != "worker" or event.settled:
        return False
    of_child = isinstance(event.meta, dict) and "child_execution_id" in event.meta
    return not of_child and playbook.steps[event.step or ""].kind != "playbook"


def _status_refusal(state: ExecutionState, kind: str) -> str | None:
    """An execution starts once, and nothing happens before its start or after its end."""
    if state.status == NEW:
        return None if kind == EXECUTION_START else "unknown_execution"
    return "duplicate" if kind == EXECUTION_START else "after_end"


def _visit_refusal(playbook: Playbook, state: ExecutionState, event: Event, kind: str) -> str | None:
    step = playbook.steps.get(event.step or "")
    if step is None:
        return "recorded" if kind in OF_ITEMS else "unknown_step"
    token = state.tokens.get((step.name, event.visit or 1))
    if token is None:
        visits = state.repeats.get(step.name, 1) if state.seen >> step.index & 1 else 0
        return "duplicate" if (event.visit or 1) <= visits else "not_open"
    if kind == ITERATION_STARTED:
        return "recorded" if runs_items(step) or step.kind == "playbook" else None
    if kind in OF_ITEMS or event.place is not None:
        of_one = kind not in {ITERATION_DUE, ITERATOR_COMPLETED}
        if token.items is None or of_one != (event.place is not None):
            return "recorded"
        return "stale" if event.stale else None
    return _action_refusal(step, token, event, kind)


def _action_refusal(step: Step, token: Token, event: Event, kind: str) -> str | None:
    if runs_items(step) and kind == ACTION_COMPLETED:
        return "recorded"  # no worker has it; its items complete it
    if kind == CHILD_DUE or step.kind == "playbook":
        return _child_refusal(step, token, event)
    if event.stale:
        return "stale"
    fails = kind == ACTION_FAILED
    once = fails and 0 < event.attempt <= token.failed_attempt
    # After the worker's answer only what the broker finds can fail the visit: that its children's results are too many.
    return "duplicate" if once or (token.answered and not (fails and event.settled)) else None


def _child_refusal(step: Step, token: Token, event: Event) -> str | None:
    """An answer of a child that was given up counts no more, however it ended; while none runs, there is none."""
    rests = token.failures > token.failed_attempt
    if event.kind == CHILD_DUE:
        if step.kind != "playbook" or not token.failures:
            return "not_open"
        return None if rests and event.attempt in {0, token.failures + 1} else "duplicate"
    if event.stale:
        return "stale"
    return "duplicate" if rests or 0 < event.attempt <= token.failures else None
