"""The histories that a replay reads, with a bar that shows how far it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from noetl_broker.cli.command import Call
from noetl_broker.cli.output import progress_bar
from noetl_broker.cli.selection import Selection
from noetl_broker.history.record import HistoryPart
from noetl_broker.service import histories
from noetl_broker.service.executions import filter_of
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.session import ids_in, schemas_of, session


async def read_histories(call: Call, chosen: Selection) -> AsyncGenerator[HistoryPart, None]:
    """Yield the chosen histories, each whole or in parts; the next ones load meanwhile."""
    for database in await schemas_of(call.database, chosen.ids, name="replay"):
        async with aclosing(_read(call, database, chosen)) as parts:
            async for part in parts:
                yield part


async def _read(call: Call, database: Database, chosen: Selection) -> AsyncGenerator[HistoryPart, None]:
    """Yield the chosen histories of one schema."""
    of_filter = filter_of(chosen.which)
    async with session(database, name="replay") as connection:
        own = ids_in(database, chosen.ids)
        with progress_bar(None if own else await histories.count_histories(connection, of_filter)) as advance:
            async with aclosing(histories.read_histories(connection, own or of_filter, call.playbook_rules)) as parts:
                async for part in parts:
                    yield part
                    advance(part.last)


async def count_erased(call: Call, chosen: Selection) -> int:
    """How many executions of a filter cannot be replayed, because they were erased."""
    count = 0
    for database in await schemas_of(call.database, (), name="replay"):
        async with session(database, name="replay") as connection:
            count += await histories.count_erased(connection, filter_of(chosen.which))
    return count
