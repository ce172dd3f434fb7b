"""A database that refuses connections (full, starting, stopping): nothing is lost, and everybody reconnects."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from noetl_broker.daemon import keep_listening
from noetl_broker.daemon.lane import Lane
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.errors import EXIT_UNAVAILABLE, OperatorFault
from noetl_broker.playbook.diagnostics import PlaybookRules
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
from tests.chaos.daemons import START_SECONDS
from tests.chaos.killed_brokers import broker
from tests.chaos.refusing_proxy import FOR_EVER, MESSAGES, RefusingProxy
from tests.chaos.sampling import sample
from tests.chaos.under_load import Tried, finish_all, leave_core, prepare, until
from tests.postgres import Database
from tests.processes import Process, start_command
from tests.roles import logins

pytestmark = pytest.mark.chaos

TIMES = 3
BELL, LANES, WORKER, WORKER_LISTENER = (
    *("noetl-broker bell", "noetl-broker run"),
    *("noetl-broker worker", "noetl-broker worker listener"),
)
AT_THE_START = [(state, after) for after in (0, 1, 2) for state in MESSAGES]  # a first one, the listener, the pool
AT_WORK = [(state, name) for state in MESSAGES for name in (BELL, LANES)]
OF_A_WORKER = [(state, after) for state in MESSAGES for after in (0, 1, 2)]  # the listener, a first one, the pool
TERMINATE = """
    select count(pg_terminate_backend(pid))
    from pg_stat_activity
    where datname = current_database() and application_name in ($1::text, $1 || ' noetl')"""
REST = """
workflow:
- {step: start, next: a}
- {step: a, type: sleep, seconds: 0, next: end}
- {step: end}
"""


def named(state: str) -> str:
    """Name the fault in the table."""
    return state or "hung up"


@pytest.mark.parametrize("state, after", sample(AT_THE_START, 3))
async def test_a_daemon_waits_when_a_connection_of_its_start_is_refused(
    database: Database, state: str, after: int, tried: Tried
) -> None:
    """For each of its first connections."""
    await prepare(database)
    await start(database, count=5)
    async with RefusingProxy(database) as proxy:
        proxy.refuse(state, times=TIMES, after=after)
        async with running(proxy.database):
            seconds = await finish_all(database)
            await asyncio.wait_for(proxy.all_refused.wait(), PATIENCE_SECONDS)
    assert proxy.refused == TIMES
    assert await broken_invariants(database) == {}
    tried(f"{named(state)} three times at connection {after} of a start", f"0 lost; all done after {seconds:.1f} s")


@pytest.mark.parametrize("state, name", sample(AT_WORK, 2))
async def test_a_working_daemon_retries_refused_connections(
    database: Database, state: str, name: str, tried: Tried
) -> None:
    """Connections of lanes and of the listener were lost, and new ones are refused."""
    await prepare(database)
    async with RefusingProxy(database) as proxy, running(proxy.database, lanes=4) as service:
        await start(database, count=20)
        await until(database, "select count(*) = 20 from noetl.queue")
        proxy.refuse(state, times=TIMES, named=name)
        await value(database, TERMINATE, name)
        seconds = await finish_all(database)
        await asyncio.wait_for(proxy.all_refused.wait(), PATIENCE_SECONDS)
        assert service.listener is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (service.listener.connected and service.trouble is None):
                await leave_core()
    assert await broken_invariants(database) == {}
    tried(f"{named(state)} three times at '{name}' in mid-run", f"0 lost; all done after {seconds:.1f} s")


async def test_mail_is_read_while_the_listener_cannot_reconnect(database: Database, tried: Tried) -> None:
    """Other clients use all connections of the server. The lanes keep theirs, and poll."""
    await prepare(database)
    async with RefusingProxy(database) as proxy, running(proxy.database, sweep_seconds=600.0) as service:
        await start(database)
        await finish_all(database)
        proxy.refuse("53300", times=FOR_EVER, named=BELL)
        await value(database, TERMINATE, BELL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not proxy.refused:
                await leave_core()
        await start(database, count=20)
        seconds = await finish_all(database)
        assert service.listener is not None
        assert not service.listener.connected
    assert await broken_invariants(database) == {}
    tried("no connection for the listener (53300)", f"0 lost; 20 executions in {seconds:.1f} s")


async def test_a_permanent_fault_of_the_listener_ends_the_daemon(database: Database) -> None:
    """It ends with the reason, so that a supervisor sees it."""
    await prepare(database)

    async def until_it_ends() -> None:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            RefusingProxy(database) as proxy,
            running(proxy.database) as service,
        ):
            proxy.refuse("3D000", times=FOR_EVER, named=BELL)
            await value(database, TERMINATE, BELL)
            while service.serving:
                await leave_core()

    with pytest.raises(OperatorFault, match="go away"):
        await until_it_ends()


async def test_a_pool_that_cannot_grow_uses_its_connections(database: Database, tried: Tried) -> None:
    """The server is full. Lanes with a connection work; the others start later."""
    await prepare(database)
    async with RefusingProxy(database) as proxy:
        proxy.refuse("53300", times=FOR_EVER, after=2, named=LANES)  # the first connection, and one of the pool
        async with running(proxy.database, lanes=4, batch_size=1) as service:
            await start(database, count=40)
            seconds = await finish_all(database, patience=4 * PATIENCE_SECONDS)  # a lane pauses after each refusal
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (refused := service.metrics.by_label(metric.FAULTS).get("53300", 0)):
                    await leave_core()
    assert await broken_invariants(database) == {}
    tried(f"53300 whenever the pool would grow, {refused} times", f"0 lost; 40 executions in {seconds:.1f} s")


async def test_a_daemon_waits_for_the_connection_limit_of_its_role(
    database: Database, tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener has the only connection of the role. It does not count as deaf."""
    monkeypatch.setattr(keep_listening, "PROBE_TIMEOUT_SECONDS", 0.1)
    await prepare(database)
    await start(database, count=5)
    async with logins(database) as as_role:
        role = as_role.broker.dsn.split("//")[1].split(":")[0]
        await execute(database, f"alter role {role} connection limit 1")
        async with asyncio.timeout(PATIENCE_SECONDS), running(as_role.broker, sweep_seconds=0.2) as service:
            while service.metrics.by_label(metric.FAULTS).get("53300", 0) < 2 * TIMES:
                await leave_core()
            assert (
                await value(database, "select count(*) from noetl.turn"),
                service.metrics.total(metric.LISTENER_DEAF),
            ) == (0, 0)
            await execute(database, f"alter role {role} connection limit -1")
            seconds = await finish_all(database)
    assert await broken_invariants(database) == {}
    tried("a role whose connections are used up (53300)", f"0 lost; all done {seconds:.1f} s after it has enough")


