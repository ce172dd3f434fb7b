"""What the tables say of an execution beside its history: jobs, mail, children, and who is there to do the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from noetl_broker.broker.model import JSON

Node = tuple[str, int, int | None]  # a step, its visit from 1, and the place of an item from 0


class Cause(NamedTuple):
    """The event that a turn read: its id and type, when it was written, and by which worker."""

    event_id: int
    type: str
    at: datetime
    worker: str | None = None


class JobFact(NamedTuple):
    """Where a job stands; as the columns of noetl.queue."""

    type: str
    status: str
    attempts: int
    max_attempts: int
    lost_leases: int
    available_at: datetime | None  # None: never by itself
    created_at: datetime
    priority: int = 5
    lease_until: datetime | None = None
    worker: str | None = None
    last_heartbeat: datetime | None = None
    first_leased_at: datetime | None = None
    timeout: float | None = None
    said: str | None = None  # a NoETL server's word about its end, since `said_at`, as long as its event is waited for
    said_at: datetime | None = None
    foreign_lease: bool = False  # a NoETL server gave the lease, whose workers send no heartbeats


class Letter(NamedTuple):
    """An event that no turn has read; `reason`: it was set aside, and why."""

    event_id: int
    type: str
    node: Node | None
    at: datetime
    reason: str | None = None


class ChildFact(NamedTuple):
    """A running child of a visit, or of an item of it, and the steps that live in it."""

    execution_id: int
    path: str
    node: Node
    started_at: datetime
    steps: tuple[str, ...]


class TypeFact(NamedTuple):
    """Who works for a type of jobs: how many wait now, how many are leased, and when the last one was seen."""

    waiting: int
    leased: int
    last_seen: datetime | None


class ForkFact(NamedTuple):
    """An execution that took over results of this one; `retry`: it brings a failed one back."""

    execution_id: int
    status: str
    retry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One look at the tables. `read_at` is the database's clock at that moment; `brokers` counts those connected."""

    execution_id: int
    path: str | None
    version: int | None
    status: str
    started_at: datetime
    ended_at: datetime | None
    read_at: datetime
    result: JSON = None
    error: JSON = None
    parent: int | None = None
    forked_from: int | None = None
    brokers: int = 0
    causes: Mapping[int, Cause] = field(default_factory=dict)  # by turn
    jobs: Mapping[Node, JobFact] = field(default_factory=dict)
    unread: tuple[Letter, ...] = ()
    set_aside: tuple[Letter, ...] = ()
    children: tuple[ChildFact, ...] = ()
    types: Mapping[str, TypeFact] = field(default_factory=dict)
    forks: tuple[ForkFact, ...] = ()
