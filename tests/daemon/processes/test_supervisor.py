"""The parent of several broker processes, and messages to the supervisor of a service."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from noetl_broker.daemon import process_signals as signals
from noetl_broker.daemon.metrics.process_status import DatabaseStatus, ProcessStatus
from noetl_broker.daemon.metrics.registry import FAULTS
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.supervisor import Supervisor


async def test_the_counts_of_many_databases_reach_the_parent(tmp_path: Path) -> None:
    """However long their line is."""
    values = MetricValues()
    for number in range(100):
        values.set(FAULTS, 1, f"{number:05}")
    databases = {f"database {number}": DatabaseStatus(values, {}, 0.0) for number in range(100)}
    (tmp_path / "status").write_text(ProcessStatus(MetricValues(), databases).as_line())
    family = Supervisor(
        command=(sys.executable, "-c", f"print(open({str(tmp_path / 'status')!r}).read())"),
        environment=os.environ,
        size=1,
        restart=False,
        drain_seconds=1,
    )
    assert await family.run() == 0
    assert len(family.ended) == 1 + 100


async def test_the_code_of_a_child_that_fails_is_that_of_its_parent() -> None:
    """If children are not started again."""
    family = Supervisor(
        command=(sys.executable, "-c", "raise SystemExit(3)"),
        environment=os.environ,
        size=1,
        restart=False,
        drain_seconds=1,
    )
    assert await family.run() == 3


def test_a_full_notify_socket_does_not_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The socket fills up; each message is sent or dropped at once."""
    address = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        signals._notifier.cache_clear()
        try:
            for _ in range(2000):
                signals.notify("WATCHDOG=1")
        finally:
            signals._notifier().socket.close()
            signals._notifier.cache_clear()
        assert supervisor.recv(100) == b"WATCHDOG=1"
