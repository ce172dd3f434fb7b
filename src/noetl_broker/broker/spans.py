"""What a trace is made of: one trace for an execution and all below it, a span for each of them, each visit, each try.

Ids are made from names that everybody knows: so a worker in any language can continue the trace, two brokers that tell
of the same visit tell the same, and nothing is stored. `noetl.traceparent` makes the same in SQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

LONGEST_REASON = 200  # characters of an error in a span: traces are read by more people than payloads


class Span(NamedTuple):
    """Something that began and ended; ids are hexadecimal, `failed` is why, where it did.

    `remote`: its parent was told by another program.
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


Emit = Callable[[Sequence[Span]], None]  # gives spans away; must not wait


def trace_id_of(root_execution_id: int) -> str:
    """The trace of an execution that has no parent, and of all that it started."""
    return hashlib.sha256(f"trace:{root_execution_id}".encode()).hexdigest()[:32]


def span_id_of(node: str | int) -> str:
    """The span of an execution (its id), of a visit or an item (its node id), of an attempt (`<node id>@<attempt>`)."""
    return hashlib.sha256(f"span:{node}".encode()).hexdigest()[:16]


def reason_of(error: object) -> str:
    """Why something failed, in few words, of an error as jobs and executions have it."""
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or "no reason was given")[:LONGEST_REASON]
