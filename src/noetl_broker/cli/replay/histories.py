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
from noetl_broker.store.connect.session import session


async def read_histories(call: Call, chosen: Selection) -> AsyncGenerator[HistoryPart, None]:
    """Yield the chosen histories, each whole or in parts; the next ones load meanwhile."""
    of_filter = filter_of(chosen.which)
    async with session(call.database, name="replay") as connection:
        with progress_bar(None if chosen.ids else await histories.count_histories(connection, of_filter)) as advance:
            async with aclosing(
                histories.read_histories(connection, chosen.ids or of_filter, call.playbook_rules)
            ) as parts:
                async for part in parts:
                    yield part
                    advance(part.last)
