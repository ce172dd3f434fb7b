"""Of an execution's mail that one alone is set aside on which nobody can decide; all other mail is decided on."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest

from noetl_broker.broker.model import Rules
from noetl_broker.daemon.apart import Apart
from noetl_broker.daemon.batch import Batch
from noetl_broker.daemon.counters import Counters
from noetl_broker.daemon.playbooks import Playbooks
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store import unit
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
from tests.postgres import Database
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
# What a server says of a value that it cannot give: more than a gigabyte of text, for example.
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


async def test_a_cancel_behind_mail_that_nobody_can_decide_on_is_decided(database: Database) -> None:
    """Without its playbook an execution can be cancelled; what came before that waits for the playbook."""
    await register(database, FAN)
    [execution_id] = await start(database)
    await drain(database)
    playbook = await rows(database, "delete from noetl.catalog returning catalog_id, path, version, name, content")
    await complete_jobs(database, most=1)
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    assert (await drain(database)).counters.set_aside == 1
    assert await value(database, "select status from noetl.execution") == "CANCELLED"
    assert await value(database, "select count(*) from noetl.dead_letter") == 1
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
async def test_what_the_database_refuses_is_found_among_the_mail_of_one_execution(
    database: Database, spoiled: int, healthy: int
) -> None:
    """Turns before it and after it stand; it comes back after the mend."""
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
    assert (await drain(database)).counters.set_aside == spoiled
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


async def test_a_batch_that_cannot_tell_which_of_several_it_is_has_them_come_singly(database: Database) -> None:
    """It need not meet its execution alone for that: amid others it never may."""
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
    apart = Apart()
    set_aside = []
    async with session(database) as own:
        for _ in range(2):
            counters = Counters()
            playbooks = Playbooks(PlaybookRules())
            batch = Batch(Rules(), playbooks, counters, max_gathered_bytes=1 << 26, careful=True, apart=apart)
            await batch.run(own, size=200, look=unit.Look(0, newest=False))
            set_aside.append(counters.set_aside)
            await start(database)
    assert (apart.singly, set_aside) == ({spoiled}, [0, 1])


@pytest.mark.parametrize("newest", [False, True], ids=["oldest", "newest"])
async def test_mail_that_the_server_cannot_give_is_set_aside_unread(database: Database, *, newest: bool) -> None:
    """No claim in which it stands succeeds: it is looked for with ever fewer, and holds nobody up."""
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
    counters = (await drain(database)).counters
    assert counters.set_aside == 1
    assert await rows(database, "select execution_id, reason from noetl.dead_letter") == [
        (spoiled, "ProgramLimitExceededError: string buffer exceeds maximum allowed length")
    ]
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 20


async def test_a_start_that_a_constraint_of_somebodys_refuses_is_set_aside(database: Database) -> None:
    """It comes upon the row that the claim itself makes of it; the others start."""
    await register(database, FAN)
    await register(database, FAN, path="other")
    await execute(database, "alter table noetl.execution add constraint ours check (path <> 'other')")
    await execute(
        database,
        "insert into noetl.event (execution_id, event_type, context) values (5, 'execution_start', $1)",
        {"path": "other"},
    )
    await start(database, count=20)
    counters = (await asyncio.wait_for(drain(database), PATIENCE_SECONDS)).counters
    assert counters.set_aside == 1
    [(execution_id, reason)] = await rows(database, "select execution_id, reason from noetl.dead_letter")
    assert (execution_id, reason.split(":")[0]) == (5, "CheckViolationError")
    assert await value(database, "select count(*) from noetl.queue where status = 'queued'") == 60


async def test_mail_that_another_broker_holds_is_not_mistaken_for_the_next(database: Database) -> None:
    """The claim stumbled over one; when it is looked for again somebody else tries it, and the next comes first."""
    await register(database, FAN)
    spoiled, sound = await start(database, count=2)
    await drain(database)
    await execute(database, UNREADABLE.format(sqlstate="54000"))
    await execute(database, FAIL, spoiled, "poison")
    await execute(database, FAIL, sound, "boom")
    look = unit.Look(0, newest=False)
    async with session(database) as other, session(database) as own:
        await other.execute("begin")
        await other.execute("select from noetl.inbox where execution_id = $1 for update", spoiled)
        async with own.transaction():
            assert await unit.set_aside_unread(own, look) == []
        await other.execute("rollback")
        async with own.transaction():
            assert await unit.set_aside_unread(own, look) == [spoiled]
    await drain(database)
    assert await value(database, "select status from noetl.execution where execution_id = $1", sound) == "FAILED"


async def test_what_is_no_fault_of_a_row_sets_no_mail_aside(database: Database) -> None:
    """As where somebody has replaced a function of ours: the mail stays until that is mended."""
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
    """Until so many transactions of this database were rolled back since now; the server counts them."""
    rolled_back = "select xact_rollback from pg_stat_database where datname = current_database()"
    before = await own.fetchval(rolled_back)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await own.fetchval(rolled_back) < before + times:
            await asyncio.sleep(0)
            await own.execute("select pg_stat_clear_snapshot()")


async def test_a_broker_that_stops_wakes_the_others_where_mail_is_left(database: Database) -> None:
    """Letters between executions ring nobody, and whoever sleeps behind the gate would find them at the next sweep."""
    await register(database, FAN)
    [execution_id] = await start(database)
    await drain(database)
    async with session(database) as own, session(database) as listener:
        async with running(database):
            await own.execute("begin")
            await own.execute("select pg_advisory_xact_lock($1)", execution_id)
            await execute(database, FAIL, execution_id, "boom")
            heard = await listen(listener)
        while (word := await heard()).startswith("probe:"):  # of the watch over the listener
            pass
        assert word == ""
        await own.execute("commit")
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "FAILED"


@pytest.mark.parametrize("batch_size", [1, 100])
async def test_neither_the_reason_nor_the_log_shows_the_row_that_the_database_refused(
    database: Database, batch_size: int
) -> None:
    """It may hold what nobody should read there; what the server says of it beside that is enough to find it."""
    await register(database, FAN.replace("code: x", "code: x, args: {key: hush}, next: end") + "- {step: end}\n")
    await execute(database, "alter table noetl.queue add constraint no_b check (node_name <> 'b')")
    await start(database, count=2)
    environment = {**os.environ, "NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_BATCH_SIZE": str(batch_size)}
    command = (sys.executable, "-m", "noetl_broker", "run", "--drain")
    broker = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    _, said = await broker.communicate()
    message = r'^CheckViolationError: new row for relation "\w+" violates check constraint "no_b"$'
    assert await rows(database, "select distinct reason ~ $1 from noetl.dead_letter", message) == [(True,)]
    told = said.decode()
    assert "violates check constraint" in told
    assert "Failing row" not in told
    assert "hush" not in told
