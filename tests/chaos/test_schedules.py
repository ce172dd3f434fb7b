"""Schedules beside any number of brokers that die: each moment starts one execution."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

import pytest

from noetl_broker.store.admin.schedules import move_due_schedules
from noetl_broker.store.connect.connection import Connection, connect
from tests.brokers import PATIENCE_SECONDS, execute, register, rows, until_so_many_ended, value
from tests.chaos.daemons import START_SECONDS, daemon
from tests.chaos.sampling import LONG
from tests.chaos.stopping_proxy import MOMENTS, Point, StoppingProxy
from tests.chaos.under_load import leave_core
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

PLAYBOOK = "workflow: [{step: start, next: end}, {step: end}]"
BROKERS = 4 if LONG else 2
SCHEDULES = 5
SECONDS = 60 if LONG else 2
# Moments by schedule: those that passed, those that were started or skipped, executions, and different keys of them.
COUNTS = """
    select s.name, round(extract(epoch from s.since_at - s.created_at)) as passed, s.started + s.skipped, s.started,
      count(x.execution_id), count(distinct x.idempotency_key), s.skipped
    from noetl.start_schedule s
    left join noetl.execution x on starts_with(x.idempotency_key, format('schedule:%s@', s.name))
    group by s.name
    order by s.name"""


async def put_often(database: Database, *names: str) -> None:
    """Put schedules of each second. No broker sees them before `created_at` is the moment that they count from."""
    async with session(database) as own, own.transaction():
        await own.execute(
            "select noetl.put_schedule(n, 'story', every => '1 second') from unnest($1::text[]) n", [*names]
        )
        await own.execute("update noetl.start_schedule set created_at = since_at")


async def until_all_listen(database: Database) -> None:
    """Wait until all brokers are connected."""
    listening = (
        "select count(*) from pg_stat_activity where application_name like '% bell%' and datname = current_database()"
    )
    async with asyncio.timeout(START_SECONDS):
        while await value(database, listening) < BROKERS:
            await leave_core()


async def test_brokers_start_each_moment_once_while_one_is_killed_every_second(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """The executions themselves are the clock of the test: after each second's, one broker is killed."""
    await register(database, PLAYBOOK)
    killed = 0
    async with AsyncExitStack() as stack:
        pids = [await stack.enter_async_context(daemon(database)) for _ in range(BROKERS)]
        await until_all_listen(database)
        await put_often(database, *(f"often {number}" for number in range(SCHEDULES)))
        for second in range(1, SECONDS + 1):
            await until_so_many_ended(database, second * SCHEDULES)  # or later, if starting a broker took longer
            victim = pids.pop(0)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1
            pids.append(await stack.enter_async_context(daemon(database)))
            await until_all_listen(database)
    counts = await rows(database, COUNTS)
    assert len(counts) == SCHEDULES
    for _, passed, told, started, executions, keys, _ in counts:
        assert (told, executions, keys) == (passed, started, started)
    skipped = sum(row[-1] for row in counts)
    started = sum(row[3] for row in counts)
    assert started >= SECONDS * SCHEDULES
    tried(
        f"{killed} kills among {BROKERS} brokers, {SCHEDULES} schedules",
        f"{started} started, {skipped} late, 0 twice",
    )


async def killed_while_moving(database: Database, point: Point) -> None:
    """Let a broker move what is due, and cut it off at the point."""
    async with StoppingProxy(database, point) as proxy:
        connection = await connect(proxy.database, name="test")
        moving = asyncio.create_task(move_due_schedules(connection, 10))
        await asyncio.wait_for(proxy.reached.wait(), PATIENCE_SECONDS)
        proxy.cut()
        with suppress(Exception):
            await moving
        connection.terminate()


async def undisturbed(database: Database) -> list[str]:
    """The statements of a move without a fault."""
    async with StoppingProxy(database) as proxy:
        connection = await connect(proxy.database, name="test")
        await move_due_schedules(connection, 10)
        await connection.close()
    return proxy.statements


async def test_a_broker_that_dies_in_a_move_starts_each_moment_once(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """Before and after each statement; another broker finds what is left."""
    await register(database, PLAYBOOK)
    fresh = await connect(database, name="test")
    await let_one_pass(fresh, "first")
    statements = await undisturbed(database)
    assert {"begin", "lock_due_schedules", "move_schedules", "commit"} <= {*statements}
    points = [Point(number, moment) for number in range(len(statements)) for moment in MOMENTS]
    for number, point in enumerate(points):
        await let_one_pass(fresh, f"s{number}")
        await killed_while_moving(database, point)
        await fresh.fetch("select from noetl.start_schedule for update")  # waits for the end of the dead transaction
        await move_due_schedules(fresh, 10)
    await fresh.close()
    assert await value(database, "select count(*) from noetl.execution") == 1 + len(points)
    assert await rows(database, "select distinct started, skipped from noetl.start_schedule") == [(1, 0)]
    tried(f"killed at {len(points)} points of a schedule's move", "0 lost, 0 doubled")


async def let_one_pass(connection: Connection, name: str) -> None:
    """Put a daily schedule of which one moment is due."""
    await connection.execute("select noetl.put_schedule($1, 'story', every => '1 day')", name)
    await connection.execute("update noetl.start_schedule set since_at = since_at - every where name = $1", name)


@pytest.mark.parametrize(
    "function, protection, without",
    [
        ("lock_due_schedules", "for update skip locked", ""),
        ("schedule_key", "format('schedule:%s@%s', $1,", "gen_random_uuid() || ($1 ||"),
    ],
    ids=["without the row's lock", "without the key"],
)
async def test_one_of_the_two_protections_is_enough(
    database: Database, function: str, protection: str, without: str, tried: Callable[[str, object], None]
) -> None:
    """Brokers look at the same rows at once; a moment never starts two executions."""
    text = await value(database, f"select pg_get_functiondef('noetl.{function}'::regproc)")
    assert protection in text
    await execute(database, text.replace(protection, without).replace("IMMUTABLE", "VOLATILE"))
    await register(database, PLAYBOOK)
    connections = [await connect(database, name="test") for _ in range(BROKERS)]
    rounds = 40 if LONG else 8
    for number in range(rounds):
        await let_one_pass(connections[0], f"s{number}")
        await asyncio.gather(*(move_due_schedules(each, 10) for each in connections))
    for each in connections:
        await each.close()
    assert await value(database, "select count(*) from noetl.execution") == rounds
    tried(f"{protection.split('(', maxsplit=1)[0]} removed, {BROKERS} brokers, {rounds} moments", "0 doubled")
