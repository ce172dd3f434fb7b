"""A broker that is stopped in its transaction and resumes late, and one that is killed as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from noetl_broker.daemon.metrics import registry as metric
from tests.brokers import PATIENCE_SECONDS, broken_invariants
from tests.chaos.killed_brokers import broker, drain, finish, story, undisturbed
from tests.chaos.sampling import LONG, sample
from tests.chaos.shapes import register_shapes
from tests.chaos.stopping_proxy import MOMENTS, Point, StoppingProxy
from tests.postgres import Database
from tests.processes import Process, start_command
from tests.sessions import session

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("same_statements")]

# The proxy replaces the broker's timeouts of seconds with these. Between the two messages of a statement
# that is new to its connection a session does not count as idle: there the other timeouts end it.
LIMITS = {"idle_in_transaction_session_timeout": 0.4, "transaction_timeout": 2.0, "statement_timeout": 2.0}


@asynccontextmanager
async def process(dsn: str) -> AsyncIterator[Process]:
    """Run `run --drain` in a process of its own."""
    environment = {**os.environ, "NOETL_BROKER_DSN": dsn, "NOETL_BROKER_LOG_FORMAT": "json"}
    nothing = subprocess.DEVNULL
    own = start_command(["run", "--drain"], cwd=Path.cwd(), env=environment, stdout=nothing, stderr=nothing)
    try:
        yield own
    finally:
        own.kill()
        await asyncio.to_thread(own.wait)


async def first_points(database: Database) -> tuple[list[str], list[Point], list[str]]:
    """Give the story of an undisturbed chain, the points of its first batch, and the statement at each."""
    async with session(database) as connection:
        expected, statements = await undisturbed(database, "chain", connection)
    first = statements[: statements.index("commit") + 1]
    return expected, [Point(n, moment) for n in range(len(first)) for moment in MOMENTS], first


async def test_a_stopped_broker_is_replaced_and_its_late_commit_is_refused(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """It stops at each statement of a batch. When its session ends, another broker takes over; then it resumes."""
    await register_shapes(database)
    expected, points, first = await first_points(database)
    locking = points[points.index(Point(first.index("take_mail"), "after")) : -1]  # another broker must take its mail
    points = sample(points, 3)
    late = 0
    refused = []
    async with session(database) as connection, broker(database) as fresh:
        for point in points:
            execution_id = int(await connection.fetchval("select noetl.start_execution('chain')"))
            async with StoppingProxy(database, point, limits=LIMITS) as proxy, broker(proxy.database) as stopped:
                stopping = asyncio.create_task(drain(stopped, connection))
                await asyncio.wait_for(proxy.reached.wait(), PATIENCE_SECONDS)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await finish(fresh, connection)
                turns = await connection.fetchval("select count(*) from noetl.turn")
                proxy.resume()
                await asyncio.wait_for(stopping, PATIENCE_SECONDS)
                late += turns != await connection.fetchval("select count(*) from noetl.turn")
                refused += [point] * bool(stopped.shared.metrics.retries)
                assert stopped.shared.metrics.total(metric.SET_ASIDE) == 0
            assert (point, await story(connection, execution_id)) == (point, expected)
    assert await broken_invariants(database) == {}
    tried(
        f"stopped at {len(points)} of {2 * len(first)} points of a batch",
        f"taken over; {len(refused)} refused, {late} late",
    )
    assert late == 0
    assert set(refused) >= {*points} & {*locking}


async def test_a_process_that_is_stopped_or_killed_at_a_statement_is_replaced(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """The real command with SIGSTOP and SIGCONT, or SIGKILL."""
    await register_shapes(database)
    expected, points, _ = await first_points(database)
    before, after = points[-2:]  # the commit: unsent if stopped, unanswered if killed
    chosen = [(before, signal.SIGSTOP), (after, signal.SIGKILL)]
    if LONG:
        chosen = [(point, kind) for point in points for kind in (signal.SIGSTOP, signal.SIGKILL)]
    async with session(database) as connection, broker(database) as fresh:
        for point, kind in chosen:
            execution_id = int(await connection.fetchval("select noetl.start_execution('chain')"))
            async with StoppingProxy(database, point, limits=LIMITS) as proxy, process(proxy.database.dsn) as own:
                await asyncio.wait_for(proxy.reached.wait(), PATIENCE_SECONDS)
                own.send_signal(kind)
                if kind == signal.SIGKILL:
                    await asyncio.to_thread(own.wait)
                    proxy.cut()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await finish(fresh, connection)
                if kind == signal.SIGSTOP:
                    proxy.resume()
                    own.send_signal(signal.SIGCONT)
                    assert await asyncio.to_thread(own.wait, PATIENCE_SECONDS) == 0
            assert (point, kind, await story(connection, execution_id)) == (point, kind, expected)
    assert await broken_invariants(database) == {}
    tried(f"processes stopped (SIGSTOP) or killed (-9) {len(chosen)} times", "taken over; 0 lost, 0 doubled")
