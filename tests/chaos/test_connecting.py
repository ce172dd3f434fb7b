"""A database that lets nobody in (full, starting up, going down): nothing is lost, and all come back by themselves."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from noetl_broker.daemon import listener
from noetl_broker.daemon.lane import Lane
from noetl_broker.errors import EXIT_UNAVAILABLE, OperatorFault
from noetl_broker.playbook.findings import Rules
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    execute,
    register,
    running,
    start,
    until_ended,
    value,
)
from tests.chaos.door import FOR_EVER, WORDS, Door
from tests.chaos.extent import sample
from tests.chaos.killing import broker
from tests.chaos.under_load import Tried, finish_all, prepare, until
from tests.postgres import Database
from tests.roles import logins

pytestmark = pytest.mark.chaos

TIMES = 3
BELL, LANES, WORKER, WORKER_LISTENER = (
    *("noetl-broker bell", "noetl-broker run"),
    *("noetl-broker worker", "noetl-broker worker listener"),
)
AT_THE_START = [(state, after) for after in (0, 1, 2) for state in WORDS]  # a first one, the listener, the pool
AT_WORK = [(state, name) for state in WORDS for name in (BELL, LANES)]
OF_A_WORKER = [(state, after) for state in WORDS for after in (0, 1, 2)]  # the listener, a first one, the pool
TERMINATE = """
    select count(pg_terminate_backend(pid))
    from pg_stat_activity
    where datname = current_database() and application_name = $1"""
REST = """
workflow:
- {step: start, next: a}
- {step: a, type: sleep, seconds: 0, next: end}
- {step: end}
"""


def named(state: str) -> str:
    """Give the fault a name for the table of what was tried."""
    return state or "hung up"


@pytest.mark.parametrize("state, after", sample(AT_THE_START, 8))
async def test_a_daemon_that_is_refused_at_its_start_waits(
    database: Database, state: str, after: int, tried: Tried
) -> None:
    """Whichever of its first connections it is."""
    await prepare(database)
    await start(database, count=5)
    async with Door(database) as door:
        door.refuse(state, times=TIMES, after=after)
        async with running(door.database):
            seconds = await finish_all(database)
    assert door.refused == TIMES
    assert await broken_invariants(database) == {}
    tried(f"{named(state)} three times at connection {after} of a start", f"0 lost; all done after {seconds:.1f} s")


@pytest.mark.parametrize("state, name", sample(AT_WORK, 6))
async def test_a_daemon_at_work_that_is_refused_tries_again(
    database: Database, state: str, name: str, tried: Tried
) -> None:
    """It has lost its connections and may not make new ones: for the lanes, and for the listener."""
    await prepare(database)
    async with Door(database) as door, running(door.database, lanes=4) as service:
        await start(database, count=20)
        await until(database, "select count(*) = 20 from noetl.queue")
        door.refuse(state, times=TIMES, named=name)
        await value(database, TERMINATE, name)
        seconds = await finish_all(database)
        await asyncio.wait_for(door.turned_away.wait(), PATIENCE_SECONDS)
        assert service.bell is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (service.bell.connected and service.trouble is None):
                await value(database, "select 1")
    assert await broken_invariants(database) == {}
    tried(f"{named(state)} three times at '{name}' in mid-run", f"0 lost; all done after {seconds:.1f} s")


async def test_mail_is_read_while_the_listener_may_not_come_back(database: Database, tried: Tried) -> None:
    """Others have taken its place on the server; the lanes have their connections, and look by themselves."""
    await prepare(database)
    async with Door(database) as door, running(door.database, sweep_seconds=60.0) as service:
        await start(database)
        await finish_all(database)
        door.refuse("53300", times=FOR_EVER, named=BELL)
        await value(database, TERMINATE, BELL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not door.refused:
                await value(database, "select 1")
        await start(database, count=20)
        seconds = await finish_all(database)
        assert service.bell is not None
        assert not service.bell.connected
    assert await broken_invariants(database) == {}
    tried("no connection for the listener (53300)", f"0 lost; 20 executions in {seconds:.1f} s")


async def test_a_listener_that_nothing_will_bring_back_ends_the_daemon(database: Database) -> None:
    """What no further try will mend: it ends with the reason, and a supervisor sees it."""
    await prepare(database)

    async def until_it_ends() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), Door(database) as door, running(door.database) as service:
            door.refuse("3D000", times=FOR_EVER, named=BELL)
            await value(database, TERMINATE, BELL)
            while service.serving:
                await value(database, "select 1")

    with pytest.raises(OperatorFault, match="go away"):
        await until_it_ends()


async def test_a_pool_that_may_not_grow_works_with_what_it_has(database: Database, tried: Tried) -> None:
    """A server that is full of others' connections; the lanes that have one go on, the others come later."""
    await prepare(database)
    async with Door(database) as door:
        door.refuse("53300", times=FOR_EVER, after=2, named=LANES)  # the first one, and one of the pool's
        async with running(door.database, lanes=4, batch_size=1) as service:
            await start(database, count=100)
            seconds = await finish_all(database)
            refused = service.counters.faults["53300"]
    assert refused > 0
    assert await broken_invariants(database) == {}
    tried(f"53300 whenever the pool would grow, {refused} times", f"0 lost; 100 executions in {seconds:.1f} s")


