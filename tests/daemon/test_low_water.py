"""The mark from which the inbox is read: it saves a walk over dead rows, and hides no mail."""

from __future__ import annotations

import time

import pytest

from noetl_broker.daemon.low_water import CHEAP_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, MARGIN, WIDE_MARGIN, LowWater
from tests.brokers import broken_invariants, register, running, start, until_ended, value
from tests.chaos.under_load import until
from tests.postgres import Database
from tests.sessions import session

DEAR = 10.0  # seconds that a look from the beginning took


def test_after_a_dear_look_claims_begin_a_bit_before_the_mark() -> None:
    """Before what was claimed last, since others may commit later what was numbered earlier."""
    low_water = LowWater()
    assert low_water.start() == 0
    for _ in range(2):
        low_water.looked(10_000, 0, DEAR)
    low_water.looked(30_000, 10_000, 0.001)
    low_water.looked(None, 30_000, 0.001)
    assert low_water.start() == low_water.near == 30_000 - WIDE_MARGIN
    low_water.left(20_000)
    assert low_water.start() == 20_000 - WIDE_MARGIN
    assert 9 < low_water.seconds_left < LONGEST_PAUSE_SECONDS


def test_while_looks_are_cheap_claims_begin_closer_to_the_mark() -> None:
    """What lies before that is found by the next look from the beginning, which comes soon."""
    low_water = LowWater()
    low_water.looked(30_000, 0, 0.001)
    assert low_water.start() == low_water.near == 30_000 - MARGIN


def test_after_a_full_claim_the_next_begins_behind_it() -> None:
    """The rows that our own lanes hold need not be walked over; after one that was not full, all is looked at."""
    low_water = LowWater()
    low_water.looked(30_000, 0, 0.001, past=30_200)
    assert (low_water.start(), low_water.near) == (30_200, 30_000 - MARGIN)
    low_water.looked(30_200, 30_200, 0.001, past=30_400)
    assert low_water.start() == 30_400
    low_water.looked(30_400, 30_400, 0.001)
    assert low_water.start() == 30_400 - MARGIN


def test_however_many_full_claims_there_are_one_soon_begins_at_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed late waits no longer than that, even in a backlog without an end."""
    low_water, now = LowWater(), time.monotonic()
    low_water.looked(30_000, 0, 0.004, past=30_200)
    for claims in range(10):
        assert low_water.start() > 0
        low_water.looked(30_200 + 200 * claims, low_water.start(), 0.001, past=30_400 + 200 * claims)
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * CHEAP_PAUSE_SECONDS)
    assert low_water.start() == 0
    assert low_water.start() > 0


def test_mail_that_a_full_claim_left_is_claimed_next() -> None:
    """It failed, or others held some of it: nobody else would look there for a while."""
    low_water = LowWater()
    low_water.looked(30_000, 0, 0.001, past=30_200)
    low_water.left(30_000)
    assert low_water.start() == 30_000 - MARGIN


def test_a_claim_that_began_behind_what_was_left_meanwhile_says_nothing() -> None:
    """Its answer came late: what is left comes first all the same."""
    low_water = LowWater()
    low_water.looked(30_000, 0, 0.001, past=30_200)
    low_water.left(30_000)
    low_water.looked(30_200, 30_200, 0.001, past=30_400)
    assert low_water.start() == 30_000 - MARGIN


def test_while_looks_are_dear_no_claim_begins_behind_another() -> None:
    """What was committed late would wait for seconds."""
    low_water = LowWater()
    low_water.looked(30_000, 0, DEAR)
    low_water.looked(30_000, 0, DEAR, past=30_200)
    assert low_water.start() == 30_000 - WIDE_MARGIN


def test_one_dear_look_alone_is_none() -> None:
    """A new session plans its statements, or the machine was busy: the next one comes soon, and says whether it was."""
    low_water = LowWater()
    low_water.looked(30_000, 0, DEAR)
    assert (low_water.start(), low_water.seconds_left) == (30_000 - MARGIN, 0)


def test_a_look_from_the_beginning_is_believed() -> None:
    """Something lower came to light: that is the mark."""
    low_water = LowWater()
    low_water.looked(30_000, 0, DEAR)
    low_water.looked(10_000, 0, DEAR)
    assert low_water.start() == 10_000 - WIDE_MARGIN
    low_water.looked(100, 0, DEAR)
    assert low_water.start() == 0


def test_a_cheap_look_is_always_due_before_a_sleep() -> None:
    """Without an old snapshot nothing is saved, so nothing is put off."""
    low_water = LowWater()
    low_water.looked(300, 0, 0.0001)
    assert low_water.seconds_left == 0


async def test_mail_that_is_committed_late_is_read_though_the_mark_is_past_it(database: Database) -> None:
    """Its id was given long before those that are read; no sweep helps."""
    await register(database, "workflow:\n- {step: start}\n")
    async with session(database) as writer, running(database, sweep_seconds=60.0, lanes=1):
        transaction = writer.transaction()
        await transaction.start()
        late = await writer.fetchval("select noetl.start_execution('story')")
        others = await start(database, count=500)
        await until(database, "select count(*) = $1 from noetl.execution where status = 'COMPLETED'", len(others))
        await transaction.commit()
        await until_ended(database)
    assert await value(database, "select status from noetl.execution where execution_id = $1", late) == "COMPLETED"
    assert await broken_invariants(database) == {}


async def test_the_newest_mail_too_is_looked_for_from_the_mark_on(database: Database) -> None:
    """From the end backwards, with few mails there, a look would go over all that is gone."""
    async with session(database) as own:
        for number in range(3):
            await own.execute("insert into noetl.inbox (execution_id, event_id) values ($1, $1)", number)
        ids = [row["mail_id"] for row in await own.fetch("select mail_id from noetl.inbox order by mail_id")]
        for newest in (True, False):
            look = "select mail_id from noetl.take_mail(9, $1, $2) order by mail_id"
            assert [row["mail_id"] for row in await own.fetch(look, newest, ids[1])] == ids[1:]
