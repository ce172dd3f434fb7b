"""Parents and children beside a NoETL server, where each event must name a playbook."""

from __future__ import annotations

from tests.brokers import drain, rows, value
from tests.noetl import STEP, NoETL, ended, verify_faults
from tests.postgres import Database

CALLS = """
workflow:
- {step: start, next: a}
- {step: a, type: playbook, path: missing/one, on_error: continue, next: end}
- {step: end, result: "{{ a.status }}"}
"""


async def test_a_child_without_a_registered_playbook_fails(noetl: NoETL, noetl_database: Database) -> None:
    """The parent goes on as with any failed child. The events of the child name its parent's playbook."""
    await noetl.register(CALLS)
    await noetl.start(9)
    await drain(noetl_database)
    assert await value(noetl_database, "select count(*) from noetl.dead_letter") == 0
    by_kind = "select status, error ->> 'message' from noetl.execution order by parent_execution_id is not null"
    parent, child = await rows(noetl_database, by_kind)
    assert (parent, child) == (("COMPLETED", None), ("FAILED", "no playbook missing/one is registered"))
    of_child = """
        select x.catalog_id, e.event_type, c.path
        from noetl.execution x
        join noetl.event e using (execution_id)
        join noetl.catalog c on c.catalog_id = e.catalog_id
        where x.parent_execution_id = 9
        order by e.created_at"""
    assert await rows(noetl_database, of_child) == [
        (None, "execution_start", "mine"),
        (None, "execution_failed", "mine"),
    ]
    assert await verify_faults(noetl) == {}


async def test_a_parent_whose_child_has_not_started_can_be_cancelled(noetl: NoETL, noetl_database: Database) -> None:
    """The child is cancelled when it starts."""
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(noetl_database)
    job = await noetl.lease()
    assert job is not None
    await noetl.report(job, "iteration_started", context={"child_execution_id": "77", "index": 0})
    await drain(noetl_database)
    await noetl.connection.execute("select noetl.cancel_execution(9)")
    await drain(noetl_database)
    assert [status for status, *_ in await ended(noetl)] == ["CANCELLED", "CANCELLED"]
    await noetl.start(77, meta={"parent_execution_id": "9", "parent_step": "a"})
    await drain(noetl_database)
    assert [status for status, *_ in await ended(noetl)] == ["CANCELLED", "CANCELLED"]
    assert await value(noetl_database, "select count(*) from noetl.event where event_type = 'execution_cancelled'") == 2
    assert await value(noetl_database, "select count(*) from noetl.dead_letter") == 0
    assert await verify_faults(noetl) == {}
