"""Daemons as processes of their own: started as an operator starts them, with what they use of the processor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

PATIENCE_SECONDS: Final = 60.0
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Ear:
    """What listens in systemd's place for READY=1; it goes on reading, for a full socket would hold up the daemon."""

    def __init__(self, path: Path) -> None:
        """Listen at this path."""
        self.path = path
        self._ready = asyncio.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own signature
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    async def ready(self) -> None:
        """Return when the daemon has said that it is ready."""
        await asyncio.wait_for(self._ready.wait(), PATIENCE_SECONDS)

    def close(self) -> None:
        """Listen no more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        if b"READY=1" in self._socket.recv(4096):
            self._ready.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A running daemon, `began` by the clock of `time.perf_counter`."""

    process: asyncio.subprocess.Process
    ear: Ear
    began: float

    @classmethod
    async def start(
        cls, arguments: tuple[str, ...], environment: Mapping[str, str], ear: Ear, *, log: IO[bytes] | int | None = None
    ) -> Self:
        """Start the program with these arguments; `log`: where its log goes, ours if none is given."""
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "noetl_broker",
            *arguments,
            env=os.environ | dict(environment) | {"NOTIFY_SOCKET": str(ear.path)},
            stderr=log,
        )
        return cls(process=process, ear=ear, began=began)

    async def ready(self) -> None:
        """Return when it can take turns."""
        await self.ear.ready()

    def seconds(self) -> float:
        """What it and its children have used of the processor."""
        return tree_seconds(self.process.pid)

    def process_ids(self) -> list[int]:
        """It, and its children."""
        return [process_id for process_id, _ in _tree(self.process.pid)]

    def resident_bytes(self) -> int:
        """The memory that it holds now."""
        return self._memory("VmRSS:")

    def peak_bytes(self) -> int:
        """The most memory that it ever held."""
        return self._memory("VmHWM:")

    def _memory(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    async def stop(self) -> None:
        """Ask it to stop, and wait."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)


def tree_seconds(root: int, *, but: int = 0) -> float:
    """Processor seconds of a process, its children without `but`, and the children that it has buried."""
    ticks = 0
    for process_id, fields in _tree(root):
        if process_id != but:  # a buried child's part is in the last two
            ticks += sum(map(int, fields[11 : 15 if process_id == root else 13]))
    return ticks / TICKS


def _tree(root: int) -> Iterator[tuple[int, list[str]]]:
    """A process and its children, each with what the kernel says of it from its state on (proc_pid_stat(5))."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended while we looked
        if root in (int(entry.name), int(fields[1])):
            yield int(entry.name), fields
