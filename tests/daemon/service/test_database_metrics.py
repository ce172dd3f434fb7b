"""The metrics of a database: lost connections are replaced at the next query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from noetl_broker.daemon.metrics import database as observer_module
from noetl_broker.daemon.metrics.database import DatabaseMetrics, Observers
from tests.brokers import PATIENCE_SECONDS, value
from tests.postgres import Database
from tests.sessions import blocked, session

TERMINATE = """
    select count(pg_terminate_backend(pid))
    from pg_stat_activity
    where datname = current_database() and application_name in ($1::text, $1 || ' noetl')"""


@pytest.fixture
async def observer(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DatabaseMetrics]:
    """Yield an observer without a cache."""
    monkeypatch.setattr(observer_module, "FRESH_SECONDS", 0.0)
    made = DatabaseMetrics(database)
    yield made
    await made.close()


@asynccontextmanager
async def locked(database: Database, table: str) -> AsyncIterator[None]:
    """Lock a table against all other sessions."""
    async with session(database) as own, own.transaction():
        await own.execute(f"lock table {table} in access exclusive mode")
        yield


async def up(observer: DatabaseMetrics) -> float:
    """Tell whether the observer reaches the database."""
    return (await observer.collect()).values["database_up"][()]


async def test_a_terminated_connection_is_replaced(database: Database, observer: DatabaseMetrics) -> None:
    """The next query may fail; the one after that has a new connection."""
    assert await up(observer) == 1
    assert await value(database, TERMINATE, "noetl-broker watch") == 1
    await up(observer)
    assert (await up(observer), observer.trouble) == (1, None)


async def test_an_interrupted_query_reports_the_database_as_down_and_the_next_one_recovers(
    database: Database, observer: DatabaseMetrics
) -> None:
    """The query waits for a locked table."""
    async with session(database) as own:
        async with locked(database, "noetl.inbox"):
            look = asyncio.create_task(up(observer))
            await blocked(own)
            assert await own.fetchval(TERMINATE, "noetl-broker watch") == 1
            assert await look == 0
        assert "terminating connection" in (observer.trouble or "")
        assert (await up(observer), observer.trouble) == (1, None)


async def test_an_interrupted_verification_is_counted_and_repeated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon goes on, and a metric counts the failure."""
    monkeypatch.setattr(observer_module, "FRESH_SECONDS", 0.0)
    observers = Observers({"db": database})
    observer = observers.each["db"]
    async with session(database) as own:
        async with locked(database, "noetl.execution_state"):
            verifying = asyncio.create_task(observers.keep_verifying("db", 0.1))
            await blocked(own)
            assert await own.fetchval(TERMINATE, "noetl-broker verify") == 1
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (await observer.collect()).values["verify_failures_total"][()]:
                    await own.fetchval("select 1")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "last_verify_timestamp_seconds" not in (await observer.collect()).values:
                await own.fetchval("select 1")
        assert not verifying.done()
        verifying.cancel()
    await observers.close()
