"""The cache of compiled playbooks, by catalog version. They are compiled in threads, because some take seconds.

A batch waits a moment for a playbook, which is enough for nearly all. After that it leaves the mail of that playbook's
executions and decides on the rest. `playbook/work_budget.py` bounds the work for one document. The result is cached,
also when it is an error, so each version is compiled once.
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
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.model import Playbook
from noetl_broker.playbook.work_budget import Abandoned
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.sqlstates import reason_of
from noetl_broker.store.turn.claimed_rows import Execution
from noetl_broker.store.turn.load import Content, load_content

log = structlog.get_logger(__name__)

MAX_CACHED = 256
MAX_COMPILING = 16  # at a time, with their texts
LONG_CHARS = 65_536  # a longer text is compiled in a thread of its own, so that short ones do not wait for it
SLOW_SECONDS = 1.0  # a slower compilation is logged


class PlaybookCache:
    """The playbooks of one process. A version never changes, so an entry never becomes stale."""

    def __init__(self, rules: PlaybookRules) -> None:
        """`rules` are the limits of a playbook."""
        self._rules = rules
        self._cached: OrderedDict[int, Playbook | str] = OrderedDict()
        self._compiling: dict[int, asyncio.Task[None] | None] = {}  # the event loop holds only weak references to tasks
        self._faults: dict[int, Exception] = {}  # bugs met in a compilation, raised once
        self._stopping = threading.Event()
        self._short_texts = ThreadPoolExecutor(1, "short playbooks")
        self._long_texts = ThreadPoolExecutor(1, "long playbooks")

    def close(self) -> None:
        """Abandon what is being compiled, without waiting for it."""
        self._stopping.set()
        for threads in (self._short_texts, self._long_texts):
            threads.shutdown(wait=False, cancel_futures=True)

    def compiled(self, catalog_id: int | None) -> Playbook | str | None:
        """What `get` gives at once, because it is compiled; None: ask `get`."""
        if catalog_id is None:
            return None
        cached = self._cached.get(catalog_id)
        if cached is not None:
            self._cached.move_to_end(catalog_id)
        return cached

    async def get(self, connection: Connection, execution: Execution, wait_seconds: float) -> Playbook | str | None:
        """The playbook of an execution, or a sentence that says why there is none; None while it is compiled.

        Only the call that starts a compilation waits for it, at most `wait_seconds`. Raises a bug met in a compilation.
        """
        catalog_id = execution.catalog_id
        if catalog_id is None:
            version = "" if execution.version is None else f" version {execution.version}"
            return f"no playbook {execution.path}{version} is registered"
        if (cached := self.compiled(catalog_id)) is not None:
            return cached
        if catalog_id not in self._compiling and catalog_id not in self._faults:
            if len(self._compiling) >= MAX_COMPILING:
                return None
            found = await load_content(connection, catalog_id, most_bytes=self._rules.max_document_bytes)
            if found is None:
                return f"the catalog has no row {catalog_id} (playbook {execution.path})"
            # Another lane may have started it meanwhile.
            if catalog_id not in self._cached and catalog_id not in self._compiling:
                self._compiling[catalog_id] = None
                task = asyncio.create_task(self._compile(catalog_id, found), name=f"compile {catalog_id}")
                if catalog_id in self._compiling:
                    self._compiling[catalog_id] = task
                await asyncio.wait({task}, timeout=max(wait_seconds, 0.0))
        if (fault := self._faults.pop(catalog_id, None)) is not None:
            raise fault
        return self._cached.get(catalog_id)

    async def _compile(self, catalog_id: int, content: Content) -> None:
        """Compile a playbook and cache the result. No batch owns this task."""
        began, path = time.monotonic(), content.path
        try:
            self._cache(catalog_id, await self._compile_in_thread(content))
        except Abandoned:
            return
        except Exception as error:  # noqa: BLE001 - `get` raises it for the mail that needs this playbook
            self._faults[catalog_id] = error
            log.warning("a playbook could not be compiled, for a fault of ours", path=path, error=reason_of(error))
        finally:
            del self._compiling[catalog_id]
        seconds = time.monotonic() - began
        if seconds > SLOW_SECONDS:
            log.warning("a playbook was slow to compile", path=path, catalog_id=catalog_id, seconds=round(seconds, 1))

    async def _compile_in_thread(self, content: Content) -> Playbook | str:
        text, path = content.text, content.path
        if text is None:
            most = self._rules.max_document_bytes
            size = f"{content.size:,} bytes, and {most:,} are allowed"
            return f"playbook {path} does not compile: the document has {size}"
        threads = self._short_texts if len(text) <= LONG_CHARS else self._long_texts
        loop = asyncio.get_running_loop()
        rules = self._rules.of_registered()
        return await loop.run_in_executor(threads, _compile_text, text, path, rules, self._stopping)

    def _cache(self, catalog_id: int, compiled: Playbook | str) -> None:
        self._cached[catalog_id] = compiled
        while len(self._cached) > MAX_CACHED:
            self._cached.popitem(last=False)


def _compile_text(content: str, path: str, rules: PlaybookRules, stopping: threading.Event) -> Playbook | str:
    try:
        return compile_playbook(content, file=path, path=path, rules=rules, stopping=stopping)
    except PlaybookFault as fault:
        return f"playbook {path} does not compile: {fault}"
