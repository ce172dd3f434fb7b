"""A broker that takes and frees slots does not read those who wait for other slots."""

from __future__ import annotations

from noetl_broker.store.connect.connection import HOT_PATH
from tests.brokers import execute
from tests.daemon.pauses.test_lease_beside_held_jobs import pages_of
from tests.postgres import Database

WAITING = 100_000
CLAIM = """
    insert into noetl.slot_claim (execution_id, path, key, number, held_at)
    select n, 'story', $1, nextval('noetl.slot_seq'), case when n = $2 then now() end
    from generate_series($2::int, $3::int) n"""
SLOT = "insert into noetl.place (path, key, held, is_waited_for) values ('story', $1, 1, true)"
STATEMENTS = {
    "ask": "select * from noetl.ask_slots(array[1]::bigint[], array['story'], array['a'], array[2])",
    "cancel": "select noetl.cancel_running(array[2]::bigint[], array['story'], array['a'])",
}


async def pages(database: Database) -> dict[str, int]:
    """Return how many pages each statement reads in a session of a broker."""
    return {name: await pages_of(database, statement, **HOT_PATH) for name, statement in STATEMENTS.items()}


async def test_a_long_line_costs_other_slots_nothing(database: Database) -> None:
    """Whatever the planner knows about the table."""
    running = "insert into noetl.execution (execution_id, path, version, status) values (1, 'story', 1, 'RUNNING')"
    await execute(database, running)
    await execute(database, SLOT, "a")
    await execute(database, CLAIM, "a", 1, 2)
    alone = await pages(database)
    await execute(database, "delete from noetl.slot_claim")
    await execute(database, SLOT, "b")
    await execute(database, CLAIM, "b", 3, WAITING)
    await execute(database, "analyze noetl.slot_claim, noetl.place")
    await execute(database, CLAIM, "a", 1, 2)
    beside = await pages(database)
    assert {name: count for name, count in beside.items() if count > alone[name] + 10} == {}
