"""Beside a NoETL server: its API shows the status of the latest event of an execution."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.history.replay import replay_history
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.history import load_history
from tests.brokers import drain, execute, value
from tests.noetl import NoETL, ended, verify_faults
from tests.postgres import Database
from tests.sessions import session

# The queries of its API: `GET /executions` for the list, `GET /executions/ID` for one.
SHOWN = """
    select e.status
    from noetl.event e
    where e.execution_id = $1
      and e.created_at = (select max(l.created_at) from noetl.event l where l.execution_id = $1)"""
BRANCHES = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: [{when: "{{ a.missing > 1 }}", step: end}]}
- {step: b, type: python, code: x, next: end}
- {step: end}
"""
JOINED = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: c}
- {step: b, type: python, code: x, next: c}
- {step: c, type: python, code: x, next: end}
- {step: end}
"""
ITERATED = """
workflow:
- {step: start, next: many}
- step: many
  type: iterator
  collection: [1, 2]
  element: n
  mode: async
  task: {type: playbook, path: kid, args: {n: "{{ n }}"}}
  next: end
- {step: end}
"""
KID = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: end}
- {step: end}
"""


async def api_status(noetl: NoETL, execution_id: int = 9) -> list[str]:
    """Give the status of an execution as its API shows it, from the latest event."""
    return [row[0] for row in await noetl.connection.fetch(SHOWN, execution_id)]


async def test_events_of_a_worker_after_the_end_are_not_the_latest(noetl: NoETL, noetl_database: Database) -> None:
    """Its `action_completed` and `step_result` come after the failure: the API still shows FAILED."""
    await noetl.register(BRANCHES)
    await noetl.start(9)
    await drain(noetl_database)
    late = [await noetl.lease(), await noetl.lease()]
    one, other = sorted(filter(None, late), key=lambda job: job.step)
    await noetl.complete(one, {"n": 1})
    await drain(noetl_database)
    assert await api_status(noetl) == ["FAILED"]
    for kind in ("action_started", "action_completed", "step_result", "error"):
        await noetl.report(other, kind, {"n": 2})
        assert await api_status(noetl) == ["FAILED"]
    await drain(noetl_database)
    assert await api_status(noetl) == ["FAILED"]
    came = """
        select meta ? 'came_at'
        from noetl.event
        where execution_id = 9 and node_name = 'b' and event_type = 'action_completed'"""
    assert await value(noetl_database, came)
    assert await verify_faults(noetl) == {}


async def test_an_execution_is_shown_as_running_until_it_ends(noetl: NoETL, noetl_database: Database) -> None:
    """After each event of its worker, and after each turn."""
    await noetl.register(JOINED)
    await noetl.start(9)
    assert await api_status(noetl) == ["STARTED"]
    await drain(noetl_database)
    seen = [await api_status(noetl)]
    for _ in range(3):
        job = await noetl.lease()
        assert job is not None
        for kind in ("action_started", "action_completed", "step_result"):
            await noetl.report(job, kind, {"n": 1})
            seen.append(await api_status(noetl))
            if job.step != "c":
                await drain(noetl_database)
                seen.append(await api_status(noetl))
    assert {*map(tuple, seen)} == {("RUNNING",)}
    await drain(noetl_database)
    assert await api_status(noetl) == ["COMPLETED"]
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]
    assert await verify_faults(noetl) == {}
    history = await load_history(noetl.connection, 9, PlaybookRules())
    assert replay_history(history)[1] == []


async def test_a_parent_is_shown_as_running_while_its_children_end(noetl: NoETL, noetl_database: Database) -> None:
    """The answer of a child is an event of the parent."""
    await noetl.register(KID, path="kid")
    await noetl.register(ITERATED)
    noetl.tasks["work"] = lambda _: 1
    await noetl.start(9)
    await drain(noetl_database)
    assert await api_status(noetl) == ["RUNNING"]
    await noetl.work()
    await drain(noetl_database)
    assert await api_status(noetl) == ["RUNNING"]
    await noetl.work()
    await drain(noetl_database)
    assert await api_status(noetl) == ["COMPLETED"]
    assert await verify_faults(noetl) == {}


async def test_a_cancelled_execution_is_shown_as_failed(noetl: NoETL, noetl_database: Database) -> None:
    """That API would show PENDING for CANCELLED."""
    await noetl.register(JOINED)
    await noetl.start(9)
    await drain(noetl_database)
    job = await noetl.lease()
    assert await value(noetl_database, "select noetl.cancel_execution(9, 'enough')")
    assert await api_status(noetl) == ["RUNNING"]
    await drain(noetl_database)
    assert await api_status(noetl) == ["FAILED"]
    assert job is not None
    await noetl.complete(job, {"n": 1})
    await drain(noetl_database)
    assert await api_status(noetl) == ["FAILED"]
    assert await ended(noetl) == [("CANCELLED", None, "enough")]
    assert await verify_faults(noetl) == {}


@pytest.mark.parametrize("writer", ["", "worker"])
async def test_an_event_during_the_write_of_the_end_is_not_the_latest(
    noetl: NoETL, noetl_database: Database, writer: str
) -> None:
    """It waits for the end, or has an earlier time."""
    await noetl.register(BRANCHES)
    await noetl.start(9)
    await drain(noetl_database)
    late = [await noetl.lease(), await noetl.lease()]
    one, other = sorted(filter(None, late), key=lambda job: job.step)
    await noetl.complete(one, {"n": 1})
    async with session(noetl_database) as broker:
        await broker.execute("begin")
        await broker.execute("select pg_advisory_xact_lock(9)")
        at = await broker.fetchval("select clock_timestamp()")
        await broker.execute("select set_config('noetl.writer', 'broker', true)")
        await noetl.connection.execute("select set_config('noetl.writer', $1, false)", writer)
        reporting = asyncio.create_task(noetl.report(other, "step_result", {"n": 2}))
        if writer:
            await reporting
        await broker.execute(
            """
            insert into noetl.event (execution_id, event_id, created_at, event_type, node_id, status, meta)
            values (9, 1, $1::timestamptz at time zone 'UTC', 'execution_failed', '9', 'FAILED', '{"turn": 2}')""",
            at,
        )
        await broker.execute("update noetl.execution set ended_at = $1, status = 'FAILED' where execution_id = 9", at)
        await broker.execute("commit")
        await reporting
    assert await api_status(noetl) == ["FAILED"]


async def test_events_of_earlier_executions_stay_unchanged(noetl: NoETL, noetl_database: Database) -> None:
    """The broker does not know their status."""
    await noetl.register(KID)
    await execute(
        noetl_database,
        """insert into noetl.event (execution_id, catalog_id, event_id, event_type, node_id, node_name, status)
        select 5, c.catalog_id, 1, 'action_started', '5:a', 'a', 'COMPLETED' from noetl.catalog c""",
    )
    assert await api_status(noetl, 5) == ["COMPLETED"]
