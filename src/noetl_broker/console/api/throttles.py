"""Throttles of jobs: how many of a key run at a time, and how many begin in a time."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from noetl_broker.console.access import Operator, Viewer
from noetl_broker.console.api.execution_actions import Given, is_given
from noetl_broker.console.names import register_names
from noetl_broker.console.problem import Refusal
from noetl_broker.console.services import Pooled
from noetl_broker.console.values import Hidden, Moment
from noetl_broker.playbook.plain_values import NAME_CHARS
from noetl_broker.playbook.throttle import MOST_RATE
from noetl_broker.store.admin import throttles as store

router = APIRouter(prefix="/throttles", tags=["throttles"])

register_names("throttle", "keys")
MOST_KEYS = 1_000
MOST = 2**31 - 1
Name = Annotated[
    str, Path(min_length=1, max_length=NAME_CHARS, description="the name of a throttle; it does not end with /keys")
]


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


class ThrottleRequest(Given):
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


@router.get("", response_model=Throttles)
async def list_throttles(_caller: Viewer, connections: Pooled) -> Any:
    """List the throttles with the jobs that they count."""
    async with connections.borrow() as connection:
        return {"items": await store.list_throttles(connection)}


@router.get("/{name:path}/keys", response_model=KeysOfThrottle)
async def list_keys(
    _caller: Viewer, connections: Pooled, name: Name, limit: Annotated[int, Query(ge=1, le=MOST_KEYS)] = 100
) -> Any:
    """List the keys of a throttle that have jobs, those with most held jobs first. A viewer sees no keys."""
    async with connections.borrow() as connection:
        return {"items": await store.list_keys(connection, name, most=limit)}


@router.put("/{name:throttle}", response_model=ThrottleChange)
async def put_throttle(_caller: Operator, connections: Pooled, name: Name, given: ThrottleRequest) -> Any:
    """Make a throttle, or change its numbers.

    Fewer slots stop no job: jobs that run or are ready go on.
    """
    async with connections.borrow() as connection:
        new = await store.put_throttle(
            connection, name, concurrency=given.concurrency, rate=given.rate, burst=given.burst
        )
    return {"name": name, "new": new}


@router.delete("/{name:throttle}", response_model=ThrottleChange)
async def delete_throttle(_caller: Operator, connections: Pooled, name: Name) -> Any:
    """Delete a throttle: its held jobs run."""
    async with connections.borrow() as connection:
        if not await store.delete_throttle(connection, name):
            raise Refusal(HTTPStatus.NOT_FOUND, f"there is no limit {name}")
    return {"name": name, "deleted": True}
