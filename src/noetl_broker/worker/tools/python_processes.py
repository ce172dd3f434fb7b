"""Python processes for python steps: one for each job, ended with all that it started.

A fork server (python_fork_server.py) has the standard library imported. So a process costs a fork, not the start of an
interpreter. It is started by exec with the visible environment alone: nothing of the worker's memory, secrets and
descriptors is in it. Each job has its own copy of the server's memory, which has never seen another job.

If the fork server dies, running jobs go on, because each has a keeper of its own. A new server is started when a keeper
is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noetl_broker.worker.job_log import Output
from noetl_broker.worker.logger import Log

FORK_SERVER = Path(__file__).with_name("python_fork_server.py")
NEW_KEEPER, JOB, END = b"k", b"j", b"e"  # messages, as in that file
EXIT_CODE_BYTES = 4
REPORT_BYTES = 1 << 20  # of a fork server at its start
PIPE_READS = 16  # of 64 KiB: what a pipe can hold
AFTER_KILL_SECONDS = 2.0
KEEPER_SECONDS = 12.0  # for killing all processes of a step: a keeper gives up after 10

Outputs = tuple[Output, Output]  # of stdout and stderr

log = Log(__name__)


class ForkServerFault(Exception):
    """The fork server does not start; the message says why."""


class OutputPipe:
    """Hands on what a step prints on one stream, while it runs."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._read)

    def _read(self) -> bool:
        """Read a part; returns False when there is none."""
        try:
            part = os.read(self._reader, 65_536)
        except BlockingIOError:
            return False
        if not part:
            self._loop.remove_reader(self._reader)
        self._output.write(part)
        return bool(part)

    def close(self) -> None:
        """Read the rest. A process that could not be killed may write on, so there is a limit."""
        for _ in range(PIPE_READS):
            if not self._read():
                break
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        self._output.end()


class Interpreter:
    """The process of one job.

    `exit_code` is None while the process runs. It stays None if `keeper_died`.
    """

    def __init__(self, keeper: socket.socket, idle: list[socket.socket], outputs: Outputs) -> None:
        """Start the process; its keeper goes back to `idle`. Raises OSError, and closes the keeper.

        `outputs` take what it prints on stdout and stderr.
        """
        self.exit_code: int | None = None
        self.keeper_died = False
        self._keeper = keeper
        self._idle = idle
        self._pipes: list[OutputPipe] = []
        with contextlib.ExitStack() as after, contextlib.ExitStack() as fault:
            fault.callback(keeper.close)
            for output in outputs:
                pipe = OutputPipe(output)
                self._pipes.append(pipe)
                after.callback(os.close, pipe.writer)
                fault.callback(pipe.close)
            self._channel, runner = socket.socketpair()
            after.enter_context(runner)
            fault.enter_context(self._channel)
            self._channel.settimeout(0)
            writers = [pipe.writer for pipe in self._pipes]
            socket.send_fds(keeper, [JOB], [runner.fileno(), *writers])
            fault.pop_all()

    async def ask(self, request: bytes, most_bytes: int) -> bytes | None:
        """Send the job and wait for the answer; None if the process ended without one.

        Of an answer that is larger than `most_bytes`, more than that is returned.
        """
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self._channel, request + b"\n")
        answer = await read_line(self._channel, most_bytes)
        if answer is None:
            # It closed the channel, most likely because it ended: wait a moment for the exit code.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AFTER_KILL_SECONDS):
                    await self._ended()
        return answer

    async def end(self) -> None:
        """End the process with all that it started, and read the rest of its output."""
        try:
            with contextlib.suppress(OSError):
                self._keeper.send(END)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEPER_SECONDS):
                    await self._ended()
        finally:
            self._channel.close()
            for pipe in self._pipes:
                pipe.close()
            if self.exit_code is None:
                self._keeper.close()  # if the keeper lives, it ends the process then
            else:
                self._idle.append(self._keeper)

    async def _ended(self) -> None:
        """Wait until the keeper has killed all processes of the job, or has died."""
        if self.exit_code is not None or self.keeper_died:
            return
        code = b""
        with contextlib.suppress(ConnectionError):
            code = await asyncio.get_running_loop().sock_recv(self._keeper, EXIT_CODE_BYTES)
        self.keeper_died = not code
        self.exit_code = int.from_bytes(code, "big", signed=True) if code else None


async def read_line(channel: socket.socket, most_bytes: int) -> bytes | None:
    """Read a line; None if the channel is closed before its end. Of a longer one, more than `most_bytes` are read."""
    loop, line = asyncio.get_running_loop(), bytearray()
    with contextlib.suppress(ConnectionError):
        while len(line) <= most_bytes and not line.endswith(b"\n") and (part := await loop.sock_recv(channel, 1 << 20)):
            line += part
    return bytes(line) if len(line) > most_bytes or line.endswith(b"\n") else None


