"""The listener's connection: one, whoever finds out that it is gone."""

from __future__ import annotations

import asyncio

from noetl_broker.store.bell import Bell
from tests.brokers import value
from tests.postgres import Database

LISTENERS = """
    select count(*)
    from pg_stat_activity
    where datname = current_database() and application_name = 'noetl-broker bell'"""


async def test_two_that_connect_again_at_once_make_one_connection(database: Database) -> None:
    """The main loop and the watch: a second connection would be lost, perhaps with the gate."""
    bell, stopping = Bell(database.dsn), asyncio.Event()
    await asyncio.gather(*(bell.keep_connected(stopping, lambda: None) for _ in "ab"))
    try:
        assert await value(database, LISTENERS) == 1
        assert bell.reconnects == 1
    finally:
        await bell.close()


async def test_one_that_is_called_alone_connects_anew(database: Database) -> None:
    """A listener that hears nothing is given up, though its connection seems to stand."""
    bell, stopping = Bell(database.dsn), asyncio.Event()
    await bell.keep_connected(stopping, lambda: None)
    first = bell._connection
    await bell.keep_connected(stopping, lambda: None)
    try:
        assert bell.connected
        assert bell._connection is not first
    finally:
        await bell.close()
