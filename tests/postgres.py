"""The Postgres of a test run, shared by all test processes, and connections to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import asyncpg
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from noetl_broker import embedded_postgres
from noetl_broker.store.connect import dsn
from noetl_broker.store.connect.connection import connection_class
from noetl_broker.store.connect.nodes import open_at_node
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA, Shards, rendered, shards_of

# `NOETL_TEST_SCHEMA=orders make test` runs the suite in a schema of another name. Tests say `noetl` in their SQL: the
# store's connections and `psycopg_connect` render it.
# `NOETL_TEST_BUCKET=2` runs tests in this bucket of an installation with four.
BUCKET = os.environ.get("NOETL_TEST_BUCKET")
# `NOETL_TEST_PINNED=1` pins that bucket to shards, as on Citus; its tables are shells that must stay empty. With
# `NOETL_TEST_CITUS_DSN`, a database on the coordinator of a cluster, the coordinator itself has the shards.
PINNED = bool(BUCKET and os.environ.get("NOETL_TEST_PINNED"))
CITUS = os.environ.get("NOETL_TEST_CITUS_DSN") if PINNED else None
INSTALLATION = DEFAULT_SCHEMA if BUCKET else None
SCHEMA = f"{DEFAULT_SCHEMA}_{BUCKET}" if BUCKET else os.environ.get("NOETL_TEST_SCHEMA") or DEFAULT_SCHEMA
SCHEMA_SUFFIX = "" if SCHEMA == DEFAULT_SCHEMA else f"/{SCHEMA}"  # of the name of a database in logs
SCHEMA_VARIABLE = {} if SCHEMA == DEFAULT_SCHEMA else {"NOETL_BROKER_SCHEMA": SCHEMA}  # for processes that tests start

# The data need not survive a crash of the machine. With these settings it still survives a crash of Postgres.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # A vacuum in the middle of a test changes plans and counts of pages. The first one comes after five minutes,
    # whatever the pause is, so it must find nothing to do.
    "autovacuum_naptime": "1d",
    "autovacuum_vacuum_threshold": "2147483647",
    "autovacuum_vacuum_insert_threshold": "-1",
    "autovacuum_analyze_threshold": "2147483647",
    "jit": "off",  # the driver turns it off and on around each question about types
    "max_connections": "600",  # twelve test processes with fifty each
    "max_locks_per_transaction": "256",
}
SCRAM_ITERATIONS_SINCE = 160_000
_MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - the path on Linux; we make a private folder in it
_BYTES_WANTED = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Database(dsn.Database):
    """A database, mostly one that only one test uses."""

    name: str = ""
    dsn: str
    schema: str = SCHEMA
    installation: str | None = INSTALLATION


Copies = Callable[[str], AbstractContextManager[Database]]  # creates a database as a copy of this template


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The address of the run's Postgres; pytest-postgresql's factories read the last three fields."""

    host: str
    port: int
    user: str
    password: str
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str = "template0"

    @classmethod
    def of(cls, postgres: embedded_postgres.EmbeddedPostgres) -> Self:
        """Return the address of a running Postgres."""
        return cls(host=postgres.host, port=postgres.port, user=postgres.user, password=postgres.password)

    @classmethod
    def at(cls, dsn: str) -> Self:
        """Return the address in a DSN."""
        found = conninfo_to_dict(dsn)
        host, port, user, password = (str(found.get(key, "")) for key in ("host", "port", "user", "password"))
        return cls(host=host, port=int(port or 5432), user=user, password=password)

    def database(self, name: str) -> Database:
        """Return a database of this server by name; it need not exist."""
        return Database(name=name, dsn=f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{name}")


def start_server() -> embedded_postgres.EmbeddedPostgres:
    """Start the server of a run; the caller closes it."""
    postgres = embedded_postgres.start(settings=SETTINGS, temporary_root=fast_root())
    _hash_less(postgres)
    return postgres


def _hash_less(postgres: embedded_postgres.EmbeddedPostgres) -> None:
    """Store the password with one round of its hash: with 4096, each login takes a client 1 to 2 ms."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        if connection.info.server_version >= SCRAM_ITERATIONS_SINCE:
            connection.execute("set scram_iterations = 1")
            role, password = sql.Identifier(postgres.user), sql.Literal(postgres.password)
            connection.execute(sql.SQL("alter role {} password {}").format(role, password))


def fast_root() -> Path | None:
    """Return a folder in memory, if there is room.

    Each test clones a database: 15 ms in memory, 40 to 250 ms on a disk, with fsync on or off.
    """
    roomy = _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > _BYTES_WANTED
    return _MEMORY_DISK if roomy else None


def named(text: str) -> str:
    """Replace `noetl` in names or in an output by the name of the schema that the tests use."""
    return rendered(text, SCHEMA, INSTALLATION)


class _RenderingCursor(psycopg.Cursor[Any]):
    """Renders statements that are plain text."""

    schema = SCHEMA
    shards: Shards | None = None

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Self:
        if isinstance(query, str | bytes):
            query = rendered(
                query if isinstance(query, str) else query.decode(), self.schema, shards=self.shards
            ).encode()
        return super().execute(query, *arguments, **options)


def psycopg_connect(database: Database, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """Connect with psycopg, as another program does."""
    connection = psycopg.connect(database.dsn, autocommit=autocommit)
    names = {"schema": database.schema, "shards": _shards_in(connection, database.schema) if PINNED else None}
    connection.cursor_factory = type("Cursor", (_RenderingCursor,), names)
    return connection


def _shards_in(connection: psycopg.Connection[Any], schema: str) -> Shards | None:
    """Return the shards of the bucket; None: the database is not prepared yet."""
    with connection.transaction():
        if connection.execute("select to_regclass('pg_dist_shard')").fetchone() == (None,):
            return None
        found = connection.execute(
            """select relname, relname || '_' || shardid from pg_dist_shard join pg_class on oid = logicalrelid
            where relnamespace = to_regnamespace(%s)""",
            (schema,),
        )
        return shards_of(tuple(found))


async def asyncpg_connect(database: Database) -> asyncpg.Connection[Any]:
    """Connect with asyncpg, as a worker of somebody else does: without the codecs of the program."""
    own = connection_class(database.schema, database.installation)
    return await open_at_node(database, partial(asyncpg.connect, database.dsn, connection_class=own))
