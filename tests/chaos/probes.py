"""Probes that check the rules of the hot path; each returns the first fault that it finds.

A fault names what was lost, doubled or is stuck, or the broken invariant. A timeout is no fault.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from noetl_broker.daemon.lanes import Lanes
from noetl_broker.daemon.metrics import registry as metric
from tests.brokers import broken_invariants, execute, register, start, value
from tests.chaos.gate import build_gate, drain_and_meet
from tests.chaos.killed_brokers import broker, drain, finish, killed_at, story, undisturbed, work
from tests.chaos.mutants import NO_SECOND_WALL
from tests.chaos.sampling import LONG
from tests.chaos.shapes import CHILD
from tests.chaos.stopping_proxy import MOMENTS, Point
from tests.chaos.under_load import prepare
from tests.postgres import Database
from tests.sessions import session

STUCK_SECONDS = 20.0
UNREAD_SECONDS = 5.0  # the inbox is read from its beginning every tenth of a second
TRIES = 20  # with fewer, the machine was slow: no fault of the program
PATIENCE_SECONDS = 120.0
LANES = 4
HOT_EXECUTIONS = 12
FIRST_STATEMENTS = 11  # of the short form: two starts

CALL = """
workflow:
- {step: start, next: call}
- {step: call, type: playbook, path: child, args: {n: 1}, next: end}
- {step: end, result: "{{ call }}"}
"""
WIDE = (
    "workflow:\n- {step: start, next: [a, b, c, d, e, f, g, h]}\n"
    + "".join(f"- {{step: {name}, type: python, code: x, next: j}}\n" for name in "abcdefgh")
    + "- {step: j, type: python, code: x, next: end}\n- {step: end}\n"
)
HEARD = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: heard}
- {step: heard, type: wait, signal: news, key: "{{ workload.key }}", when: "{{ signal.payload > 1 }}"}
"""
FREE = "select count(*) from (select from noetl.inbox for update skip locked) free"
TURNS = "select count(*) from noetl.turn"
LOCK = re.compile(r"pg_(try_)?advisory_xact_lock\([au]\.execution_id\)")


