"""The listener has one connection, and replaces it when it is lost."""

from __future__ import annotations

import asyncio
import time

from noetl_broker.store.connect.listener import Listener
from tests.brokers import value
from tests.postgres import Database

LISTENERS = """
    select count(*)
    from pg_stat_activity
    where datname = current_database() and application_name = 'noetl-broker bell'"""


async def test_a_listener_keeps_its_working_connection(database: Database) -> None:
    """A second connection would leak and could hold the gate."""
    listener, stopping = Listener(database), asyncio.Event()
    await listener.keep_connected(stopping)
    await listener.keep_connected(stopping)
    try:
        assert await value(database, LISTENERS) == 1
        assert listener.reconnects == 1
    finally:
        await listener.close()


async def test_a_new_connection_is_not_deaf_for_earlier_notifications(database: Database) -> None:
    """It can receive only notifications that are sent after it listens."""
    listener, stopping = Listener(database), asyncio.Event()
    await listener.keep_connected(stopping)
    assert listener.notified.is_set()  # set once, so the broker looks for earlier mail
    probed_at = time.monotonic()
    assert listener.deaf_since(probed_at)
    await listener.close()
    assert listener.lost.is_set()
    await listener.keep_connected(stopping)
    try:
        assert not listener.deaf_since(probed_at)
        assert listener.deaf_since(time.monotonic())
    finally:
        await listener.close()
