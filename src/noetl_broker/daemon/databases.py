"""Several databases in one process: a service for each. A service that fails does not stop the others.

An installation with buckets tells their number when it first answers. Then each bucket has a service in its place.

Each service has its own connections, lanes and metrics. They share the event loop and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import structlog

from noetl_broker.daemon.copier import Served
from noetl_broker.daemon.metrics.registry import TURNS
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.service import Service
from noetl_broker.errors import BrokerError
from noetl_broker.growing_pauses import Backoff
from noetl_broker.store.connect.buckets import HasBuckets, named_buckets
from noetl_broker.store.connect.connection import Pool
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.sqlstates import reason_of, trace_of
from noetl_broker.tasks import run_all, wait_for

log = structlog.get_logger(__name__)

PAUSE_SECONDS = (1.0, 60.0)  # before a service that failed is started again
HEALTHY_SECONDS = 120.0  # a service that ran longer begins with the shortest pause again
PROGRESS_SECONDS = 2.0  # between two reports of progress during a pause

Work = Callable[[str, Service], Awaitable[None]]


def _nothing() -> None:
    """The default callback."""


@dataclass(slots=True)
class Databases:
    """The services by the name of their database; all share `stopping`.

    `fail_fast`: a service that fails before all are ready ends them all.
    """

    services: Mapping[str, Service]
    stopping: asyncio.Event
    fail_fast: bool = False
    on_ready: Callable[[], None] = _nothing  # called once, when all are ready
    on_progress: Callable[[], None] = _nothing  # called when each has made progress since the last call
    failed: dict[str, Exception] = field(default_factory=dict)  # without being ready since
    _ready: set[str] = field(default_factory=set)
    _progressed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Let the services see each other, for copies of signals."""
        served: dict[Database, Served] = {}
        for service in self.services.values():
            service.served = served

    @property
    def turns(self) -> int:
        """Turns taken in all databases."""
        return sum(service.metrics.total(TURNS) for service in self.services.values())

    @property
    def _has_buckets(self) -> bool:
        return any(service.options.database.installation for service in self.services.values())

    @property
    def _copied(self) -> int:
        return sum(service.copied for service in self.services.values())

    async def run(self) -> None:
        """Serve until `stopping` is set. Raises the last fault when no database can be served."""
        await self._for_each(self._serve, self.services)

    async def drain(self) -> dict[str, MetricValues]:
        """Drain each database and return its metrics by name; `failed` has the others. Raises when all fail."""
        pools: dict[str, Pool] = {}
        try:
            for number in count():
                before = self._copied
                await self._for_each(partial(self._drain, pools), self.services)
                # A drained bucket may have got copies of signals. In the first round, some buckets are not there yet.
                if not self._has_buckets or (number and self._copied == before):
                    break
        finally:
            for pool in pools.values():
                await pool.close()
        return {name: service.metrics for name, service in self.services.items() if name not in self.failed}

    async def _for_each(self, work: Work, names: Iterable[str]) -> None:
        await run_all(*(self._run_named(work, name) for name in names))

    async def _run_named(self, work: Work, name: str) -> None:
        """When there are several databases, each log line of this task names its database."""
        if len(self.services) > 1:
            structlog.contextvars.bind_contextvars(database=name)
        service = self.services[name]
        service.on_ready = partial(self._on_ready, name)
        service.on_progress = partial(self._on_progress, name)
        try:
            await work(name, service)
        except HasBuckets as found:
            await self._for_each(work, self._make_buckets(name, found.count))

    def _make_buckets(self, name: str, count: int) -> Iterable[str]:
        """Put a service for each bucket in the place of the installation's; returns their names."""
        options = self.services[name].options
        own = {
            bucket: Service(
                replace(options, database=database, lanes=options.lanes_of_bucket),
                self.stopping,
                served=self.services[name].served,
            )
            for bucket, database in named_buckets(name, options.database, count).items()
        }
        self.services = {
            key: service
            for each, found in self.services.items()
            for key, service in (own if each == name else {each: found}).items()
        }
        self._progressed.discard(name)
        log.info("found the buckets of an installation", installation=options.database.schema, buckets=count)
        return own

    async def _serve(self, name: str, service: Service) -> None:
        """Run one service; after a fault, run it again."""
        backoff = Backoff(*PAUSE_SECONDS)
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                await service.run()
            except HasBuckets:
                raise
            except Exception as fault:  # noqa: BLE001 - a fault of one database must not end the others
                if self.stopping.is_set():
                    return
                self._fail(name, fault)
                if time.monotonic() - began > HEALTHY_SECONDS:
                    backoff.reset()
                pause = backoff.next()
                log_database_fault("a database is not served; the others are", fault, pause_seconds=pause)
                await self._pause(name, pause)

    async def _drain(self, pools: dict[str, Pool], name: str, service: Service) -> None:
        if name in self.failed:
            return
        try:
            if name not in pools:
                pools[name] = await service.open_pool()
            await service.drain_on(pools[name])
        except HasBuckets:
            raise
        except Exception as fault:  # noqa: BLE001 - as above
            if self.stopping.is_set():
                return
            service.served.pop(service.options.database, None)
            self._fail(name, fault)
            log_database_fault("a database is not drained, the others are", fault)

    def _fail(self, name: str, fault: Exception) -> None:
        """Raise the fault when all databases failed, or with `fail_fast` during the start."""
        self.failed[name] = fault
        starting = len(self._ready) < len(self.services)
        if len(self.failed) == len(self.services) or (self.fail_fast and starting):
            raise fault

    async def _pause(self, name: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopping.is_set() and time.monotonic() < until:
            self.services[name].progress()
            await wait_for(self.stopping, min(seconds, PROGRESS_SECONDS))

    def _on_ready(self, name: str) -> None:
        self.failed.pop(name, None)
        before = len(self._ready)
        self._ready.add(name)
        if before < len(self._ready) == len(self.services):
            if len(self.services) > 1:
                log.info("all databases are ready", databases=len(self.services))
            self.on_ready()

    def _on_progress(self, name: str) -> None:
        self._progressed.add(name)
        if len(self._progressed) == len(self.services):
            self._progressed.clear()
            self.on_progress()


def log_database_fault(event: str, fault: Exception, **fields: float) -> None:
    """Log an operator's fault in one sentence, and a fault of the program with its traceback."""
    if isinstance(fault, BrokerError):
        log.error(event, error=str(fault), **fields)
    else:
        log.error(event, error=reason_of(fault), exc_info=trace_of(fault), **fields)
