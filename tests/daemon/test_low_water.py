"""The mark from which the inbox is read: it saves a walk over dead rows, and hides no mail."""

from __future__ import annotations

from noetl_broker.daemon.low_water import LowWater
from tests.brokers import broken_invariants, register, running, start, until_ended, value
from tests.chaos.under_load import until
from tests.postgres import Database
from tests.sessions import session

DEAR = 10.0  # seconds that a look from the beginning took


def test_after_a_dear_look_claims_begin_at_the_mark() -> None:
    """What was claimed last is where the next claim begins; mail that was left moves it back."""
    low_water = LowWater()
    assert low_water.start() == 0
    low_water.looked(100, 0, DEAR)
    low_water.looked(300, 100, 0.001)
    low_water.looked(None, 300, 0.001)
    assert low_water.start() == 300
    low_water.left(200)
    assert low_water.start() == 200
    assert low_water.seconds_left > DEAR


def test_a_look_from_the_beginning_is_believed() -> None:
    """Something lower came to light: that is the mark."""
    low_water = LowWater()
    low_water.looked(300, 0, DEAR)
    low_water.looked(100, 0, DEAR)
    assert low_water.start() == 100


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
