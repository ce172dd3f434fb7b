"""The input of a tool: one job with rendered templates, and what all jobs of the worker share."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from noetl_broker.store.worker.jobs import LeasedJob
from noetl_broker.template.durations import DURATION_FORMS, parse_duration
from noetl_broker.worker.errors import FinalFault, ToolFault
from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.job_log import JobLog
from noetl_broker.worker.job_progress import JobProgress
from noetl_broker.worker.redaction import Redactor
from noetl_broker.worker.sql.bounded_connection import BoundedConnection
from noetl_broker.worker.sql.job_transaction import JobTransaction
from noetl_broker.worker.tools.http_connections import HttpConnections
from noetl_broker.worker.tools.python_processes import Interpreters

RESULT_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResources:
    """Resources that a worker's jobs share: its `dsn` (None: PG* variables), environment, interpreters, connections.

    `redactor` knows the secrets, also the secrets in `unseen`: the variables that no job is given. `tools` by type
    replace the built-in ones; None: the built-in ones.
    """

    dsn: str | None = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    interpreters: Interpreters
    sql_connections: IdleConnections[BoundedConnection]
    http_connections: HttpConnections
    tools: Mapping[str, Tool] | None = None
    unseen: Mapping[str, str] = field(default_factory=dict, repr=False)
    redactor: Redactor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the redactor."""
        object.__setattr__(self, "redactor", Redactor({**self.unseen, **self.environment}, self.dsn))

    async def close_connections(self) -> None:
        """Close the connections that wait for a next job; the others are closed at the end of theirs."""
        self.sql_connections.close()
        self.http_connections.idle.close()
        await asyncio.sleep(0)  # the loop closes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One job with rendered templates: `action` and `context` as in the queue, and `args`, its inputs.

    `job` is its leased row. `log` takes what the tool prints, `progress` how far it is. `transaction` is that of the
    attempt, None outside a worker.
    """

    name: str
    type: str
    action: Mapping[str, Any]
    args: Mapping[str, Any]
    context: Mapping[str, Any]
    shared: WorkerResources
    job: LeasedJob
    log: JobLog
    progress: JobProgress
    transaction: JobTransaction | None = field(default=None, repr=False)

    def first(self, *keys: str) -> Any:
        """The value of the first of these keys of the action that is not null."""
        return next((self.action[key] for key in keys if self.action.get(key) is not None), None)

    def own_transaction(self) -> JobTransaction:
        """The transaction that commits with the completion. Raises ToolFault where there is none."""
        if self.transaction is None:
            raise self.fault("there is no broker whose transaction it could be in", kind="bad_job")
        return self.transaction

    def fault(self, message: str, *, kind: str, retryable: bool = False, **details: Any) -> ToolFault:
        """A fault of this step; by default no retry can mend it."""
        return ToolFault(f"step '{self.name}': {message}", kind=kind, retryable=retryable, **details)


Tool = Callable[[Task], Awaitable[Any]]


def decoded(text: Any, key: str) -> str:
    """Decode the base64 of a `*_b64` key, which may have line breaks. Raises ToolFault when it is none."""
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, AttributeError, TypeError, ValueError):
        raise FinalFault(f"{key} is not base64 of UTF-8 text", kind="bad_job") from None


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """A mapping, empty for null. Raises ToolFault, naming `what`, for any other type."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise FinalFault(f"{what} must be a mapping, not {type(value).__name__}", kind="bad_value")


def as_text(value: Any) -> str:
    """A value as text: text as it is, null as nothing, any other value as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def seconds(value: Any, what: str) -> float:
    """A duration in seconds, at least 0. Raises ToolFault, naming `what`."""
    try:
        return parse_duration(value)
    except ValueError:
        message = f"{what} must be {DURATION_FORMS}, not {value!r:.80}"
        raise FinalFault(message, kind="bad_value") from None
