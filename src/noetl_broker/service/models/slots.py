"""What is asked about throttles of jobs and slots of executions, and what the answers have."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from noetl_broker.playbook.keys import NAME_CHARS
from noetl_broker.playbook.throttle import MOST_RATE
from noetl_broker.service.models.base import LONGEST_TEXT, Given, Paged, Text, is_given
from noetl_broker.service.models.values import Hidden, Id, Moment

MOST_KEYS = 1_000
MOST = 2**31 - 1


class OneThrottle(Given):
    """A throttle."""

    name: str = Field(
        min_length=1, max_length=NAME_CHARS, description="the name of a throttle; it does not end with /keys"
    )


class KeysRequest(OneThrottle):
    """The keys of a throttle."""

    limit: int = Field(100, ge=1, le=MOST_KEYS)


class ListSlots(Paged):
    """Which slots a list has."""

    path: Text | None = Field(None, description="only of this playbook")


class LineRequest(Paged):
    """Which slot's line a list has."""

    path: str = Field(max_length=LONGEST_TEXT, description="of which playbook; empty: of schedules")
    key: Text = ""


class JobCounts(BaseModel):
    """Jobs by what they do."""

    leased: int
    ready: int = Field(description="for a worker")
    held: int = Field(description="until there is a slot")


class ThrottleRow(JobCounts):
    """A throttle, and the jobs that count for it."""

    name: str
    concurrency: int | None = Field(description="jobs of a key that run at a time")
    rate: float | None = Field(description="jobs of a key that begin in a second")
    burst: int | None = Field(description="jobs that may begin at once; null: what 100 ms allow, at least 1")
    updated_at: Moment
    keys: int


class Throttles(BaseModel):
    """All throttles, by name."""

    items: list[ThrottleRow]


class KeyOfThrottle(JobCounts):
    """A key of a throttle that has jobs."""

    key: Hidden


class KeysOfThrottle(BaseModel):
    """Keys with jobs, those with most held jobs first."""

    items: list[KeyOfThrottle]


class ThrottleRequest(OneThrottle):
    """What a throttle allows. What is not given is not limited; `burst` needs `rate`."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                is_given("rate"),
                {**is_given("concurrency"), "properties": {"burst": {"type": "null"}}},
            ]
        }
    )

    concurrency: int | None = Field(None, ge=1, le=MOST)
    rate: float | None = Field(None, gt=0, le=MOST_RATE, description="a second")
    burst: int | None = Field(None, ge=1, le=MOST)


class ThrottleChange(BaseModel):
    """Whether the throttle is new, or was there."""

    name: str
    new: bool | None = None
    deleted: bool | None = None


class SlotView(BaseModel):
    """A slot: at most so many executions of a path and key hold it."""

    path: str = Field(description="empty: the slot of a schedule")
    key: Hidden
    name: Hidden = Field(description="what it is for, such as `customer 7`")
    max_held: int
    held: int
    waiting: int = Field(description="executions that wait for it; 10,000 means at least so many")
    waited_for_since: Moment | None
    holders: list[Id] = Field(description="the first 10")


class InLine(BaseModel):
    """An execution that holds a slot or waits for it."""

    execution_id: Id
    status: str
    started_at: Moment
    number: int = Field(description="its number in the line")
    since: Moment = Field(description="when it asked")
    held_at: Moment | None = Field(description="since when it holds the slot; null: it waits")
    cancelled_at: Moment | None = Field(description="when it was told to cancel for a later one")
