"""A job as the function that runs it sees it, in a worker or in a simulation."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from noetl_broker.node_ids import visit_name

TEXTS = ("code", "command", "commands", "sql")  # an action has these as base64, with the suffix `_b64`


def _ignore_progress(_done: int, _total: int, _failed: int) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt of a visit of a step.

    `args` are the step's inputs, `action` is the whole action with decoded program text, `context` has the `workload`
    and more. `visit` and `attempt` count from 1, `item_index` (of an iterator's item) from 0. `path` is the playbook's.
    `cancelled` is set when the work shall stop: the job was cancelled, its time is over, or its lease is lost.
    `progress` takes what `report_progress` is told. `connection` is that of a task with `transaction=True`, None for
    others. A test gives one of its own.
    """

    step: str
    type: str
    args: Mapping[str, Any] = field(default_factory=dict)
    visit: int = 1
    attempt: int = 1
    item_index: int | None = None
    path: str = ""
    execution_id: int = 0
    action: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    progress: Callable[[int, int, int], None] = field(default=_ignore_progress, repr=False, compare=False)
    connection: Any = field(default=None, repr=False, compare=False)

    def report_progress(self, done: int, total: int, failed: int = 0) -> None:
        """Tell how far the work is, from any thread and as often as you like: it is sent every 2 s at most.

        `noetl-broker status` shows it. Raises ValueError for numbers that cannot be. In a simulation it does nothing.
        """
        self.progress(done, total, failed)

    @property
    def name(self) -> str:
        """The step with visit and index, as in stories: `fetch`, `fetch#2`, `fetch[7]`."""
        return visit_name(self.step, self.visit, self.item_index)


def readable(action: Mapping[str, Any]) -> dict[str, Any]:
    """The action with its program text decoded; text that is not base64 stays as it is."""
    plain = dict(action)
    for key in TEXTS:
        encoded = plain.pop(f"{key}_b64", None)
        if encoded is not None:
            plain[key] = _decoded(encoded)
    return plain


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, TypeError, ValueError):
        return value