class ForkServer:
    """A running fork server."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._lock = asyncio.Lock()

    async def new_keeper(self) -> socket.socket | None:
        """The worker's end of a new keeper's socket; None if the server has died."""
        own, other = socket.socketpair()
        own.settimeout(0)
        with contextlib.ExitStack() as unless_forked, other:
            unless_forked.enter_context(own)
            async with self._lock:
                with contextlib.suppress(ConnectionError, ProcessLookupError):
                    self._process.send_signal(signal.SIGCONT)  # a step's code may have stopped it
                    socket.send_fds(self._control, [NEW_KEEPER], [other.fileno()])
                    if await asyncio.get_running_loop().sock_recv(self._control, 1):
                        unless_forked.pop_all()
                        return own
        return None

    async def report(self, preload: tuple[str, ...]) -> dict[str, Any]:
        """The server's report at its start: its number of threads. Raises ForkServerFault."""
        answer = await read_line(self._control, REPORT_BYTES)
        if answer is None:
            said = await self._process.stderr.read() if self._process.stderr else b""
            words = [f"cannot preload {', '.join(preload)}"] if preload else []
            words += [f"the fork server ended with exit code {await self._process.wait()} at its start"]
            words += [said.decode("utf-8", "replace").strip()] if said else []
            raise ForkServerFault(": ".join(words))
        report = json.loads(answer)
        if "error" in report:
            raise ForkServerFault(report["error"])
        return dict(report)

    async def close(self) -> None:
        """End the server; its keepers end when their sockets are closed."""
        self._control.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AFTER_KILL_SECONDS):
                await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def start_fork_server(environment: Mapping[str, str], preload: tuple[str, ...]) -> ForkServer:
    """Start a fork server and wait until it has imported its modules. Raises ForkServerFault.

    `-P` keeps the folder of the script off `sys.path`: its modules shadow standard ones.
    """
    began = time.monotonic()
    control, other = socket.socketpair()
    control.settimeout(0)
    try:
        with other:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-u", str(FORK_SERVER), str(other.fileno()), *preload),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                pass_fds=(other.fileno(),),
                env=dict(environment),
                start_new_session=True,
            )
    except OSError as error:
        control.close()
        raise ForkServerFault(str(error)) from error
    server = ForkServer(process, control)
    try:
        report = await server.report(preload)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # it imports, and does not look at its socket
        await server.close()
        raise
    log.info("fork_server_started", preload=preload, seconds=round(time.monotonic() - began, 3), **report)
    return server


class Interpreters:
    """Starts the processes of jobs. It has one fork server, and as many keepers as jobs have run at a time.

    `preload` are modules that the fork server imports, once for all jobs.
    """

    def __init__(self, environment: Mapping[str, str], *, preload: tuple[str, ...] = ()) -> None:
        self._environment = environment
        self._preload = preload
        self._idle: list[socket.socket] = []
        self._server: asyncio.Task[ForkServer] | None = None

    def start(self) -> asyncio.Task[ForkServer]:
        """Start the fork server unless there is one. The task raises ForkServerFault; the next call tries again."""
        if self._server is None:
            self._server = asyncio.create_task(start_fork_server(self._environment, self._preload))
            self._server.add_done_callback(self._forget_fault)
        return self._server

    def _forget_fault(self, server: asyncio.Task[ForkServer]) -> None:
        if server.cancelled() or server.exception() is not None:
            self._server = None

    async def take(self, outputs: Outputs) -> Interpreter:
        """Start the process of a job. Raises ForkServerFault, and OSError if this process is short of descriptors."""
        while self._idle:
            with contextlib.suppress(ConnectionError):  # its keeper has died
                return Interpreter(self._idle.pop(), self._idle, outputs)
        try:
            return Interpreter(await self._new_keeper(), self._idle, outputs)
        except ConnectionError:
            message = "the fork server cannot fork; look at the limit of processes (ulimit -u, pids.max of a container)"
            raise ForkServerFault(message) from None

    async def _new_keeper(self) -> socket.socket:
        for _ in range(2):
            starting = self.start()
            server = await asyncio.shield(starting)  # a job that is cancelled meanwhile does not end it
            if keeper := await server.new_keeper():
                return keeper
            if self._server is starting:
                self._server = None
                log.warning("fork_server_died")
                await server.close()
        raise ForkServerFault("it dies again and again")

    async def close(self) -> None:
        """End the fork server and its keepers."""
        for keeper in self._idle:
            keeper.close()
        self._idle.clear()
        if self._server is not None:
            self._server.cancel()
            with contextlib.suppress(asyncio.CancelledError, ForkServerFault):
                server = await self._server
                await server.close()
