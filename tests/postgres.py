"""The Postgres of a test run: one server, started when a test first asks for a database, shared by all test processes.

The process that owns the run (pytest itself, or the controller of pytest-xdist) owns the server. Worker processes of
pytest-xdist ask it for the address, at a socket in a private folder. So tests without a database start no server, and
the server ends with the run in every case.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any, Self

import asyncpg
import psycopg
from psycopg import sql

from noetl_broker import embedded_postgres
from noetl_broker.errors import BrokerError
from noetl_broker.store import dsn
from noetl_broker.store.connection import connection_class
from noetl_broker.store.schema_name import DEFAULT_SCHEMA, rendered

# `NOETL_TEST_SCHEMA=orders make test` runs the suite in a schema of another name. Tests say `noetl` in their SQL: the
# store's connections and `psycopg_connect` render it.
SCHEMA = os.environ.get("NOETL_TEST_SCHEMA") or DEFAULT_SCHEMA
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

    def database(self, name: str) -> Database:
        """Return a database of this server by name; it need not exist."""
        return Database(name=name, dsn=f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{name}")


class ServerOwner:
    """Owns the server of a test run: starts it at the first call of `server`, stops it with `close`."""

    def __init__(self) -> None:
        self._postgres: embedded_postgres.EmbeddedPostgres | None = None
        self._starting = threading.Lock()
        self._folder: Path | None = None
        self._listener: Listener | None = None
        self._key = secrets.token_hex(16)

    def server(self) -> Server:
        """Return the server; start it if it is not running."""
        with self._starting:
            if self._postgres is None:
                self._postgres = embedded_postgres.start(settings=SETTINGS, temporary_root=fast_root())
                _hash_less(self._postgres)
            postgres = self._postgres
            return Server(host=postgres.host, port=postgres.port, user=postgres.user, password=postgres.password)

    def address(self) -> tuple[str, str]:
        """Return the path and the key of a socket, for `ask_owner` in another process."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="noetl-broker-tests-"))
            self._listener = Listener(str(self._folder / "owner"), family="AF_UNIX", authkey=self._key.encode())
            threading.Thread(target=self._answer, args=(self._listener,), name="server-owner", daemon=True).start()
        return str(self._folder / "owner"), self._key

    def close(self) -> None:
        """Stop the server and remove the run's files."""
        if self._postgres is not None:
            self._postgres.close()
        if self._listener is not None:
            self._listener.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _answer(self, listener: Listener) -> None:
        while True:
            with listener.accept() as client:
                try:
                    client.send(asdict(self.server()))
                except BrokerError as error:
                    client.send(str(error))


def _hash_less(postgres: embedded_postgres.EmbeddedPostgres) -> None:
    """Store the password with one round of its hash: with 4096, each login takes a client 1 to 2 ms."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        if connection.info.server_version >= SCRAM_ITERATIONS_SINCE:
            connection.execute("set scram_iterations = 1")
            role, password = sql.Identifier(postgres.user), sql.Literal(postgres.password)
            connection.execute(sql.SQL("alter role {} password {}").format(role, password))


def ask_owner(address: tuple[str, str]) -> Server:
    """Return the server of the process at this address; raises RuntimeError with the reason if it did not start."""
    path, key = address
    with Client(path, family="AF_UNIX", authkey=key.encode()) as connection:
        answer: dict[str, Any] | str = connection.recv()
    if isinstance(answer, str):
        raise RuntimeError(answer)  # noqa: TRY004 - an answer of the owner, not a wrong type
    return Server(**answer)


def fast_root() -> Path | None:
    """Return a folder in memory, if there is room.

    Each test clones a database: 15 ms in memory, 40 to 250 ms on a disk, with fsync on or off.
    """
    roomy = _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > _BYTES_WANTED
    return _MEMORY_DISK if roomy else None


def named(text: str) -> str:
    """Replace `noetl` in names or in an output by the name of the schema that the tests use."""
    return rendered(text, SCHEMA)


class _RenderingCursor(psycopg.Cursor[Any]):
    """Renders statements that are plain text."""

    schema = SCHEMA

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Self:
        if isinstance(query, str | bytes):
            query = rendered(query if isinstance(query, str) else query.decode(), self.schema).encode()
        return super().execute(query, *arguments, **options)


def psycopg_connect(database: Database, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """Connect with psycopg, as another program does."""
    cursor = type("Cursor", (_RenderingCursor,), {"schema": database.schema})
    return psycopg.connect(database.dsn, autocommit=autocommit, cursor_factory=cursor)


async def asyncpg_connect(database: Database) -> asyncpg.Connection[Any]:
    """Connect with asyncpg, as a worker of somebody else does: without the codecs of the program."""
    return await asyncpg.connect(database.dsn, connection_class=connection_class(database.schema))
