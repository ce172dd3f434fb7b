"""Only mail that cannot be decided becomes a dead letter; all other mail of its execution is decided."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from noetl_broker.broker.model.rules import Rules
from noetl_broker.daemon.batch import Batch
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.playbook_cache import PlaybookCache
from noetl_broker.daemon.quarantine import Quarantine
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.turn.claim import ClaimStart, move_unreadable_to_dead_letters
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    value,
)
from tests.chaos.under_load import leave_core
from tests.postgres import Database
from tests.processes import start_command
from tests.sessions import Session, listen, session

FAN = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x}
- {step: c, type: python, code: x}
"""
DEAD = "select node_name from noetl.dead_letter d join noetl.event e using (execution_id, event_id)"
DECIDED = """
select e.node_name
from noetl.turn t
join noetl.event e using (execution_id, event_id)
where e.event_type = 'action_completed' and t.execution_id = $1
order by t.turn"""
# The server's error for a value that it cannot return: more than a gigabyte of text, for example.
UNREADABLE = """
create or replace function noetl.as_error(value jsonb) returns jsonb language plpgsql immutable
as $$
begin
  if value ->> 'message' = 'poison' then
    raise exception 'string buffer exceeds maximum allowed length' using errcode = '{sqlstate}';
  end if;
  return value;
end
$$"""
FAIL = """
insert into noetl.event (execution_id, event_type, node_id, node_name, error)
values ($1::bigint, 'action_failed', $1::bigint || ':a', 'a', jsonb_build_object('message', $2::text))"""


async def test_a_cancel_behind_undecidable_mail_is_decided(database: Database) -> None:
    """Without its playbook an execution can still be cancelled."""
    await register(database, FAN)
    [execution_id] = await start(database)
    await drain(database)
    playbook = await rows(database, "delete from noetl.catalog returning catalog_id, path, version, name, content")
    await complete_jobs(database, limit=1)
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    assert (await drain(database)).metrics.total(metric.SET_ASIDE) == 1
    assert await value(database, "select status from noetl.execution") == "CANCELLED"
    assert "the catalog has no row" in await value(database, "select reason from noetl.dead_letter")
    await execute(
        database,
        "insert into noetl.catalog (catalog_id, path, version, name, content) overriding system value"
        " values ($1, $2, $3, $4, $5)",
        *playbook[0],
    )
    assert await value(database, "select noetl.put_back($1)", execution_id) == 1
    await drain(database)
    assert await broken_invariants(database) == {}


@pytest.mark.parametrize("spoiled, healthy", [(1, 0), (2, 5)], ids=["alone", "among others"])
async def test_refused_mail_is_found_among_the_mail_of_one_execution(
    database: Database, spoiled: int, healthy: int
) -> None:
    """Turns before it and after it are kept. It comes back after the repair."""
    await register(database, FAN)
    executions = await start(database, count=spoiled + healthy)
    await drain(database)
    await complete_jobs(database, 1)
    refused = await rows(
        database,
        "select event_id from noetl.event"
        " where execution_id = any($1) and event_type = 'action_completed' and node_name = 'b'",
        executions[:spoiled],
    )
    listed = ", ".join(str(event_id) for (event_id,) in refused)
    await execute(database, f"alter table noetl.turn add constraint poison check (event_id not in ({listed}))")
    assert (await drain(database)).metrics.total(metric.SET_ASIDE) == spoiled
    assert await rows(database, DEAD) == [("b",)] * spoiled
    for execution_id in executions[:spoiled]:
        assert sorted(await rows(database, DECIDED, execution_id)) == [("a",), ("c",)]
    ended = await rows(database, "select execution_id from noetl.execution where status = 'COMPLETED' order by 1")
    assert [execution_id for (execution_id,) in ended] == executions[spoiled:]
    await execute(database, "alter table noetl.turn drop constraint poison")
    for execution_id in executions[:spoiled]:
        assert await value(database, "select noetl.put_back($1)", execution_id) == 1
    await drain(database)
    assert await broken_invariants(database) == {}


async def test_the_mail_of_a_refused_execution_is_decided_one_at_a_time(database: Database) -> None:
    """Also when its mail never comes alone."""
    await register(database, FAN)
    spoiled, _ = await start(database, count=2)
    await drain(database)
    await complete_jobs(database, 1)
    await execute(
        database,
        "create function public.refuse() returns trigger language plpgsql as $$"
        " begin raise exception 'no' using errcode = '23514'; end $$",
    )
    await execute(
        database,
        f"create trigger refuse before insert on noetl.turn for each row when (new.execution_id = {spoiled})"
        " execute function public.refuse()",
    )
    quarantine = Quarantine()
    set_aside = []
    async with session(database) as own:
        for _ in range(2):
            metrics = MetricValues.of_service()
            playbooks = PlaybookCache(PlaybookRules())
            batch = Batch(
                Rules(), playbooks, metrics, max_gathered_bytes=1 << 26, isolating=True, quarantine=quarantine
            )
            await batch.run(own, size=200, start=ClaimStart(0, newest=False))
            set_aside.append(metrics.total(metric.SET_ASIDE))
            await start(database)
    assert (quarantine.one_by_one, set_aside) == ({spoiled}, [0, 1])


