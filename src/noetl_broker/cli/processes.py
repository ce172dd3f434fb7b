"""One parent over several processes of the same command: it starts them, brings back the dead, passes signals on.

A child's standard input is a pipe that only the parent holds: its end says that the parent is gone, however it went,
and the child stops. On its standard output a child says when it is ready and that it goes on; asked on its standard
input, and at its end, it also says there how it stands. It is asked only when somebody wants to know, so a parent that
is stopped fills no pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from noetl_broker.cli.serving import is_second, notify, signals_for_us
from noetl_broker.cli.stderr import end_at_once
from noetl_broker.daemon.figures import NO_DATABASE, Figures, Ledger, enter
from noetl_broker.daemon.health import Census
from noetl_broker.daemon.report import Account, account_of_line
from noetl_broker.errors import EXIT_NO_PERMISSION, EXIT_SCHEMA, EXIT_UNAVAILABLE, EXIT_USAGE

log = structlog.get_logger(__name__)

READY, PROGRESS, REPORT = "ready", "progress", "report"
LONGEST_LINE = 1 << 24  # bytes: an account has some kilobytes for each database
ANSWER_SECONDS = 1.0  # for an account; a child takes a millisecond, unless its main loop is stuck
# A child that ends so would end so again.
HOPELESS = frozenset({EXIT_USAGE, EXIT_NO_PERMISSION, EXIT_SCHEMA, EXIT_UNAVAILABLE})
REST_SECONDS = (0.1, 10.0)
HEALTHY_SECONDS = 30.0
GRACE_SECONDS = 1.0  # a child ends itself after `drain_seconds`; one that has not by then is stuck


@dataclass(slots=True, kw_only=True)
class Family:
    """`size` children of one `command`; `restart` false: each runs once, and the parent ends with the last of them."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    size: int
    restart: bool
    drain_seconds: float
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _children: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    _ready: set[int] = field(default_factory=set)
    _heard: set[int] = field(default_factory=set)
    _asked: dict[int, asyncio.Future[Account]] = field(default_factory=dict)
    _told: dict[int, tuple[float, Account]] = field(default_factory=dict)  # the last account of each, and when
    _ended: Ledger = field(default_factory=dict)  # what those counted that have ended
    _restarts: int = 0

    async def run(self) -> int:
        """Keep the children until a signal, or a child that ends in a way that cannot be mended; give the exit code."""
        loop = asyncio.get_running_loop()
        for number in signals_for_us():
            loop.add_signal_handler(number, self._on_signal, number)
        codes = await asyncio.gather(*(self._keep(place) for place in range(self.size)))
        return max(codes)

    @property
    def counted(self) -> Ledger:
        """What those that have ended have counted."""
        return self._ended

    async def ask(self) -> Census:
        """Ask all children how they stand."""
        accounts = await asyncio.gather(*(self._ask(place) for place in range(self.size)))
        ended: Ledger = {}
        enter(ended, self._ended)
        ended.setdefault(NO_DATABASE, Figures()).put("process_restarts_total", self._restarts)
        return Census({f"process {place}": account for place, account in enumerate(accounts)}, ended)

    async def _ask(self, place: int) -> Account | None:
        """The account of one; of one that does not answer the last, and it has been silent since then."""
        child = self._children.get(place)
        if child is None or child.stdin is None:
            return None
        if place not in self._asked:
            self._asked[place] = asyncio.get_running_loop().create_future()
            child.stdin.write(f"{REPORT}\n".encode())
        asked = self._asked[place]  # also of whoever asked before us and is not answered yet
        await asyncio.wait({asked}, timeout=ANSWER_SECONDS)
        if asked.done() and not asked.cancelled():
            return asked.result()
        told = self._told.get(place)
        if told is None:
            return None
        at, account = told
        return account.silent_for(time.monotonic() - at)

    async def _keep(self, place: int) -> int:
        """Start one child, again and again; give the code that it ended with for good."""
        rest = REST_SECONDS[0]
        while not self.stopping.is_set():
            began = time.monotonic()
            code = await self._run_child(place)
            if self.stopping.is_set() or (code == 0 and not self.restart):
                return max(code, 0) if code in HOPELESS else 0
            if code in HOPELESS or not self.restart:
                self._stop(signal.SIGTERM)
                return abs(code)
            rest = REST_SECONDS[0] if time.monotonic() - began > HEALTHY_SECONDS else min(rest * 2, REST_SECONDS[1])
            self._restarts += 1
            log.error("a process died; another one takes its place", place=place, code=code, pause_seconds=rest)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), rest)
        return 0

    async def _run_child(self, place: int) -> int:
        child = await asyncio.create_subprocess_exec(
            *self.command,
            env=dict(self.environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,  # Ctrl-C comes to us, and through us once to each child
        )
        self._children[place] = child
        log.info("started a process", place=place, process_id=child.pid)
        if self.stopping.is_set():
            _signal(child, signal.SIGTERM)
        try:
            if child.stdout is not None:
                async for line in child.stdout:
                    self._hear(place, line.decode(errors="replace").strip())
            return await child.wait()
        finally:
            self._children.pop(place, None)
            self._ready.discard(place)
            self._bury(place)
            if child.stdin is not None:
                child.stdin.close()

    def _bury(self, place: int) -> None:
        """Keep what a child counted until its last account: a counter never goes back."""
        asked = self._asked.pop(place, None)
        if asked is not None:
            asked.cancel()
        told = self._told.pop(place, None)
        if told is not None:
            enter(self._ended, told[1].ledger, ended=True)

    def _hear(self, place: int, word: str) -> None:
        """Systemd hears of the family only what is true of all of it."""
        if word.startswith("{"):
            account = account_of_line(word)
            self._told[place] = time.monotonic(), account
            asked = self._asked.pop(place, None)
            if asked is not None and not asked.done():
                asked.set_result(account)
        elif word == READY:
            self._ready.add(place)
            if len(self._ready) == self.size:
                notify(f"READY=1\nSTATUS={self.size} processes")
                log.info("all processes are ready", processes=self.size)
        elif word == PROGRESS:
            self._heard.add(place)
            if len(self._heard) == self.size:
                self._heard.clear()
                notify("WATCHDOG=1")

    def _on_signal(self, number: signal.Signals) -> None:
        if self.stopping.is_set():
            if is_second(number):
                self._kill()
                end_at_once(128 + number)
            return
        log.info("stopping", signal=number.name, hint="a second signal ends at once")
        self._stop(number)

    def _stop(self, number: signal.Signals) -> None:
        notify("STOPPING=1")
        self.stopping.set()
        for child in self._children.values():
            _signal(child, number)
        asyncio.get_running_loop().call_later(self.drain_seconds + GRACE_SECONDS, self._kill)

    def _kill(self) -> None:
        for place, child in self._children.items():
            log.warning("killing a process; the database rolls back what was under way", place=place)
            _signal(child, signal.SIGKILL)


def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)


async def hear_parent(stopping: asyncio.Event, on_ask: Callable[[], None]) -> None:
    """In a child: call `on_ask` for each question; set `stopping` at the end of its standard input."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == REPORT.encode():
            on_ask()
    stopping.set()
