"""A `dev` that runs while a test looks at it."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command
from tests.processes import Process

READY = "stops everything."


class RunningDev:
    """A `dev` in the folder of a command."""

    def __init__(self, command: Command, *arguments: str | Path) -> None:
        """Start it, and wait until everything runs."""
        self.command = command
        self.process = command.start("dev", *arguments)
        self.start = self.read_until(READY)

    def read_until(self, words: str) -> str:
        """Read its output up to the line with these words."""
        return read_to(self.process, words)

    def end(self, number: signal.Signals) -> int:
        """Send a signal; give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


def read_to(process: Process, words: str) -> str:
    """Read what a command prints, up to the line with these words."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    pytest.fail("".join(lines) + (process.communicate()[1] or ""))


@contextmanager
def folder_for_every_account() -> Iterator[Path]:
    """Yield a folder that the account of Postgres can reach, also if root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="noetl-broker-dev-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
