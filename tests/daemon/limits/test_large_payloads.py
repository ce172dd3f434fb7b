"""Payloads that together exceed a broker's memory: a claim takes 4 MiB of them, or one."""

from __future__ import annotations

import base64
import random
from functools import cache

from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import Session, session

STORY = """
workload: {blob: ""}
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
THREE = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: own}
- {step: b, type: own}
- {step: c, type: own}
"""
CANCEL = "insert into noetl.event (execution_id, event_type) values ($1, 'execution_cancel')"
CLAIM = "select execution_id, locked, octet_length(context::text) from noetl.take_mail(200, $1, 0) order by mail_id"


@cache
def megabytes(number: float) -> dict[str, str]:
    """Give a payload of this size in the table: it cannot be compressed."""
    noise = random.Random(7).randbytes(int(number * 800_000))
    return {"blob": base64.b85encode(noise).decode()}


async def claimed(own: Session, *, newest: bool = False) -> list[tuple[int, bool]]:
    """Give each claimed mail with its execution, and whether it may be decided now; only those have payloads."""
    async with own.transaction():
        found = await own.fetch(CLAIM, newest)
    assert all((length is not None) == locked for _, locked, length in found)
    return [(execution_id, locked) for execution_id, locked, _ in found]


async def test_a_claim_stops_before_the_payload_that_exceeds_the_limit(database: Database) -> None:
    """A claim of the newest mail takes the newest. Executions with small payloads do not wait."""
    await register(database, STORY)
    ids = [(await start(database, payload=megabytes(size)))[0] for size in (0.001, 1.5, 0.001, 1.5, 1.5, 0.001)]
    async with session(database) as own:
        assert await claimed(own) == [*zip(ids, [True, True, True, True, False, True], strict=True)]
        assert await claimed(own, newest=True) == [*zip(ids, [True, False, True, True, True, True], strict=True)]


async def test_compressed_payloads_count_with_their_full_size(database: Database) -> None:
    """Two megabytes of one letter have 23 kB in the table."""
    await register(database, STORY)
    for _ in range(20):
        await start(database, payload={"blob": "x" * 2_000_000})
    async with session(database) as own:
        assert sum(locked for _, locked in await claimed(own)) == 18


async def test_states_count_as_well(database: Database) -> None:
    """Arrivals at a waiting join keep their inputs in the state, which comes with each mail."""
    await register(database, STORY)
    ids = await start(database, count=3)
    await drain(database)
    await complete_jobs(database)
    async with session(database) as own:
        await own.execute("update noetl.execution_state set tokens = (tokens::jsonb || $1::jsonb)::json", megabytes(3))
        look = "select execution_id, locked, tokens is not null from noetl.take_mail(200, false, 0) order by mail_id"
        found = await own.fetch(look)
    assert [tuple(row) for row in found] == [(ids[0], True, True), (ids[1], False, False), (ids[2], False, False)]


async def test_results_of_completed_actions_do_not_count(database: Database) -> None:
    """They stay in the table until a template names them."""
    await register(database, THREE)
    [first] = await start(database)
    await drain(database)
    await complete_jobs(database, megabytes(1.9))
    [vast] = await start(database, payload=megabytes(5))
    look = "select execution_id, locked from noetl.take_mail(200, false, 0) order by mail_id"
    assert await rows(database, look) == [(first, True)] * 3 + [(vast, True)]


async def test_the_first_payload_is_claimed_whatever_its_size(database: Database) -> None:
    """It comes alone. A payload that another broker holds does not count."""
    await register(database, STORY)
    [vast], [large] = [await start(database, payload=megabytes(size)) for size in (5, 3)]
    async with session(database) as own, session(database) as other:
        assert await claimed(own) == [(vast, True), (large, False)]
        async with other.transaction():
            await other.execute("select pg_advisory_xact_lock($1)", vast)
            found = await own.fetch(CLAIM.replace("octet_length(context::text)", "context is null"), False)  # noqa: FBT003 - its arguments
    assert [tuple(row) for row in found] == [(vast, False, True), (large, True, False)]


async def test_an_execution_is_claimed_with_all_its_mail_or_not_at_all(database: Database) -> None:
    """A cancel after other mail comes with its start, or not."""
    await register(database, STORY)
    [first], [second], [third] = [await start(database, payload=megabytes(1.8)) for _ in range(3)]
    for execution_id in (first, third):
        await execute(database, CANCEL, execution_id)
    async with session(database) as own:
        found = await own.fetch(CLAIM.replace(", octet_length(context::text)", ""), False)  # noqa: FBT003 - its arguments
    assert [tuple(row) for row in found] == [
        (first, True), (second, True), (third, False), (first, True), (third, False),
    ]  # fmt: skip


async def test_all_large_payloads_are_decided_in_the_end(database: Database) -> None:
    """A few in each transaction; a drain does not stop before the rest."""
    await register(database, STORY)
    for _ in range(6):
        await start(database, payload=megabytes(1.5))
    assert (await drain(database)).metrics.largest_batch == 2
    assert await complete_jobs(database) == 6
    await drain(database)
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 6
    assert await broken_invariants(database) == {}
