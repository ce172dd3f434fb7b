"""The connections of one call to an installation with buckets: to one of them, to all, or to the schema that routes.

A connection is opened for a piece of work, in the task that does it. So buckets are asked at once, and one that does
not answer holds up no other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any, NamedTuple, TypeVar

from noetl_broker.errors import DatabaseFault, MovedFault, NotFoundFault
from noetl_broker.store.connect.buckets import bucket_of_id
from noetl_broker.store.connect.connection import TAKING_TEXT, Connection, transaction
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.nodes import is_on_citus
from noetl_broker.store.connect.schema_name import rendered

Opens = Callable[[Database], AbstractAsyncContextManager[Connection]]
Answer = TypeVar("Answer")
Work = Callable[[Connection], Awaitable[Answer]]


class BucketAnswers(NamedTuple):
    """What buckets answered, by their numbers, and why others did not, by their schemas."""

    of: dict[int, Any]
    unanswered: dict[str, str]


def checked_bucket(number: int, count: int, database: Database) -> int:
    """The bucket of an id. Raises NotFoundFault if there is none."""
    bucket = bucket_of_id(number)
    if bucket >= count:
        raise NotFoundFault(f"the id {number} is of no bucket: {database.schema} has the buckets 0 to {count - 1}")
    return bucket


class BucketConnections:
    """The buckets of an installation, for one call. `opens` gives a connection to one of their schemas."""

    def __init__(self, database: Database, count: int, opens: Opens) -> None:
        self.database = database
        self.count = count
        self._opens = opens

    async def in_bucket(self, number: int, work: Work[Answer]) -> Answer:
        """Do it in one bucket. A fault of its schema names it."""
        try:
            return await self._do(number, work)
        except DatabaseFault as fault:
            schema = self.database.bucket(number).schema
            if schema not in str(fault):
                fault.args = (f"the bucket {schema}: {fault}", *fault.args[1:])
            raise

    async def _do(self, number: int, work: Work[Answer]) -> Answer:
        bucket = self.database.bucket(number)
        with suppress(MovedFault):  # then nothing was done, and a new connection goes to the other node
            async with self._opens(bucket) as connection:
                return await work(connection)
        async with self._opens(bucket) as connection:
            return await work(connection)

    async def of_id(self, number: int, work: Work[Answer]) -> Answer:
        """Do it in the bucket of an id. Raises NotFoundFault if there is none."""
        return await self.in_bucket(checked_bucket(number, self.count, self.database), work)

    async def in_any(self, work: Work[Answer]) -> Answer:
        """Do it in the first bucket that answers: for what is the same in all."""
        for number in range(self.count - 1):
            try:
                return await self.in_bucket(number, work)
            except DatabaseFault:
                continue
        return await self.in_bucket(self.count - 1, work)

    async def in_one(self, work: Work[Answer]) -> Answer:
        """Do it once, in a bucket that can be reached. What was sent may be done, so its fault is raised."""
        is_sent = False

        async def send(connection: Connection) -> Answer:
            nonlocal is_sent
            is_sent = True
            return await work(connection)

        *numbers, last = random.sample(range(self.count), self.count)
        for number in numbers:
            try:
                return await self.in_bucket(number, send)
            except DatabaseFault:
                if is_sent:
                    raise
        return await self.in_bucket(last, send)

    async def in_all(self, work: Work[Any], numbers: Sequence[int] | None = None) -> BucketAnswers:
        """Do it in all buckets, or in these, at once. Raises the first fault if none of all answers."""
        asked = [*range(self.count)] if numbers is None else [*numbers]
        done = await asyncio.gather(*(self._do(number, work) for number in asked), return_exceptions=True)
        answered, unanswered = {}, {}
        for number, answer in zip(asked, done, strict=True):
            if isinstance(answer, DatabaseFault):
                unanswered[self.database.bucket(number).schema] = str(answer)
            elif isinstance(answer, BaseException):  # a fault of the call
                raise answer
            else:
                answered[number] = answer
        if len(unanswered) == self.count and isinstance(done[0], BaseException):
            raise done[0]
        return BucketAnswers(answered, unanswered)

    async def in_installation(self, work: Work[Answer]) -> Answer:
        """Do it in the schema whose functions route."""
        async with self._opens(self.database) as connection:
            return await work(connection)

    async def everywhere(self, work: Work[Answer], *, at_last: Work[Any] | None = None) -> list[Answer]:
        """Do it in all buckets, in one transaction, and `at_last` in the schema that routes: all of it, or nothing.

        On Citus each bucket has a transaction of its own, and all commit when the work is done. If a node is lost
        between the commits, the same call again does the rest.
        """

        async def do(connection: Connection) -> list[Answer]:
            if await is_on_citus(connection):
                return await self._at_each_node(work, connection, at_last)
            async with transaction(connection):
                answers = [
                    await work(in_schema(connection, self.database.bucket(number))) for number in range(self.count)
                ]
                if at_last is not None:
                    await at_last(connection)
                return answers

        return await self.in_installation(do)

    async def _at_each_node(
        self, work: Work[Answer], installation: Connection, at_last: Work[Any] | None
    ) -> list[Answer]:
        answers = []
        async with AsyncExitStack() as stack:
            for number in range(self.count):
                connection = await stack.enter_async_context(self._opens(self.database.bucket(number)))
                await stack.enter_async_context(transaction(connection))
                answers.append(await work(connection))
            if at_last is not None:
                await stack.enter_async_context(transaction(installation))
                await at_last(installation)
        return answers


class _InSchema:
    """A connection that renders what it sends for another schema, first."""

    def __init__(self, connection: Connection, database: Database) -> None:
        self.schema, self.installation = database.schema, database.installation
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        """What the connection has; of a method that takes a text, one that renders it."""
        found = getattr(self._connection, name)
        if name not in TAKING_TEXT:
            return found

        def render(text: str, *arguments: Any, **options: Any) -> Any:
            return found(rendered(text, self.schema, self.installation), *arguments, **options)

        return render


def in_schema(connection: Connection, database: Database) -> Connection:
    """The connection, for statements in the schema of this bucket."""
    return _InSchema(connection, database)  # type: ignore[return-value] # it does all that the store asks of one


Place = Connection | BucketConnections
