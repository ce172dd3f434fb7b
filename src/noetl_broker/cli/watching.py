"""What stands beside a running broker: the port with its health and figures, and the look at its invariants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import structlog

from noetl_broker.cli.frame import Call
from noetl_broker.daemon.health import Census, Health
from noetl_broker.daemon.observer import Observer
from noetl_broker.daemon.port import Port
from noetl_broker.daemon.report import account_of
from noetl_broker.daemon.service import Service
from noetl_broker.errors import OperatorFault

log = structlog.get_logger(__name__)

Ask = Callable[[], Awaitable[Census]]


def alone(services: Mapping[str, Service]) -> Ask:
    """A broker of one process speaks for itself; its services by the names of their databases."""

    async def ask() -> Census:
        return Census({"broker": account_of(services)}, {})

    return ask


@contextlib.asynccontextmanager
async def watched(call: Call, dsns: Mapping[str, str | None], ask: Ask) -> AsyncIterator[None]:
    """Serve the health port and verify, as the settings say, while a broker runs; `ask` gives how it stands.

    `dsns` are the databases by name. Raises OperatorFault where the port cannot be had: before the broker has begun
    anything.
    """
    settings = call.settings
    observers = {name: Observer(dsn) for name, dsn in dsns.items()}
    port = Port(Health(ask, observers, sweep_seconds=settings.sweep_seconds).routes)
    if settings.health_port:
        await _open(port, settings.health_host, settings.health_port)
    verifying = [
        asyncio.create_task(_verify(name, observer, settings.verify_seconds), name="verify")
        for name, observer in observers.items()
    ]
    try:
        yield
    finally:
        for task in verifying:
            task.cancel()
        await asyncio.gather(*verifying, return_exceptions=True)
        await port.close()
        for observer in observers.values():
            await observer.close()


async def _open(port: Port, host: str, number: int) -> None:
    try:
        await port.open(host, number)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OperatorFault(
            f"the health port {number} on {host} cannot be had: {reason}; "
            "set health_port (NOETL_BROKER_HEALTH_PORT) to a free one, or to 0 for none; "
            "health_host must be an address of this machine"
        ) from error
    log.info("health port", host=host, port=number)


async def _verify(name: str, observer: Observer, seconds: float) -> None:
    structlog.contextvars.bind_contextvars(database=name)  # for the lines of this task
    if seconds:
        await asyncio.sleep(seconds)  # what runs for shorter than that is not worth the look
        await observer.keep_verifying(seconds)
