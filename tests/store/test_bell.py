"""The listener's connection: one, whoever finds out that it is gone."""

from __future__ import annotations

import asyncio
import time

from noetl_broker.store.bell import Bell
from tests.brokers import value
from tests.postgres import Database

LISTENERS = """
    select count(*)
    from pg_stat_activity
    where datname = current_database() and application_name = 'noetl-broker bell'"""


async def test_one_that_stands_is_left_alone(database: Database) -> None:
    """A second connection would be lost, perhaps with the gate."""
    bell, stopping = Bell(database.dsn), asyncio.Event()
    await bell.keep_connected(stopping)
    await bell.keep_connected(stopping)
    try:
        assert await value(database, LISTENERS) == 1
        assert bell.reconnects == 1
    finally:
        await bell.close()


async def test_one_that_has_come_back_is_not_deaf_for_what_the_one_before_heard(database: Database) -> None:
    """Only what was rung since it listens can be heard by it."""
    bell, stopping = Bell(database.dsn), asyncio.Event()
    await bell.keep_connected(stopping)
    assert bell.rung.is_set()  # to look for what came before
    probed_at = time.monotonic()
    assert bell.deaf_since(probed_at)
    await bell.close()
    assert bell.lost.is_set()
    await bell.keep_connected(stopping)
    try:
        assert not bell.deaf_since(probed_at)
        assert bell.deaf_since(time.monotonic())
    finally:
        await bell.close()
