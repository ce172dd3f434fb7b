"""A trigger of somebody's that refuses one row of what is due keeps the reaper from none of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import asyncpg
import pytest
import structlog
from structlog.testing import capture_logs

from noetl_broker.daemon import reaper
from noetl_broker.daemon.reaper import Reaper
from noetl_broker.store.pool import create_pool
from tests.brokers import drain, execute, register, rows, start, value
from tests.daemon.test_reaper import put_lost
from tests.noetl import STEP, NoETL
from tests.postgres import Database
from tests.sessions import put_job, session

REFUSE = """
create function public.refuse() returns trigger language plpgsql as $$begin raise {}; end$$;
create {} on noetl.{}
for each row when (new.node_name = 'b') execute function public.refuse()"""
BEFORE = "trigger refuse before insert", "event"
AT_COMMIT = "constraint trigger refuse after insert", "event deferrable initially deferred"
OF_THE_QUEUE = "trigger refuse before update", "queue"
SAID = "'not %', new.node_name"
CODE_OF_THEIRS = "using errcode = 'MY001', message = 'not b'"
PAST = "update noetl.queue set first_leased_at = now() - interval '1 minute' where timeout_seconds is not null"
ONE_STEP = "workflow:\n- {step: start, next: a}\n- {step: a, type: python, code: x}\n"


@pytest.fixture
async def looking(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reaper]:
    """Yield a reaper as a daemon has one."""
    monkeypatch.setattr(reaper, "log", structlog.get_logger("test"))
    pool = await create_pool(database.dsn, name="reaper", size=1, hot=True)
    try:
        yield Reaper(pool, max_lost_leases=5, missing_event_seconds=30.0, foreign_lease_grace_seconds=900.0)
    finally:
        await pool.close()


async def look(looking: Reaper) -> tuple[dict[str, int], list[MutableMapping[str, Any]]]:
    """What one look did, and what it logged."""
    with capture_logs() as lines:
        done = await looking.look()
    return {name: number for name, number in done.items() if number}, lines


async def put_all_that_comes_due(database: Database) -> int:
    """Timeouts of a, b and c, a lost lease, a pause that is over, a deadline; gives the job of b."""
    await register(database, ONE_STEP, metadata=", deadline: 60")
    await start(database)
    await drain(database)
    async with session(database) as own:
        ids = {name: await put_job(own, name, timeout_seconds=30.0, priority=9) for name in "abc"}
        await own.execute("select noetl.lease_jobs('w', 3)")
        await own.execute(PAST)
        await put_lost(own, "lost", seconds_ago=1)
        await put_job(own, "pause", status="delegated")
        await own.execute("update noetl.execution_state set deadline_at = clock_timestamp() - interval '1 second'")
    return ids["b"]


@pytest.mark.parametrize("said", [SAID, CODE_OF_THEIRS], ids=["P0001", "a code of theirs"])
@pytest.mark.parametrize("when", [BEFORE, AT_COMMIT, OF_THE_QUEUE], ids=["before", "at commit", "of the queue"])
async def test_what_is_refused_is_put_off_alone_and_told(
    database: Database, looking: Reaper, when: tuple[str, str], said: str
) -> None:
    """All others are seen to in the same look, and in the next one, which does not try it."""
    queue_id = await put_all_that_comes_due(database)
    await execute(database, REFUSE.format(said, *when))
    done, [line] = await look(looking)
    assert done == {"timed_out": 2, "requeued": 1, "overdue": 1, "woken": 1}
    assert (line["log_level"], line["due"], line["queue_id"], line["node_id"]) == ("error", "timeout", queue_id, "1:b")
    assert "not b" in line["error"]
    assert await value(database, "select status from noetl.queue where queue_id = $1", queue_id) == "leased"
    async with session(database) as own:
        await put_lost(own, "later", seconds_ago=3600)
    assert await look(looking) == ({"requeued": 1}, [])


async def test_it_is_tried_again_and_told_each_time(
    database: Database, looking: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute, here none; nothing is lost, and without the trigger a look is one at everything again."""
    monkeypatch.setattr(reaper, "PUT_OFF_SECONDS", 0.0)
    await put_all_that_comes_due(database)
    await execute(database, REFUSE.format(SAID, *BEFORE))
    assert [len(lines) for _, lines in [await look(looking), await look(looking)]] == [1, 1]
    await execute(database, "drop function public.refuse cascade")
    assert await look(looking) == ({"timed_out": 1}, [])
    assert await look(looking) == ({}, [])


async def test_a_lease_that_runs_out_while_its_timeout_is_refused_is_left_too(
    database: Database, looking: Reaper
) -> None:
    """The job is past its time: nobody is given it again."""
    await put_all_that_comes_due(database)
    await execute(database, REFUSE.format(SAID, *BEFORE))
    await execute(database, "update noetl.queue set lease_until = now() - interval '1 s' where node_name = 'b'")
    _, lines = await look(looking)
    assert [line["due"] for line in lines] == ["timeout"]
    assert await look(looking) == ({}, [])
    assert await rows(database, "select status from noetl.queue where node_name = 'b'") == [("leased",)]


async def test_a_withdrawal_that_is_refused_is_put_off_alone(database: Database, looking: Reaper) -> None:
    """Of a job that somebody held when its execution ended."""
    async with session(database) as own:
        for name in "abc":
            await put_job(own, name)
    await execute(database, "insert into noetl.withdrawn_job select execution_id, node_id from noetl.queue")
    await execute(database, REFUSE.format(SAID, *OF_THE_QUEUE))
    _, lines = await look(looking)
    assert [(line["due"], line["node_id"]) for line in lines] == [("withdrawal", "1:b")]
    states = await rows(database, "select node_name, status from noetl.queue order by 1")
    assert states == [("a", "cancelled"), ("b", "queued"), ("c", "cancelled")]
    assert await rows(database, "select node_id from noetl.withdrawn_job") == [("1:b",)]


async def test_a_fault_that_may_pass_is_nobodys(database: Database, looking: Reaper) -> None:
    """As before: all of it is tried again."""
    await put_all_that_comes_due(database)
    await execute(database, REFUSE.format("using errcode = '53100', message = 'full'", *BEFORE))
    with pytest.raises(asyncpg.DiskFullError):
        await looking.look()
    assert await value(database, "select count(*) from noetl.event where event_type = 'action_failed'") == 0


async def test_a_step_that_is_decided_from_its_row_may_be_refused_too(
    noetl: NoETL, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a NoETL server, whose events did not come: the next one is decided."""
    monkeypatch.setattr(reaper, "log", structlog.get_logger("test"))
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    noetl.lost = {"action_completed", "step_result"}
    for execution_id in (8, 9):
        await noetl.start(execution_id)
    await drain(empty_database)
    for _ in range(2):
        await noetl.work()
    refuse = REFUSE.replace("new.node_name = 'b'", "new.execution_id = 8").format("'not %', new.execution_id", *BEFORE)
    await noetl.connection.execute(refuse)
    pool = await create_pool(empty_database.dsn, name="reaper", size=1, hot=True)
    try:
        reaping = Reaper(pool, max_lost_leases=5, missing_event_seconds=-1.0, foreign_lease_grace_seconds=900.0)
        done, [line] = await look(reaping)
    finally:
        await pool.close()
    assert done == {"from_rows": 1}
    assert (line["due"], line["execution_id"]) == ("event", 8)
