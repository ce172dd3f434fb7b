"""Playbooks in a test's database, daemons that run during a test, and checks of the invariants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.model.values import JSON
from noetl_broker.daemon.service import Service, ServiceOptions
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.verify import VerifyScope, verify
from noetl_broker.store.connect.connection import connect
from tests.postgres import Database
from tests.sessions import lent_pool, pooled_session
from tests.stories import document

PATIENCE_SECONDS = 120.0  # with what must come; a busy machine may be ten times slower

# Checks that hold only when nothing is left to do; `verify` has those that hold always. A row for each fault.
WHEN_IDLE = {
    "no unread mail": "select execution_id, event_id from noetl.inbox",
    "nothing set aside": "select execution_id, event_id, reason from noetl.dead_letter",
    "every execution ended": "select execution_id from noetl.execution where noetl.is_live(status)",
}


def options(database: Database, **changes: Any) -> ServiceOptions:
    """Return options of a daemon on this database, with these changes."""
    settings: dict[str, Any] = {"rules": Rules(), "playbook_rules": PlaybookRules(), **changes}
    return ServiceOptions(database=database, **settings)


async def register(database: Database, body: str, *, path: str = "story", metadata: str = "", version: int = 1) -> None:
    """Put a playbook with this workload and workflow into the catalog, without a check."""
    await execute(
        database,
        "insert into noetl.catalog (path, version, name, content) values ($1, $3, $1, $2)",
        path,
        document(body, path=path, metadata=metadata),
        version,
    )


async def drain(database: Database, **changes: Any) -> Service:
    """Decide on all mail, as `run --drain` does; return the service, which has the counters."""
    service = Service(options(database, **changes))
    async with lent_pool((database, service.options.lanes), service.open_pool) as pool:
        async with pool.acquire() as connection:
            await service.check_start(connection)
        await service.drain_on(pool)
    return service


@asynccontextmanager
async def running(database: Database, **changes: Any) -> AsyncIterator[Service]:
    """Run a daemon until the block ends."""
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
    """Run one statement, which leaves nothing behind in the session."""
    async with pooled_session(database) as connection:
        await connection.execute(statement, *arguments)


async def rows(database: Database, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Return the rows of one statement."""
    async with pooled_session(database) as connection:
        return [tuple(row) for row in await connection.fetch(statement, *arguments)]


async def value(database: Database, statement: str, *arguments: object) -> Any:
    """Return the first column of the first row."""
    found = await rows(database, statement, *arguments)
    return found[0][0] if found else None


async def start(database: Database, path: str = "story", payload: JSON = None, *, count: int = 1) -> list[int]:
    """Start executions; return their ids."""
    statement = "select noetl.start_execution($1, $2) from generate_series(1, $3)"
    return [row[0] for row in await rows(database, statement, path, payload or {}, count)]


async def complete_jobs(database: Database, result: JSON = None, *, limit: int = 100_000) -> int:
    """Lease up to `limit` jobs and complete each with this result, in one statement; return their number."""
    statement = """
        with leased as (select queue_id, attempts from noetl.lease_jobs('test', $1))
        select count(noetl.complete_job(queue_id, 'test', attempts, $2)) from leased"""
    return int(await value(database, statement, limit, result))


async def until_ended(database: Database) -> None:
    """Wait until no execution is running."""
    await until(database, "select count(*) = 0 from noetl.execution where noetl.is_live(status)")


async def until(database: Database, statement: str, *arguments: object) -> None:
    """Wait until a statement is true; `noetl_end` is notified by each commit that ends an execution or its undo."""
    notified = asyncio.Event()
    connection = await connect(database, name="test")
    try:
        await connection.add_listener("noetl_end", lambda *_: notified.set())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await connection.fetchval(statement, *arguments):
                await notified.wait()
                notified.clear()
    finally:
        await connection.close()


async def until_so_many_ended(database: Database, count: int) -> None:
    """Wait until so many executions have ended."""
    await until(database, "select count(*) >= $1 from noetl.execution where ended_at is not null", count)


async def broken_invariants(database: Database, *, ignore: Iterable[str] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """Return the faults by check: those of `verify` over all executions, and those of WHEN_IDLE.

    `ignore` names the checks that the test breaks on purpose. Checks of `verify` are named by invariant and sentence.
    """
    async with pooled_session(database) as connection:
        report = await verify(connection, VerifyScope())
        found = {name: [tuple(row) for row in await connection.fetch(text)] for name, text in WHEN_IDLE.items()}
    for verdict in report.verdicts:
        found[f"{verdict.check.invariant} {verdict.check.sentence}"] = [tuple(fault) for fault in verdict.examples]
    return {name: faults for name, faults in found.items() if faults and name not in ignore}


class Writer:
    """Starts one execution at a time and waits for its end, on one connection."""

    def __init__(self, database: Database, path: str = "story") -> None:
        """Connects when it is entered."""
        self._database = database
        self._path = path
        self._notified = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connect and listen."""
        self._connection = await connect(self._database, name="test")
        await self._connection.add_listener("noetl_end", lambda *_: self._notified.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self._connection.close()

    async def start_and_wait(self) -> int:
        """Run one execution to its end; return its id."""
        execution_id = int(await self._connection.fetchval("select noetl.start_execution($1)", self._path))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self._connection.fetchval(
                "select status = 'RUNNING' from noetl.execution where execution_id = $1", execution_id
            ):
                await self._notified.wait()
                self._notified.clear()
        return execution_id
