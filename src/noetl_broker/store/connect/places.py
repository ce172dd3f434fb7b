"""What is done at a place: on a connection to a schema, or in the buckets of an installation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from noetl_broker.store.connect.bucket_connections import Answer, BucketConnections, Place, Work, checked_bucket
from noetl_broker.store.connect.buckets import refuse_bucket
from noetl_broker.store.connect.connection import Connection


async def in_each_schema(place: Place, work: Work[Answer], *, at_last: Work[None] | None = None) -> Answer:
    """In all buckets, and `at_last` where they are routed, in one transaction: one answer; or on the connection.

    Raises OperatorFault in a bucket's own schema.
    """
    if isinstance(place, BucketConnections):
        return (await place.everywhere(work, at_last=at_last))[0]
    await refuse_bucket(place)
    return await work(place)


async def routed(place: Place, work: Work[Answer]) -> Answer:
    """In the schema whose functions route; or on the connection."""
    return await (place.in_installation(work) if isinstance(place, BucketConnections) else work(place))


async def in_first(place: Place, work: Work[Answer]) -> Answer:
    """In the first bucket that answers; or on the connection."""
    return await (place.in_any(work) if isinstance(place, BucketConnections) else work(place))


async def at_execution(place: Place, execution_id: int, work: Work[Answer]) -> Answer:
    """In the bucket of an execution; or on the connection."""
    return await (place.of_id(execution_id, work) if isinstance(place, BucketConnections) else work(place))


async def in_turn(place: Place, work: Work[Answer]) -> list[Answer]:
    """In one bucket after the other, and their answers; or on the connection."""
    if isinstance(place, BucketConnections):
        return [await place.in_bucket(number, work) for number in range(place.count)]
    return [await work(place)]


async def in_their_buckets(
    place: Place, ids: Sequence[int], work: Callable[[Connection, list[int]], Awaitable[Answer]]
) -> list[Answer]:
    """With the ids of each bucket in that; or on the connection."""
    if not isinstance(place, BucketConnections):
        return [await work(place, [*ids])]
    numbers = {one: checked_bucket(one, place.count, place.database) for one in ids}
    parts = {number: [one for one in ids if numbers[one] == number] for number in range(place.count)}
    return [await place.in_bucket(number, partial(_on_ids, work, part)) for number, part in parts.items() if part]


async def _on_ids(
    work: Callable[[Connection, list[int]], Awaitable[Answer]], ids: list[int], connection: Connection
) -> Answer:
    return await work(connection, ids)
