"""How far a leased job is: `noetl.report_progress` keeps what the holder of the lease reports."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noetl_broker.explain.progress import Progress
from noetl_broker.store.admin import reader
from noetl_broker.store.admin.progress import load_progress, reported_progress
from tests.brokers import drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import refused, session

ONE = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: end}
- {step: end}
"""
REPORT = "select noetl.report_progress($1, $2, $3, $4::text::jsonb)"
FIRST = '{"done": 3, "failed": 3, "total": 10, "errors": {"KeyError": 1, "": 1}, "other_types": 1}'


@pytest.fixture
async def job(database: Database) -> int:
    """Start an execution and lease its only job; give its queue_id."""
    await register(database, ONE)
    await start(database)
    await drain(database)
    return int(await value(database, "select queue_id from noetl.lease_jobs('w', 1)"))


async def progress(database: Database) -> list[Progress]:
    """The progress of the only execution."""
    async with session(database) as own:
        return await load_progress(own, await own.fetchval("select execution_id from noetl.execution"))


async def test_a_report_has_the_shape_of_any_progress(database: Database, job: int) -> None:
    """Errors by type; those that the report does not name are counted."""
    assert await value(database, REPORT, job, "w", 1, FIRST) is True
    [found] = await progress(database)
    assert found.pop("last_ended_at")  # type: ignore[misc]
    assert found.pop("pace")  # type: ignore[misc]
    assert found.pop("seconds_left")  # type: ignore[misc]
    assert found == {
        "step": "work", "visit": 1, "is_open": True, "total": 10, "started": 6, "ended": 6, "failed": 3,
        "cancelled": 0, "retrying": 0, "held": 0, "other_errors": 1, "other_types": 1,
        "errors": [{"type": None, "count": 1, "first": None}, {"type": "KeyError", "count": 1, "first": None}],
    }  # fmt: skip


async def test_a_reader_sees_how_far_a_job_is(database: Database, job: int) -> None:
    """Without types of errors, as of items that are jobs."""
    await rows(database, REPORT, job, "w", 1, FIRST)
    async with session(database) as own:
        execution_id = await own.fetchval("select execution_id from noetl.execution")
        [found] = (await reader.load_execution_details(own, execution_id))["iterators"]
    assert found["pace"]
    assert [found[name] for name in ("total", "ended", "failed", "other_errors", "errors")] == [10, 6, 3, 3, []]
    assert await value(database, "select progress ?| array['errors', 'other_types'] from noetl.jobs") is False


async def test_only_the_holder_of_a_lease_reports(database: Database, job: int) -> None:
    """Another worker, another attempt and a call after a cancel or the end get false, and change nothing."""
    assert [await value(database, REPORT, job, *other, FIRST) for other in (("x", 1), ("w", 2))] == [False, False]
    await execute(database, "update noetl.queue set stop = true")
    assert await value(database, REPORT, job, "w", 1, FIRST) is False
    await execute(database, "update noetl.queue set stop = false")
    await rows(database, "select noetl.complete_job($1, 'w', 1)", job)
    assert await value(database, REPORT, job, "w", 1, FIRST) is False
    assert await value(database, "select progress from noetl.queue") is None


async def test_what_another_attempt_reported_is_not_shown(database: Database, job: int) -> None:
    """Not while the job waits again, and not in a new attempt."""
    await rows(database, REPORT, job, "w", 1, FIRST)
    await execute(database, "update noetl.queue set status = 'retry'")
    assert await progress(database) == []
    await execute(database, "update noetl.queue set status = 'leased', attempts = 2")
    assert await progress(database) == []


