"""What is asked about schedules, and what the answers have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool

from noetl_broker.service.models.base import Given, GivenTags, SomeText, Version
from noetl_broker.service.models.values import Id, Moment, Payload, Time

MOST_SECONDS = 3660 * 86_400.0
MOST_JITTER_SECONDS = 366 * 86_400.0
MOST_STARTED = 500  # executions of one backfill request
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS)]


class OneSchedule(Given):
    """A schedule."""

    name: str = Field(
        min_length=1, max_length=900, description="it does not end with /next, /pause, /resume or /backfill"
    )


class NextRequest(OneSchedule):
    """The next moments of a schedule."""

    count: int = Field(5, ge=1, le=1000)


class ScheduleView(BaseModel):
    """A playbook that starts at moments; spans are in seconds."""

    name: str
    path: str
    version: int | None = Field(description="null: the latest at each moment")
    payload: Payload
    tags: dict[str, Any] | None = Field(None, description="of each execution that it starts")
    priority: int | None = Field(None, description="of the jobs of these, if the playbook says none")
    cron: str | None
    every: float | None
    timezone: str
    jitter: float
    catch_up: float
    overlap: str
    declared_in: str | None = Field(description="the playbook that declares it")
    paused: bool
    paused_at: Moment | None
    resumed_at: Moment | None
    next_at: Moment | None
    last_at: Moment | None
    last_execution_id: Id | None
    started: int
    skipped: int
    error: Payload
    error_at: Moment | None
    path_paused_at: Moment | None = Field(description="since then the starts of its playbook wait")
    path_pause_reason: Payload


class ScheduleRequest(OneSchedule):
    """What a schedule is; exactly one of `cron` and `every`."""

    path: SomeText
    version: Version | None = None
    payload: dict[str, Any] = Field(default_factory=dict)
    tags: GivenTags = None
    priority: int | None = Field(None, ge=-(2**31), lt=2**31, description="of its jobs, if the playbook says none")
    cron: str | None = Field(None, min_length=1, max_length=200, description="five fields, or six with seconds first")
    every: float | None = Field(None, ge=1, le=MOST_SECONDS, description="seconds between starts, in place of `cron`")
    timezone: str = Field("UTC", min_length=1, max_length=64, description="of `cron`: an IANA name")
    jitter: float = Field(0.0, ge=0, le=MOST_JITTER_SECONDS)
    catch_up: Seconds = 3600.0
    overlap: Literal["skip", "queue", "cancel", "allow"] = "skip"


class ScheduleChange(BaseModel):
    """Whether something changed, and the next moment."""

    name: str
    changed: bool
    next: list[str] = Field(default_factory=list)


class Moments(BaseModel):
    """The next moments of a schedule, on the clock of its zone."""

    name: str
    next: list[str]


class BackfillRequest(OneSchedule):
    """Which past moments to start."""

    since: Time
    until: Time | None = Field(None, description="default: now")
    preview: StrictBool = Field(default=True, description="count them and do nothing; false: do it")
    limit: int = Field(100, ge=1, le=MOST_STARTED, description="executions of one request")


class Backfilled(BaseModel):
    """Of `moments`, those that lack an execution (`found`), and what was started, oldest first."""

    moments: int
    found: int
    at: list[str] = Field(default_factory=list, description="of a preview: the first moments that would start")
    done: list[dict[str, Any]] = Field(default_factory=list)
    failed: list[dict[str, Any]] = Field(default_factory=list)
