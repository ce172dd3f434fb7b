"""Parents and children beside a NoETL server, whose events each name a playbook, also where there is none."""

from __future__ import annotations

import pytest

from tests.brokers import drain, rows, value
from tests.noetl import NoETL, faults
from tests.postgres import Database

CALLS = """
workflow:
- {step: start, next: a}
- {step: a, type: playbook, path: missing/one, next: end}
- {step: end, result: "{{ a.status }}"}
"""
MESSAGE = "no playbook missing/one is registered"


@pytest.mark.parametrize("on_error", ["fail", "continue"])
async def test_a_child_whose_playbook_is_not_registered_fails(
    noetl: NoETL, empty_database: Database, on_error: str
) -> None:
    """The parent hears of it, and decides as with any child that fails; what the child says is said of its parent's."""
    await noetl.register(CALLS.replace("next: end", f"on_error: {on_error}, next: end"))
    await noetl.start(9)
    await drain(empty_database)
    assert await value(empty_database, "select count(*) from noetl.dead_letter") == 0
    by_kind = "select status, error ->> 'message' from noetl.execution order by parent_execution_id is not null"
    parent, child = await rows(empty_database, by_kind)
    assert (parent, child) == (("FAILED", MESSAGE) if on_error == "fail" else ("COMPLETED", None), ("FAILED", MESSAGE))
    of_child = """
        select x.catalog_id, e.event_type, c.path
        from noetl.execution x
        join noetl.event e using (execution_id)
        join noetl.catalog c on c.catalog_id = e.catalog_id
        where x.parent_execution_id = 9
        order by e.created_at"""
    assert await rows(empty_database, of_child) == [
        (None, "execution_start", "mine"),
        (None, "execution_failed", "mine"),
    ]
    assert await faults(noetl) == {}
