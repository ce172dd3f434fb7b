"""Daemons as processes, with their processor time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

TIMEOUT_SECONDS: Final = 60.0
TICKS: Final = os.sysconf("SC_CLK_TCK")


class ReadySocket:
    """Receives READY=1 in place of systemd; it reads on, because a full socket would block the daemon."""

    def __init__(self, path: Path) -> None:
        """Listen at this path."""
        self.path = path
        self._ready = asyncio.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own signature
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    async def ready(self) -> None:
        """Return when the daemon is ready."""
        await asyncio.wait_for(self._ready.wait(), TIMEOUT_SECONDS)

    def close(self) -> None:
        """Close the socket."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        if b"READY=1" in self._socket.recv(4096):
            self._ready.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A running daemon; `began` is a time of `time.perf_counter`."""

    process: asyncio.subprocess.Process
    socket: ReadySocket
    began: float

    @classmethod
    async def start(
        cls,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        socket: ReadySocket,
        *,
        log: IO[bytes] | int | None = None,
        module: str = "noetl_broker",
    ) -> Self:
        """Start a module with these arguments; `log` gets its log, our standard error by default."""
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            env=os.environ | dict(environment) | {"NOTIFY_SOCKET": str(socket.path)},
            stderr=log,
        )
        return cls(process=process, socket=socket, began=began)

    async def ready(self) -> None:
        """Return when it is ready."""
        await self.socket.ready()

    def seconds(self) -> float:
        """Return the processor seconds of the daemon and of all processes below it."""
        return tree_seconds(self.process.pid)

    def process_ids(self) -> list[int]:
        """Return the ids of the daemon and its children."""
        return [process_id for process_id, _ in _tree(self.process.pid)]

    def resident_bytes(self) -> int:
        """Return the current memory."""
        return self._memory("VmRSS:")

    def peak_bytes(self) -> int:
        """Return the peak memory."""
        return self._memory("VmHWM:")

    def _memory(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    async def stop(self) -> None:
        """Stop it and wait."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self.process.wait(), TIMEOUT_SECONDS)


def tree_seconds(root: int, *, but: int = 0) -> float:
    """Return processor seconds of a process and all below it without `but`, each with its own ended children."""
    ticks = sum(sum(map(int, fields[11:15])) for process_id, fields in _tree(root) if process_id != but)
    return ticks / TICKS


def running_seconds(process_id: int) -> float:
    """Return how long one process has run on a processor, to a nanosecond (proc_pid_schedstat)."""
    return int(Path(f"/proc/{process_id}/schedstat").read_text().split()[0]) / 1e9


def tree_memory(root: int) -> int:
    """Return the bytes of a process and all below it, with their shares of shared memory (PSS)."""
    total = 0
    for process_id, _ in _tree(root):
        with contextlib.suppress(OSError):  # it has just ended
            lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def _tree(root: int) -> Iterator[tuple[int, list[str]]]:
    """Yield a process and all below it, each with the fields of proc_pid_stat(5) from its state on."""
    found: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                found[int(entry.name)] = (entry / "stat").read_text().rsplit(")", 1)[1].split()
    below = [root]
    for process_id in below:
        if process_id in found:
            yield process_id, found[process_id]
            below += [child for child, fields in found.items() if int(fields[1]) == process_id]
