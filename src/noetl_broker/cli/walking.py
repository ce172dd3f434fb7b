"""The way of `replay` through many histories: which are meant, one after the other, and a bar that shows how far."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from noetl_broker.cli.frame import Call
from noetl_broker.cli.progress import bar
from noetl_broker.errors import OperatorFault
from noetl_broker.store import histories as store
from noetl_broker.store.history import Versions
from noetl_broker.store.pool import Connection
from noetl_broker.store.session import session

PARTS_BETWEEN_LOOKS = 8  # at the network, where the next load is coming
UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which executions: these, or (without ids) all that pass the filter."""

    ids: tuple[int, ...] = ()
    which: store.Filter = store.ALL


class Pace:
    """How many executions were gone through, in what time."""

    def __init__(self) -> None:
        self.executions = 0
        self._began = time.monotonic()

    @property
    def per_second(self) -> float:
        """Executions in a second."""
        return self.executions / max(time.monotonic() - self._began, 1e-6)


async def walk(call: Call, chosen: Chosen) -> AsyncGenerator[store.Part, None]:
    """The histories, each whole or in parts; while one is looked at, the next are on their way."""
    async with session(call.dsn, name="replay") as connection:
        with bar(None if chosen.ids else await store.count_histories(connection, chosen.which)) as advance:
            async with aclosing(store.ahead(_read(connection, call, chosen))) as loads:
                async for parts in loads:
                    for place, part in enumerate(parts):
                        yield part
                        advance(part.last)
                        if place % PARTS_BETWEEN_LOOKS == 0:
                            await asyncio.sleep(0)


async def _read(connection: Connection, call: Call, chosen: Chosen) -> AsyncGenerator[Iterable[store.Part], None]:
    versions = Versions(call.playbook_rules)
    loads = store.weigh_each(connection, chosen.ids) if chosen.ids else store.weigh(connection, chosen.which)
    async for load in loads:
        async with aclosing(store.read(connection, load, versions)) as loaded:
            async for parts in loaded:
                yield parts


def moment_of(text: str) -> datetime:
    """A moment as a person says it: a date, perhaps with a time (UTC where it names no zone), or how long ago: 24h, 7d.

    Raises OperatorFault for anything else.
    """
    span = re.fullmatch(r"(\d{1,4})\s*(s|m|min|h|d|w)", text.strip())
    if span:
        return datetime.now(UTC) - timedelta(**{UNITS[span[2]]: int(span[1])})
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        message = f'"{text}" is no moment; write 2026-01-31, 2026-01-31T08:00Z, or how long ago: 90min, 24h, 7d'
        raise OperatorFault(message) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
