"""What somebody puts on our tables against one job, at the commit or on the queue, keeps nobody from the others."""

from __future__ import annotations

import asyncpg
import pytest

from noetl_broker.store.jobs import JobDatabase, LeasedJob, lease_jobs
from tests.brokers import broken_invariants, drain, execute, register, rows, start
from tests.daemon.test_triggers_of_others import FAN
from tests.postgres import Database
from tests.sessions import put_job, session

FUNCTION = "create function public.refuse() returns trigger language plpgsql as $$begin raise 'not b'; end$$;"
AT_COMMIT = """
create constraint trigger refuse after insert on noetl.event deferrable initially deferred
for each row when (new.node_name = 'b' and new.event_type in ({})) execute function public.refuse()"""
KEY = """
create table public.known (name text primary key);
insert into public.known values ('a'), ('c');
create table public.seen (name text references public.known deferrable initially deferred);
create function public.see() returns trigger language plpgsql as
  $$begin insert into public.seen values (new.node_name); return null; end$$;
create trigger see after insert on noetl.event
for each row when (new.event_type = 'action_started') execute function public.see()"""
OF_THE_QUEUE = """
create trigger refuse before update on noetl.queue
for each row when (new.node_name = 'b') execute function public.refuse()"""
STATES = "select node_name, status, available_at > now() from noetl.queue order by 1"


async def lease(database: Database, most: int = 9) -> list[LeasedJob]:
    """As a worker of ours does."""
    async with JobDatabase(database.dsn, application_name="test") as own:
        return await lease_jobs(own, worker_id="w", max_jobs=most, lease_seconds=60, node_types=None)


async def fan_out(database: Database) -> None:
    """Queue jobs a, b and c."""
    await register(database, FAN)
    await start(database)
    await drain(database)


@pytest.mark.parametrize("what", [FUNCTION + AT_COMMIT.format("'action_started'"), KEY], ids=["trigger", "key"])
async def test_a_start_that_is_refused_at_the_commit_fails_alone(database: Database, what: str) -> None:
    """By a trigger of theirs, or by a key of a table that a trigger of theirs fills."""
    await fan_out(database)
    await execute(database, what)
    assert [job.node_name for job in await lease(database)] == ["a", "c"]
    await drain(database)
    assert await rows(database, STATES) == [("a", "leased", False), ("b", "dead", False), ("c", "leased", False)]
    assert await broken_invariants(database) == {}


async def test_a_failure_that_is_refused_at_the_commit_too_puts_the_job_off(database: Database) -> None:
    """As where it is refused at once."""
    await fan_out(database)
    await execute(database, FUNCTION + AT_COMMIT.format("'action_started', 'action_failed'"))
    assert [job.node_name for job in await lease(database)] == ["a", "c"]
    assert await rows(database, STATES) == [("a", "leased", False), ("b", "queued", True), ("c", "leased", False)]


async def test_a_job_that_may_not_be_changed_is_passed_over(database: Database) -> None:
    """Also by a worker that asks for one job at a time, and finds this one first."""
    await fan_out(database)
    await execute(database, "update noetl.queue set priority = 9 where node_name = 'b'")
    await execute(database, FUNCTION + OF_THE_QUEUE)
    assert [[job.node_name for job in await lease(database, 1)] for _ in "acb"] == [["a"], ["c"], []]
    await execute(database, "drop function public.refuse cascade")
    assert [job.node_name for job in await lease(database, 1)] == ["b"]


async def test_no_more_jobs_are_leased_than_were_asked_for(database: Database) -> None:
    """However many are looked at; and any number may be asked for."""
    async with session(database) as own:
        for node in "abcd":
            await put_job(own, node)
        for most, leased in [(1, ["a"]), (2, ["b", "c"]), (2**31 - 1, ["d"])]:
            found = await own.fetch("select node_name from noetl.lease_singly('w', $1)", most)
            assert [row["node_name"] for row in found] == leased


@pytest.mark.parametrize("mended", [True, False])
async def test_what_the_caller_has_deferred_is_the_callers(database: Database, *, mended: bool) -> None:
    """It stays deferred, no job fails for it, and it is told at the commit."""
    await execute(database, KEY.split("create function", maxsplit=1)[0])
    async with session(database) as own:
        await put_job(own)
        transaction = own.transaction()
        await transaction.start()
        await own.execute("insert into public.seen values ('late')")
        assert len(await own.fetch("select from noetl.lease_singly('w')")) == 1
        await own.execute("insert into public.seen values ('later')")
        if mended:
            await own.execute("insert into public.known values ('late'), ('later')")
            await transaction.commit()
        else:
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await transaction.commit()
    assert await rows(database, "select status from noetl.queue") == [("leased" if mended else "queued",)]
