"""Commands of the program as processes; their output is read line by line and then to its end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

PROGRAM = "noetl_broker"  # the module of its commands
STDERR = 2


class Process(subprocess.Popen[str]):
    """A process in text mode, of which lines can be read before `communicate` gives the rest."""

    _rests: tuple[_Rest, ...] = ()

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:  # noqa: A002
        """Wait for the end and give the rest of stdout and stderr; a second call gives the same.

        That of `subprocess` reads the descriptor: it loses the lines that a stream has read ahead.
        """
        assert input is None
        self._rests = self._rests or (_Rest(self.stdout), _Rest(self.stderr))
        for rest in self._rests:
            rest.join(timeout)
            if rest.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(timeout)
        out, err = (rest.text for rest in self._rests)
        return out, err


class _Rest(threading.Thread):
    """Reads a stream to its end and closes it."""

    def __init__(self, stream: IO[str] | None) -> None:
        super().__init__(daemon=True)
        self.text = ""
        self._stream = stream
        self.start()

    def run(self) -> None:
        if self._stream is not None:
            with self._stream:
                self.text = self._stream.read()


def start_command(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    module: str = PROGRAM,
) -> Process:
    """Start a command of the program, or `python -m module`, with an empty stdin; the test ends it."""
    command = [sys.executable, "-m", module, *arguments]
    return Process(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True, encoding="utf-8"
    )
