"""What a tool gets to work with: one job made ready, and what the worker lends it."""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from noetl_broker.store.jobs import LeasedJob
from noetl_broker.worker.faults import ToolFault
from noetl_broker.worker.redaction import Redactor
from noetl_broker.worker.tools.interpreters import Interpreters

RESULT_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """What all jobs of a worker share: its `dsn` (None: PG* variables), environment, interpreters, TLS.

    `redactor` knows the secrets among them. `tools` are by type those that a worker has in place of the built-in ones
    (None: it has these).
    """

    dsn: str | None = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    interpreters: Interpreters
    tls: ssl.SSLContext
    tools: Mapping[str, Tool] | None = None
    redactor: Redactor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Learn the secrets."""
        object.__setattr__(self, "redactor", Redactor(self.environment, self.dsn))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One job with its templates finished: `action` as in the queue, `args` its inputs, `context` as in the queue.

    `job` is its row as it was leased; `outputs` is what the tool printed, by stream, without secrets.
    """

    name: str
    type: str
    action: Mapping[str, Any]
    args: Mapping[str, Any]
    context: Mapping[str, Any]
    lent: Lent
    job: LeasedJob
    outputs: dict[str, str] = field(default_factory=dict)

    def first(self, *keys: str) -> Any:
        """Give the value of the first of these keys of the action that is there and not null."""
        return next((self.action[key] for key in keys if self.action.get(key) is not None), None)

    def fault(self, message: str, *, kind: str, retryable: bool = False, **details: Any) -> ToolFault:
        """Say what is wrong with this step, by default for good."""
        return ToolFault(f"step '{self.name}': {message}", kind=kind, retryable=retryable, **details)


Tool = Callable[[Task], Awaitable[Any]]


def decoded(text: Any, key: str) -> str:
    """Undo the base64 of a `*_b64` key, whatever lines it is broken into; raises ToolFault when it is none."""
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, AttributeError, TypeError, ValueError):
        raise ToolFault(f"{key} is not base64 of UTF-8 text", kind="bad_job", retryable=False) from None


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """Give a mapping, an empty one for null; raises ToolFault naming `what` and the type for all else."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise ToolFault(f"{what} must be a mapping, not {type(value).__name__}", kind="bad_value", retryable=False)


def as_text(value: Any) -> str:
    """Write one value where text is wanted: text as it is, all else as JSON (true, 1, null as nothing)."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def seconds(value: Any, what: str) -> float:
    """Read a duration in seconds, at least 0; raises ToolFault naming `what`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < float("inf"):
        raise ToolFault(f"{what} must be a number of seconds, not {value!r}", kind="bad_value", retryable=False)
    return number
