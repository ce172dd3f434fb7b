"""Steps with a `throttle`, as a broker and workers run them."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookRules
from noetl_broker.service.explanations import explain_part
from noetl_broker.store.connect.connection import call, connect
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

CHARGE = """
workload: {account: a}
workflow:
  - {step: start, next: charge}
  - step: charge
    type: own
    throttle: {name: api, key: "{{ workload.account }}", concurrency: 1}
    next: end
  - {step: end}
"""
EACH = """
workflow:
  - {step: start, next: each}
  - step: each
    type: iterator
    collection: [1, 2, 3]
    element: x
    mode: async
    task: {type: own, throttle: {name: api, key: "{{ x == 3 }}", concurrency: 1}}
    next: end
  - {step: end}
"""
JOBS = "select limit_key, status, held_for from noetl.queue where limit_name = 'api' order by queue_id"
STATUS = "select status from noetl.execution order by execution_id"


async def test_executions_wait_for_a_slot_by_key(database: Database) -> None:
    """And all end, one after another."""
    await register(database, CHARGE)
    await start(database, count=2)
    await start(database, payload={"account": "b"})
    await drain(database)
    assert await rows(database, JOBS) == [("a", "queued", None), ("a", "held", ["limit"]), ("b", "queued", None)]
    assert await complete_jobs(database) == 2
    assert await complete_jobs(database) == 1
    await drain(database)
    assert await rows(database, STATUS) == [("COMPLETED",)] * 3
    assert (await inconsistencies(database), await broken_invariants(database)) == ({}, {})


async def test_an_item_of_an_iterator_has_a_slot_of_its_own(database: Database) -> None:
    """Its key is rendered with the item."""
    await register(database, EACH)
    await start(database)
    await drain(database)
    assert await rows(database, JOBS) == [
        ("false", "queued", None),
        ("false", "held", ["limit"]),
        ("true", "queued", None),
    ]
    while await complete_jobs(database, 1):
        await drain(database)
    assert await rows(database, "select status, result from noetl.execution") == [("COMPLETED", [1, 1, 1])]


async def test_a_paused_execution_gives_its_slot_to_others(database: Database) -> None:
    """It asks for one again when it runs on. A job that waits for a slot is parked too."""
    await register(database, CHARGE)
    first, second, _ = await start(database, count=3)
    await drain(database)
    for execution_id in (second, first):
        await execute(database, "select noetl.pause_execution($1)", execution_id)
        await drain(database)
    assert await rows(database, JOBS) == [
        ("a", "held", ["pause"]), ("a", "held", ["limit", "pause"]), ("a", "queued", None),
    ]  # fmt: skip
    for execution_id in (first, second):
        await execute(database, "select noetl.resume_execution($1)", execution_id)
    await drain(database)
    assert [row[1:] for row in await rows(database, JOBS)] == [
        ("held", ["limit"]), ("held", ["limit"]), ("queued", None),
    ]  # fmt: skip
    while await complete_jobs(database):
        pass
    await drain(database)
    assert await rows(database, STATUS) == [("COMPLETED",)] * 3


async def test_a_cancelled_execution_frees_its_slot(database: Database) -> None:
    """In the turn of the cancel."""
    await register(database, CHARGE)
    first, _ = await start(database, count=2)
    await drain(database)
    await execute(database, "select noetl.cancel_execution($1)", first)
    await drain(database)
    assert await rows(database, JOBS) == [("a", "cancelled", None), ("a", "queued", None)]


async def test_a_key_of_the_wrong_type_fails_the_step(database: Database) -> None:
    """With the value and the remedy."""
    await register(database, CHARGE)
    await start(database, payload={"account": [1]})
    await drain(database)
    message = await value(database, "select error ->> 'message' from noetl.execution")
    assert message == "the `key` of a `throttle` must be a text of up to 1024 bytes, a number or a boolean, it is [1]"


async def test_explain_says_what_a_job_waits_for(database: Database) -> None:
    """The throttle, its key, who has slots, and how many wait before."""
    await register(database, CHARGE)
    *_, last = await start(database, count=3)
    await drain(database)
    says = (
        "the job of charge waits for a slot of the throttle api a (1 at a time): 0 leased, 1 ready, 1 waits before it"
    )
    connection = await connect(database, name="test")
    why = await explain_part(connection, last, "charge", PlaybookRules())
    await connection.close()
    assert says in str(why)


@pytest.mark.parametrize("more", [1, 2])
async def test_more_slots_wake_jobs_of_a_running_daemon(database: Database, more: int) -> None:
    """A broker looks at all keys when the numbers change."""
    await register(database, CHARGE)
    await start(database, count=4)
    await drain(database)
    connection = await connect(database, name="test")
    await call(connection, "put_throttle", "api", 1 + more, None, None)
    await connection.close()
    await drain(database)
    assert await value(database, "select count(*) from noetl.queue where status = 'queued'") == 1 + more
