"""A `dev` that runs while a test looks at it."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command

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
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if words in line:
                return "".join(lines)
        pytest.fail("".join(lines) + self.process.communicate()[1])

    def end(self, number: signal.Signals) -> int:
        """Send a signal; give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def folder_for_every_account() -> Iterator[Path]:
    """Yield a folder that the account of Postgres can reach, also if root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="noetl-broker-dev-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