async def kill_points(database: Database, _monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Kill a broker before and after each of its statements, in a playbook with a child."""
    await register(database, CALL)
    await register(database, CHILD, path="child")
    async with session(database) as connection, broker(database) as fresh:
        expected, statements = await undisturbed(database, "story", connection)
        assert "write_family" in statements
        for number, statement in enumerate(statements if LONG else statements[:FIRST_STATEMENTS]):
            if statement in {"begin", "rollback"}:
                continue  # the same state as at the previous point
            for moment in MOMENTS:
                killing = asyncio.ensure_future(
                    killed_at(database, "story", Point(number, moment), fresh, connection)
                )  # fmt: skip
                place = f"killed {moment} statement {number} ({statement})"
                if stuck := await standstill(killing, (fresh,), database, STUCK_SECONDS):
                    return f"{place}: {stuck}"
                if fault := _otherwise(expected, await story(connection, killing.result())):
                    return f"{place}: {fault}"
    return _first(await broken_invariants(database))


async def late_commit(database: Database, _monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The writer with the lower event ids commits last, after the broker has read later mail."""
    await register(database, "workflow:\n- {step: start}\n")
    async with session(database) as late, session(database) as connection, broker(database) as lanes:
        writing = late.transaction()
        await writing.start()
        execution_id = await late.fetchval("select noetl.start_execution('story')")
        await start(database)
        await lanes.drain()
        await writing.commit()
        if stuck := await standstill(drain(lanes, connection), (lanes,), database, UNREAD_SECONDS):
            return stuck
        ended = await connection.fetchval("select status from noetl.execution where execution_id = $1", execution_id)
    return None if ended == "COMPLETED" else "lost: what was committed late has no turn"


async def lock_alone(database: Database, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Lanes decide the same executions without the unique key on turns: the lock must separate them."""
    if await value(database, "select count(*) from pg_constraint where conname = 'turn_pkey'"):
        for patch in NO_SECOND_WALL:
            await patch.apply(database, monkeypatch)
    return await _meet(database)


async def key_alone(database: Database, _monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Lanes decide the same executions without the lock: the unique key on turns must separate them."""
    locks = 0
    for name in ("noetl.lock_executions", "noetl.take_mail"):  # a mutant moves it from the one to the other
        source = await value(database, "select pg_get_functiondef($1::text::regproc)", name)
        unlocked, found = LOCK.subn("true", source)
        locks += found
        await execute(database, unlocked)
    assert locks == 1
    return await _meet(database)


async def _meet(database: Database) -> str | None:
    """Answer all jobs of wide executions at once. Two brokers of four lanes read the answers one by one.

    The first answers are those of one execution, and no lane writes a turn before two of them have met there.
    """
    await register(database, WIDE)
    await build_gate(database)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(session(database))
        first, second = [
            await stack.enter_async_context(broker(database, lanes=LANES, batch_size=1)) for _ in range(2)
        ]  # fmt: skip
        await start(database, count=HOT_EXECUTIONS)

        async def answer_and_read() -> None:
            await drain(first, connection)
            await work(connection)
            await drain_and_meet(database, (first, second))
            await finish(first, connection)

        if stuck := await standstill(answer_and_read(), (first, second), database, STUCK_SECONDS):
            return stuck
    return _first(await broken_invariants(database))


async def standstill(
    work: Coroutine[Any, Any, object] | asyncio.Future[Any],
    brokers: Sequence[Lanes],
    database: Database,
    seconds: float,
    patience: float = PATIENCE_SECONDS,
) -> str | None:
    """Await the work; if it takes longer, report mail that stays unread though it is free and was tried.

    While turns are taken, the mail is held or gone, or there are too few tries, the time was too short to know: it
    begins anew. Raises TimeoutError after `patience` seconds.
    """
    task, until = asyncio.ensure_future(work), time.monotonic() + patience
    if await _ends(task, seconds / 2):
        return None
    while True:
        turns, tried = await value(database, TURNS), _tries(brokers)
        if await _ends(task, seconds / 2):
            return None
        moved, tried = await value(database, TURNS) - turns, _tries(brokers) - tried
        free = await value(database, FREE)
        if free and not moved and tried >= TRIES:
            break
        if time.monotonic() > until:
            await _cancel(task)
            raise TimeoutError(f"{moved} turns were taken, {free} mails are held by nobody, {tried} tries")
    await _cancel(task)
    met = ", ".join(
        f"{state} {count} times"
        for one in brokers
        for state, count in one.shared.metrics.by_label(metric.FAULTS).items()
    )
    return f"stuck: mail that nobody holds is never read ({met or 'it is passed over'})"


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _ends(task: asyncio.Future[Any], seconds: float) -> bool:
    """Tell whether a task ends within this time; raises what the task raised."""
    await asyncio.wait({task}, timeout=seconds)
    if task.done():
        task.result()
    return task.done()


def _tries(brokers: Sequence[Lanes]) -> int:
    return sum(
        one.shared.metrics.total(metric.DRAINS)
        + one.shared.metrics.retries
        + one.shared.metrics.total(metric.LOCK_MISSES)
        for one in brokers
    )


def _otherwise(expected: list[str], seen: list[str]) -> str | None:
    """Describe how a story differs from the undisturbed one."""
    lost, more = Counter(expected) - Counter(seen), Counter(seen) - Counter(expected)
    differences = [
        f"{word}: {next(iter(lines))}" for word, lines in (("lost", lost), ("doubled or new", more)) if lines
    ]
    return "; ".join(differences) or None


def _first(faults: dict[str, list[tuple[object, ...]]]) -> str | None:
    return f"broken: {next(iter(faults))}" if faults else None


Probe = Callable[[Database, pytest.MonkeyPatch], Awaitable[str | None]]


async def stopped_work(database: Database, _monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Cancel an execution whose job is leased, and one whose lease is not committed yet."""
    await prepare(database)
    told: list[str] = []
    async with session(database) as worker, session(database) as own, broker(database) as lanes:
        await own.add_listener("noetl_cancel", lambda *_: told.append("cancel"))
        await start(database, count=2)
        await drain(lanes, own)
        await worker.execute("select from noetl.lease_jobs('w', 1)")
        async with worker.transaction():
            await worker.execute("select from noetl.lease_jobs('w', 1)")
            await own.execute("select noetl.cancel_execution(execution_id) from noetl.execution")
            await drain(lanes, own)
            notified = len(told)
        await own.execute("select noetl.reap(100, 5)")
        working = await own.fetchval("select count(*) from noetl.queue where noetl.heartbeat_job(queue_id, 'w', 1)")
    if working or not notified:
        return f"{working} of 2 workers work on after the cancel, {notified} notifications came"
    return None


async def signals(database: Database, _monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Send a signal before its wait, one while the wait is told another, and one while the wait's row is locked."""
    await register(database, HEARD)
    match, send = "select noetl.match_signals(10)", "select noetl.send_signal('news', $1, to_jsonb($2::int))"
    async with session(database) as own, session(database) as other, broker(database) as lanes:
        for key in ("early", "told", "locked"):
            await start(database, payload={"key": key})
        await drain(lanes, own)
        await own.execute(send, "early", 2)
        await own.execute(match)
        await work(own)
        await drain(lanes, own)
        await own.execute(match)  # the waits begin
        await own.execute(send, "told", 1)
        await own.execute(match)
        await own.execute(send, "told", 2)
        await own.execute(match)  # the wait is told the first one still
        async with other.transaction():
            await other.execute("select from noetl.wait for update")
            await own.execute(send, "locked", 2)
            await own.execute(match)
        for _ in range(3):
            await drain(lanes, own)
            await own.execute(match)
        query = "select workload ->> 'key' from noetl.execution where noetl.is_live(status) order by 1"
        lost = [row[0] for row in await own.fetch(query)]
    return f"signals are lost: {', '.join(lost)}" if lost else None


PROBES: dict[str, Probe] = {
    "signals": signals,
    "stopped work": stopped_work,
    "a late commit": late_commit,
    "the lock alone": lock_alone,
    "the key alone": key_alone,
    "kill points": kill_points,
}
