"""A service's standard error: in order, whole lines, and a count of lost ones."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import pytest
import structlog

from noetl_broker import logs
from noetl_broker.logs import stderr
from noetl_broker.logs.stderr import non_blocking_stderr
from tests.cli.conftest import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    """Restore the log configuration."""
    yield
    structlog.reset_defaults()
    logs.configure(level="error", form="console")


@contextlib.contextmanager
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[str]]:
    """Replace this process's standard error by a pipe; yield its reading end."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as reader, os.fdopen(writing, "w", encoding="utf-8") as direct:
        monkeypatch.setattr(sys, "stderr", direct)
        yield reader


def test_lost_log_lines_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The buffer fills because no process reads: further lines are dropped at once, and all read lines are whole."""
    monkeypatch.setattr(stderr, "MAX_QUEUE_BYTES", 100_000)
    count = 5_000
    with read(monkeypatch) as reader, non_blocking_stderr():
        logs.configure(level="info", form="json")
        log = structlog.get_logger("test")
        for number in range(count):
            log.info("said", number=number)
        heard = []
        for line in reader:
            heard.append(json.loads(line))
            if "lines" in heard[-1]:
                break
    numbers = [event["number"] for event in heard[:-1]]
    assert numbers == sorted(set(numbers))
    assert (heard[-1]["event"], heard[-1]["lines"]) == ("lines of the log are lost", count - len(numbers))
    assert 0 < len(numbers) < count


def test_an_unread_log_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what fits into the pipe is kept."""
    with read(monkeypatch) as reader:
        with non_blocking_stderr():
            sys.stderr.write("." * 1_000_000)
        assert len(reader.read(1_000_000)) == 1_000_000  # the rest is written while the pipe is read


@pytest.mark.parametrize("ending", ["end_at_once(3)", "raise SystemExit(3)", "raise RuntimeError(3)"])
def test_the_last_lines_are_not_lost(ending: str) -> None:
    """However a process ends by itself. Its error is the last line."""
    program = f"""
import sys
from noetl_broker.logs import stderr
from noetl_broker.logs.stderr import end_at_once, non_blocking_stderr
stderr.FLUSH_SECONDS = {PATIENCE_SECONDS}  # a busy machine may need longer than the program waits
with non_blocking_stderr():
    for number in range(10_000):
        print(number, file=sys.stderr)
    {ending}
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert answer.stderr.splitlines()[:10_000] == [str(number) for number in range(10_000)]
    assert answer.returncode in {1, 3}
