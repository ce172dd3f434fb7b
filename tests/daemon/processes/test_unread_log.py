"""A log that nobody reads, or that cannot be written, stops no service and delays no signal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command, rows, until_job_is, write_playbook
from tests.daemon.processes.test_services import start_sleeping
from tests.postgres import Database, psycopg_connect
from tests.processes import Process

FULL = Path("/dev/full")
LOGS = ["unread", "dead", "closed", pytest.param("full", marks=pytest.mark.skipif(not FULL.exists(), reason="no such"))]
BODY = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"


@contextlib.contextmanager
def opened(log: str) -> Iterator[int]:
    """Yield a descriptor: of a pipe that is full and `unread`, or whose reader is `dead`; or of a `full` disk."""
    if log == "full":
        with FULL.open("wb") as file:
            yield file.fileno()
        return
    reading, writing = os.pipe()
    try:
        if log == "unread":
            fill(writing)
        else:
            os.close(reading)
        yield writing
    finally:
        os.close(writing)
        if log == "unread":
            os.close(reading)


def fill(pipe: int) -> None:
    """Write until the pipe is full."""
    os.set_blocking(pipe, False)
    for piece in (b"." * 4096, b"."):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, piece)
    os.set_blocking(pipe, True)


@contextlib.contextmanager
def serving(command: Command, log: str, *arguments: str | int, **environment: str) -> Iterator[Process]:
    """Run a command with such a log, or with one that is `closed`."""
    closing = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "noetl_broker", *map(str, arguments)]
    with opened(log) as descriptor:
        if log == "closed":
            process = Process(
                closing, cwd=command.folder, env=command.environment | environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        else:
            process = command.start_with(subprocess.DEVNULL, descriptor, *arguments, **environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def until_ended(database: Database) -> None:
    """Wait until no execution is running."""
    with psycopg_connect(database, autocommit=True) as connection:
        connection.execute("listen noetl_end")
        while rows(database, "select count(*) from noetl.execution where status = 'RUNNING'") != [(0,)]:
            assert next(connection.notifies(timeout=PATIENCE_SECONDS), None) is not None


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("log", LOGS)
def test_a_broker_with_an_unread_log_decides_and_ends(
    command: Command, database: Database, log: str, processes: int
) -> None:
    """It takes its turns, and a signal ends it with 0."""
    command("register", write_playbook(command.folder, BODY))
    command("start", "examples/story")
    with serving(command, log, "run", "--debug", "--processes", processes) as broker:
        until_ended(database)
        broker.terminate()
        assert broker.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("log", LOGS)
def test_a_second_signal_ends_at_once_with_an_unread_log(
    command: Command, database: Database, log: str, tmp_path: Path
) -> None:
    """Of a worker with a long job; a supervisor gets the message of the first signal."""
    start_sleeping(command, database, 600)
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "NOETL_BROKER_DRAIN_SECONDS": "300"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor, contextlib.ExitStack() as stack:
        supervisor.bind(environment["NOTIFY_SOCKET"])
        supervisor.settimeout(PATIENCE_SECONDS)
        worker = stack.enter_context(serving(command, log, "worker", "--types", "sleep", "--debug", **environment))
        until_job_is("leased", database)
        worker.terminate()
        while supervisor.recv(1000) != b"STOPPING=1":
            pass
        worker.terminate()
        assert worker.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM


@pytest.mark.parametrize("log", LOGS)
def test_a_failing_service_ends_with_an_unread_log(lone_command: Command, log: str) -> None:
    """Its error message has no room; its exit code shows the failure."""
    dsn = "postgresql://127.0.0.1:1/nowhere"
    with serving(lone_command, log, "run", "--fail-fast", "--dsn", dsn) as broker:
        assert broker.wait(PATIENCE_SECONDS) == 69


@pytest.mark.parametrize("log", LOGS)
def test_a_closed_stderr_is_no_error(lone_command: Command, log: str) -> None:
    """The command succeeds, so it ends with 0."""
    with serving(lone_command, log, "config") as process:
        assert process.wait(PATIENCE_SECONDS) == 0
