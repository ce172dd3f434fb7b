"""Events: what the core reads, and what it writes.

The types of the hot path are named tuples, because frozen dataclasses cost five times as much to make. The core knows
no database ids. A visit is a step and a number. An earlier event is the number of the turn that read it. A time is the
position of an event in its turn.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from noetl_broker.broker.model.event_types import ALIASES, canonical_event_type
from noetl_broker.broker.model.values import JSON


class Turn(NamedTuple):
    """The only time and the only source of ids of a decision; `number` counts from 1 in an execution."""

    execution_id: int
    number: int
    at: datetime


class Event(NamedTuple):
    """An event that the broker reads.

    `type` is as the sender wrote it. `result` is NOT_LOADED if it was left in the database. `attempt` is the lease that
    the event names (0: none). `settled`: the sender has changed the job's row already. `broken`: the context or the
    result is not JSON.
    """

    type: str
    step: str | None = None
    visit: int | None = None
    result: JSON = None
    error: JSON = None
    context: JSON = None
    attempt: int = 0
    retryable: bool = True
    settled: bool = True
    broken: bool = False
    meta: JSON = None
    item_index: int | None = None  # of an item of an iterator, from 0
    stale: bool = False  # it names another lease than the job has, and was not sent through the job
    bytes_over: int = 0  # the bytes of a result that is larger than MAX_RESULT_BYTES
    oversize: str = ""  # the part that was too large to be read, and its bytes: `context 50000012`
    path_paused: bool = False  # of a start: new executions of the playbook are queued
    undo: bool = False  # its node_id ends in `!undo`: it is about the undo of the visit or item, not about the visit
    slots: JSON = None  # what the turn was told about the slots that it wants: recorded facts

    @property
    def kind(self) -> str:
        """The event type under the name that the core uses."""
        return ALIASES.get(self.type) or canonical_event_type(self.type)


class Emitted(NamedTuple):
    """An event that the broker writes; `step` is None if it is about the execution."""

    type: str
    status: str
    step: str | None = None
    visit: int = 0
    node_type: str = "playbook"
    meta: dict[str, JSON] | None = None
    result: JSON = None
    error: JSON = None
    context: dict[str, JSON] | None = None
