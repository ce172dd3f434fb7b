"""Compiled playbooks, kept by catalog version, and made beside the batches: some take seconds, which nobody waits for.

A playbook is compiled in a thread, within the bounds of `playbook.work`. A batch waits a moment for it, which suffices
for nearly all; after that it leaves the mail of that playbook's executions, and decides on all other. Whatever comes of
it is kept, so it is compiled once, however many executions there are and however their batches end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import structlog

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.findings import Rules
from noetl_broker.playbook.model import Playbook
from noetl_broker.playbook.work import Abandoned
from noetl_broker.store import unit
from noetl_broker.store.faults import reason_of
from noetl_broker.store.pool import Connection
from noetl_broker.store.rows import Execution

log = structlog.get_logger(__name__)

MOST_KEPT = 256
MOST_MAKING = 16  # at a time, with their texts
LARGE_CHARS = 65_536  # a longer text waits for the other long ones, so that short ones wait for none of them
SLOW_SECONDS = 1.0  # to compile: worth a line in the log


class Playbooks:
    """The playbooks of this process; a version never changes, so what was compiled stays true."""

    def __init__(self, rules: Rules) -> None:
        """Nothing compiled yet; `rules` say what a playbook may hold."""
        self._rules = rules
        self._kept: OrderedDict[int, Playbook | str] = OrderedDict()
        self._making: dict[int, asyncio.Task[None] | None] = {}  # the event loop itself holds no task fast
        self._faults: dict[int, Exception] = {}  # of ours, met while one was compiled
        self._stopping = threading.Event()
        self._short = ThreadPoolExecutor(1, "short playbooks")
        self._long = ThreadPoolExecutor(1, "long playbooks")

    def close(self) -> None:
        """Let go of what is being compiled, without waiting for it."""
        self._stopping.set()
        for threads in (self._short, self._long):
            threads.shutdown(wait=False, cancel_futures=True)

    async def of(self, connection: Connection, execution: Execution, wait_seconds: float) -> Playbook | str | None:
        """The playbook of an execution, or the sentence that says why there is none; None: it is being compiled.

        Only who finds it neither kept nor begun waits, for so many seconds at most. Raises what is our own fault.
        """
        catalog_id = execution.catalog_id
        if catalog_id is None:
            version = "" if execution.version is None else f" version {execution.version}"
            return f"no playbook {execution.path}{version} is registered"
        kept = self._kept.get(catalog_id)
        if kept is not None:
            self._kept.move_to_end(catalog_id)
            return kept
        if catalog_id not in self._making and catalog_id not in self._faults:
            if len(self._making) >= MOST_MAKING:
                return None
            found = await unit.load_content(connection, catalog_id, most_bytes=self._rules.max_document_bytes)
            if found is None:
                return f"the catalog has no row {catalog_id} (playbook {execution.path})"
            # Another lane may have begun meanwhile.
            if catalog_id not in self._kept and catalog_id not in self._making:
                self._making[catalog_id] = None
                task = asyncio.create_task(self._make(catalog_id, *found), name=f"compile {catalog_id}")
                if catalog_id in self._making:
                    self._making[catalog_id] = task
                await asyncio.wait({task}, timeout=max(wait_seconds, 0.0))
        if (fault := self._faults.pop(catalog_id, None)) is not None:
            raise fault
        return self._kept.get(catalog_id)

    async def _make(self, catalog_id: int, content: str | None, path: str, content_bytes: int) -> None:
        """Compile a playbook beside the event loop, and keep what comes of it; it belongs to no batch."""
        began = time.monotonic()
        try:
            self._keep(catalog_id, await self._compiled(content, path, content_bytes))
        except Abandoned:
            return
        except Exception as error:  # noqa: BLE001 - it is raised where the mail is that shows it
            self._faults[catalog_id] = error
            log.warning("a playbook could not be compiled, for a fault of ours", path=path, error=reason_of(error))
        finally:
            del self._making[catalog_id]
        seconds = time.monotonic() - began
        if seconds > SLOW_SECONDS:
            log.warning("a playbook was slow to compile", path=path, catalog_id=catalog_id, seconds=round(seconds, 1))

    async def _compiled(self, content: str | None, path: str, content_bytes: int) -> Playbook | str:
        if content is None:
            most = self._rules.max_document_bytes
            return (
                f"playbook {path} does not compile: the document has {content_bytes:,} bytes, and {most:,} are allowed"
            )
        threads = self._short if len(content) <= LARGE_CHARS else self._long
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, _compile, content, path, self._rules, self._stopping)

    def _keep(self, catalog_id: int, compiled: Playbook | str) -> None:
        self._kept[catalog_id] = compiled
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)


def _compile(content: str, path: str, rules: Rules, stopping: threading.Event) -> Playbook | str:
    try:
        return compile_playbook(content, file=path, rules=rules, stopping=stopping)
    except PlaybookFault as fault:
        return f"playbook {path} does not compile: {fault}"
