"""What the function of a worker prints and logs is in the log of its attempt, and still on the terminal."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from noetl_broker import Job, logs
from tests.brokers import rows
from tests.postgres import Database
from tests.worker.test_loop import Queue, queue
from tests.worker.test_sdk import doing

__all__ = ["queue"]
KEPT = "select q.action::json -> 'args' ->> 'n', l.level, l.message from noetl.log l join noetl.queue q using (node_id)"
logger = logging.getLogger("story")


@pytest.fixture(autouse=True)
def configured_log() -> Iterator[None]:
    """Configure the program's own log: an earlier test may have left it as it is before that, on standard output."""
    logs.configure(level="error", form="console")
    yield
    structlog.reset_defaults()


def say(job: Job) -> None:
    """Print and log, as a function does."""
    print(f"out {job.args['n']}")
    print("err", file=sys.stderr)
    logger.warning("careful %s", "there")
    logger.info("below the level of this logger")


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_prints_and_records_are_kept_with_their_attempt(
    database: Database, queue: Queue, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of functions that run at the same time. The streams of the program stay as they were."""
    before = sys.stdout, sys.stderr, logging.getLogRecordFactory()

    async def awaits(job: Job) -> None:
        await asyncio.sleep(0)
        say(job)

    async with doing(database, awaits if kind == "async" else say, concurrency=4):
        for queue_id in [await queue.put_one({"type": "own", "args": {"n": n}}) for n in range(3)]:
            await queue.until(queue_id, "done")
    assert sorted(await rows(database, KEPT)) == sorted(
        (str(n), level, text)
        for n in range(3)
        for level, text in (("info", f"out {n}\nerr\n"), ("warning", "story: careful there\n"))
    )
    assert (sys.stdout, sys.stderr, logging.getLogRecordFactory()) == before
    print("later")
    # Threads may write their texts before the others' ends of lines: print writes them apart.
    printed = capfd.readouterr().out
    found = re.findall(r"later|out \d", printed)
    assert (sorted(found), printed.count("\n")) == (["later", "out 0", "out 1", "out 2"], 4)


async def test_a_thread_that_goes_on_after_its_end_adds_nothing(database: Database, queue: Queue) -> None:
    """Its attempt has ended by its timeout."""
    ended, printed = threading.Event(), threading.Event()

    def late(_job: Job) -> None:
        print("early")
        ended.wait()
        print("late")
        printed.set()

    async with doing(database, late):
        await queue.until(await queue.put_one({"type": "own", "timeout": 3}), "failed")
        ended.set()
        await asyncio.to_thread(printed.wait)
    assert await rows(database, "select message from noetl.log") == [("early\n",)]
