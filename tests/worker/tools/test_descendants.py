"""Nothing that a python step started outlives it: not in a session of its own, not when the worker is killed."""

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

from noetl_broker.worker.tools import interpreters
from tests.worker.alone import start_alone
from tests.worker.conftest import Perform, failed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is a process group alone")

PATIENCE_SECONDS = 10.0
STUBBORN = """
import os, signal, subprocess, sys
def stay(told):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(told, f"{os.getpid()} ".encode())
    while True:
        signal.pause()
def daemon(told):
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(tell, b"x")
            stay(told)
        os._exit(0)
    os.wait()
    os.read(ready, 1)
def main(path):
    told = os.open(path, os.O_WRONLY)
    daemon(told)
    END
"""
BOMB = """
import os, signal
def main(path):
    told = os.open(path, os.O_WRONLY)
    if os.fork() == 0:
        for _ in range(8):  # 256 processes, each in a session of its own
            os.fork()
            os.setsid() if os.getsid(0) != os.getpid() else None
            os.write(told, f"{os.getpid()} ".encode())
        while True:
            signal.pause()
    os.close(told)
    signal.pause() if WAITS else None
"""


class Left:
    """What is left of a step: whatever holds the write end of a pipe of the test's."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    async def begun(self) -> None:
        """Wait until something has written into the pipe."""
        assert await asyncio.to_thread(select.select, [self._reader], [], [], PATIENCE_SECONDS) != ([], [], [])

    async def nothing(self) -> bool:
        """Wait until nothing holds the pipe, and tell whether it came to that."""
        poll = select.poll()
        poll.register(self._reader, 0)
        return bool(await asyncio.to_thread(poll.poll, PATIENCE_SECONDS * 1_000))

    def close(self) -> None:
        """Kill what a failed test has left."""
        with contextlib.suppress(BlockingIOError):
            for pid in os.read(self._reader, 65_536).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        os.close(self._reader)


@pytest.fixture
async def left(tmp_path: Path) -> AsyncIterator[Left]:
    """Watch what a step leaves."""
    own = Left(tmp_path / "pipe")
    yield own
    own.close()


def python(code: str, left: Left) -> dict[str, Any]:
    """Make a python action that is told of the pipe."""
    return {"type": "python", "code_b64": base64.b64encode(code.encode()).decode(), "args": {"path": str(left.path)}}


async def test_a_daemon_does_not_outlive_the_step(perform: Perform, left: Left) -> None:
    """Forked twice, in a session of its own, deaf to what asks it to end."""
    assert await perform(python(STUBBORN.replace("END", "return 1"), left)) == 1
    assert await left.nothing()


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
async def test_a_daemon_does_not_outlive_a_process_that_dies(perform: Perform, left: Left, end: str) -> None:
    """How that ended is told as ever."""
    error = failed(await perform(python(STUBBORN.replace("END", end), left)))
    assert (error["type"], "exit code 3" in error["message"] or "signal 9" in error["message"]) == (
        "process_died",
        True,
    )
    assert await left.nothing()


async def test_a_daemon_does_not_outlive_the_limit(perform: Perform, left: Left) -> None:
    """It is killed with the step."""
    outcome = await perform(python(STUBBORN.replace("END", "signal.pause()"), left), limit=2.0)
    assert failed(outcome)["type"] == "timeout"
    assert await left.nothing()


async def test_a_daemon_does_not_outlive_the_lease(perform: Perform, left: Left) -> None:
    """A job whose lease is lost is cancelled."""
    job = asyncio.ensure_future(perform(python(STUBBORN.replace("END", "signal.pause()"), left)))
    await left.begun()
    job.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await job
    assert await left.nothing()


async def test_a_daemon_does_not_outlive_a_worker_that_is_killed(left: Left) -> None:
    """Nobody is there any more to end it but its keeper."""
    worker = await start_alone(python(STUBBORN.replace("END", "signal.pause()"), left))
    await left.begun()
    worker.kill()
    assert await left.nothing()
    await worker.communicate()


@pytest.mark.parametrize("waits", [False, True])
async def test_no_number_of_processes_outlives_the_step(perform: Perform, left: Left, *, waits: bool) -> None:
    """Some hundred, each in a session of its own, and still growing when the step ends; or grown at its limit."""
    outcome = await perform(python(BOMB.replace("WAITS", str(waits)), left), limit=3.0)
    assert outcome is None or failed(outcome)["type"] == "timeout"
    assert await left.nothing()


async def test_whoever_kills_its_keeper_dies_with_it(perform: Perform, left: Left) -> None:
    """The step fails, and its own process is gone."""
    code = (
        "import os\ndef main(path):\n    os.open(path, os.O_WRONLY)\n    os.kill(os.getppid(), 9)\n    while True: pass"
    )
    assert failed(await perform(python(code, left)))["type"] == "process_died"
    assert await left.nothing()


async def test_whoever_stops_its_keeper_is_killed(perform: Perform, left: Left) -> None:
    """At its limit, with what it started."""
    code = STUBBORN.replace("END", "os.kill(os.getppid(), signal.SIGSTOP); signal.pause()")
    assert failed(await perform(python(code, left), limit=2.0))["type"] == "timeout"
    assert await left.nothing()


ORPHAN = """
import os, time
def main(path):
    told, tell = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(tell, str(os.getpid()).encode())
        os._exit(0)
    orphan = os.read(told, 20).decode()
    os.wait()
    until = time.monotonic() + 10
    while os.path.exists(f"/proc/{orphan}") and time.monotonic() < until:
        os.sched_yield()
    return os.path.exists(f"/proc/{orphan}")
"""


async def test_an_orphan_that_ended_is_reaped(perform: Perform, left: Left) -> None:
    """While the step still runs."""
    assert await perform(python(ORPHAN, left)) is False


async def test_an_interpreter_is_ended_as_soon_as_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keeper has started it, and it has no session of its own yet: that one must not wait for it."""
    monkeypatch.setattr(interpreters, "KEEPER_SECONDS", 2 * PATIENCE_SECONDS)
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(10):
            await (await interpreters.start_interpreter({})).end()
