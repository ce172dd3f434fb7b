"""Faults of one job, and the error that its step carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from noetl_broker.errors import JobFailed

MESSAGE_CHARACTERS = 4_000
TRACEBACK_CHARACTERS = 4_000


class ToolFault(JobFailed):
    """A tool could not do its work.

    `kind` is the `type` of the error: an exception's class name, or a name in snake case. `retryable` is false when
    the same job can never succeed. `details` are more JSON keys, such as `status_code`, `traceback`, `response`.
    """


class FinalFault(ToolFault):
    """A fault of a job that no retry can mend."""

    def __init__(self, message: str, *, kind: str, **details: Any) -> None:
        super().__init__(message, kind=kind, retryable=False, **details)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed job. `error` is the JSON mapping for `fail_job` ({message, type, …}), bounded in size."""

    error: dict[str, Any]
    retryable: bool = True


def failure_of(fault: ToolFault) -> Failure:
    """The failure of a fault, with its texts cut."""
    details = {key: value for key, value in fault.details.items() if value is not None}
    if "traceback" in details:
        details["traceback"] = str(details["traceback"])[-TRACEBACK_CHARACTERS:]
    error = {"message": storable(shortened(fault.message)), "type": fault.kind, **details}
    return Failure(error={key: storable(value) for key, value in error.items()}, retryable=fault.retryable)


def shortened(text: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """A text of at most `limit` characters, and its length when it was cut."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def storable(value: Any) -> Any:
    """Replace the characters of a text that jsonb cannot hold: NUL and lone surrogates."""
    if not isinstance(value, str):
        return value
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
