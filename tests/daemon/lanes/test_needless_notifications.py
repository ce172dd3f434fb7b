"""Needless notifications, which any login can send, cost little and delay no mail."""

from __future__ import annotations

import time
from typing import Any

import pytest

from noetl_broker.daemon.metrics import registry as metric
from tests.brokers import running
from tests.postgres import Database
from tests.sessions import Session, session

NOTIFICATIONS = 60


@pytest.mark.parametrize("gate", ["ours", "another's", "off"])
async def test_after_needless_notifications_the_daemon_polls_less_often(database: Database, gate: str) -> None:
    """It checks the inbox sometimes, but not for each notification."""
    notify = "off" if gate == "off" else "gated"
    async with session(database) as other, session(database) as own:
        if gate == "another's":
            await other.execute("select pg_advisory_lock(hashtext('noetl.lock'), 1)")
        await amid_notifications(database, own, notify)


async def amid_notifications(database: Database, own: Session[Any], notify: str) -> None:
    """Send far more notifications than are worth a check."""
    async with running(database, notify=notify) as service:
        before, began = service.metrics.total(metric.DRAINS), time.monotonic()
        for notification in range(NOTIFICATIONS):
            await own.execute("select pg_notify('noetl_event', $1)", str(notification))
            for _ in range(40):
                await own.execute("select 1")
        drains, seconds = service.metrics.total(metric.DRAINS) - before, time.monotonic() - began
    assert 0 < drains < NOTIFICATIONS / 5 + 10 * seconds
