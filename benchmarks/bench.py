"""Shared by all benchmarks: a Postgres with fsync on, a new database, a daemon with default settings."""

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

from benchmarks.processes import Daemon, ReadySocket, tree_seconds
from benchmarks.results import Probe
from noetl_broker.embedded_postgres.server import EmbeddedPostgres
from noetl_broker.store.connect import dsn as store
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.migrations import migrate

Connection: TypeAlias = "asyncpg.Connection[Any]"
PROBES = 20
# Usual settings of such a server. All that makes a commit durable is the default of Postgres.
SETTINGS = MappingProxyType({"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "150"})
POLL_SECONDS = 0.02  # without a notification
LONG_SECONDS = 1800.0  # for one statement: some insert millions of rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One run of the benchmarks: the server, and whether sizes are small."""

    postgres: EmbeddedPostgres
    quick: bool
    numbers: Callable[[], int] = field(default_factory=lambda: count(1).__next__)

    @property
    def rounds(self) -> int:
        """The number of rounds: at least three, because a median of two says little."""
        return 3 if self.quick else 5

    def scaled(self, full: int, quick: int) -> int:
        """Return the size for this run."""
        return quick if self.quick else full

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Create a migrated database; drop it afterwards."""
        name = f"bench_{self.numbers()}"
        admin = await connect(store.Database(dsn=self.postgres.dsn()), name="benchmark", command_timeout=LONG_SECONDS)
        try:
            await admin.execute(f"create database {name}")
            dsn = self.postgres.dsn(name)
            await migrate(store.Database(dsn=dsn))
            connection = await connect(store.Database(dsn=dsn), name="benchmark", command_timeout=LONG_SECONDS)
            await connection.execute("set statement_timeout = 0")
            try:
                yield Database(bench=self, dsn=dsn, connection=connection)
            finally:
                await connection.close()
                await admin.execute(f"drop database {name} with (force)")
                await admin.execute("checkpoint")  # so that the next benchmark does not pay for it
        finally:
            await admin.close()

    async def on(self, dsn: str) -> Database:
        """Open another connection to a database; the caller closes it."""
        return Database(bench=self, dsn=dsn, connection=await connect(store.Database(dsn=dsn), name="benchmark"))

    def server_seconds(self, *, but: int) -> float:
        """Return the processor seconds of the server with all backends, without the backend `but`."""
        pid_file = self.postgres.folder / "data" / "postmaster.pid"
        return tree_seconds(int(pid_file.read_text().split()[0]), but=but)


@dataclass(slots=True, kw_only=True)
class Database:
    """A database, with a connection for the benchmark.

    `notifications`: received notifications of queued jobs and of ended executions.
    """

    bench: Bench
    dsn: str
    connection: Connection
    notifications: int = 0
    notified: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def target(self) -> store.Database:
        """The database for the program's `connect`."""
        return store.Database(dsn=self.dsn)

    async def register(self, path: str, content: str) -> None:
        """Put a playbook into the catalog."""
        await self.connection.execute(
            "insert into noetl.catalog (path, version, name, content) values ($1, 1, $1, $2)", path, content
        )

    async def start(self, path: str, payload: Any = None, *, many: int = 1) -> list[int]:
        """Start executions; return their ids."""
        rows = await self.connection.fetch(
            "select noetl.start_execution($1, $2) from generate_series(1, $3)", path, payload or {}, many
        )
        return [row[0] for row in rows]

    @asynccontextmanager
    async def daemon(
        self, *, processes: int = 1, log: IO[bytes] | int | None = None, **settings: str
    ) -> AsyncIterator[Daemon]:
        """Start `noetl-broker run`, wait until it is ready, and stop it afterwards."""
        arguments = ("run", "--processes", str(processes))
        environment = {"NOETL_BROKER_DSN": self.dsn, "NOETL_BROKER_LOG_LEVEL": "error"}
        environment |= {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}  # no other load
        environment |= {f"NOETL_BROKER_{name.upper()}": value for name, value in settings.items()}
        with ready_socket() as socket:
            daemon = await Daemon.start(arguments, environment, socket, log=log)
            try:
                await daemon.ready()
                yield daemon
            finally:
                await daemon.stop()

    @asynccontextmanager
    async def worker(self, module: str, *arguments: str) -> AsyncIterator[Daemon]:
        """Start a module as a worker of this database, and stop it afterwards; nothing says when it is ready."""
        environment = {"NOETL_BROKER_DSN": self.dsn, "NOETL_BROKER_LOG_LEVEL": "error"}
        with ready_socket() as socket:
            worker = await Daemon.start(arguments, environment, socket, module=module)
            try:
                yield worker
            finally:
                await worker.stop()

    async def until_read(self, commits: int = 0) -> None:
        """Wait until the inbox is empty; that takes at least `commits` commits.

        Before those, and between notifications, it is not read: each read takes time from what is measured.
        """
        for channel in ("noetl_job", "noetl_end"):
            await self.connection.add_listener(channel, self._on_notify)
        enough = self.notifications + commits
        while self.notifications < enough or await self.connection.fetchval("select exists (select from noetl.inbox)"):
            self.notified.clear()
            try:
                await asyncio.wait_for(self.notified.wait(), POLL_SECONDS)
            except TimeoutError:
                enough = 0

    async def all_completed(self, count: int) -> None:
        """Check that so many executions have completed, once all mail is read."""
        await self.until_read()
        ended = await self.connection.fetchval("select count(*) from noetl.execution where status = 'COMPLETED'")
        if ended != count:
            raise RuntimeError(f"{ended} executions are completed, not {count}")

    def _on_notify(self, *_: object) -> None:
        self.notifications += 1
        self.notified.set()

    async def probe(self) -> Probe:
        """Measure fdatasync and a commit."""
        await self.connection.execute("create table if not exists public.probe (n int)")
        times = []
        for _ in range(PROBES):
            began = time.perf_counter()
            await self.connection.execute("insert into public.probe values (1)")
            times.append(time.perf_counter() - began)
        return Probe(fdatasync=fdatasync_milliseconds(), commit=statistics.median(times) * 1000)


@contextmanager
def ready_socket() -> Iterator[ReadySocket]:
    """Open a socket on which a daemon reports that it is ready, as it does to systemd."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        socket = ReadySocket(Path(folder) / "notify")
        try:
            yield socket
        finally:
            socket.close()


def fdatasync_milliseconds() -> float:
    """Return the median time to append 8 kB to a file and sync it, as the server does."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(PROBES):
            began = time.perf_counter()
            os.write(file.fileno(), bytes(8192))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def program(*arguments: str) -> tuple[str, ...]:
    """Return the command line of the program in this environment."""
    return (str(Path(sys.executable).with_name("noetl-broker")), *arguments)
