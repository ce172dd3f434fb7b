"""The parent of several processes of one command: it starts them, restarts dead processes, and passes on signals.

A child reads questions from its standard input. When that pipe ends, the parent is gone, and the child stops. On its
standard output a child reports readiness and progress. It writes its status on request and at its end. The parent
requests it only when somebody needs it, so the pipe does not fill while the parent is stopped.
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

from noetl_broker.daemon.http.health import BrokerStatus
from noetl_broker.daemon.metrics.process_status import ProcessStatus
from noetl_broker.daemon.metrics.registry import PROCESS_RESTARTS
from noetl_broker.daemon.metrics.values import PROCESS, MetricsByDatabase, MetricValues, merge_all
from noetl_broker.daemon.process_signals import handled_signals, is_second, notify
from noetl_broker.errors import EXIT_NO_PERMISSION, EXIT_SCHEMA, EXIT_UNAVAILABLE, EXIT_USAGE
from noetl_broker.growing_pauses import Backoff
from noetl_broker.logs.stderr import end_at_once
from noetl_broker.tasks import wait_for

log = structlog.get_logger(__name__)

READY, PROGRESS, REPORT = "ready", "progress", "report"
MAX_LINE_BYTES = 1 << 24  # a status has some kilobytes for each database
ANSWER_SECONDS = 1.0  # for a status; a child takes a millisecond unless its main loop is stuck
# A child that ends with one of these codes would do so again.
FATAL_CODES = frozenset({EXIT_USAGE, EXIT_NO_PERMISSION, EXIT_SCHEMA, EXIT_UNAVAILABLE})
PAUSE_SECONDS = (0.1, 10.0)  # before a child that died is replaced
HEALTHY_SECONDS = 30.0  # a child that lived longer is replaced after the shortest pause
GRACE_SECONDS = 1.0  # a child ends itself after `drain_seconds`; a child that still runs then is killed


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Runs `size` children of one `command`. `restart` false: each runs once, and the parent ends with the last."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    size: int
    restart: bool
    drain_seconds: float
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _children: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    _ready: set[int] = field(default_factory=set)
    _progressed: set[int] = field(default_factory=set)
    _asked: dict[int, asyncio.Future[ProcessStatus]] = field(default_factory=dict)
    _statuses: dict[int, tuple[float, ProcessStatus]] = field(default_factory=dict)  # the last of each, and its time
    _ended: MetricsByDatabase = field(default_factory=dict)  # of children that have ended
    _restarts: int = 0

    async def run(self) -> int:
        """Run the children until a signal, or until one ends with a fatal code; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in handled_signals():
            loop.add_signal_handler(number, self._on_signal, number)
        codes = await asyncio.gather(*(self._keep_running(index) for index in range(self.size)))
        return max(codes)

    @property
    def ended(self) -> MetricsByDatabase:
        """The metrics of the children that have ended."""
        return self._ended

    async def status(self) -> BrokerStatus:
        """Ask all children for their status."""
        statuses = await asyncio.gather(*(self._ask(index) for index in range(self.size)))
        ended: MetricsByDatabase = {}
        merge_all(ended, self._ended)
        ended.setdefault(PROCESS, MetricValues()).set(PROCESS_RESTARTS, self._restarts)
        return BrokerStatus({f"process {index}": status for index, status in enumerate(statuses)}, ended)

    async def _ask(self, index: int) -> ProcessStatus | None:
        """The status of one child; if it does not answer, its last one, as silent since then."""
        child = self._children.get(index)
        if child is None or child.stdin is None:
            return None
        if index not in self._asked:
            self._asked[index] = asyncio.get_running_loop().create_future()
            child.stdin.write(f"{REPORT}\n".encode())
        answer = self._asked[index]  # shared with earlier questions that have no answer yet
        await asyncio.wait({answer}, timeout=ANSWER_SECONDS)
        if answer.done() and not answer.cancelled():
            return answer.result()
        last = self._statuses.get(index)
        if last is None:
            return None
        at, status = last
        return status.after_silence(time.monotonic() - at)

    async def _keep_running(self, index: int) -> int:
        """Run one child, and replace it when it dies; returns its last exit code."""
        backoff = Backoff(*PAUSE_SECONDS)
        while not self.stopping.is_set():
            began = time.monotonic()
            code = await self._run_child(index)
            if self.stopping.is_set() or (code == 0 and not self.restart):
                return max(code, 0) if code in FATAL_CODES else 0
            if code in FATAL_CODES or not self.restart:
                self._stop(signal.SIGTERM)
                return abs(code)
            if time.monotonic() - began > HEALTHY_SECONDS:
                backoff.reset()
            pause = backoff.next()
            self._restarts += 1
            log.error("a process died; another one takes its place", index=index, code=code, pause_seconds=pause)
            await wait_for(self.stopping, pause)
        return 0

    async def _run_child(self, index: int) -> int:
        child = await asyncio.create_subprocess_exec(
            *self.command,
            env=dict(self.environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            start_new_session=True,  # a terminal sends Ctrl-C to the parent alone, which passes it on
        )
        self._children[index] = child
        log.info("started a process", index=index, process_id=child.pid)
        if self.stopping.is_set():
            _signal(child, signal.SIGTERM)
        try:
            if child.stdout is not None:
                async for line in child.stdout:
                    self._on_line(index, line.decode(errors="replace").strip())
            return await child.wait()
        finally:
            self._children.pop(index, None)
            self._ready.discard(index)
            self._keep_metrics(index)
            if child.stdin is not None:
                child.stdin.close()

    def _keep_metrics(self, index: int) -> None:
        """Keep what an ended child counted: a counter never decreases."""
        answer = self._asked.pop(index, None)
        if answer is not None:
            answer.cancel()
        last = self._statuses.pop(index, None)
        if last is not None:
            merge_all(self._ended, last[1].all_metrics, ended=True)

    def _on_line(self, index: int, word: str) -> None:
        """Handle a line of a child. Systemd gets a state when all children have it."""
        if word.startswith("{"):
            status = ProcessStatus.from_line(word)
            self._statuses[index] = time.monotonic(), status
            answer = self._asked.pop(index, None)
            if answer is not None and not answer.done():
                answer.set_result(status)
        elif word == READY:
            self._ready.add(index)
            if len(self._ready) == self.size:
                notify(f"READY=1\nSTATUS={self.size} processes")
                log.info("all processes are ready", processes=self.size)
        elif word == PROGRESS:
            self._progressed.add(index)
            if len(self._progressed) == self.size:
                self._progressed.clear()
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
        for index, child in self._children.items():
            log.warning("killing a process; the database rolls back what was under way", index=index)
            _signal(child, signal.SIGKILL)


def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)


async def answer_parent(stopping: asyncio.Event, on_ask: Callable[[], None]) -> None:
    """In a child: call `on_ask` for each question of the parent; set `stopping` when the parent is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == REPORT.encode():
            on_ask()
    stopping.set()
