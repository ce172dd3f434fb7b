"""Answers of workers: one or many, and repeated."""

from __future__ import annotations

from tests.postgres import Database
from tests.sessions import put_job, refused, session

EVENTS = "select * from noetl.event order by created_at"


async def test_a_completion_has_result_duration_worker_and_attempt(database: Database) -> None:
    """The duration is in seconds. Repeated, also with another result, it is true and changes nothing."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute("update noetl.queue set first_leased_at = first_leased_at - interval '1 minute'")
        assert await own.fetchval("select noetl.complete_job($1, 'w', 1, '[1]')", queue_id) is True
        row, events = await own.fetch("select * from noetl.queue"), await own.fetch(EVENTS)
        assert await own.fetchval("select noetl.complete_job($1, 'w', 1, '[2]')", queue_id) is True
        assert await own.fetchval("""select noetl.fail_job($1, 'w', 1, '{"message": "m"}')""", queue_id) is False
        assert await own.fetchval("select noetl.heartbeat_job($1, 'w', 1)", queue_id) is False
        assert (await own.fetch("select * from noetl.queue"), await own.fetch(EVENTS)) == (row, events)
    started, event = events
    assert started["event_type"] == "action_started"
    assert event["event_type"] == "action_completed"
    assert 60 <= event["duration"] < 6_000  # no milliseconds
    assert (event["status"], event["result"], event["error"], event["worker_id"]) == ("COMPLETED", [1], None, "w")
    assert event["meta"] == {"queue_id": queue_id, "attempt": 1}
    assert (row[0]["status"], row[0]["lease_until"], row[0]["worker_id"]) == ("done", None, "w")


async def test_a_failure_writes_its_error_and_whether_to_retry(database: Database) -> None:
    """A repeated failure changes nothing."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await own.execute("select noetl.lease_jobs('w')")
        call = """select noetl.fail_job($1, 'w', 1, '{"message": "no", "status_code": 503}', false)"""
        assert await own.fetchval(call, queue_id) is True
        assert await own.fetchval(call, queue_id) is True
        event = await own.fetchrow("select * from noetl.event where event_type = 'action_failed'")
        assert await own.fetchval("select status from noetl.queue") == "failed"
    assert event is not None
    assert (event["status"], event["error"]) == ("FAILED", {"message": "no", "status_code": 503})
    assert event["meta"] == {"queue_id": queue_id, "attempt": 1, "retryable": False}


async def test_an_error_without_a_message_is_refused(database: Database) -> None:
    """NB400. The worker can still fail the job properly."""
    errors = ("null", "'null'", "'\"text\"'", "'[]'", "'{}'", "'{\"message\": null}'", "'{\"message\": 1}'")
    async with session(database) as own:
        queue_id = await put_job(own)
        await own.execute("select noetl.lease_jobs('w')")
        for error in errors:
            async with refused("NB400", "must be an object with a message"):
                await own.execute(f"select noetl.fail_job($1, 'w', 1, {error})", queue_id)
        assert await own.fetchval("""select noetl.fail_job($1, 'w', 1, '{"message": ""}')""", queue_id) is True


async def test_a_result_may_be_null(database: Database) -> None:
    """SQL null, JSON null, or absent."""
    async with session(database) as own:
        for argument in ("", ", null::jsonb", ", 'null'::jsonb"):
            queue_id = await put_job(own, f"a{len(argument)}")
            await own.execute("select noetl.lease_jobs('w')")
            assert await own.fetchval(f"select noetl.complete_job($1, 'w', 1{argument})", queue_id) is True


async def test_a_null_is_no_step_type(database: Database) -> None:
    """The error says so."""
    async with session(database) as own, refused("NB400", "null is no name of a step type"):
        await own.execute("select noetl.announce_step_types(array[null])")
