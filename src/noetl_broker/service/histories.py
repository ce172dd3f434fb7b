"""The histories that a replay reads, one after the other; what differs in one, and the state after a turn."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

from noetl_broker.errors import HistoryFault, NotFoundFault, OperatorFault
from noetl_broker.history.differences import Differences
from noetl_broker.history.record import HistoryPart
from noetl_broker.history.replay import Replay
from noetl_broker.history.snapshot import snapshot_document
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin import history_scan as store
from noetl_broker.store.admin.erasures import count_erased
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.history import Versions, find_turn
from noetl_broker.store.admin.history_scan import count_histories
from noetl_broker.store.connect.connection import Connection

__all__ = ["count_erased", "count_histories", "find_differences", "read_histories", "state_after"]

PARTS_BETWEEN_CHECKS = 8  # at the network, where the next batch is coming


async def read_histories(
    connection: Connection, which: Filter | Sequence[int], rules: PlaybookRules
) -> AsyncGenerator[HistoryPart, None]:
    """Yield the histories of these executions, each whole or in parts; the next ones load meanwhile."""
    async with aclosing(store.prefetch(_load(connection, which, rules))) as batches:
        async for parts in batches:
            for index, part in enumerate(parts):
                yield part
                if index % PARTS_BETWEEN_CHECKS == 0:
                    await asyncio.sleep(0)


async def _load(
    connection: Connection, which: Filter | Sequence[int], rules: PlaybookRules
) -> AsyncGenerator[Iterable[HistoryPart], None]:
    versions = Versions(rules)
    batches = (
        store.measure_sizes(connection, which)
        if isinstance(which, Filter)
        else store.measure_sizes_of(connection, which)
    )
    async for batch in batches:
        async with aclosing(store.read(connection, batch, versions)) as loaded:
            async for parts in loaded:
                yield parts


async def find_differences(connection: Connection, execution_id: int, rules: PlaybookRules) -> Differences:
    """Replay all turns of one execution. Raises NotFoundFault and HistoryFault."""
    found: Differences | None = None
    async with aclosing(read_histories(connection, (execution_id,), rules)) as parts:
        async for part in parts:
            found = found or Differences(part.history, in_parts=part.jobs is not None)
            found.take(part)
    if found is None:
        raise HistoryFault(execution_id, "it has no turns")
    return found


async def state_after(connection: Connection, execution_id: int, until: str, rules: PlaybookRules) -> dict[str, Any]:
    """The document about the turn of `until` (the id of an event, or turn:4), and about the state after it.

    The turns up to it are replayed. Raises OperatorFault, NotFoundFault.
    """
    number = await _turn(connection, execution_id, until)
    replay: Replay | None = None
    async with aclosing(read_histories(connection, (execution_id,), rules)) as parts:
        async for part in parts:
            replay = replay or Replay(part.history, in_parts=True)
            for recorded in part.readable_turns():
                taken = replay.apply(recorded)
                if recorded.turn.number == number:
                    return snapshot_document(part.history, taken, replay.known)
    last = replay.number if replay is not None else 0
    raise NotFoundFault(f"execution {execution_id} has no turn {number}: its last is {last}")


async def _turn(connection: Connection, execution_id: int, until: str) -> int:
    numbered = re.fullmatch(r"turn:([1-9]\d{0,8})", until.strip())
    if numbered:
        return int(numbered[1])
    if not re.fullmatch(r"\d{1,18}", until.strip()):
        raise OperatorFault(f'--until takes the id of an event, or turn:4 for the fourth turn, not "{until}"')
    return await find_turn(connection, execution_id, int(until))
