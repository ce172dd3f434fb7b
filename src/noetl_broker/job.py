"""A job as a function that does it sees it: in a worker, and in a simulation that has no worker."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXTS = ("code", "command", "commands", "sql")  # which stand in an action as base64, under their name and `_b64`


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt of a visit of a step.

    `args` are the step's inputs, `action` all that the job says (program text decoded), `context` what it may know
    beside them (`workload` among it). `visit` and `attempt` count from 1, `place` (of an iterator's item) from 0.
    `path` is the playbook's.
    """

    step: str
    type: str
    args: Mapping[str, Any] = field(default_factory=dict)
    visit: int = 1
    attempt: int = 1
    place: int | None = None
    path: str = ""
    execution_id: int = 0
    action: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The step with its visit and its place, as stories write it: `fetch`, `fetch#2`, `fetch[7]`."""
        visit = "" if self.visit == 1 else f"#{self.visit}"
        return f"{self.step}{visit}" + ("" if self.place is None else f"[{self.place}]")


def readable(action: Mapping[str, Any]) -> dict[str, Any]:
    """The action with its program text under its own name, no longer as base64; what is none stays as it is."""
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
