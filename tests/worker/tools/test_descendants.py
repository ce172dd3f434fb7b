"""No process that a python step started survives it, even in its own session or if the worker is killed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from noetl_broker.store.worker.jobs import Lease
from noetl_broker.worker.job_log import JobLog
from noetl_broker.worker.tools.task import WorkerResources
from tests.worker.alone import start_alone
from tests.worker.conftest import Perform, failed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is a process group alone")

PATIENCE_SECONDS = 60.0
STUBBORN = """
import os, signal, subprocess, sys
def stay(pipe):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(pipe, f"{os.getpid()} ".encode())
    while True:
        signal.pause()
def daemon(pipe):
    ready, ready_writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(ready_writer, b"x")
            stay(pipe)
        os._exit(0)
    os.wait()
    os.read(ready, 1)
def main(path):
    pipe = os.open(path, os.O_WRONLY)
    daemon(pipe)
    END
"""
BOMB = """
import os, signal
def main(path):
    pipe = os.open(path, os.O_WRONLY)
    if os.fork() == 0:
        for _ in range(8):  # 256 processes, each in a session of its own
            os.fork()
            os.setsid() if os.getsid(0) != os.getpid() else None
            os.write(pipe, f"{os.getpid()} ".encode())
        while True:
            signal.pause()
    os.close(pipe)
    signal.pause() if WAITS else None
"""


class Descendants:
    """The processes that a step leaves: those that hold the write end of the test's pipe."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    async def begun(self) -> None:
        """Wait until a process has written into the pipe."""
        assert await asyncio.to_thread(select.select, [self._reader], [], [], PATIENCE_SECONDS) != ([], [], [])

    async def gone(self) -> bool:
        """Wait until no process holds the pipe, and tell whether that happened."""
        poll = select.poll()
        poll.register(self._reader, 0)
        return bool(await asyncio.to_thread(poll.poll, PATIENCE_SECONDS * 1_000))

    def close(self) -> None:
        """Kill the processes that a failed test has left."""
        with contextlib.suppress(BlockingIOError):
            for pid in os.read(self._reader, 65_536).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        os.close(self._reader)


@pytest.fixture
async def descendants(perform: Perform, tmp_path: Path) -> AsyncIterator[Descendants]:
    """Watch for the processes that a step leaves. The fork server runs, so a step begins long before its time limit."""
    assert await perform({"type": "python", "code_b64": base64.b64encode(b"result = 1").decode()}) == 1
    own = Descendants(tmp_path / "pipe")
    yield own
    own.close()


def python(code: str, descendants: Descendants) -> dict[str, Any]:
    """Make a python action that gets the path of the pipe."""
    return {
        "type": "python",
        "code_b64": base64.b64encode(code.encode()).decode(),
        "args": {"path": str(descendants.path)},
    }


async def test_a_daemon_process_does_not_outlive_the_step(perform: Perform, descendants: Descendants) -> None:
    """Forked twice, in its own session, ignoring signals."""
    assert await perform(python(STUBBORN.replace("END", "return 1"), descendants)) == 1
    assert await descendants.gone()


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
async def test_a_daemon_process_does_not_outlive_a_step_that_dies(
    perform: Perform, descendants: Descendants, end: str
) -> None:
    """The step has its usual error."""
    error = failed(await perform(python(STUBBORN.replace("END", end), descendants)))
    assert (error["type"], "exit code 3" in error["message"] or "signal 9" in error["message"]) == (
        "process_died",
        True,
    )
    assert await descendants.gone()


async def test_a_daemon_process_does_not_outlive_the_time_limit(perform: Perform, descendants: Descendants) -> None:
    """It is killed with the step."""
    outcome = await perform(python(STUBBORN.replace("END", "signal.pause()"), descendants), limit=2.0)
    assert failed(outcome)["type"] == "timeout"
    assert await descendants.gone()


