"""What is tried on a program to see whether it keeps the rules: each probe tells the first fault that it sees.

A fault has a name: what was lost, doubled or is stuck, or the invariant that is broken. Time that has run out is none.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from noetl_broker.daemon.evaluator import Evaluator
from tests.brokers import broken_invariants, execute, register, start, value
from tests.chaos.extent import LONG
from tests.chaos.killing import broker, drain, finish, killed_at, story, undisturbed, work
from tests.chaos.mutants import NO_SECOND_WALL
from tests.chaos.proxy import MOMENTS, Point
from tests.chaos.shapes import CHILD
from tests.postgres import Database
from tests.sessions import session

STUCK_SECONDS = 20.0
UNREAD_SECONDS = 5.0  # the inbox is read from its beginning every tenth of a second
TRIES = 20  # fewer of them in that time: the machine was slow, which is no fault of the program
LANES = 4
HOT_EXECUTIONS = 12
FIRST_STATEMENTS = 24  # the short form's: a start, and a start of another execution

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
FREE = "select count(*) from (select from noetl.inbox for update skip locked) free"
TURNS = "select count(*) from noetl.turn"
LOCK = re.compile(r"pg_(try_)?advisory_xact_lock\([au]\.execution_id\)")


async def kill_points(database: Database, _monkeypatch: pytest.MonkeyPatch) -> str | None:
    """A broker killed before and after each of its statements, in a playbook with another in it."""
    await register(database, CALL)
    await register(database, CHILD, path="child")
    async with session(database) as connection, broker(database) as fresh:
        expected, statements = await undisturbed(database, "story", connection)
        assert "write_family" in statements
        for number, statement in enumerate(statements if LONG else statements[:FIRST_STATEMENTS]):
            if statement in {"begin", "rollback"}:
                continue  # nothing was changed since the point before
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
    """A writer that was given its ids first commits last, when the broker has read what came after it."""
    await register(database, "workflow:\n- {step: start}\n")
    async with session(database) as late, session(database) as connection, broker(database) as evaluator:
        writing = late.transaction()
        await writing.start()
        execution_id = await late.fetchval("select noetl.start_execution('story')")
        await start(database)
        await evaluator.drain()
        await writing.commit()
        if stuck := await standstill(drain(evaluator, connection), (evaluator,), database, UNREAD_SECONDS):
            return stuck
        ended = await connection.fetchval("select status from noetl.execution where execution_id = $1", execution_id)
    return None if ended == "COMPLETED" else "lost: what was committed late has no turn"


async def lock_alone(database: Database, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Lanes meet on the same executions, and turns are not unique: the lock must keep them apart."""
    if await value(database, "select count(*) from pg_constraint where conname = 'turn_pkey'"):
        for patch in NO_SECOND_WALL:
            await patch.apply(database, monkeypatch)
    return await _meet(database)


async def key_alone(database: Database, _monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Lanes meet on the same executions, and the lock lets everybody in: the unique turn must keep them apart."""
    source = await value(database, "select pg_get_functiondef('noetl.take_mail'::regproc)")
    unlocked, locks = LOCK.subn("true", source)
    assert locks == 1
    await execute(database, unlocked)
    return await _meet(database)


async def _meet(database: Database) -> str | None:
    """Answer all jobs of wide executions at once, and let two brokers of four lanes read the answers one by one."""
    await register(database, WIDE)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(session(database))
        first, second = [
            await stack.enter_async_context(broker(database, lanes=LANES, batch_size=1)) for _ in range(2)
        ]  # fmt: skip
        await start(database, count=HOT_EXECUTIONS)

        async def answer_and_read() -> None:
            await drain(first, connection)
            await work(connection)
            await asyncio.gather(first.drain(), second.drain())
            await finish(first, connection)

        if stuck := await standstill(answer_and_read(), (first, second), database, STUCK_SECONDS):
            return stuck
    return _first(await broken_invariants(database))


async def standstill(
    work: Coroutine[Any, Any, object] | asyncio.Future[Any],
    evaluators: Sequence[Evaluator],
    database: Database,
    seconds: float,
) -> str | None:
    """Await the work; if it takes longer, tell of mail that stays unread though nobody holds it and all is tried.

    Raises TimeoutError where that is not so: turns are still taken, somebody holds the mail, there is none, or too few
    tries were made. Then the time was short, and nothing is known.
    """
    task = asyncio.ensure_future(work)
    if await _ends(task, seconds / 2):
        return None
    turns, tried = await value(database, TURNS), _tries(evaluators)
    if await _ends(task, seconds / 2):
        return None
    moved, tried = await value(database, TURNS) - turns, _tries(evaluators) - tried
    task.cancel()
    await asyncio.wait({task})
    free = await value(database, FREE)
    if moved or not free or tried < TRIES:
        raise TimeoutError(f"{moved} turns were taken, {free} mails are held by nobody, {tried} tries")
    met = ", ".join(f"{state} {count} times" for one in evaluators for state, count in one.counters.faults.items())
    return f"stuck: mail that nobody holds is never read ({met or 'it is passed over'})"


async def _ends(task: asyncio.Future[Any], seconds: float) -> bool:
    """Whether it ends within this time; raises what it raised."""
    await asyncio.wait({task}, timeout=seconds)
    if task.done():
        task.result()
    return task.done()


def _tries(evaluators: Sequence[Evaluator]) -> int:
    return sum(one.counters.drains + one.counters.retries + one.counters.misses for one in evaluators)


def _otherwise(expected: list[str], seen: list[str]) -> str | None:
    """How a story differs from the one that was undisturbed."""
    lost, more = Counter(expected) - Counter(seen), Counter(seen) - Counter(expected)
    told = [f"{word}: {next(iter(lines))}" for word, lines in (("lost", lost), ("doubled or new", more)) if lines]
    return "; ".join(told) or None


def _first(faults: dict[str, list[tuple[object, ...]]]) -> str | None:
    return f"broken: {next(iter(faults))}" if faults else None


Probe = Callable[[Database, pytest.MonkeyPatch], Awaitable[str | None]]
PROBES: dict[str, Probe] = {
    "a late commit": late_commit,
    "the lock alone": lock_alone,
    "the key alone": key_alone,
    "kill points": kill_points,
}