@pytest.mark.parametrize("newest", [False, True], ids=["oldest", "newest"])
async def test_unreadable_mail_becomes_a_dead_letter(database: Database, *, newest: bool) -> None:
    """Each claim that reads it fails: claims become smaller until it is found."""
    await register(database, FAN)
    executions = await start(database, count=20)
    await drain(database)
    await execute(database, UNREADABLE.format(sqlstate="54000"))
    spoiled = executions[-1 if newest else 0]
    if newest:
        await complete_jobs(database, 1)
    await execute(database, FAIL, spoiled, "poison")
    if not newest:
        await complete_jobs(database, 1)
    metrics = (await drain(database)).metrics
    assert metrics.total(metric.SET_ASIDE) == 1
    assert await rows(database, "select execution_id, reason from noetl.dead_letter") == [
        (spoiled, "ProgramLimitExceededError: string buffer exceeds maximum allowed length")
    ]
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 20


async def test_a_start_that_violates_a_constraint_becomes_a_dead_letter(database: Database) -> None:
    """The claim itself inserts its execution row; the other executions start."""
    await register(database, FAN)
    await register(database, FAN, path="other")
    await execute(database, "alter table noetl.execution add constraint ours check (path <> 'other')")
    await execute(
        database,
        "insert into noetl.event (execution_id, event_type, context) values (5, 'execution_start', $1)",
        {"path": "other"},
    )
    await start(database, count=20)
    metrics = (await asyncio.wait_for(drain(database), PATIENCE_SECONDS)).metrics
    assert metrics.total(metric.SET_ASIDE) == 1
    [(execution_id, reason)] = await rows(database, "select execution_id, reason from noetl.dead_letter")
    assert (execution_id, reason.split(":")[0]) == (5, "CheckViolationError")
    assert await value(database, "select count(*) from noetl.queue where status = 'queued'") == 60


async def test_mail_behind_unreadable_mail_that_another_broker_holds_is_kept(database: Database) -> None:
    """The claim fails at one mail; when it is read again, another broker holds it, and the next mail comes first."""
    await register(database, FAN)
    spoiled, sound = await start(database, count=2)
    await drain(database)
    await execute(database, UNREADABLE.format(sqlstate="54000"))
    await execute(database, FAIL, spoiled, "poison")
    await execute(database, FAIL, sound, "boom")
    first = ClaimStart(0, newest=False)
    async with session(database) as other, session(database) as own:
        await other.execute("begin")
        await other.execute("select from noetl.inbox where execution_id = $1 for update", spoiled)
        async with own.transaction():
            assert await move_unreadable_to_dead_letters(own, first) == []
        await other.execute("rollback")
        async with own.transaction():
            assert await move_unreadable_to_dead_letters(own, first) == [spoiled]
    await drain(database)
    assert await value(database, "select status from noetl.execution where execution_id = $1", sound) == "FAILED"


async def test_a_fault_of_a_function_makes_no_dead_letter(database: Database) -> None:
    """One of our SQL functions was replaced: the mail stays in the inbox until the repair."""
    await register(database, FAN)
    [execution_id] = await start(database)
    await drain(database)
    await execute(database, UNREADABLE.format(sqlstate="P0001"))
    await execute(database, FAIL, execution_id, "poison")
    draining = asyncio.create_task(drain(database, batch_size=1))
    async with session(database) as own:
        await _until_failed(own, 3)
        assert await own.fetchval("select count(*) from noetl.inbox") == 1
        await own.execute(UNREADABLE.format(sqlstate="P0001").replace("'poison'", "'else'"))
    await asyncio.wait_for(draining, PATIENCE_SECONDS)
    assert await value(database, "select count(*) from noetl.dead_letter") == 0
    assert await value(database, "select status from noetl.execution") == "FAILED"


async def _until_failed(own: Session[Any], times: int) -> None:
    """Wait until this database has rolled back so many more transactions."""
    rolled_back = "select xact_rollback from pg_stat_database where datname = current_database()"
    before = await own.fetchval(rolled_back)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await own.fetchval(rolled_back) < before + times:
            await asyncio.sleep(0)
            await own.execute("select pg_stat_clear_snapshot()")


async def test_a_broker_that_stops_wakes_the_others_for_remaining_mail(database: Database) -> None:
    """Mail between executions sends no notification; another broker would find it only at its next sweep."""
    await register(database, FAN)
    [execution_id] = await start(database)
    await drain(database)
    async with session(database) as own, session(database) as listener:
        async with running(database):
            await own.execute("begin")
            await own.execute("select pg_advisory_xact_lock($1)", execution_id)
            await execute(database, FAIL, execution_id, "boom")
            heard = await listen(listener)
        while (word := await heard()).startswith("probe:"):  # of the listener's check
            await leave_core()
        assert word == ""
        await own.execute("commit")
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "FAILED"


async def test_neither_the_dead_letter_nor_the_log_shows_the_refused_row(database: Database) -> None:
    """The row may hold a payload; the server's message is enough to find it."""
    await register(database, FAN.replace("code: x", "code: x, args: {key: hush}, next: end") + "- {step: end}\n")
    await execute(database, "alter table noetl.queue add constraint no_b check (node_name <> 'b')")
    await start(database, count=2)
    environment = {**os.environ, "NOETL_BROKER_DSN": database.dsn}
    broker = start_command(["run", "--drain"], cwd=Path.cwd(), env=environment)
    _, log = await asyncio.to_thread(broker.communicate)
    message = r'^CheckViolationError: new row for relation "\w+" violates check constraint "no_b"$'
    assert await rows(database, "select distinct reason ~ $1 from noetl.dead_letter", message) == [(True,)]
    assert "violates check constraint" in log
    assert "Failing row" not in log
    assert "hush" not in log
