"""What looks at the database beside a daemon loses its connections, and has others at its next look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from noetl_broker.daemon import observer as observer_module
from noetl_broker.daemon.observer import Observer
from tests.brokers import PATIENCE_SECONDS, value
from tests.postgres import Database
from tests.sessions import blocked, session

TERMINATE = """
    select count(pg_terminate_backend(pid))
    from pg_stat_activity
    where datname = current_database() and application_name = $1"""


@pytest.fixture
async def observer(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Observer]:
    """Yield one that looks each time that it is asked."""
    monkeypatch.setattr(observer_module, "KEPT_SECONDS", 0.0)
    made = Observer(database.dsn)
    yield made
    await made.close()


@asynccontextmanager
async def locked(database: Database, table: str) -> AsyncIterator[None]:
    """Keep everybody from a table."""
    async with session(database) as own, own.transaction():
        await own.execute(f"lock table {table} in access exclusive mode")
        yield


async def up(observer: Observer) -> float:
    """Whether a look found the database there."""
    return (await observer.look()).values["database_up"][()]


async def test_a_connection_that_is_terminated_between_looks_is_replaced(
    database: Database, observer: Observer
) -> None:
    """The next look may meet what is left of it; the one after has another."""
    assert await up(observer) == 1
    assert await value(database, TERMINATE, "noetl-broker watch") == 1
    await up(observer)
    assert (await up(observer), observer.trouble) == (1, None)


async def test_a_look_that_is_cut_off_says_so_and_the_next_is_one(database: Database, observer: Observer) -> None:
    """It waited for a table that somebody had locked."""
    async with session(database) as own:
        async with locked(database, "noetl.inbox"):
            look = asyncio.create_task(up(observer))
            await blocked(own)
            assert await own.fetchval(TERMINATE, "noetl-broker watch") == 1
            assert await look == 0
        assert "terminating connection" in (observer.trouble or "")
        assert (await up(observer), observer.trouble) == (1, None)


async def test_a_verification_that_is_cut_off_is_counted_and_made_again(database: Database, observer: Observer) -> None:
    """It is a chore: the daemon goes on, and a figure says that it failed."""
    async with session(database) as own:
        async with locked(database, "noetl.execution_state"):
            verifying = asyncio.create_task(observer.keep_verifying(0.1))
            await blocked(own)
            assert await own.fetchval(TERMINATE, "noetl-broker verify") == 1
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (await observer.look()).values["verify_failures_total"][()]:
                    await own.fetchval("select 1")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "last_verify_timestamp_seconds" not in (await observer.look()).values:
                await own.fetchval("select 1")
        assert not verifying.done()
        verifying.cancel()
