"""Retry is the broker's: whether a failed action is tried again, and when (spec section 4)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from noetl_broker.broker.events import emit_action_retry
from noetl_broker.broker.failure import fail_step, result_beside
from noetl_broker.broker.inputs import asked_about, given_to
from noetl_broker.broker.model import JSON
from noetl_broker.broker.queue import change_job, retry_delay
from noetl_broker.broker.transitions import pass_on
from noetl_broker.broker.unfinished import insist_on_values, unfinished_of
from noetl_broker.playbook.model import Retry
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.state import Token
    from noetl_broker.playbook.model import Step
    from noetl_broker.template import Template


def process_failed_action(draft: Draft, token: Token, error: JSON) -> None:
    """One attempt of a visit failed: `action_retry`, or the step fails for good and `on_error` decides."""
    step = draft.playbook.steps[token.step]
    if step.kind == "playbook" or token.items is not None:
        draft.abandoned.append((step.name, token.visit))  # children of an attempt that took too long may still run
    failures = token.failures + 1
    attempt = 0 if step.kind == "playbook" else draft.event.attempt
    token = token._replace(failures=failures, failed_attempt=max(attempt, token.failed_attempt))
    described = describe_error(step, error)
    retry = step.retry or Retry(max_attempts=draft.known.rules.default_max_attempts)
    try:
        again = (
            draft.event.retryable
            and token.items is None  # an iterator is not begun again
            and failures < retry.max_attempts
            and _wanted(draft, step, token, retry, described)
        )
    except TemplateError as fault:
        described["retry_error"] = {"message": fault.message, "template": fault.template, "at": fault.at}
        again = False
    if again:
        draft.tokens[step.name, token.visit] = token
        delay = retry_delay(draft, retry, failures)
        emit_action_retry(draft, step, token.visit, described, failures, retry.max_attempts, delay)
        change_job(draft, step, token.visit, "delegated" if step.kind == "playbook" else "retry", delay)
        return
    change_job(draft, step, token.visit, "dead")
    if step.on_error == "continue":
        pass_on(draft, step, token, described)
        return
    del draft.tokens[step.name, token.visit]
    fail_step(draft, step, token, described)


def describe_error(step: Step, error: JSON) -> dict[str, JSON]:
    """The error as a mapping with at least the step that failed and a message, which is text.

    What its sender calls the step, if otherwise, stands under `reported_step`; a message that is no text is its JSON.
    """
    told = error if isinstance(error, dict) else {"message": error}
    described: dict[str, JSON] = {"step": step.name, **{key: value for key, value in told.items() if key != "step"}}
    if told.get("step") not in (None, step.name):
        described.setdefault("reported_step", told["step"])
    message = told.get("message")
    if message is None or message == "":
        message = "the action failed"
    described["message"] = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    return described


def _type_of(error: dict[str, JSON]) -> str:
    """The `type` of the error as a text, so that a condition may compare it and search it; empty where it has none."""
    kind = error.get("type")
    if kind is None:
        return ""
    return kind if isinstance(kind, str) else json.dumps(kind, ensure_ascii=False)


def _wanted(draft: Draft, step: Step, token: Token, retry: Retry, error: dict[str, JSON]) -> bool:
    """What `stop_when` (read first) and `retry_when` say."""
    words: dict[str, JSON] = {
        "error": error["message"],
        "error_type": _type_of(error),
        "status_code": error.get("status_code") or 0,
        "result": result_beside(draft.event),
        "attempt": token.failures,
    }
    given = given_to(draft, step, token.visit)
    insist_on_values(unfinished_of(draft, given, words, asked=True), retry.stop_when, retry.retry_when)

    def holds(template: Template) -> bool:
        return draft.holds(template, asked_about(draft, given, None, words))

    if retry.stop_when is not None and holds(retry.stop_when):
        return False
    return retry.retry_when is None or holds(retry.retry_when)
