"""Retries: whether a failed action is tried again, and after which delay."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from noetl_broker.broker.flow.transitions import fail_visit
from noetl_broker.broker.model.effects import ItemsCancelled, JobChanged
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.undo.draining import drain_items
from noetl_broker.broker.undo.rows import note_failure, report_unknown
from noetl_broker.broker.writing.errors import describe_error, result_of_failure, template_fault
from noetl_broker.broker.writing.events import emit_action_retry
from noetl_broker.broker.writing.inputs import condition_scope, inputs_of_visit
from noetl_broker.broker.writing.queue import end_job
from noetl_broker.playbook.model import Retry
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import Token
    from noetl_broker.template import Scope


def process_failed_action(draft: Draft, token: Token, error: JSON) -> None:
    """A worker's attempt failed: its job is retried, or the step fails for good."""
    step = draft.playbook.steps[token.step]
    if token.items is not None:
        # children of an attempt that timed out may still run
        draft.add(ItemsCancelled(token.step, token.visit))
        drain_items(draft, step, token)
    if step.compensate is not None:
        token = note_failure(draft, step, token, error)
    token = token._replace(failed_attempt=max(draft.event.attempt, token.failed_attempt))
    retry_or_fail(draft, token, error, restart="retry")


def retry_or_fail(draft: Draft, token: Token, error: JSON, *, restart: str) -> None:
    """One attempt of a visit failed: `action_retry`, or the step fails for good and `on_error` decides.

    `restart` is the change of the job for another attempt: `retry` (a worker leases it) or `delegated` (the broker
    starts it).
    """
    step = draft.playbook.steps[token.step]
    failures = token.failures + 1
    token = token._replace(failures=failures)
    described = describe_error(step, error)
    retry = step.retry or Retry(max_attempts=draft.known.rules.default_max_attempts)

    def scope_of(words: dict[str, JSON]) -> Scope:
        return condition_scope(draft, inputs_of_visit(draft, step, token.visit), None, words)

    try:
        again = (
            draft.event.retryable
            and token.items is None  # an iterator is not restarted
            and failures < retry.max_attempts
            and wants_retry(draft, retry, failures, described, scope_of)
        )
    except TemplateError as fault:
        described["retry_error"] = template_fault(fault)
        again = False
    if again:
        draft.state.tokens[step.name, token.visit] = token
        delay = retry_delay(draft, retry, failures)
        emit_action_retry(draft, step, token.visit, described, (failures, retry.max_attempts, delay))
        change = JobChanged(step.name, token.visit, restart, delay, attempt=token.failed_attempt)
        draft.add(change)
        return
    end_job(draft, step, token.visit, "dead")
    if token.unsure:
        report_unknown(draft, token)
    fail_visit(draft, step, token, described, continues=step.on_error == "continue")


def retry_delay(draft: Draft, retry: Retry, failures: int) -> float:
    """The backoff: seconds until the next attempt after so many failures. Exponential, capped, jittered by half.

    The jitter comes from the turn, so that a replay decides the same.
    """
    try:
        delay = min(retry.initial_delay * retry.backoff_multiplier ** (failures - 1), retry.max_delay)
    except OverflowError:
        delay = retry.max_delay
    if retry.jitter:
        fraction = zlib.crc32(f"{draft.turn.execution_id}:{draft.turn.number}".encode()) / 0xFFFFFFFF
        delay = min(delay * (0.5 + fraction), retry.max_delay)
    return round(delay, 3)


def _type_of(error: dict[str, JSON]) -> str:
    """The `type` of the error as text for conditions; empty if there is none."""
    kind = error.get("type")
    if kind is None:
        return ""
    return kind if isinstance(kind, str) else json.dumps(kind, ensure_ascii=False)


def wants_retry(
    draft: Draft,
    retry: Retry,
    failures: int,
    error: dict[str, JSON],
    scope_of: Callable[[dict[str, JSON]], Scope],
) -> bool:
    """Whether `stop_when` (evaluated first) and `retry_when` allow another attempt.

    `scope_of` gives the scope of a condition with these words. Raises TemplateError.
    """
    words: dict[str, JSON] = {
        "error": error["message"],
        "error_type": _type_of(error),
        "status_code": error.get("status_code") or 0,
        "result": result_of_failure(draft.event),
        "attempt": failures,
    }
    if retry.stop_when is not None and draft.templates.holds(retry.stop_when, scope_of(words)):
        return False
    return retry.retry_when is None or draft.templates.holds(retry.retry_when, scope_of(words))
