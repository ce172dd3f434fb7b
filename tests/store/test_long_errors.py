"""Errors too long to be said again by everything that follows: what is kept of them, and where."""

from __future__ import annotations

from typing import Any

import pytest

from tests.postgres import Database
from tests.sessions import put_job, session

SHORTEN = "select noetl.as_error($1::jsonb)"
LIMIT = 65_536
VAST = "y" * 10_000_000


@pytest.mark.parametrize("error", [None, 1, "x", [1], ["z" * 5_000], {}, {"message": "m", "rows": ["z" * 65_000]}])
async def test_an_error_within_the_limit_is_as_it_was(database: Database, error: Any) -> None:
    """Whatever it is, and whether it had to be looked at or not."""
    async with session(database) as own:
        assert await own.fetchval(SHORTEN, error) == error


async def test_the_first_bytes_past_the_limit_shorten_it(database: Database) -> None:
    """As JSON text, the way the database writes it."""
    frame = len('{"message": ""}')
    async with session(database) as own:
        kept = await own.fetchval(SHORTEN, {"message": "y" * (LIMIT - frame)})
        cut = await own.fetchval(SHORTEN, {"message": "y" * (LIMIT - frame + 1)})
    assert len(kept["message"]) == LIMIT - frame
    assert cut == {"message": "y" * 4_000, "original_bytes": LIMIT + 1}


async def test_what_people_look_for_first_is_kept(database: Database) -> None:
    """Message and type however long, then the small fields; a name longer than any name is none."""
    error = {
        "message": VAST, "type": "HTTPError" * 1_000, "status_code": 503, "retry_after": {"seconds": 7},
        "traceback": ["frame"] * 1_000, "n" * 101: 1, **{f"other{number:02}": "z" * 2_000 for number in range(20)},
    }  # fmt: skip
    async with session(database) as own:
        short = await own.fetchval(SHORTEN, error)
        assert await own.fetchval("select octet_length($1::jsonb::text)", short) < LIMIT
    assert (short["message"], short["type"]) == ("y" * 4_000, ("HTTPError" * 1_000)[:500])
    assert (short["status_code"], short["retry_after"]) == (503, {"seconds": 7})
    assert sorted(short) == sorted(
        [
            "message",
            "type",
            "status_code",
            "retry_after",
            *(f"other{number:02}" for number in range(6)),
            "original_bytes",
        ]
    )


async def test_the_longest_of_short_errors_is_near_the_limit(database: Database) -> None:
    """Of signs that take the most bytes as JSON, ten fields of them: it is not shortened again."""
    error = {f"f{number}": "\x01" * 20_000 for number in range(9)} | {"message": "\x01" * 20_000}
    async with session(database) as own:
        short = await own.fetchval(SHORTEN, error)
        assert await own.fetchval(SHORTEN, short) == short
        assert len(short["f0"]) == 500


async def test_a_number_may_be_longer_than_its_bytes(database: Database) -> None:
    """In ten bytes there is room for a hundred thousand digits."""
    async with session(database) as own:
        short = await own.fetchval("""select noetl.as_error('{"message": "m", "n": 1e100000}'::jsonb)""")
    assert (short["message"], len(short["n"]), short["original_bytes"]) == ("m", 500, 100_024)


@pytest.mark.parametrize("error, message", [([VAST], "yyyy"), (VAST, "yyyy"), ({"a" * 101: VAST}, None)])
async def test_an_error_without_fields_to_keep(database: Database, error: Any, message: str | None) -> None:
    """A list or a text is a message; an object may have nothing that could be kept."""
    async with session(database) as own:
        short = await own.fetchval(SHORTEN, error)
    assert short["original_bytes"] > len(VAST)
    assert (short.get("message") is None) if message is None else message in short["message"]


async def test_an_error_in_a_text_column_is_shortened_too(database: Database) -> None:
    """Of a NoETL server's tables: JSON, or words for people."""
    async with session(database) as own:
        words = await own.fetchval("select noetl.as_error(repeat('no, ', 50000))")
        document = await own.fetchval("select noetl.as_error(jsonb_build_object('message', repeat('y', 99999))::text)")
    assert words == {"message": "no, " * 1_000, "original_bytes": 200_002}
    assert document == {"message": "y" * 4_000, "original_bytes": 99_999 + len('{"message": ""}')}


async def test_a_worker_that_tells_too_much_is_heard_and_warned(database: Database) -> None:
    """Its job fails with what is kept; a refusal would leave it leased."""
    warnings: list[str] = []
    async with session(database) as own:
        own.add_log_listener(lambda _own, message: warnings.append(message.message))
        job = await put_job(own, "a")
        await own.execute("select noetl.lease_jobs('w')")
        assert await own.fetchval("select noetl.fail_job($1, 'w', 1, $2)", job, {"message": VAST})
        assert await own.fetchval("select error from noetl.event where event_type = 'action_failed'") == {
            "message": "y" * 4_000,
            "original_bytes": 10_000_015,
        }
    assert warnings == [f"the error of job {job} takes 10000015 bytes; past 65536 it is shortened"]
