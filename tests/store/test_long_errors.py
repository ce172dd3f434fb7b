"""Long errors are shortened before they are copied into later events."""

from __future__ import annotations

from typing import Any

from noetl_broker.broker.model.limits import shorten_error
from tests.postgres import Database
from tests.sessions import put_job, session

SHORTEN = "select noetl.as_error($1::jsonb)"
LIMIT = 65_536
VAST = "y" * 10_000_000


async def test_an_error_within_the_limit_is_unchanged(database: Database) -> None:
    """Both for errors that are measured and for short ones. The size is that of JSON text as the database writes it."""
    frame = len('{"message": ""}')
    errors: list[Any] = [None, 1, "x", [1], ["z" * 5_000], {}, {"message": "m", "rows": ["z" * 65_000]}]
    async with session(database) as own:
        for error in (*errors, {"message": "y" * (LIMIT - frame)}):
            assert await own.fetchval(SHORTEN, error) == error
        cut = await own.fetchval(SHORTEN, {"message": "y" * (LIMIT - frame + 1)})
    assert cut == {"message": "y" * 4_000, "original_bytes": LIMIT + 1}


async def test_the_core_shortens_an_error_as_the_database_does(database: Database) -> None:
    """The core shortens an error in a result. The database shortens all others."""
    errors: list[Any] = [
        "y" * 70_000,
        ["z"] * 50_000,
        {"rows": ["z"] * 50_000, "code": 7, "nested": {"long": 1, "b": [1.5, None, True]}},
        {"message": "ü" * 70_000, "type": "t" * 900, "k" * 101: 1, **{f"field{n}": n for n in range(20)}},
        {"message": ["no", "text"] * 9_000, "empty": {}, "quoted": '"\n\t' * 300},
    ]
    async with session(database) as own:
        for error in errors:
            assert await own.fetchval(SHORTEN, error) == shorten_error(error)


async def test_a_shortened_error_keeps_message_type_and_small_fields(database: Database) -> None:
    """Message and type are cut. A field with a very long name is dropped."""
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


async def test_the_longest_shortened_error_is_not_shortened_again(database: Database) -> None:
    """It has ten fields of characters with the most bytes in JSON."""
    error = {f"f{number}": "\x01" * 20_000 for number in range(9)} | {"message": "\x01" * 20_000}
    async with session(database) as own:
        short = await own.fetchval(SHORTEN, error)
        assert await own.fetchval(SHORTEN, short) == short
        assert len(short["f0"]) == 500


async def test_a_long_number_in_few_bytes_is_shortened(database: Database) -> None:
    """Ten bytes can hold a number of 100,000 digits."""
    async with session(database) as own:
        short = await own.fetchval("""select noetl.as_error('{"message": "m", "n": 1e100000}'::jsonb)""")
    assert (short["message"], len(short["n"]), short["original_bytes"]) == ("m", 500, 100_024)


async def test_an_error_without_small_fields_is_shortened(database: Database) -> None:
    """A list or a text becomes the message. An object may keep nothing."""
    async with session(database) as own:
        for error, message in (([VAST], "yyyy"), (VAST, "yyyy"), ({"a" * 101: VAST}, None)):
            short = await own.fetchval(SHORTEN, error)
            assert short["original_bytes"] > len(VAST)
            assert (short.get("message") is None) if message is None else message in short["message"]


async def test_an_error_in_a_text_column_is_shortened(database: Database) -> None:
    """On tables of a NoETL server it is JSON or plain text."""
    async with session(database) as own:
        words = await own.fetchval("select noetl.as_error(repeat('no, ', 50000))")
        document = await own.fetchval("select noetl.as_error(jsonb_build_object('message', repeat('y', 99999))::text)")
    assert words == {"message": "no, " * 1_000, "original_bytes": 200_002}
    assert document == {"message": "y" * 4_000, "original_bytes": 99_999 + len('{"message": ""}')}


async def test_a_worker_fails_its_job_with_a_long_error_and_a_warning(database: Database) -> None:
    """A refusal would leave the job leased."""
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
    assert warnings == [f"the error of job {job} takes 10000015 bytes; over 65536 it is shortened"]
