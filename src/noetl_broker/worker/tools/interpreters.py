"""Python processes started ahead of the jobs, each used for one job and then ended with all that it started.

Each has a keeper between it and the worker (python_child.py), which finds what the step's code has started, and which
ends it when the worker lets go of a pipe, the leash, or dies.

A fresh interpreter per job keeps one step's modules, threads and memory out of the next; that it was started while the
job before was running keeps its start (some 60 ms) out of the step's time. A forking server would start faster still,
but its children are not the worker's: it could not wait for them, and a fork of a process with threads may hang.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from noetl_broker.worker.redaction import Redactor

CHILD = Path(__file__).with_name("python_child.py")
OUTPUT_BYTES = 8_192
BYTES_OF_A_CHARACTER = 4  # at most
FRAME_HEADER_BYTES = 8
AFTER_KILL_SECONDS = 2.0
KEEPER_SECONDS = 10.0  # for killing what a step has started


@dataclass(slots=True, kw_only=True)
class Output:
    """The start of what a step printed on one stream, and the number of bytes that it printed.

    It keeps `spare_bytes` more than it tells: so a secret that stands across the end is seen whole.
    """

    spare_bytes: int = 0
    kept: bytearray = field(default_factory=bytearray)
    size: int = 0

    def add(self, part: bytes) -> None:
        """Keep what still fits."""
        room = max(OUTPUT_BYTES + self.spare_bytes - len(self.kept), 0)
        self.kept += part[:room]
        self.size += len(part)

    def told(self, redactor: Redactor) -> str:
        """Give the start as text without secrets, and say how many bytes are not told."""
        start = bytes(self.kept[:OUTPUT_BYTES])
        whole = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(start)
        text = self.kept.decode("utf-8", "surrogateescape")
        _, end = redactor.across(text, len(whole))
        start = max(start, text[:end].encode("utf-8", "surrogateescape"), key=len)
        cleaned = redactor.clean(start.decode("utf-8", "surrogateescape"))
        rest = self.size - len(start)
        more = f"… ({rest} more bytes)" if rest else ""
        return str(cleaned.encode("utf-8", "surrogateescape").decode("utf-8", "replace")) + more


class Interpreter:
    """One process that waits for its one job; `process` is its keeper, which ends as it does."""

    def __init__(self, process: Process, channel: int, leash: int) -> None:
        self.process = process
        self.outputs = {"stdout": Output(), "stderr": Output()}
        self._channel = channel
        self._leash = leash
        self._readers: list[asyncio.Task[None]] = []

    @property
    def usable(self) -> bool:
        """Whether the process still waits."""
        return self.process.returncode is None

    async def ask(self, request: bytes, largest_answer_bytes: int, longest_secret: int) -> bytes | int | None:
        """Hand the job over and wait for the answer; `longest_secret` in characters may stand in what it prints.

        Gives the answer's bytes; or, when it is too large, its size; or None when the process ended without one.
        """
        for output in self.outputs.values():
            output.spare_bytes = longest_secret * BYTES_OF_A_CHARACTER
        self._readers = [
            asyncio.create_task(drain(self.process.stdout, self.outputs["stdout"])),
            asyncio.create_task(drain(self.process.stderr, self.outputs["stderr"])),
        ]
        reader = asyncio.StreamReader(limit=1 << 20)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(self._channel), "rb", buffering=0)
        )
        os.close(self._channel)
        self._channel = -1
        try:
            return await self._exchange(request, reader, largest_answer_bytes)
        finally:
            transport.close()

    async def _exchange(self, request: bytes, reader: asyncio.StreamReader, largest: int) -> bytes | int | None:
        stdin = self.process.stdin
        if stdin is None:
            return None
        with contextlib.suppress(ConnectionError):
            stdin.write(len(request).to_bytes(FRAME_HEADER_BYTES, "big") + request)
            await stdin.drain()
        try:
            size = int.from_bytes(await reader.readexactly(FRAME_HEADER_BYTES), "big")
            return size if size > largest else await reader.readexactly(size)
        except asyncio.IncompleteReadError:
            # It closed its end: by ending, most likely, and then the exit code is worth a moment's wait.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), AFTER_KILL_SECONDS)
            return None

    async def end(self) -> None:
        """End the process and all that it started, take its last output, and reap its keeper."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        if self._channel >= 0:
            os.close(self._channel)
            self._channel = -1
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)  # the step's code may have stopped it
        try:
            await asyncio.wait_for(self.process.wait(), KEEPER_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        if self._readers:
            # A process that the keeper could not find may hold the streams open for ever: it is not waited for.
            _, pending = await asyncio.wait(self._readers, timeout=AFTER_KILL_SECONDS)
            for reader in pending:
                reader.cancel()


async def drain(stream: asyncio.StreamReader | None, output: Output) -> None:
    """Read one stream to its end, keeping the start."""
    while stream is not None and (part := await stream.read(65_536)):
        output.add(part)


async def start_interpreter(environment: Mapping[str, str]) -> Interpreter:
    """Start one process; `-P` keeps the script's folder off its path: modules there are named like standard ones."""
    (channel, answer), (held, leash) = os.pipe(), os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-u", str(CHILD), str(answer), str(held)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            pass_fds=(answer, held),
            env=dict(environment),
            start_new_session=True,
        )
    except BaseException:
        os.close(channel)
        os.close(leash)
        raise
    finally:
        os.close(answer)
        os.close(held)
    return Interpreter(process, channel, leash)


class Interpreters:
    """Keeps `spare` interpreters waiting; `close` ends those that were not used."""

    def __init__(self, environment: Mapping[str, str], *, spare: int = 1) -> None:
        self._environment = environment
        self._spare = spare
        self._waiting: list[Interpreter] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def take(self) -> Interpreter:
        """Give one that waits, or start one, and have its successor started in the background."""
        taken = None
        while self._waiting and taken is None:
            candidate = self._waiting.pop(0)
            if candidate.usable:
                taken = candidate
            else:
                await candidate.end()
        if taken is None:
            taken = await start_interpreter(self._environment)
        self._replenish()
        return taken

    def _replenish(self) -> None:
        while not self._closed and len(self._waiting) + len(self._starting) < self._spare:
            task = asyncio.create_task(self._start_spare())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start_spare(self) -> None:
        # A spare that cannot be started is no loss: `take` starts one itself, and tells why it cannot.
        with contextlib.suppress(OSError):
            self._waiting.append(await start_interpreter(self._environment))

    async def close(self) -> None:
        """End every interpreter that waits or is being started."""
        self._closed = True
        if self._starting:
            await asyncio.wait(self._starting)
        for interpreter in self._waiting:
            await interpreter.end()
        self._waiting.clear()
