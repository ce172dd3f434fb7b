"""How long the database works for a request: the time from a statement until its answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from noetl_broker.store.connect.connection import Connection

_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


class Meter:
    """The seconds of the statements that the tasks of a block waited for, also in threads."""

    def __init__(self, around: Meter | None) -> None:
        self._around = around
        self._seconds: list[float] = []

    @property
    def seconds(self) -> float:
        """All of them together."""
        return sum(self._seconds)

    def add(self, statement: Any) -> None:
        """Count a statement that was answered; the driver calls this."""
        self._seconds.append(statement.elapsed)
        if self._around is not None:
            self._around.add(statement)


@contextmanager
def measured() -> Iterator[Meter]:
    """Measure the statements of the block, and of the tasks that it begins. A block around it counts them too."""
    meter = Meter(_meter.get())
    before = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(before)


def metering(connection: Connection) -> Any:
    """A context in which the statements of a connection are counted, if they are measured."""
    meter = _meter.get()
    return nullcontext() if meter is None else connection.query_logger(meter.add)
