"""A running broker starts schedules when they are due."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from noetl_broker.daemon import timers
from noetl_broker.daemon.metrics.registry import SCHEDULE_MOMENTS
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.schedules import Mover
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.admin import catalog
from noetl_broker.store.connect.connection import connect, create_pool
from noetl_broker.store.queries import load
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    drain,
    execute,
    register,
    rows,
    running,
    until_ended,
    until_so_many_ended,
)
from tests.postgres import Database
from tests.sessions import lent_pool

PLAYBOOK = 'workflow: [{step: start, next: end}, {step: end, result: "{{ schedule.name }}"}]'


async def test_a_schedule_that_is_put_starts_executions_at_its_moments(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker sleeps until then: the sweep and any other poll come after the test. None of them is late."""
    monkeypatch.setattr(timers, "POLL_SECONDS", 3600.0)
    await register(database, PLAYBOOK)
    async with running(database, sweep_seconds=600.0) as service:
        often = "select noetl.put_schedule('often', 'story', every => '1 second', catch_up => '0')"
        await execute(database, often)
        await until_so_many_ended(database, 2)
        await execute(database, "select noetl.delete_schedule('often')")
        await until_ended(database)
    assert service.metrics.get(SCHEDULE_MOMENTS, "started") >= 2
    assert {row[0] for row in await rows(database, "select result #>> '{}' from noetl.execution")} == {"often"}


async def test_without_catch_up_nothing_is_made_up(database: Database) -> None:
    """What became due before the broker came is skipped."""
    await register(database, PLAYBOOK)
    await execute(database, "select noetl.put_schedule('daily', 'story', every => '1 day', catch_up => '0')")
    await execute(database, "update noetl.start_schedule set since_at = since_at - every")
    await drain(database)
    assert await rows(database, "select started, skipped from noetl.start_schedule") == [(0, 1)]


async def test_after_a_step_back_of_the_clock_nothing_is_missed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that the clock dated an hour ahead does not count."""
    await register(database, PLAYBOOK)
    await execute(database, "select noetl.put_schedule('daily', 'story', every => '1 day', catch_up => '0')")
    async with lent_pool(database, lambda: create_pool(database, name="test", size=1)) as pool:
        mover = Mover(pool, MetricValues.of_service())
        with monkeypatch.context() as ahead:
            ahead.setitem(load(), "clock", "select clock_timestamp() + interval '1 hour'")
            await mover.fire()
        await mover.fire()
        due = "since_at = now() - every, next_at = now(), due_at = now()"
        await execute(database, f"update noetl.start_schedule set {due}")
        await mover.fire()
    assert await rows(database, "select started, skipped from noetl.start_schedule") == [(1, 0)]


async def test_a_drain_starts_what_is_due(database: Database) -> None:
    """`run --drain`, called now and then, serves schedules too."""
    await register(database, PLAYBOOK)
    await execute(database, "select noetl.put_schedule('daily', 'story', every => '1 day')")
    await execute(database, "update noetl.start_schedule set since_at = since_at - every")
    await drain(database)
    assert await rows(database, "select status from noetl.execution") == [("COMPLETED",)]


async def test_the_nightly_report_starts_by_its_schedule(database: Database) -> None:
    """From `register` to the result: the report of the day before."""
    text = (playbooks_folder() / "nightly_report.yaml").read_text(encoding="utf-8")
    connection = await connect(database, name="test")
    await catalog.register(connection, [(compile_playbook(text, rules=PlaybookRules()), text)])
    await connection.close()
    # so that last night's moment is due, whenever the test runs
    await execute(
        database, "update noetl.start_schedule set since_at = since_at - interval '1 day', catch_up = interval '1 day'"
    )
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(WorkerOptions(dsn=database.dsn, schema=database.schema), stop))
    try:
        async with running(database, sweep_seconds=600.0):
            await until_so_many_ended(database, 1)
    finally:
        stop.set()
        await asyncio.wait_for(worker, PATIENCE_SECONDS)
    [(workload, result)] = await rows(database, "select workload, result from noetl.execution")
    at = datetime.fromisoformat(workload["schedule"]["at"])
    assert (at.hour, str(at.date())) == (2, workload["schedule"]["at"][:10])
    day = at.date() - timedelta(days=1)
    assert result["schedule"] == "examples/nightly_report#nightly"
    total = sum(order["amount"] for order in workload["orders"] if order["day"] == str(day))
    assert result["message"] == f"{day}: {total} EUR"
    [schedule] = await rows(database, "select last_at, next_at - last_at, started from noetl.start_schedule")
    assert schedule[0] == at
    assert schedule[1] in {timedelta(hours=23), timedelta(hours=24), timedelta(hours=25)}
    assert schedule[2] == 1
    assert await broken_invariants(database) == {}
