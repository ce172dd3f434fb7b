"""Buckets: which one an execution lives in, and how many an installation has.

An installation with buckets is a schema NAME without executions, and complete brokers in NAME_0, NAME_1 and so on. The
low 6 bits of an id are the number of its bucket. `noetl.bucket_of` in `migrations/installation.sql` is the same in SQL.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from noetl_broker.errors import OperatorFault, SchemaFault
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA
from noetl_broker.store.queries import sql

if TYPE_CHECKING:
    from noetl_broker.store.connect.connection import Connection

Located = TypeVar("Located", bound=Database)

FEWEST, MOST = 2, 64  # buckets of an installation
_BITS = 63


class HasBuckets(SchemaFault):
    """The schema is an installation: its executions are in so many buckets."""

    def __init__(self, schema: str, count: int) -> None:
        """`count`: of the buckets. The message is for a command that serves one schema alone."""
        super().__init__(
            f"{schema} is an installation with {count} buckets, and this serves one schema: name a bucket, --schema"
            f" {schema}_0 to {schema}_{count - 1}"
        )
        self.count = count


def bucket_of_id(number: int) -> int:
    """The bucket of an execution, a job, or whatever has this id."""
    return number & _BITS


def last_id_of(bucket: int) -> int:
    """The highest id that a bucket can have."""
    return (2**63 - 1) & ~_BITS | bucket


def bucket_of_text(text: str, buckets: int) -> int:
    """The bucket of a text, of so many."""
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:8], 16) % buckets


class OwnBucket(NamedTuple):
    """The bucket that a schema is, of so many."""

    number: int
    buckets: int

    def has(self, text: str) -> bool:
        """Whether what has this text as its home lives here."""
        return bucket_of_text(text, self.buckets) == self.number


async def own_bucket(connection: Connection) -> OwnBucket | None:
    """The bucket that the schema is; None: it is none."""
    number, buckets = await connection.fetchrow(sql("own_bucket")) or (None, None)
    return None if number is None or buckets is None else OwnBucket(number, buckets)


async def refuse_bucket(connection: Connection) -> None:
    """Raise OperatorFault if the schema is a bucket: what is set there alone would differ from the others."""
    if await connection.fetchval(sql("is_bucket")):
        schema = str(getattr(connection, "schema", DEFAULT_SCHEMA))
        installation = schema.rpartition("_")[0]
        raise OperatorFault(
            f"{schema} is a bucket, and this is the same in all buckets: name the installation, --schema {installation}"
        )


async def count_buckets(connection: Connection) -> int | None:
    """The number of buckets of an installation; None: the schema is no installation with buckets."""
    if await connection.fetchval(sql("is_installation")):
        return int(await connection.fetchval(sql("count_buckets")))
    return None


async def refuse_installation(connection: Connection) -> None:
    """Raise HasBuckets if the schema is an installation with buckets."""
    count = await count_buckets(connection)
    if count is not None:
        raise HasBuckets(str(getattr(connection, "schema", DEFAULT_SCHEMA)), count)


def buckets_of(database: Located, count: int) -> list[Located]:
    """Each bucket of an installation, in order."""
    return [database.bucket(number) for number in range(count)]


def named_buckets(name: str, database: Located, count: int) -> dict[str, Located]:
    """Each bucket of an installation, by its name for logs; the installation has this `name`."""
    start = f"{name}/{DEFAULT_SCHEMA}" if database.schema == DEFAULT_SCHEMA else name
    return {f"{start}_{number}": bucket for number, bucket in enumerate(buckets_of(database, count))}
