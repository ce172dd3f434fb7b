"""What every benchmark stands on: a Postgres of our own with fsync on, a fresh database, a daemon as it is shipped."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeAlias

import asyncpg

from benchmarks.processes import Daemon, Ear, tree_seconds
from benchmarks.results import Probe
from noetl_broker.store.embedded import EmbeddedPostgres
from noetl_broker.store.migrate import migrate
from noetl_broker.store.pool import connect

Connection: TypeAlias = "asyncpg.Connection[Any]"
PROBES = 20
# What a server of this use would have; whatever makes a commit durable is as Postgres ships it.
SETTINGS = MappingProxyType({"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "150"})
SILENCE_SECONDS = 0.02  # after which one looks though nothing rang
LONG_SECONDS = 1800.0  # of one statement: some fill a table with millions of rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One run of the benchmarks: the server, and whether it is a quick one."""

    postgres: EmbeddedPostgres
    quick: bool
    numbers: Callable[[], int] = field(default_factory=lambda: count(1).__next__)

    @property
    def rounds(self) -> int:
        """Never fewer than three: a median of two is a guess."""
        return 3 if self.quick else 5

    def scaled(self, full: int, quick: int) -> int:
        """The size for this kind of run."""
        return quick if self.quick else full

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """A new database with the schema in it, gone afterwards."""
        name = f"bench_{self.numbers()}"
        admin = await connect(self.postgres.dsn(), name="benchmark", command_timeout=LONG_SECONDS)
        try:
            await admin.execute(f"create database {name}")
            dsn = self.postgres.dsn(name)
            await migrate(dsn)
            connection = await connect(dsn, name="benchmark", command_timeout=LONG_SECONDS)
            await connection.execute("set statement_timeout = 0")
            try:
                yield Database(bench=self, dsn=dsn, connection=connection)
            finally:
                await connection.close()
                await admin.execute(f"drop database {name} with (force)")
                await admin.execute("checkpoint")  # untimed: what one figure left behind is not the next one's work
        finally:
            await admin.close()

    async def on(self, dsn: str) -> Database:
        """Another connection to a database that is there; whoever asks closes it."""
        return Database(bench=self, dsn=dsn, connection=await connect(dsn, name="benchmark"))

    def server_seconds(self, *, but: int) -> float:
        """What the server and all its backends have used of the processor so far, without the backend `but`."""
        pid_file = self.postgres.folder / "data" / "postmaster.pid"
        return tree_seconds(int(pid_file.read_text().split()[0]), but=but)


@dataclass(slots=True, kw_only=True)
class Database:
    """A database, with a connection that whoever measures may use.

    `rings`: how often a commit was heard that queued jobs or ended executions, twice where it did both.
    """

    bench: Bench
    dsn: str
    connection: Connection
    rings: int = 0
    rung: asyncio.Event = field(default_factory=asyncio.Event)

    async def register(self, path: str, content: str) -> None:
        """Put a playbook into the catalog."""
        await self.connection.execute(
            "insert into noetl.catalog (path, version, name, content) values ($1, 1, $1, $2)", path, content
        )

    async def start(self, path: str, payload: Any = None, *, many: int = 1) -> list[int]:
        """Start executions; gives their ids."""
        rows = await self.connection.fetch(
            "select noetl.start_execution($1, $2) from generate_series(1, $3)", path, payload or {}, many
        )
        return [row[0] for row in rows]

    @asynccontextmanager
    async def daemon(
        self, *, processes: int = 1, log: IO[bytes] | int | None = None, **settings: str
    ) -> AsyncIterator[Daemon]:
        """`noetl-broker run` beside us, ready; stopped afterwards."""
        arguments = ("run", "--processes", str(processes))
        environment = {"NOETL_BROKER_DSN": self.dsn, "NOETL_BROKER_LOG_LEVEL": "error"}
        environment |= {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}  # nobody looks
        environment |= {f"NOETL_BROKER_{name.upper()}": value for name, value in settings.items()}
        with ear() as hearing:
            daemon = await Daemon.start(arguments, environment, hearing, log=log)
            try:
                await daemon.ready()
                yield daemon
            finally:
                await daemon.stop()

    async def until_read(self, commits: int = 0) -> None:
        """Wait until the inbox is empty, which takes so many commits at least.

        It is looked at when a commit rings, from that one on, for each look takes from who is measured.
        """
        for channel in ("noetl_job", "noetl_end"):
            await self.connection.add_listener(channel, self._hear)
        enough = self.rings + commits
        while self.rings < enough or await self.connection.fetchval("select exists (select from noetl.inbox)"):
            self.rung.clear()
            try:
                await asyncio.wait_for(self.rung.wait(), SILENCE_SECONDS)
            except TimeoutError:
                enough = 0

    def _hear(self, *_: object) -> None:
        self.rings += 1
        self.rung.set()

    async def probe(self) -> Probe:
        """How fast the disk and a commit are at this moment."""
        await self.connection.execute("create table if not exists public.probe (n int)")
        times = []
        for _ in range(PROBES):
            began = time.perf_counter()
            await self.connection.execute("insert into public.probe values (1)")
            times.append(time.perf_counter() - began)
        return Probe(fdatasync=fdatasync_milliseconds(), commit=statistics.median(times) * 1000)


@contextmanager
def ear() -> Iterator[Ear]:
    """A socket on which a daemon says that it is ready, as it does to systemd."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        hearing = Ear(Path(folder) / "notify")
        try:
            yield hearing
        finally:
            hearing.close()


def fdatasync_milliseconds() -> float:
    """The median time in which 8 kB reach the disk, appended to a file as the server does it."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(PROBES):
            began = time.perf_counter()
            os.write(file.fileno(), bytes(8192))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def program(*arguments: str) -> tuple[str, ...]:
    """The command line of the program in this environment."""
    return (str(Path(sys.executable).with_name("noetl-broker")), *arguments)