async def test_a_daemon_process_does_not_outlive_the_lease(perform: Perform, descendants: Descendants) -> None:
    """A job with a lost lease is cancelled."""
    job = asyncio.ensure_future(perform(python(STUBBORN.replace("END", "signal.pause()"), descendants)))
    await descendants.begun()
    job.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await job
    assert await descendants.gone()


async def test_a_daemon_process_does_not_outlive_a_killed_worker(descendants: Descendants) -> None:
    """The keeper kills it."""
    worker = await start_alone(python(STUBBORN.replace("END", "signal.pause()"), descendants))
    await descendants.begun()
    worker.kill()
    assert await descendants.gone()
    await worker.communicate()


@pytest.mark.parametrize("waits", [False, True])
async def test_hundreds_of_processes_do_not_outlive_the_step(
    perform: Perform, descendants: Descendants, *, waits: bool
) -> None:
    """Each in its own session, and growing while the step ends; or at the process limit."""
    outcome = await perform(python(BOMB.replace("WAITS", str(waits)), descendants), limit=3.0)
    assert outcome is None or failed(outcome)["type"] == "timeout"
    assert await descendants.gone()


async def test_a_step_that_kills_its_keeper_dies(perform: Perform, descendants: Descendants) -> None:
    """The step fails, and its process is gone."""
    code = (
        "import os\ndef main(path):\n    os.open(path, os.O_WRONLY)\n    os.kill(os.getppid(), 9)\n    while True: pass"
    )
    assert failed(await perform(python(code, descendants)))["type"] == "process_died"
    assert await descendants.gone()


async def test_a_daemon_process_does_not_outlive_a_killed_keeper(perform: Perform, descendants: Descendants) -> None:
    """The fork server kills it."""
    code = STUBBORN.replace("END", "os.kill(os.getppid(), signal.SIGKILL); signal.pause()")
    assert failed(await perform(python(code, descendants)))["type"] == "process_died"
    assert await descendants.gone()


RELAY = f"""
import os, signal, time
def main(path):
    os.open(path, os.O_WRONLY)
    keeper, until = os.getppid(), time.monotonic() + {PATIENCE_SECONDS + 2}
    for _ in range(8):
        if os.fork() == 0:
            while time.monotonic() < until:  # each starts the next one and ends well
                os.setsid()
                if os.fork():
                    os._exit(0)
            os._exit(0)
    time.sleep(0.05)
    os.kill(keeper, signal.SIGKILL)
    signal.pause()
"""


async def test_processes_that_start_each_other_do_not_outlive_a_killed_keeper(
    perform: Perform, descendants: Descendants
) -> None:
    """Each ends by itself, most likely before the fork server kills it."""
    assert failed(await perform(python(RELAY, descendants)))["type"] == "process_died"
    assert await descendants.gone()


async def test_a_step_that_stops_its_keeper_is_killed(perform: Perform, descendants: Descendants) -> None:
    """At its time limit, with all its processes."""
    code = STUBBORN.replace("END", "os.kill(os.getppid(), signal.SIGSTOP); signal.pause()")
    assert failed(await perform(python(code, descendants), limit=2.0))["type"] == "timeout"
    assert await descendants.gone()


ORPHAN = """
import os, time
def main(path):
    reader, writer = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
        os._exit(0)
    orphan = os.read(reader, 20).decode()
    os.wait()
    until = time.monotonic() + 10
    while os.path.exists(f"/proc/{orphan}") and time.monotonic() < until:
        os.sched_yield()
    return os.path.exists(f"/proc/{orphan}")
"""


async def test_an_ended_orphan_is_reaped(perform: Perform, descendants: Descendants) -> None:
    """While the step runs."""
    assert await perform(python(ORPHAN, descendants)) is False


async def test_an_interpreter_can_be_ended_right_after_its_start(shared: WorkerResources) -> None:
    """Its runner has no session of its own yet."""
    log = JobLog(Lease(7, 1), shared.redactor)
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(10):
            await (await shared.interpreters.take((log.output("info"), log.output("warning")))).end()