async def test_the_pace_is_that_of_the_last_half_minute(database: Database, job: int) -> None:
    """Counts that fall, as of a worker that began anew, do not make it negative.

    About a minute lies between two reports: what was before has about an eighth of the weight.
    """
    earlier = """
        update noetl.queue
        set updated_at = updated_at - $1::interval,
          progress = progress || jsonb_build_object('at', (progress ->> 'at')::timestamptz - $1::interval)
        returning coalesce((progress ->> 'at')::timestamptz, updated_at)"""
    after = "select (progress ->> 'at')::timestamptz, (progress -> 'pace')::float8 from noetl.queue"
    pace: float | None = None
    ended = 0
    for done in (600, 600, 100, 1000):
        before_at = await value(database, earlier, timedelta(seconds=60))
        await rows(database, REPORT, job, "w", 1, json.dumps({"done": done, "total": 10_000}))
        [(reported_at, found)] = await rows(database, after)
        seconds = (reported_at - before_at).total_seconds()
        newest = max(done - ended, 0) / seconds
        pace = newest if pace is None else pace + (newest - pace) * (1 - math.exp(-seconds / 30))
        assert (seconds >= 60, found) == (True, pytest.approx(pace))
        ended = done


BAD_REPORTS = [
    (None, 'progress must be an object such as {"done": 3, "failed": 1, "total": 10}, it is null'),
    ("[1, 2]", "it is array"),
    ("{}", "progress needs done and total"),
    ('{"done": 1, "total": 2, "when": 3}', "progress has done, failed, total, errors and other_types, not 'when'"),
    ('{"done": "1", "total": 2}', 'done must be a whole number from 0 to 10^15, it is "1"'),
    ('{"done": 1.5, "total": 2}', "done must be a whole number from 0 to 10^15, it is 1.5"),
    ('{"done": 1, "total": 1e5000}', "progress must have at most 4096 bytes, it has 50"),
    ('{"done": 1, "total": 1e30}', "total must be a whole number from 0 to 10^15, it is 1000"),
    ('{"done": -1, "total": 2}', "done must be a whole number from 0 to 10^15, it is -1"),
    (
        '{"done": 0, "total": 0}',
        "done and failed together at most total; they are 0, 0 and 0",
    ),
    ('{"done": 1, "failed": 2, "total": 2}', "they are 2, 1 and 2"),
    (
        '{"done": 1, "total": 2, "errors": ["a"]}',
        "errors must be an object of counts by type",
    ),
    ('{"done": 1, "total": 2, "errors": {"a": null}}', "errors of type 'a' must be a whole number"),
    ('{"done": 1, "failed": 1, "total": 2, "errors": {"a": 2}}', "the errors count 2 failed items, failed is 1"),
    (
        '{"done": 1, "total": 9, "errors": {"a": 0, "b": 0, "c": 0, "d": 0, "e": 0, "f": 0}}',
        "errors must have at most five types",
    ),
    (
        json.dumps({"done": 1, "total": 9, "errors": {"x" * 101: 0}}),
        "has more than 100 characters: xxx",
    ),
    (json.dumps({"done": 1, "total": 9, "errors": {"x" * 5000: 0}}), "progress must have at most 4096 bytes"),
]


async def test_a_report_that_cannot_be_is_refused(database: Database, job: int) -> None:
    """The error says what is wrong with which value; nothing is kept."""
    async with session(database) as own:
        for report, fault in BAD_REPORTS:
            async with refused("NB400", f"^report_progress of job {job}: .*{re.escape(fault)}"):
                await own.fetchval(REPORT, job, "w", 1, report)
    assert await value(database, "select progress from noetl.queue") is None


@pytest.mark.parametrize("age, pace", [(3.0, 50.0), (14.0, 0.1)], ids=["on time", "overdue"])
def test_the_pace_falls_when_a_report_is_overdue(age: float, pace: float) -> None:
    """A worker reports each change within two seconds."""
    row: dict[str, Any] = {"at": datetime.now(UTC), "age": age}
    found = reported_progress("work", 1, {**row, "progress": {"done": 10, "total": 110, "pace": 50.0}})
    assert (found["pace"], found["seconds_left"]) == (pace, 100 / pace)
