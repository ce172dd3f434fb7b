"""Processes of tests: their output is read line by line and then to its end, and commands start in milliseconds."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.warm_children import PID_BYTES
from tests.warm_interpreter import STATUS_BYTES

ROOT = Path(__file__).parents[1]
PROGRAM = "noetl_broker"  # the module of its commands
STDERR = 2
READ_AT_START = ("PYTHON", "LC_", "LANG")  # variables that an interpreter reads at its start, by their first letters


class LinesFirst:
    """Gives what the lines that were read have left."""

    args: Any
    stdout: IO[str] | None
    stderr: IO[str] | None
    _rests: tuple[_Rest, ...] = ()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; gives the exit code."""
        raise NotImplementedError

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


class LineProcess(LinesFirst, subprocess.Popen[str]):
    """A new process in text mode."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; gives the exit code."""
        return subprocess.Popen.wait(self, timeout)


class WarmProcess(LinesFirst):
    """A command of the program as a process, forked from an interpreter that has the program imported.

    It has what tests use of `subprocess.Popen`. A new interpreter takes 0.4 s of a core to import the program.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        module: str = PROGRAM,
        cwd: Path,
        env: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> None:
        self.args = [module, *arguments]
        self.returncode: int | None = None
        self._ended, told = os.pipe()
        self.stdout, out = _opened(stdout, os.O_WRONLY)
        self.stderr, err = _opened(stderr, os.O_WRONLY)
        _, into = _opened(stdin, os.O_RDONLY)
        request = {"module": module, "arguments": [*arguments], "folder": str(cwd.resolve()), "environment": dict(env)}
        descriptors = (into, out, err, told)
        try:
            self.pid = _WARM.fork(json.dumps(request).encode(), descriptors)
        finally:
            for mine, given in zip((stdin, stdout, stderr, None), descriptors, strict=True):
                if mine != given:
                    os.close(given)

    def poll(self) -> int | None:
        """The exit code, or None while it runs; minus the number of the signal that ended it."""
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            status = os.read(self._ended, STATUS_BYTES)
            assert status, "the warm interpreter is gone"
            os.close(self._ended)
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(status, sys.byteorder))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; gives the exit code."""
        if self.returncode is None and not select.select([self._ended], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


Process = LineProcess | WarmProcess


def start_command(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> Process:
    """Start a command of the program with an empty stdin; the test ends it."""
    return start_module(PROGRAM, arguments, cwd=cwd, env=env, stdout=stdout, stderr=stderr)


def start_module(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> Process:
    """Start `python -m module` as `start_command` does; a module of the tests needs their root as its folder."""
    if sys.platform == "linux" and _at_start(env) == _at_start(os.environ):
        return WarmProcess(arguments, module=module, cwd=cwd, env=env, stdout=stdout, stderr=stderr)
    return _start_new(module, arguments, cwd=cwd, env=env, stdout=stdout, stderr=stderr)


def start_new_command(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> LineProcess:
    """Start a command of the program in a new interpreter."""
    return _start_new(PROGRAM, arguments, cwd=cwd, env=env, stdout=stdout, stderr=stderr)


def _start_new(
    module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int
) -> LineProcess:
    command = [sys.executable, "-m", module, *arguments]
    return LineProcess(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True)


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


def _opened(wanted: int, mode: int) -> tuple[IO[str] | None, int]:
    """Give the test's end of a pipe, if it wants one, and the descriptor of the command."""
    if wanted == subprocess.PIPE:
        reading, writing = os.pipe()
        return open(reading, encoding="utf-8"), writing  # noqa: PTH123 - the test closes it
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, mode)
    return None, wanted


class _WarmInterpreter:
    """The interpreter of this test process; the first command starts it."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._one_at_a_time = threading.Lock()

    def fork(self, request: bytes, descriptors: Sequence[int]) -> int:
        """Start a command with these descriptors; gives its process id."""
        with self._one_at_a_time:
            if self._control is None:
                self._control = self._start()
            socket.send_fds(self._control, [request], descriptors)
            return int.from_bytes(self._control.recv(PID_BYTES), sys.byteorder)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.warm_interpreter"]
        with theirs:
            server = subprocess.Popen(command, cwd=ROOT, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        atexit.register(self._stop, ours, server)
        return ours

    @staticmethod
    def _stop(control: socket.socket, server: subprocess.Popen[bytes]) -> None:
        control.close()
        server.wait()


_WARM = _WarmInterpreter()
