"""The counts beside the navigation: what needs a person."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from noetl_broker.console.services import Services
from noetl_broker.errors import BrokerError
from noetl_broker.store.admin.changes import Attention, count_attention
from noetl_broker.store.admin.overview import MOST_COUNTED

MOST_SECONDS: Final = 1.0  # that a page waits for its counts
# The section's address, what is counted of the present, and the class of the count's colour.
COUNTED: Final = (("/approvals", "approvals", "run"), ("/dead-letters", "dead_letters", "bad"))


async def count_for_navigation(services: Services) -> Mapping[str, tuple[str, str]]:
    """The text and the colour of each count that is not 0, by the address of its section.

    While streams are open, these counts are a second old at most. While the database is away, there are none.
    """
    found = services.changes.attention or Attention(0, 0)
    if services.changes.attention is None:
        with suppress(BrokerError):
            async with services.connections.borrow(MOST_SECONDS) as connection:
                found = await count_attention(connection)
    counts = found._asdict()
    return {
        url: (f"{counts[name]:,}{'+' if counts[name] >= MOST_COUNTED else ''}", tone)
        for url, name, tone in COUNTED
        if counts[name]
    }