@asynccontextmanager
async def process(database: Database, *arguments: str) -> AsyncIterator[Process]:
    """Run a command with JSON log lines on stderr; kill it after the test."""
    environment = os.environ | {"NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_LOG_FORMAT": "json"}
    environment |= {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}
    made = start_command(arguments, cwd=Path.cwd(), env=environment, stdout=subprocess.DEVNULL)
    try:
        yield made
    finally:
        made.kill()
        await asyncio.to_thread(made.communicate)


async def lines_until(made: Process, event: str) -> list[dict[str, Any]]:
    """Read the log of a command up to the line of this event."""
    assert made.stderr is not None
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(START_SECONDS):
        while not lines or lines[-1]["event"] != event:
            lines.append(json.loads(await asyncio.to_thread(made.stderr.readline)))
    return lines


async def test_a_daemon_tries_to_connect_every_second_and_logs_why_it_cannot(database: Database) -> None:
    """At its start and for its listener, however long the database refuses: one line for each attempt."""
    async with RefusingProxy(database) as proxy:
        proxy.refuse("57P03", times=5)
        async with process(proxy.database, "run") as daemon:
            at_start = await lines_until(daemon, "ready")
            proxy.refuse("53300", times=6, named=BELL)
            await value(database, TERMINATE, BELL)
            await asyncio.wait_for(proxy.all_refused.wait(), PATIENCE_SECONDS)
            *_, last = [await lines_until(daemon, "the listener cannot connect, will try again") for _ in range(6)]
    waiting = [line for line in at_start if line["event"] == "waiting for the database"]
    words = "the database cannot be reached: the database system is starting up"
    assert [(line["level"], line["error"]) for line in waiting] == [("warning", words)] * 5
    assert (waiting[-1]["pause_seconds"], last[-1]["pause_seconds"]) == (1.0, 1.0)
    assert (last[-1]["because"], last[-1]["sqlstate"]) == ("the server has no connection left", "53300")
    assert last[-1]["error"].endswith("the database cannot be reached: sorry, too many clients already")


@pytest.mark.parametrize(
    "state, mode", sample([(s, m) for s in ("53300", "57P01", "57P03") for m in ([], ["--drain"])], 2)
)
async def test_with_fail_fast_a_refused_connection_is_exit_code_69(
    database: Database, state: str, mode: list[str]
) -> None:
    """The message shows the server's reason in one sentence."""
    async with RefusingProxy(database) as proxy:
        proxy.refuse(state, times=FOR_EVER)
        async with process(proxy.database, "run", "--fail-fast", *mode) as daemon, asyncio.timeout(START_SECONDS):
            _, err = await asyncio.to_thread(daemon.communicate)
    assert (daemon.wait(), err.splitlines()[-1]) == (
        EXIT_UNAVAILABLE,
        f"noetl-broker: the database cannot be reached: {MESSAGES[state]}",
    )


async def test_a_lane_tries_to_connect_at_least_every_second(database: Database) -> None:
    """However long it has no connection. A success resets the pauses."""
    async with RefusingProxy(database) as proxy, broker(proxy.database) as lanes:
        lane = Lane(lanes.shared, lambda: None)
        proxy.refuse("57P03", times=6)
        pauses = []
        for _ in range(7):
            await lane.step()
            pauses.append(lane.fault_backoff.pause)
        assert proxy.refused == 6
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 0.0]


@pytest.mark.parametrize("state, after", sample(OF_A_WORKER, 1))
async def test_a_worker_retries_refused_connections(database: Database, state: str, after: int, tried: Tried) -> None:
    """At its start, and after it lost its connections."""
    await register(database, REST)
    stop = asyncio.Event()
    rules = PlaybookRules(extra_step_types=frozenset({"sleep"}))
    async with RefusingProxy(database) as proxy, running(database, playbook_rules=rules):
        proxy.refuse(state, times=TIMES, after=after, named=WORKER)
        working = asyncio.create_task(
            run_worker(WorkerOptions(dsn=proxy.database.dsn, schema=proxy.database.schema), stop)
        )
        try:
            await start(database, count=5)
            await until_ended(database)
            await asyncio.wait_for(proxy.all_refused.wait(), PATIENCE_SECONDS)
            for name in (WORKER, WORKER_LISTENER):
                proxy.refuse(state, times=TIMES, named=name)
                await value(database, TERMINATE, name)
                await start(database, count=5)
                await until_ended(database)
                await asyncio.wait_for(proxy.all_refused.wait(), PATIENCE_SECONDS)
        finally:
            stop.set()
            await asyncio.wait_for(working, PATIENCE_SECONDS)
    assert await broken_invariants(database) == {}
    tried(f"{named(state)} three times at connection {after} of a worker", "it went on; 0 lost")
