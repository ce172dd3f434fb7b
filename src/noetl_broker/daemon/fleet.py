"""Several databases in one process: a service for each, and one that fails does not stop the others.

Executions share no transaction, so neither do the databases that hold them: each service has connections, lanes and
counters of its own, and only the processor is shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from noetl_broker.daemon.counters import Counters
from noetl_broker.daemon.service import Service
from noetl_broker.errors import BrokerError
from noetl_broker.store.faults import reason_of, trace_of

log = structlog.get_logger(__name__)

REST_SECONDS = (1.0, 60.0)
HEALTHY_SECONDS = 120.0
STEP_SECONDS = 2.0


def _nothing() -> None:
    """What is called where nobody wants to know."""


@dataclass(slots=True)
class Fleet:
    """The services by the name of their database; all of them share `stopping`.

    `fail_fast`: one that fails before all are ready ends them all.
    """

    services: Mapping[str, Service]
    stopping: asyncio.Event
    fail_fast: bool = False
    on_ready: Callable[[], None] = _nothing  # once, when all are
    on_progress: Callable[[], None] = _nothing  # when all have got on since the last time
    failed: dict[str, Exception] = field(default_factory=dict)  # and not been ready since
    _ready: set[str] = field(default_factory=set)
    _heard: set[str] = field(default_factory=set)

    @property
    def turns(self) -> int:
        """Turns taken in all databases."""
        return sum(service.counters.turns for service in self.services.values())

    async def run(self) -> None:
        """Serve until `stopping` is set; raises the last fault where no database is left that could be served."""
        await self._all(self._keep)

    async def drain(self) -> dict[str, Counters]:
        """Drain each, and give the counters by name; raises where all fail. `failed` has those that did."""
        await self._all(self._drain)
        return {name: service.counters for name, service in self.services.items() if name not in self.failed}

    async def _all(self, work: Callable[[str, Service], Awaitable[None]]) -> None:
        tasks = [asyncio.create_task(self._named(work, name)) for name in self.services]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _named(self, work: Callable[[str, Service], Awaitable[None]], name: str) -> None:
        """Every line of this task's log says which database it is about, where there are several."""
        if len(self.services) > 1:
            structlog.contextvars.bind_contextvars(database=name)
        service = self.services[name]
        service.on_ready = partial(self._hear_ready, name)
        service.on_progress = partial(self._hear_progress, name)
        await work(name, service)

    async def _keep(self, name: str, service: Service) -> None:
        """Run one, again and again: what is wrong with its database may be mended beside the others."""
        rest = REST_SECONDS[0]
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                await service.run()
            except Exception as fault:  # noqa: BLE001 - whatever it is, it is of this database alone
                if self.stopping.is_set():
                    return  # there was nothing to finish here; the others finish
                self._fail(name, fault)
                rest = REST_SECONDS[0] if time.monotonic() - began > HEALTHY_SECONDS else min(rest * 2, REST_SECONDS[1])
                tell_fault_of_database("a database is not served, the others are", fault, pause_seconds=rest)
                await self._rest(name, rest)

    async def _drain(self, name: str, service: Service) -> None:
        try:
            await service.drain()
        except Exception as fault:  # noqa: BLE001 - as above
            if self.stopping.is_set():
                return
            self._fail(name, fault)
            tell_fault_of_database("a database is not drained, the others are", fault)

    def _fail(self, name: str, fault: Exception) -> None:
        """Raise the fault where nothing is left to serve, or nobody wants to wait."""
        self.failed[name] = fault
        starting = len(self._ready) < len(self.services)
        if len(self.failed) == len(self.services) or (self.fail_fast and starting):
            raise fault

    async def _rest(self, name: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopping.is_set() and time.monotonic() < until:
            self.services[name].progress()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), min(seconds, STEP_SECONDS))

    def _hear_ready(self, name: str) -> None:
        self.failed.pop(name, None)
        before = len(self._ready)
        self._ready.add(name)
        if before < len(self._ready) == len(self.services):
            if len(self.services) > 1:
                log.info("all databases are ready", databases=len(self.services))
            self.on_ready()

    def _hear_progress(self, name: str) -> None:
        self._heard.add(name)
        if len(self._heard) == len(self.services):
            self._heard.clear()
            self.on_progress()


def tell_fault_of_database(event: str, fault: Exception, **fields: float) -> None:
    """Log what is an operator's to mend in a sentence; what is a fault of the program with its traceback."""
    if isinstance(fault, BrokerError):
        log.error(event, error=str(fault), **fields)
    else:
        log.error(event, error=reason_of(fault), exc_info=trace_of(fault), **fields)
