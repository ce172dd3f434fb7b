"""A broker that is stopped in its transaction and wakes up late, and one that is killed as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.brokers import PATIENCE_SECONDS, broken_invariants
from tests.chaos.extent import LONG, sample
from tests.chaos.killing import broker, drain, finish, story, undisturbed
from tests.chaos.proxy import MOMENTS, Point, Proxy
from tests.chaos.shapes import register_shapes
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

# Instead of the seconds that a broker asks for; the wire says so in its place. Between the two messages of a statement
# that is new to its connection a session does not count as idle: there the other limits end it.
LIMITS = {"idle_in_transaction_session_timeout": 0.4, "transaction_timeout": 2.0, "statement_timeout": 2.0}
TAKEN_OVER_SECONDS = 20.0


@asynccontextmanager
async def process(dsn: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command `run --drain` in a process of its own."""
    own = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "noetl_broker", "run", "--drain",
        env={**os.environ, "NOETL_BROKER_DSN": dsn, "NOETL_BROKER_LOG_FORMAT": "json"},
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield own
    finally:
        if own.returncode is None:
            own.kill()
        await own.wait()


async def first_points(database: Database) -> tuple[list[str], list[Point], list[str]]:
    """The story of an undisturbed chain, the points of its first batch, and what stands at each."""
    async with session(database) as connection:
        expected, statements = await undisturbed(database, "chain", connection)
    first = statements[: statements.index("commit") + 1]
    return expected, [Point(n, moment) for n in range(len(first)) for moment in MOMENTS], first


async def test_a_stopped_broker_is_taken_over_and_its_late_commit_refused(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """It stands still at each statement of a batch, another takes over when its session is ended; then it goes on."""
    await register_shapes(database)
    expected, points, first = await first_points(database)
    locking = points[points.index(Point(first.index("take_mail"), "after")) : -1]  # what it holds must be taken from it
    points = sample(points, 6)
    late = 0
    refused = []
    async with session(database) as connection, broker(database) as fresh:
        for point in points:
            execution_id = int(await connection.fetchval("select noetl.start_execution('chain')"))
            async with Proxy(database, point, limits=LIMITS) as proxy, broker(proxy.database) as stopped:
                stopping = asyncio.create_task(drain(stopped, connection))
                await asyncio.wait_for(proxy.reached.wait(), PATIENCE_SECONDS)
                async with asyncio.timeout(TAKEN_OVER_SECONDS):
                    await finish(fresh, connection)
                turns = await connection.fetchval("select count(*) from noetl.turn")
                proxy.go_on()
                await asyncio.wait_for(stopping, PATIENCE_SECONDS)
                late += turns != await connection.fetchval("select count(*) from noetl.turn")
                refused += [point] * bool(stopped.counters.retries)
                assert stopped.counters.set_aside == 0
            assert (point, await story(connection, execution_id)) == (point, expected)
    assert await broken_invariants(database) == {}
    tried(
        f"stopped at {len(points)} of {2 * len(first)} points of a batch",
        f"taken over; {len(refused)} refused, {late} late",
    )
    assert late == 0
    assert set(refused) >= {*points} & {*locking}


async def test_a_process_stopped_with_sigstop_or_killed_at_a_statement(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """The command itself, with the signals themselves: stopped, taken over, continued; or killed with -9."""
    await register_shapes(database)
    expected, points, _ = await first_points(database)
    before, after = points[-2:]  # the commit: not sent when it is stopped, not answered when it is killed
    chosen = [(before, signal.SIGSTOP), (after, signal.SIGKILL)]
    if LONG:
        chosen = [(point, kind) for point in points for kind in (signal.SIGSTOP, signal.SIGKILL)]
    async with session(database) as connection, broker(database) as fresh:
        for point, kind in chosen:
            execution_id = int(await connection.fetchval("select noetl.start_execution('chain')"))
            async with Proxy(database, point, limits=LIMITS) as proxy, process(proxy.database.dsn) as own:
                await asyncio.wait_for(proxy.reached.wait(), PATIENCE_SECONDS)
                own.send_signal(kind)
                if kind == signal.SIGKILL:
                    await own.wait()
                    proxy.cut()
                async with asyncio.timeout(TAKEN_OVER_SECONDS):
                    await finish(fresh, connection)
                if kind == signal.SIGSTOP:
                    proxy.go_on()
                    own.send_signal(signal.SIGCONT)
                    assert await asyncio.wait_for(own.wait(), PATIENCE_SECONDS) == 0
            assert (point, kind, await story(connection, execution_id)) == (point, kind, expected)
    assert await broken_invariants(database) == {}
    tried(f"processes stopped (SIGSTOP) or killed (-9) {len(chosen)} times", "taken over; 0 lost, 0 doubled")