async def test_a_role_with_too_few_connections_is_waited_for(
    database: Database, tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server's own refusal: the listener has the only connection. It is not taken for deaf meanwhile."""
    monkeypatch.setattr(listener, "PROBE_TIMEOUT_SECONDS", 0.1)
    await prepare(database)
    await start(database, count=5)
    async with logins(database) as as_role:
        role = as_role.broker.dsn.split("//")[1].split(":")[0]
        await execute(database, f"alter role {role} connection limit 1")
        async with asyncio.timeout(PATIENCE_SECONDS), running(as_role.broker, sweep_seconds=0.2) as service:
            while service.counters.faults.get("53300", 0) < 2 * TIMES:
                await value(database, "select 1")
            assert (await value(database, "select count(*) from noetl.turn"), service.counters.deaf) == (0, 0)
            await execute(database, f"alter role {role} connection limit -1")
            seconds = await finish_all(database)
    assert await broken_invariants(database) == {}
    tried("a role whose connections are used up (53300)", f"0 lost; all done {seconds:.1f} s after it has enough")


@asynccontextmanager
async def process(database: Database, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command with a log of JSON lines on its stderr; it is killed with the test."""
    environment = os.environ | {"NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_LOG_FORMAT": "json"}
    environment |= {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}
    command = (sys.executable, "-m", "noetl_broker", *arguments)
    made = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    try:
        yield made
    finally:
        if made.returncode is None:
            made.kill()
        await made.wait()


async def lines_until(made: asyncio.subprocess.Process, event: str) -> list[dict[str, Any]]:
    """Read the log of a command up to the line of this event."""
    assert made.stderr is not None
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not lines or lines[-1]["event"] != event:
            lines.append(json.loads(await made.stderr.readline()))
    return lines


async def test_the_log_says_what_the_server_said_at_its_door(database: Database) -> None:
    """At the start, at work and of the listener: one line for each try, with the server's words."""
    async with Door(database) as door:
        door.refuse("57P03", times=2)
        async with process(door.database, "run") as daemon:
            at_start = await lines_until(daemon, "ready")
            door.refuse("53300", times=2, named=BELL)
            await value(database, TERMINATE, BELL)
            told = await lines_until(daemon, "the listener cannot connect, will try again")
    waiting = [line for line in at_start if line["event"] == "waiting for the database"]
    words = "the database cannot be reached: the database system is starting up"
    assert [(line["level"], line["error"]) for line in waiting] == [("warning", words)] * 2
    assert told[-1]["because"] == "the server has no connection left"
    assert told[-1]["sqlstate"] == "53300"
    assert told[-1]["error"].endswith("the database cannot be reached: sorry, too many clients already")


async def test_a_daemon_waits_a_second_at_most_between_two_tries(database: Database) -> None:
    """At its start, and of its listener, however long the database lets it in no more."""
    async with Door(database) as door:
        door.refuse("57P03", times=5)
        async with process(door.database, "run") as daemon:
            at_start = await lines_until(daemon, "ready")
            door.refuse("57P03", times=6, named=BELL)
            await value(database, TERMINATE, BELL)
            await asyncio.wait_for(door.turned_away.wait(), PATIENCE_SECONDS)
            told = [await lines_until(daemon, "the listener cannot connect, will try again") for _ in range(6)]
    at_start_pauses = [line["pause_seconds"] for line in at_start if line["event"] == "waiting for the database"]
    assert (len(at_start_pauses), at_start_pauses[-1]) == (5, 1.0)
    assert told[-1][-1]["pause_seconds"] == 1.0


async def test_a_lane_waits_a_second_at_most_between_two_tries(database: Database) -> None:
    """However long it has no connection; and as little as before once it had one."""
    async with Door(database) as door, broker(door.database) as evaluator:
        lane = Lane(evaluator, lambda: None)
        door.refuse("57P03", times=6)
        pauses = []
        for _ in range(7):
            await lane.step()
            pauses.append(lane.fault_pause)
        assert door.refused == 6
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.05]


@pytest.mark.parametrize("state", ["53300", "57P01", "57P03"])
@pytest.mark.parametrize("mode", [("--fail-fast",), ("--fail-fast", "--drain")])
async def test_with_fail_fast_a_refusal_is_69(database: Database, state: str, mode: tuple[str, ...]) -> None:
    """In one sentence with the server's words."""
    async with Door(database) as door:
        door.refuse(state, times=FOR_EVER)
        async with process(door.database, "run", *mode) as daemon, asyncio.timeout(PATIENCE_SECONDS):
            _, err = await daemon.communicate()
    assert (daemon.returncode, err.decode().splitlines()[-1]) == (
        EXIT_UNAVAILABLE,
        f"noetl-broker: the database cannot be reached: {WORDS[state]}",
    )


@pytest.mark.parametrize("state, after", sample(OF_A_WORKER, 4))
async def test_a_worker_that_is_refused_tries_again(database: Database, state: str, after: int, tried: Tried) -> None:
    """At its start, and when it has lost what it had."""
    await register(database, REST)
    stop = asyncio.Event()
    rules = Rules(extra_step_types=frozenset({"sleep"}))
    async with Door(database) as door, running(database, playbook_rules=rules):
        door.refuse(state, times=TIMES, after=after, named=WORKER)
        working = asyncio.create_task(run_worker(WorkerOptions(dsn=door.database.dsn), stop))
        try:
            await start(database, count=5)
            await until_ended(database)
            assert door.refused == TIMES
            for name in (WORKER, WORKER_LISTENER):
                door.refuse(state, times=TIMES, named=name)
                await value(database, TERMINATE, name)
                await start(database, count=5)
                await until_ended(database)
        finally:
            stop.set()
            await asyncio.wait_for(working, PATIENCE_SECONDS)
    assert await broken_invariants(database) == {}
    tried(f"{named(state)} three times at connection {after} of a worker", "it went on; 0 lost")
