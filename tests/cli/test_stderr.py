"""What a service says on standard error: in order, whole lines, and how many of them nobody will read."""

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
from noetl_broker.cli import stderr
from noetl_broker.cli.stderr import never_waiting
from tests.cli.conftest import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    """Leave the log as the other tests have it."""
    yield
    structlog.reset_defaults()
    logs.configure(level="error", form="console")


@contextlib.contextmanager
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[str]]:
    """Make a pipe this process' standard error; yield the end where it is read."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as reader, os.fdopen(writing, "w", encoding="utf-8") as direct:
        monkeypatch.setattr(sys, "stderr", direct)
        yield reader


def test_what_was_lost_is_counted_when_the_log_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody reads while more is said than waits: the rest is let go at once, and what is read is whole."""
    monkeypatch.setattr(stderr, "MOST_WAITING", 100_000)
    count = 5_000
    with read(monkeypatch) as reader, never_waiting():
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


def test_a_log_that_nobody_reads_is_not_waited_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it held is what a pipe holds; the end comes all the same."""
    with read(monkeypatch) as reader:
        with never_waiting():
            sys.stderr.write("." * 1_000_000)
        assert len(reader.read(1_000_000)) == 1_000_000  # the rest of it comes while there is somebody


@pytest.mark.parametrize("ending", ["end_at_once(3)", "raise SystemExit(3)", "raise RuntimeError(3)"])
def test_the_last_lines_are_not_lost(ending: str) -> None:
    """However a process ends by itself; what it says of an error stands last."""
    program = f"""
import sys
from noetl_broker.cli.stderr import end_at_once, never_waiting
with never_waiting():
    for number in range(10_000):
        print(number, file=sys.stderr)
    {ending}
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert answer.stderr.splitlines()[:10_000] == [str(number) for number in range(10_000)]
    assert answer.returncode in {1, 3}
