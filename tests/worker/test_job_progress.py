"""How far a job is: the worker reports what changed, now and then, while the job runs."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from noetl_broker import Job
from noetl_broker.worker import job_progress
from noetl_broker.worker.job_progress import REPORT_SECONDS, JobProgress
from noetl_broker.worker.redaction import Redactor
from tests.brokers import PATIENCE_SECONDS, execute, value
from tests.chaos.under_load import leave_core
from tests.postgres import Database
from tests.worker.test_loop import Queue, queue
from tests.worker.test_sdk import doing

__all__ = ["queue"]
REDACTOR = Redactor({"API_TOKEN": "s3cret-value-of-a-token"}, None)
KEPT = "select coalesce(progress, '{}') from noetl.queue"
LOOP = {"collection": [0, 1, 2], "element": "n", "on_error": "continue"}


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report at once."""
    monkeypatch.setattr(job_progress, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(job_progress, "POLL_SECONDS", 0.01)


async def until_reported(database: Database, expected: dict[str, Any]) -> None:
    """Wait until the worker has reported these numbers of its job."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not expected.items() <= (await value(database, KEPT)).items():
            await leave_core()


def test_a_report_is_due_two_seconds_after_the_last_one() -> None:
    """The first one after two seconds, too. It is due if something has changed."""
    progress, now = JobProgress(), time.monotonic() + 0.1
    progress.begin_items(5)
    reports = [progress.take(now, REDACTOR)]
    for _ in range(2):
        progress.end_item()
        reports += [progress.take(now + seconds, REDACTOR) for seconds in (2, 3, 4.5)]
        now += 4.5
    counts = [report and report["done"] for report in reports]
    assert (REPORT_SECONDS, counts) == (2.0, [None, 1, None, None, 2, None, None])


def test_a_lost_report_is_repeated() -> None:
    """Though nothing has changed."""
    progress, now = JobProgress(), time.monotonic()
    progress.set(1, 2, 0)
    first = progress.take(now + 3, REDACTOR)
    progress.repeat()
    assert progress.take(now + 6, REDACTOR) == first == {"done": 1, "failed": 0, "total": 2}


def test_five_types_of_errors_are_named() -> None:
    """The most frequent ones, shortened and without secrets."""
    progress = JobProgress()
    progress.begin_items(100)
    for count, name in enumerate(["e", "f", "x" * 200, "s3cret-value-of-a-token", "a\x00\ud800", "b", "c"], 1):
        for _ in range(count):
            progress.end_item(name)
    report = progress.take(time.monotonic() + 3, REDACTOR)
    assert report is not None
    assert (report["failed"], report["other_types"], len(report["errors"])) == (28, 2, 5)
    assert report["errors"] | {"x" * 100: 3, "c": 7, "b": 6, "a\ufffd?": 5} == report["errors"]
    assert "s3cret" not in json.dumps(report)


@pytest.mark.usefixtures("short_pauses")
async def test_items_are_reported_while_the_job_runs(database: Database, queue: Queue) -> None:
    """An attempt ends all reports."""
    goes_on = asyncio.Event()

    async def doubles(job: Job) -> int:
        job.report_progress(5, 6)  # the items are counted already
        if job.args["n"] == 1:
            raise KeyError("city")
        if job.args["n"] == 2:
            await goes_on.wait()
        return 1

    async with doing(database, doubles):
        queue_id = await queue.put_one({"type": "own", "args": {"n": "{{ n }}"}, "loop": LOOP})
        report = {"done": 1, "failed": 1, "total": 3, "errors": {"KeyError": 1}}
        await until_reported(database, report)
        goes_on.set()
        assert await queue.until(queue_id, "done", "failed") == "done"


@pytest.mark.usefixtures("short_pauses")
async def test_a_function_reports_how_far_it_is(database: Database, queue: Queue) -> None:
    """Also one that runs in a thread. Numbers that cannot be are an error of the function."""

    def loads(job: Job) -> str:
        job.report_progress(done=700, total=1000, failed=1)
        job.cancelled.wait(PATIENCE_SECONDS)
        return ""

    async with doing(database, loads):
        await queue.put_one({"type": "own", "args": {}})
        await until_reported(database, {"done": 700, "failed": 1, "total": 1000})
        await execute(database, "update noetl.queue set stop = true")
        await execute(database, "notify noetl_cancel")
    with pytest.raises(ValueError, match="together at most total: 2, 0 and 1"):
        JobProgress().set(2, 1, 0)


@pytest.mark.usefixtures("short_pauses")
async def test_a_database_that_takes_no_reports_gets_the_answers(database: Database, queue: Queue) -> None:
    """Its schema is older, or the login lacks the right."""
    await execute(database, "drop function noetl.report_progress")

    async def doubles(_job: Job) -> int:
        await asyncio.sleep(0)
        return 1

    async with doing(database, doubles):
        for _ in range(2):
            queue_id = await queue.put_one({"type": "own", "args": {"n": "{{ n }}"}, "loop": LOOP})
            assert await queue.until(queue_id, "done", "failed") == "done"
