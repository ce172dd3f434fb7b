"""What can go wrong with one job, as the error that its step will carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from noetl_broker.errors import JobFailed

MESSAGE_CHARACTERS = 4_000
TRACEBACK_CHARACTERS = 4_000


class ToolFault(JobFailed):
    """A tool could not do what the step asked.

    `kind` is the `type` of the error (an exception's class name, or one of ours in snake case); `retryable` false means
    that the same job can never succeed; `details` are further JSON keys (`status_code`, `traceback`, `response`).
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A job that failed: `error` is the JSON mapping for `fail_job` ({message, type, ...}), bounded in size."""

    error: dict[str, Any]
    retryable: bool = True


def failure_of(fault: ToolFault) -> Failure:
    """Bound a fault's texts and put it into the form that `fail_job` takes."""
    details = {key: value for key, value in fault.details.items() if value is not None}
    if "traceback" in details:
        details["traceback"] = str(details["traceback"])[-TRACEBACK_CHARACTERS:]
    error = {"message": storable(shortened(fault.message)), "type": fault.kind, **details}
    return Failure(error={key: storable(value) for key, value in error.items()}, retryable=fault.retryable)


def shortened(text: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """Cut a text at `limit` characters, saying so."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def storable(value: Any) -> Any:
    """Replace in a text what jsonb cannot hold: NUL and lone surrogates."""
    if not isinstance(value, str):
        return value
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
