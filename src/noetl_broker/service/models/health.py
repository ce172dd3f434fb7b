"""What is asked about workers, dead letters, tokens and the installation, and what the answers have."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from noetl_broker.service.models.actions import Which
from noetl_broker.service.models.base import UNANSWERED, Given, Paged, PageOfPaths, Role, Text
from noetl_broker.service.models.values import ErrorType, GivenId, Hidden, Id, Moment, Payload, Recorded


class ListLeases(Paged):
    """Which leases a list has."""

    worker_id: Text | None = None


class ListDeadLetters(PageOfPaths):
    """Which dead letters a list has."""

    reason: Text | None = Field(None, description="a part of it")


class OverviewRequest(Given):
    """The span of the activity; without a known one, one is chosen."""

    span: str = Field("", max_length=8)


class PositionsRequest(Given):
    """Some executions."""

    execution_ids: list[GivenId]


class Failures(BaseModel):
    """Failures of one kind."""

    path: str | None
    step: str
    type: ErrorType
    count: int
    last_seconds: float


class WorkerView(BaseModel):
    """A worker that announced itself within a minute, or that holds leases."""

    worker_id: Hidden
    host: Hidden
    version: str | None
    pools: list[str] = Field(description="whose jobs it leases; of a worker that did not announce itself, has leased")
    slots: int | None = Field(description="how many jobs it runs at a time")
    since: Moment | None = Field(description="when it announced itself first; null: it did not")
    seen: Moment | None = Field(description="when it announced itself last")
    leases: int
    expired: int = Field(description="leases that ended; a broker gives their jobs to others")
    next_lease_until: Moment | None
    last_heartbeat: Moment | None
    types: list[str] | None = Field(description="null: all")


class Workers(BaseModel):
    """All of them."""

    items: list[WorkerView]
    next: None = None
    unanswered: list[str] = UNANSWERED


class LeaseView(BaseModel):
    """A job that a worker has."""

    queue_id: Id
    execution_id: Id
    node_id: str
    step: str
    type: str
    attempts: int
    worker_id: Hidden
    lease_until: Moment
    last_heartbeat: Moment | None


class SearchDeadLetters(Given):
    """Which dead letters a search finds, the oldest first."""

    which: Which
    limit: int = Field(100, ge=1, le=1_000_000, description="how many at most")


class DeadLetter(BaseModel):
    """An event on which deciding failed, with its execution."""

    execution_id: Id
    path: str | None
    version: int | None
    status: str | None
    event_id: Id
    event_type: str | None
    step: str | None
    reason: Payload
    created_at: Moment


class Alive(BaseModel):
    """The console and the database answer."""

    status: Literal["ok"]


class DoctorFindingView(BaseModel):
    """One check: what it found, why that matters, what to do."""

    check: str
    state: Literal["ok", "notice", "problem"]
    says: Payload
    why: str | None
    do: Payload
    facts: Recorded


class LeftUndone(BaseModel):
    """An execution that ended and left something undone, with the numbers of visits and items."""

    execution_id: Id
    path: str | None
    status: str
    ended_at: Moment | None
    open: int = Field(description="not tried")
    failed: int
    unknown: int = Field(description="nobody knows whether they happened")


class HealthView(BaseModel):
    """What keeps brokers from working."""

    problems: int
    notices: int
    findings: list[DoctorFindingView]


class Me(BaseModel):
    """The role and the name of a token."""

    role: Role
    name: str


class OneToken(Given):
    """A token."""

    name: str


class TokenRequest(OneToken):
    """A new token."""

    role: Role = Field(description="what it allows")
    expires: str = Field("90d", description="how long it is valid: 90d, 2w, or never")
