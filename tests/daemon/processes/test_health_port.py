"""`run` with a health port: of one process, of several under one parent, and a port that is taken."""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command, read_until, rows, write_playbook
from tests.daemon.processes.test_services import process_ids
from tests.health_port import Response, request, samples
from tests.postgres import SCHEMA_SUFFIX, Database
from tests.processes import Process

BODY = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"
IDLE = 152
DESCRIPTORS = 64
FLOOD_SECONDS = 1.5  # a full server tries again after one


def free_port() -> int:
    """Give a port that no other process gets by chance: a socket keeps it, which does not listen.

    A server listens there nevertheless: both sockets allow that the address is used again.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    atexit.register(keeper.close)
    return int(keeper.getsockname()[1])


def on_port(port: int) -> dict[str, str]:
    """Give the environment of a broker with this port."""
    return {"NOETL_BROKER_HEALTH_PORT": str(port), "NOETL_BROKER_LOG_FORMAT": "json"}


def http_get(port: int, path: str) -> Response:
    """Request a path of a broker in another process."""
    return asyncio.run(request(port, path))


def until_counted(port: int, expected: float, *name: str) -> None:
    """Wait until a value of the metrics is this: a process that is busy for a second is not asked again at once."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while (found := asyncio.run(samples(port))[name]) != expected:
        assert time.monotonic() < ends_at, found


def until_ready(port: int, *problems: str) -> None:
    """Wait until a broker is ready, or not ready for exactly these problems."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        found: list[str] = http_get(port, "/ready").document["not_ready"]
        if len(found) == len(problems) and all(map(re.fullmatch, problems, found)):
            return
        assert time.monotonic() < ends_at, found


def end(command: Command, database: Database, executions: int) -> None:
    """Start executions and wait until brokers have ended them all."""
    before = rows(database, "select count(*) from noetl.execution where status = 'COMPLETED'")[0][0]
    for _ in range(executions):
        assert command("start", "examples/story").exit_code == 0
    ended = (before + executions,)
    while rows(database, "select count(*) from noetl.execution where status = 'COMPLETED'") != [ended]:
        pass


def stop(process: Process) -> int:
    """Terminate a command, and give its exit code."""
    process.terminate()
    return process.wait(PATIENCE_SECONDS)


def test_a_broker_serves_its_health(command: Command, database: Database) -> None:
    """On the configured port, until it is stopped."""
    command("register", write_playbook(command.folder, BODY))
    port = free_port()
    process = command.start("run", **on_port(port))
    read_until(process, '"ready"')
    end(command, database, 3)
    assert (http_get(port, "/live").status, http_get(port, "/ready").status) == (200, 200)
    until_counted(port, 3, "turns_total", "execution_start", "decided")
    assert stop(process) == 0
    with pytest.raises(ConnectionRefusedError):
        http_get(port, "/live")


def test_a_broker_that_waits_for_its_database_is_live_and_not_ready(lone_command: Command) -> None:
    """The port opens before the database is reached."""
    port = free_port()
    process = lone_command.start("run", "--dsn", "postgresql://127.0.0.1:1/nowhere", **on_port(port))
    read_until(process, "waiting for the database")
    live, ready = http_get(port, "/live"), http_get(port, "/ready")
    assert (live.status, ready.status) == (200, 503)
    name = "127.0.0.1:1/nowhere" + SCHEMA_SUFFIX
    assert "the database cannot be reached" in ready.document["processes"]["broker"][name]["database"]
    assert stop(process) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_taken_health_port_exits_with_2(command: Command, processes: int) -> None:
    """The command has not started any work."""
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        answer = command.run("run", "--processes", processes, **on_port(port))
    assert answer.returncode == 2
    assert f"the health port {port} on 127.0.0.1 cannot be opened" in answer.stderr
    assert "NOETL_BROKER_HEALTH_PORT" in answer.stderr
    assert "started a process" not in answer.stderr


def test_the_health_port_speaks_for_all_processes(command: Command, database: Database) -> None:
    """The parent adds the counters of its children, and keeps those of dead ones."""
    command("register", write_playbook(command.folder, BODY))
    port = free_port()
    parent = command.start("run", "--processes", 2, **on_port(port))
    first, second = process_ids(parent, 2)
    read_until(parent, "all processes are ready")
    end(command, database, 20)
    until_ready(port)
    until_counted(port, 20, "turns_total", "execution_start", "decided")
    until_counted(port, 2, "processes")
    os.kill(first, signal.SIGKILL)
    read_until(parent, "all processes are ready")
    end(command, database, 5)
    until_counted(port, 25, "turns_total", "execution_start", "decided")
    until_counted(port, 2, "processes")
    until_counted(port, 1, "process_restarts_total")

    # The answer does not wait for a child that is stopped, and names it.
    until_ready(port)
    os.kill(second, signal.SIGSTOP)
    try:
        until_ready(port, "process 1: .*: process: it has not answered for [0-9]+ s")
        assert http_get(port, "/ready").status == 503
    finally:
        os.kill(second, signal.SIGCONT)
    until_ready(port)
    assert stop(parent) == 0


def test_invariants_are_verified_regularly(command: Command, database: Database) -> None:
    """A broken invariant is an error in the log, and a metric."""
    command("register", write_playbook(command.folder, BODY))
    port = free_port()
    process = command.start("run", **on_port(port), NOETL_BROKER_VERIFY_SECONDS="0.2")
    read_until(process, '"ready"')
    end(command, database, 1)
    rows(database, "delete from noetl.turn returning 1")
    assert '"invariant": "I1"' in read_until(process, "an invariant is broken")
    assert asyncio.run(samples(port))["broken_invariants", "I1"] > 0
    assert stop(process) == 0


@contextmanager
def few_descriptors(command: Command, *arguments: str, **environment: str) -> Iterator[Process]:
    """Run a command that may open 64 files and connections."""
    process = Process(
        ["/bin/sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" -m noetl_broker "$@"', sys.executable, *arguments],
        cwd=command.folder, env=command.environment | environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def idle(port: int, stack: ExitStack) -> None:
    """Open a connection and send nothing."""
    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))


def test_idle_connections_do_not_block_the_health_port(command: Command, database: Database) -> None:
    """152 connections and 64 descriptors: executions end, /live and /metrics answer, and the log stays short."""
    command("register", write_playbook(command.folder, BODY))
    port = free_port()
    with few_descriptors(command, "run", **on_port(port)) as process, ExitStack() as stack:
        read_until(process, '"ready"')
        for _ in range(IDLE):
            idle(port, stack)
        until = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < until:
            idle(port, stack)
            end(command, database, 1)
        answers = [http_get(port, path).status for path in ("/live", "/ready", "/metrics")]
        end(command, database, 3)
        code = stop(process)
        lines = (process.stderr.read() if process.stderr else "").splitlines()
    assert (answers, code) == ([200, 200, 200], 0)
    assert [line for line in lines if not line.startswith("{")] == []
    assert len([line for line in lines if '"level": "info"' not in line]) <= 5
