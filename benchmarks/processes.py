"""Daemons as processes of their own: started as an operator starts them, with what they use of the processor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

PATIENCE_SECONDS: Final = 60.0
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Ear:
    """What listens in systemd's place for READY=1."""

    def __init__(self, path: Path) -> None:
        """Listen at this path."""
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own signature

    async def ready(self) -> None:
        """Return when the daemon has said that it is ready."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while b"READY=1" not in await loop.sock_recv(self._socket, 4096):
                pass

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A running daemon, `began` by the clock of `time.perf_counter`."""

    process: asyncio.subprocess.Process
    ear: Ear
    began: float

    @classmethod
    async def start(cls, arguments: tuple[str, ...], environment: Mapping[str, str], ear: Ear) -> Self:
        """Start the program with these arguments."""
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "noetl_broker",
            *arguments,
            env=os.environ | dict(environment) | {"NOTIFY_SOCKET": str(ear.path)},
        )
        return cls(process=process, ear=ear, began=began)

    async def ready(self) -> None:
        """Return when it can take turns."""
        await self.ear.ready()

    def seconds(self) -> float:
        """What it and its children have used of the processor."""
        return tree_seconds(self.process.pid)

    def peak_bytes(self) -> int:
        """The most memory that it ever held."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    async def stop(self) -> None:
        """Ask it to stop, and wait."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)


def tree_seconds(root: int) -> float:
    """Processor seconds of a process, its children, and the children that it has buried."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended while we looked
        if int(entry.name) == root:
            total += sum(map(int, fields[11:15]))  # a buried child's part is in the last two
        elif int(fields[1]) == root:
            total += sum(map(int, fields[11:13]))
    return total / TICKS
