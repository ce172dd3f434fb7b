"""The health port, and a regular check of the invariants, while a broker runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from noetl_broker.daemon.http.health import BrokerStatus, Health
from noetl_broker.daemon.http.server import HttpServer
from noetl_broker.daemon.metrics.database import Observers
from noetl_broker.errors import OperatorFault
from noetl_broker.store.connect.dsn import Database

log = structlog.get_logger(__name__)

Ask = Callable[[], Awaitable[BrokerStatus]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """Where the health port is (0: none), and how often to verify, in seconds (0: never)."""

    health_host: str
    health_port: int
    verify_seconds: float
    sweep_seconds: float


@contextlib.asynccontextmanager
async def monitored(databases: Mapping[str, Database], ask: Ask, options: Monitoring) -> AsyncIterator[None]:
    """Serve the health port and verify regularly while a broker runs; `ask` gives its status.

    `databases` are by name. Raises OperatorFault before the broker starts if the port cannot be opened.
    """
    observers = Observers(databases)
    port = HttpServer(Health(ask, observers, sweep_seconds=options.sweep_seconds).routes)
    if options.health_port:
        await _open(port, options.health_host, options.health_port)
    verifying = [
        asyncio.create_task(_verify(name, observers, options.verify_seconds), name="verify") for name in databases
    ]
    try:
        yield
    finally:
        for task in verifying:
            task.cancel()
        await asyncio.gather(*verifying, return_exceptions=True)
        await port.close()
        await observers.close()


async def _open(port: HttpServer, host: str, number: int) -> None:
    try:
        await port.open(host, number)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OperatorFault(
            f"the health port {number} on {host} cannot be opened: {reason}; "
            "set health_port (NOETL_BROKER_HEALTH_PORT) to a free one, or to 0 for none; "
            "health_host must be an address of this machine"
        ) from error
    log.info("health port", host=host, port=number)


async def _verify(name: str, observers: Observers, seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)  # a short run needs no check
        await observers.keep_verifying(name, seconds)
