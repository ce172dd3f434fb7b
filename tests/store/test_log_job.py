"""Logs of attempts: `noetl.log_job` keeps the first and the last part, for the holder of the lease alone."""

from __future__ import annotations

import pytest

from tests.brokers import broken_invariants, drain, register, rows, start, value
from tests.postgres import Database
from tests.sessions import put_job, refused, session

HALF = 32_768
PART = 4_000
ONE = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: end}
- {step: end}
"""
LOG = "select noetl.log_job($1, 'w', $2, $3, $4, $5)"
KEPT = "select level, message from noetl.log order by node_id, attempt, ordinal"
PLACES = "select first_byte, octet_length(message) from noetl.log order by ordinal"


async def leased(database: Database) -> int:
    """Queue a job and lease it; return its queue_id."""
    async with session(database) as own:
        await put_job(own, "work")
        return int(await own.fetchval("select queue_id from noetl.lease_jobs('w', 1)"))


async def log(database: Database, job: int, message: str, *, attempt: int = 1, at: int | None = None) -> bool:
    """Log a message of level info; return what the database answers."""
    return bool(await value(database, LOG, job, attempt, "info", message, at))


async def test_a_message_is_kept_with_its_attempt(database: Database) -> None:
    """With level, step and time. A message without an end of line gets one."""
    job = await leased(database)
    answers = [await value(database, LOG, job, 1, level, "hello", None) for level in ("DEBUG", "error")]
    assert answers == [True, True]
    found = "select attempt, ordinal, step, level, first_byte, message from noetl.log order by ordinal"
    assert await rows(database, found) == [
        (1, 1, "work", "debug", 0, "hello\n"),
        (1, 2, "work", "error", 6, "hello\n"),
    ]


async def test_only_the_holder_of_a_lease_logs(database: Database) -> None:
    """Another worker, another attempt and a call after the end get false, and write nothing."""
    job = await leased(database)
    call = "select noetl.log_job($1, $2, $3, 'info', 'late')"
    assert [await value(database, call, job, *other) for other in (("x", 1), ("w", 2))] == [False, False]
    await rows(database, "select noetl.complete_job($1, 'w', 1)", job)
    assert await value(database, call, job, "w", 1) is False
    assert await rows(database, KEPT) == []


async def test_attempts_have_logs_of_their_own(database: Database) -> None:
    """The second attempt begins at the first byte."""
    job = await leased(database)
    await log(database, job, "one")
    await rows(database, "update noetl.queue set attempts = 2")
    await log(database, job, "two", attempt=2)
    found = "select attempt, ordinal, first_byte, message from noetl.log order by attempt"
    assert await rows(database, found) == [(1, 1, 0, "one\n"), (2, 1, 0, "two\n")]


async def test_a_repeated_part_of_a_stream_is_added_once(database: Database) -> None:
    """A worker repeats a part if it lost the answer. Parts of a stream stay as they are."""
    job = await leased(database)
    for at, text in ((0, "ab"), (2, "c\n"), (0, "ab"), (2, "c\n"), (9, "later")):
        assert await log(database, job, text, at=at)
    assert await rows(database, PLACES) == [(0, 2), (2, 2), (9, 5)]


async def test_of_a_long_log_the_first_and_the_last_part_are_kept(database: Database) -> None:
    """Never more than 64 KiB at any time. The place of a row says what is missing before it."""
    job = await leased(database)
    kept: list[int] = []
    for n in range(90):
        await log(database, job, f"{n:03}" + "x" * 996)
        kept.append(await value(database, "select sum(octet_length(message)) from noetl.log"))
    assert (kept[64], max(kept) <= 2 * HALF) == (65_000, True)
    found = [int(message[:3]) for (_, message) in await rows(database, KEPT)]
    gap = next(index for index, n in enumerate(found) if n != index)
    assert (gap, found[gap:]) == (32, [*range(found[gap], 90)])
    assert HALF * 7 / 8 - 1000 < 1000 * len(found[gap:]) <= HALF


async def test_of_a_huge_message_the_ends_are_kept(database: Database) -> None:
    """In parts of 4,000 characters, with the places that they have in the whole. Letters have one to three bytes."""
    job = await leased(database)
    for attempt, letter in enumerate("xé€", start=1):
        await rows(database, "update noetl.queue set attempts = $1", attempt)
        message = "first" + letter * 300_000 + "last\n"
        await log(database, job, message, attempt=attempt)
        parts = "select first_byte, message from noetl.log where attempt = $1 order by ordinal"
        found = await rows(database, parts, attempt)
        assert all(message.encode()[at:].startswith(part.encode()) for at, part in found)
        assert (found[0][1][:5], found[-1][1][-5:], max(len(part) for _, part in found)) == ("first", "last\n", PART)
        kept = sum(len(part.encode()) for _, part in found)
        assert 2 * HALF * 0.6 < kept <= 2 * HALF


async def test_many_small_messages_are_bounded_too(database: Database) -> None:
    """At most 2,000 rows an attempt."""
    job = await leased(database)
    await rows(database, "select noetl.log_job($1, 'w', 1, 'info', n::text) from generate_series(1, 5000) n", job)
    found = [int(message) for (_, message) in await rows(database, KEPT)]
    assert found[:1_000] == [*range(1, 1_001)]
    assert found[1_000:] == [*range(5_001 - len(found[1_000:]), 5_001)]
    assert 875 <= len(found[1_000:]) <= 1_000


async def test_a_wrong_argument_is_refused(database: Database) -> None:
    """The error names it."""
    job = await leased(database)
    async with session(database) as own:
        for wrong in (("loud", "x", None), (None, "x", None), ("info", None, None), ("info", "x", -1)):
            async with refused("NB400", "debug, info, warning or error"):
                await own.fetchval(LOG, job, 1, *wrong)


async def test_a_log_changes_no_invariant(database: Database) -> None:
    """The job stays as it is."""
    await register(database, ONE)
    await start(database)
    await drain(database)
    job = int(await value(database, "select queue_id from noetl.lease_jobs('w', 1)"))
    before = await rows(database, "select * from noetl.queue")
    await log(database, job, "x" * 100_000)
    assert await rows(database, "select * from noetl.queue") == before
    await rows(database, "select noetl.complete_job($1, 'w', 1)", job)
    await drain(database)
    assert await broken_invariants(database) == {}


@pytest.mark.parametrize("size", [HALF * 2, HALF * 2 + 1])
async def test_a_message_as_long_as_a_log_is_divided_once(database: Database, size: int) -> None:
    """Of a longer one both ends are kept."""
    parts = "select sum(octet_length(part)) from noetl.log_parts(repeat('x', $1), 0, $2)"
    assert await value(database, parts, size, HALF * 2) == HALF * 2
