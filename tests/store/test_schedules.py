"""Schedules in the database: what is put, paused and deleted; and each moment starts one execution."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from noetl_broker.broker.holds.schedules import utc_text
from noetl_broker.playbook import Playbook, PlaybookRules, compile_playbook
from noetl_broker.store.admin import catalog
from noetl_broker.store.admin.schedules import (
    Moved,
    ScheduleSpec,
    declare_schedules,
    find_schedule,
    move_due_schedules,
    put_schedule,
)
from noetl_broker.store.connect.connection import Connection, call, connect
from tests.brokers import execute, register, rows, value
from tests.postgres import Database
from tests.sessions import PATIENCE_SECONDS, refused, session
from tests.stories import document

PLAYBOOK = "workflow: [{step: start, next: end}, {step: end}]"
HOUR = timedelta(hours=1)


@pytest.fixture
async def database(database: Database) -> Database:
    """A database with the playbook `story`."""
    await register(database, PLAYBOOK)
    return database


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    """A connection of a broker."""
    made = await connect(database, name="test")
    yield made
    await made.close()


def hourly(**changes: Any) -> ScheduleSpec:
    """A schedule of each hour since it was put."""
    return ScheduleSpec(**{"name": "hourly", "path": "story", "every": None if "cron" in changes else HOUR, **changes})


async def let_pass(connection: Connection, hours: float, name: str = "hourly") -> datetime:
    """Set the last moment of a schedule to so many hours ago; returns the latest of its later moments."""
    since: datetime = await connection.fetchval(
        """update noetl.start_schedule
        set since_at = clock_timestamp() - $2::interval, due_at = '-infinity'
        where name = $1
        returning since_at""",
        name,
        timedelta(hours=hours),
    )
    return since + int(hours) * HOUR


async def put_and_move(connection: Connection, spec: ScheduleSpec) -> Moved:
    """Put a schedule and let a broker look at it."""
    await put_schedule(connection, spec)
    [moved] = await move_due_schedules(connection, 10)
    return moved


async def test_a_due_moment_starts_an_execution_and_moves_the_row(connection: Connection, database: Database) -> None:
    """The payload has the name and the moment."""
    await put_and_move(connection, hourly(payload='{"city": "Paris"}', catch_up=2 * HOUR))
    moment = await let_pass(connection, 1.1)
    [moved] = await move_due_schedules(connection, 10)
    row = await find_schedule(connection, "hourly")
    assert (moved.is_new, moved.fault) == (True, None)
    assert (row["since_at"], row["last_at"], row["next_at"], row["due_at"]) == (
        moment, moment, moment + HOUR, moment + HOUR,
    )  # fmt: skip
    assert (row["last_execution_id"], row["started"], row["error"]) == (moved.execution_id, 1, None)
    assert await value(database, "select context -> 'workload' from noetl.event") == {
        "city": "Paris",
        "schedule": {"name": "hourly", "at": utc_text(moment)},
    }
    assert await move_due_schedules(connection, 10) == []


async def test_the_moment_in_the_payload_has_the_time_of_its_zone(connection: Connection, database: Database) -> None:
    """So that its first ten characters are the day there."""
    await put_and_move(connection, hourly(cron="@hourly", timezone="Asia/Kolkata", catch_up=2 * HOUR))
    await let_pass(connection, 1)
    await move_due_schedules(connection, 10)
    at = await value(database, "select context #>> '{workload,schedule,at}' from noetl.event")
    assert at.endswith(":00:00+05:30")


async def test_a_moment_that_has_its_execution_starts_no_other(connection: Connection, database: Database) -> None:
    """Whatever the payload of that execution is."""
    await put_and_move(connection, hourly(catch_up=9 * HOUR))
    await let_pass(connection, 1.1)
    [first] = await move_due_schedules(connection, 10)
    await put_schedule(connection, hourly(catch_up=9 * HOUR, payload='{"city": "Rome"}'))
    await connection.execute("update noetl.start_schedule set since_at = since_at - every")
    [again] = await move_due_schedules(connection, 10)
    assert (again.execution_id, again.is_new) == (first.execution_id, False)
    assert await value(database, "select count(*) from noetl.execution") == 1


async def test_brokers_beside_each_other_start_each_moment_once(database: Database) -> None:
    """A row that one has locked is left to it."""
    connections = [await connect(database, name="test") for _ in range(4)]
    for number in range(20):
        await put_schedule(connections[0], hourly(name=f"hourly {number}", catch_up=9 * HOUR))
    await move_due_schedules(connections[0], 100)
    for number in range(20):
        await let_pass(connections[0], 1.1, f"hourly {number}")
    moved = await asyncio.gather(*(move_due_schedules(each, 7) for each in connections for _ in "x"))
    while any(moved):
        moved = await asyncio.gather(*(move_due_schedules(each, 7) for each in connections))
    counts = await rows(database, "select count(*), count(distinct idempotency_key) from noetl.execution")
    assert counts == [(20, 20)]
    for each in connections:
        await each.close()


async def test_an_unknown_playbook_is_an_error_of_the_row_and_the_next_moment_stays(
    connection: Connection, database: Database
) -> None:
    """A later success clears the error."""
    await put_and_move(connection, hourly(catch_up=9 * HOUR))
    await execute(database, "update noetl.catalog set path = 'elsewhere'")
    moment = await let_pass(connection, 1.1)
    [moved] = await move_due_schedules(connection, 10)
    row = await find_schedule(connection, "hourly")
    assert moved.fault == f"the moment {utc_text(moment)} did not start: no playbook story is registered"
    assert (row["error"], row["started"], row["next_at"]) == (moved.fault, 0, moment + HOUR)
    await execute(database, "update noetl.catalog set path = 'story'")
    await let_pass(connection, 1.1)
    await move_due_schedules(connection, 10)
    assert (await find_schedule(connection, "hourly"))["error"] is None


async def test_what_only_a_broker_can_judge_is_an_error_of_the_row(connection: Connection) -> None:
    """No broker looks at it again until it is put anew."""
    for changes, reason in (
        ({"cron": "61 * * * *"}, "the cron text '61 * * * *' is wrong: bad minute"),
        ({"cron": "@daily", "timezone": "Europe/Nowhere"}, "there is no time zone 'Europe/Nowhere'"),
    ):
        moved = await put_and_move(connection, hourly(**changes))
        assert reason in str(moved.fault)
        assert (await find_schedule(connection, "hourly"))["error"] == moved.fault
        assert await move_due_schedules(connection, 10) == []
    assert (await put_and_move(connection, hourly())).fault is None


async def test_moments_of_a_pause_are_counted_as_skipped(connection: Connection, database: Database) -> None:
    """Also where no broker looked during the pause."""
    await put_and_move(connection, hourly(catch_up=9 * HOUR))
    assert await call(connection, "pause_schedule", "hourly")
    assert not await call(connection, "pause_schedule", "hourly")
    await let_pass(connection, 3.5)
    assert await call(connection, "resume_schedule", "hourly")
    assert not await call(connection, "resume_schedule", "hourly")
    await connection.execute("update noetl.start_schedule set paused_at = since_at")
    [moved] = await move_due_schedules(connection, 10)
    assert moved.execution_id is None
    assert (await find_schedule(connection, "hourly"))["skipped"] == 3
    assert await value(database, "select count(*) from noetl.execution") == 0


async def test_two_pauses_are_one_if_no_broker_looked_between_them(connection: Connection) -> None:
    """So the moments of the first one stay skipped."""
    for seen in (True, False):
        await put_and_move(connection, hourly(name=f"seen {seen}"))
        await call(connection, "pause_schedule", f"seen {seen}")
        first = (await find_schedule(connection, f"seen {seen}"))["paused_at"]
        if not seen:  # a moment of the first pause is still to pass
            await connection.execute(
                "update noetl.start_schedule set next_at = paused_at, due_at = paused_at where name = $1",
                f"seen {seen}",
            )
        await call(connection, "resume_schedule", f"seen {seen}")
        await call(connection, "pause_schedule", f"seen {seen}")
        assert ((await find_schedule(connection, f"seen {seen}"))["paused_at"] == first) == (not seen)


async def test_the_same_schedule_changes_nothing_when_it_is_put_again(connection: Connection) -> None:
    """Another payload keeps the moments; another timing counts from now. A pause stays: an operator decided it."""
    await put_and_move(connection, hourly())
    before = await let_pass(connection, 0.5)
    assert not await put_schedule(connection, hourly())
    assert await put_schedule(connection, hourly(payload='{"city": "Rome"}'))
    assert (await find_schedule(connection, "hourly"))["since_at"] == before
    await call(connection, "pause_schedule", "hourly")
    assert await put_schedule(connection, hourly(cron="@daily"))
    row = await find_schedule(connection, "hourly")
    assert (row["since_at"] > before, row["paused"]) == (True, True)


async def test_declared_schedules_follow_their_playbook(connection: Connection, database: Database) -> None:
    """Those that it no longer declares are deleted; others stay. No declared one is: `register` would put it again."""
    await put_schedule(connection, hourly())
    both = [hourly(name=f"story#{name}", declared_in="story") for name in ("a", "b")]
    await declare_schedules(connection, "story", both)
    await declare_schedules(connection, "story", both[1:])
    assert await rows(database, "select name from noetl.start_schedule order by 1") == [("hourly",), ("story#b",)]
    async with refused("NB409", "the playbook story declares the schedule story#b"):
        await connection.execute("select noetl.delete_schedule('story#b')")


BAD_SCHEDULES = [
    ("'x', 'story'", "the schedule x: it has neither cron nor every"),
    ("'x', 'story', '@daily', '1 hour'", "the schedule x: it has both cron and every"),
    ("'', 'story', '@daily'", "the schedule : the name has 0 bytes"),
    ("'a#b', 'story', '@daily'", "the schedule a#b: the name has a #, which names of schedules in playbooks have"),
    ("'x', 'story', 'daily'", "the schedule x: the cron text 'daily' is wrong"),
    ("'x', 'story', every => '0.1 seconds'", "the schedule x: every is 00:00:00.1"),
    ("'x', 'story', every => '1 month'", "the schedule x: every is 1 mon"),
    (
        "'x', 'story', every => '1 hour', timezone => 'Europe/Berlin'",
        "it has a time zone (Europe/Berlin), but no cron",
    ),
    ("'x', 'story', '@daily', timezone => null", "the schedule x: its time zone has 0 characters"),
    ("'x', 'story', '@daily', jitter => '-1 hour'", "jitter is -01:00:00"),
    ("'x', 'story', '@daily', overlap => 'never'", "the schedule x: overlap is never"),
    ("'x', 'story', '@daily', payload => '[]'", "the schedule x: the payload is a JSON array"),
    (
        "'x', 'story', '@daily', payload => '{\"schedule\": 1}'",
        "the payload has a key schedule, which the broker sets",
    ),
    ("'x', 'nowhere', '@daily'", "no playbook nowhere is registered"),
    ("'x', 'story', '@daily', version => 7", "no playbook story version 7 is registered"),
    ("'x#y', 'story', '@daily', declared_in => 'story'", "the playbook story declares it under another name"),
]


async def test_a_bad_schedule_is_refused(database: Database) -> None:
    """With what to write instead. An unknown one, with the command that lists them."""
    async with session(database) as own:
        for arguments, message in BAD_SCHEDULES:
            async with refused("NB40", re.escape(message)):
                await own.execute(f"select noetl.put_schedule({arguments})")
        for function in ("pause_schedule", "resume_schedule", "delete_schedule"):
            async with refused("NB404", "no schedule nightly"):
                await own.execute(f"select noetl.{function}('nightly')")


async def test_a_change_notifies(connection: Connection, database: Database) -> None:
    """So a sleeping broker finds the next moment at once."""
    heard = asyncio.Event()
    await connection.add_listener("noetl_timer", lambda *_: heard.set())
    await execute(database, "select noetl.put_schedule('x', 'story', '@daily')")
    await asyncio.wait_for(heard.wait(), PATIENCE_SECONDS)
    heard.clear()
    await execute(database, "update noetl.start_schedule set moved_at = 'infinity'")
    await execute(database, "select noetl.move_schedules_again(clock_timestamp())")
    await asyncio.wait_for(heard.wait(), PATIENCE_SECONDS)


async def test_a_row_that_no_broker_looks_at_says_why(database: Database) -> None:
    """The schema refuses another."""
    await execute(database, "select noetl.put_schedule('x', 'story', '@daily')")
    with pytest.raises(asyncpg.CheckViolationError):
        await execute(database, "update noetl.start_schedule set due_at = 'infinity'")


async def test_a_pulled_back_row_counts_from_the_earlier_clock(connection: Connection) -> None:
    """A row that was moved in the future is looked at after the step."""
    future = datetime.now(UTC) + timedelta(days=400)
    await put_schedule(connection, hourly())
    await connection.execute(
        "update noetl.start_schedule set since_at = $1, next_at = $1, moved_at = $1, due_at = '-infinity'", future
    )
    [moved] = await move_due_schedules(connection, 10)
    row = await find_schedule(connection, "hourly")
    assert moved.move is not None
    assert moved.move.pulled_back
    assert timedelta(0) < row["next_at"] - row["now"] <= HOUR


def scheduled(schedule: str) -> tuple[Playbook, str]:
    """A playbook `report` with these schedules, and its text."""
    text = document("workflow: [{step: start}]", path="report", metadata=f"schedule: {schedule}")
    return compile_playbook(text, rules=PlaybookRules()), text


async def test_register_brings_the_schedules_of_a_playbook_in_line(connection: Connection, database: Database) -> None:
    """Added, changed and removed ones; a paused one stays paused; an unchanged text repairs its rows."""
    names = "select name, path, cron, every, paused from noetl.start_schedule order by name"
    await catalog.register(connection, [scheduled("[{name: a, cron: '@daily'}, {name: b, every: 1h}]")])
    assert await rows(database, names) == [
        ("report#a", "report", "@daily", None, False), ("report#b", "report", None, HOUR, False),
    ]  # fmt: skip
    await call(connection, "pause_schedule", "report#b")
    after = scheduled("[{name: b, every: 2h}, {name: c, every: 1h}]")
    await catalog.register(connection, [after])
    await execute(database, "delete from noetl.start_schedule where name = 'report#c'")
    await catalog.register(connection, [after])
    assert await rows(database, names) == [
        ("report#b", "report", None, 2 * HOUR, True), ("report#c", "report", None, HOUR, False),
    ]  # fmt: skip
    await catalog.register(connection, [scheduled("[]")])
    assert await rows(database, names) == []
