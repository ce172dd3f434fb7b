"""Spans: one trace for an execution and its children, with a span for each execution, visit and attempt.

Ids are hashes of public names. So nothing is stored, and any worker can continue the trace. Two brokers that send the
same span give it the same id. `noetl.traceparent` computes them in SQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

MAX_REASON_CHARS = 200  # of an error in a span: more people read traces than payloads


class Span(NamedTuple):
    """A span that has ended. Ids are hexadecimal. `failed`: why it failed, None if it did not.

    `remote`: another program sends its parent.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    began_at: datetime
    ended_at: datetime
    attributes: Mapping[str, str | int]
    failed: str | None = None
    remote: bool = False


Emit = Callable[[Sequence[Span]], None]  # takes spans; must not block


def trace_id_of(root_execution_id: int) -> str:
    """The trace of an execution without a parent, and of all its children."""
    return hashlib.sha256(f"trace:{root_execution_id}".encode()).hexdigest()[:32]


def span_id_of(node: str | int) -> str:
    """The span of an execution (its id), a visit or an item (its node id), or an attempt (`<node id>@<attempt>`)."""
    return hashlib.sha256(f"span:{node}".encode()).hexdigest()[:16]


def reason_of(error: object) -> str:
    """The message of an error of a job or an execution, cut."""
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or "no reason was given")[:MAX_REASON_CHARS]
