"""What the tests of the daemon share: playbooks in a database, daemons that run beside a test, and the invariants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from textwrap import dedent
from typing import Any, Self

from noetl_broker.broker.model import JSON, Rules
from noetl_broker.daemon.service import Service, ServiceOptions
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store.pool import connect
from noetl_broker.store.verify import Scope, verify
from tests.postgres import Database

PATIENCE_SECONDS = 30.0

# What holds only when nothing moves any more, beside what `verify` asks for at any moment: a row for each fault.
AT_REST = {
    "no unread mail": "select execution_id, event_id from noetl.inbox",
    "nothing set aside": "select execution_id, event_id, reason from noetl.dead_letter",
    "every execution ended": "select execution_id from noetl.execution where status = 'RUNNING'",
}


def options(database: Database, **changes: Any) -> ServiceOptions:
    """Options of a daemon on this database, with these changed."""
    settings: dict[str, Any] = {"rules": Rules(), "playbook_rules": PlaybookRules(), **changes}
    return ServiceOptions(dsn=database.dsn, **settings)


async def register(database: Database, body: str, *, path: str = "story", metadata: str = "") -> None:
    """Put a playbook of this workload and workflow into the catalog, unchecked."""
    head = f"apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {{name: {path}, path: {path}{metadata}}}\n"
    await execute(
        database,
        "insert into noetl.catalog (path, version, name, content) values ($1, 1, $1, $2)",
        path,
        head + dedent(body),
    )


async def drain(database: Database, **changes: Any) -> Service:
    """Evaluate what is waiting, as `run --drain` does; gives the service, for its counters."""
    service = Service(options(database, **changes))
    await service.drain()
    return service


@asynccontextmanager
async def running(database: Database, **changes: Any) -> AsyncIterator[Service]:
    """A daemon that runs beside the test, and is stopped with it."""
    ready = asyncio.Event()
    service = Service(options(database, **changes), on_ready=ready.set)
    task = asyncio.create_task(service.run())
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()
    try:
        yield service
    finally:
        service.stopping.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)


async def execute(database: Database, statement: str, *arguments: object) -> None:
    """One statement on a connection of its own."""
    connection = await connect(database.dsn, name="test")
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def rows(database: Database, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """The rows of one statement."""
    connection = await connect(database.dsn, name="test")
    try:
        return [tuple(row) for row in await connection.fetch(statement, *arguments)]
    finally:
        await connection.close()


async def value(database: Database, statement: str, *arguments: object) -> Any:
    """The first column of the first row."""
    found = await rows(database, statement, *arguments)
    return found[0][0] if found else None


async def start(database: Database, path: str = "story", payload: JSON = None, *, count: int = 1) -> list[int]:
    """Start executions; gives their ids."""
    statement = "select noetl.start_execution($1, $2) from generate_series(1, $3)"
    return [row[0] for row in await rows(database, statement, path, payload or {}, count)]


async def complete_jobs(database: Database, result: JSON = None, *, most: int = 100_000) -> int:
    """Lease all jobs and complete each with this result, in one statement; gives their number."""
    statement = """
        with leased as (select queue_id, attempts from noetl.lease_jobs('test', $1))
        select count(noetl.complete_job(queue_id, 'test', attempts, $2)) from leased"""
    return int(await value(database, statement, most, result))


async def until_ended(database: Database) -> None:
    """Wait until no execution is running: the broker rings `noetl_end` at each commit that ends some."""
    rung = asyncio.Event()
    connection = await connect(database.dsn, name="test")
    try:
        await connection.add_listener("noetl_end", lambda *_: rung.set())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await connection.fetchval("select count(*) from noetl.execution where status = 'RUNNING'"):
                await rung.wait()
                rung.clear()
    finally:
        await connection.close()


async def broken_invariants(database: Database, *, but: Iterable[str] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """What `verify` finds over all executions, and what is not at rest; `but` names what the test leaves so on purpose.

    By the sentence of each check with its invariant before it, or the words of AT_REST.
    """
    connection = await connect(database.dsn, name="test")
    try:
        report = await verify(connection, Scope())
        found = {name: [tuple(row) for row in await connection.fetch(text)] for name, text in AT_REST.items()}
    finally:
        await connection.close()
    for verdict in report.verdicts:
        found[f"{verdict.check.invariant} {verdict.check.sentence}"] = [tuple(fault) for fault in verdict.examples]
    return {name: faults for name, faults in found.items() if faults and name not in but}


class Writer:
    """Starts one execution at a time and waits for its end, on one connection."""

    def __init__(self, database: Database, path: str = "story") -> None:
        """Not connected yet: it is a context manager."""
        self._database = database
        self._path = path
        self._rung = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connect and listen."""
        self._connection = await connect(self._database.dsn, name="test")
        await self._connection.add_listener("noetl_end", lambda *_: self._rung.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        await self._connection.close()

    async def start_and_wait(self) -> int:
        """One execution from its start to its end; gives its id."""
        execution_id = int(await self._connection.fetchval("select noetl.start_execution($1)", self._path))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self._connection.fetchval(
                "select status = 'RUNNING' from noetl.execution where execution_id = $1", execution_id
            ):
                await self._rung.wait()
                self._rung.clear()
        return execution_id
