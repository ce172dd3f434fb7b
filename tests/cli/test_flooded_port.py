"""A flood of silent connections to the health port: the broker works and answers others."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.cli.conftest import Command, write_playbook
from tests.cli.test_health_port import BODY, end, free_port, http_get, on_port, stop
from tests.cli.test_services import read_until
from tests.postgres import Database
from tests.processes import Process

IDLE = 152
DESCRIPTORS = 64
FLOOD_SECONDS = 1.5  # a full server tries again after one


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
