"""Facts from the tables about an execution beside its history: jobs, unread events, children, workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from noetl_broker.broker.model.values import JSON, Visit
from noetl_broker.explain.error_text import attempt_text
from noetl_broker.explain.progress import FailedItem, Progress
from noetl_broker.history.record import Node
from noetl_broker.playbook.keywords import DEFAULT_POOL


class Cause(NamedTuple):
    """The event that a turn read: its id and type, when it was written, and by which worker."""

    event_id: int
    type: str
    at: datetime
    worker: str | None = None


class JobFact(NamedTuple):
    """A job, as the columns of noetl.queue."""

    type: str
    status: str
    attempts: int
    max_attempts: int
    lost_leases: int
    available_at: datetime | None  # None: not without another event
    created_at: datetime
    priority: int = 5
    lease_until: datetime | None = None
    worker: str | None = None
    last_heartbeat: datetime | None = None
    first_leased_at: datetime | None = None
    timeout: float | None = None
    server_status: str | None = None  # set by a NoETL server whose event is missing
    server_status_at: datetime | None = None
    foreign_lease: bool = False  # given by a NoETL server, whose workers send no heartbeats
    start_by: datetime | None = None  # when it fails, if no worker leases it
    throttle: ThrottleFact | None = None  # of a job that waits for a slot, or for the moment that its rate allows
    pool: str = DEFAULT_POOL


class ThrottleFact(NamedTuple):
    """The throttle of a job that waits, and how many jobs of its key are `leased`, `ready`, or before it.

    `holders`: the executions of some that are leased.
    """

    name: str
    key: str
    concurrency: int | None
    rate: float | None  # a second
    leased: int
    ready: int
    before: int
    paused: bool  # its execution is paused too
    holders: Sequence[int] = ()


class WaitFact(NamedTuple):
    """An open wait, as the columns of noetl.wait; `kind` is timer, signal or approval.

    `due_at` is the moment of its timer: its end, or its timeout. `to_execution` counts signals of its names that were
    sent to the execution, while the wait has another key. `too_old` is about the last signal of its names and key that
    `since` leaves out: how many seconds before the start it was sent.
    """

    kind: str
    since: datetime
    due_at: datetime | None = None
    names: tuple[str, ...] = ()
    key: str | None = None
    title: str = ""
    approvers: tuple[str, ...] = ()
    to_execution: int = 0
    too_old: float | None = None


class UnreadEvent(NamedTuple):
    """An event that no turn has read; `reason` is why it is in the dead letters, None if it is not."""

    event_id: int
    type: str
    node: Node | None
    at: datetime
    reason: str | None = None


class ChildFact(NamedTuple):
    """A running child of a visit or of an item, and its open steps."""

    execution_id: int
    path: str
    node: Node
    started_at: datetime
    steps: tuple[str, ...]


class JobTypeFact(NamedTuple):
    """The jobs of one type and pool: how many wait, how many are leased, and when a worker was last seen."""

    waiting: int
    leased: int
    last_seen: datetime | None
    unserved: str | None = None  # the sentence, if no worker serves them


class ForkFact(NamedTuple):
    """An execution that was forked from this one; `retry`: by `retry`, to continue a failed one."""

    execution_id: int
    status: str
    retry: bool


class ScheduleFact(NamedTuple):
    """The schedule that started the execution, and the moment that it started it for."""

    name: str
    at: str


class SignalFact(NamedTuple):
    """The signal that started the execution, as `metadata.on_signal` says; `at`: when it was sent."""

    name: str
    key: str
    at: str


class SlotFact(NamedTuple):
    """A slot that the execution holds or waits for; `before` counts the executions before it (None: it holds it)."""

    path: str
    key: str
    label: str
    number: int
    held_at: datetime | None
    since: datetime
    max_held: int
    before: int | None
    waiting: int
    holders: Sequence[int]


class AlarmFact(NamedTuple):
    """The execution that `metadata.on_failure` started because this one failed."""

    execution_id: int
    path: str
    status: str
    version: int | None  # None: the path is not registered


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The tables at one moment: `read_at` by the database's clock. `brokers` counts connected brokers.

    `deadline` is the moment at which `metadata.deadline` fails the execution.
    """

    execution_id: int
    path: str | None
    version: int | None
    status: str
    started_at: datetime
    ended_at: datetime | None
    read_at: datetime
    erased_at: datetime | None = None
    deadline: datetime | None = None
    result: JSON = None
    error: JSON = None
    parent: int | None = None
    forked_from: int | None = None
    schedule: ScheduleFact | None = None
    signal: SignalFact | None = None
    slots: tuple[SlotFact, ...] = ()
    failed_before: int | None = None  # the execution whose failure started this one
    late_before: int | None = None  # the execution whose lateness started this one
    alarm: AlarmFact | None = None
    brokers: int = 0
    other_schema: str | None = None  # the name of the schema, if it is not noetl
    causes: Mapping[int, Cause] = field(default_factory=dict)  # by turn
    jobs: Mapping[Node, JobFact] = field(default_factory=dict)
    waits: Mapping[Node, WaitFact] = field(default_factory=dict)
    unread: tuple[UnreadEvent, ...] = ()
    dead_letters: tuple[UnreadEvent, ...] = ()
    children: tuple[ChildFact, ...] = ()
    types: Mapping[tuple[str, str], JobTypeFact] = field(default_factory=dict)  # by type and pool
    forks: tuple[ForkFact, ...] = ()
    undo: Mapping[str, JSON] | None = None  # counts, left and executions, as `store.undo.load_undo` gives them
    iterators: Mapping[Visit, Progress] = field(default_factory=dict)
    failed_items: Mapping[Visit, tuple[FailedItem, ...]] = field(default_factory=dict)  # the first of each visit

    def attempt_of(self, visit: Visit) -> str:
        """The latest attempt of a visit as text; empty where it has no job. Lost leases are no attempts."""
        job = self.jobs.get((*visit, None))
        return "" if job is None else attempt_text(job.attempts - job.lost_leases, job.max_attempts)
