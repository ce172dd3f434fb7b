"""What replays of a few executions gave, kept in the process: their pasts, and explanations of long ones that ended."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import aclosing
from typing import Any, Final

from noetl_broker.errors import NotFoundFault, OperatorFault
from noetl_broker.history.past import Past
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service.histories import read_histories
from noetl_broker.store.admin.history_scan import measure_sizes_of
from noetl_broker.store.connect.connection import Connection

MOST_TURNS: Final = 10_000  # of a history that is replayed for a page
MOST_BYTES: Final = 32 << 20  # of a history, as stored
KEPT_TURNS: Final = 30_000  # of all that is kept
BYTES_OF_TURN: Final = 2_048  # a history with larger turns counts as one of more turns
SMALL: Final = 300  # turns, that something without turns counts as


class Replays:
    """What was asked for last. Threads share it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """What is kept; None if there is nothing."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def keep(self, key: Hashable, value: Any, turns: int = SMALL) -> None:
        """Keep a value, and forget the oldest ones while there are too many turns."""
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = value, turns
            while len(self._kept) > 1 and sum(count for _, count in self._kept.values()) > KEPT_TURNS:
                self._kept.popitem(last=False)

    async def past(self, connection: Connection, execution_id: int, turn: int, rules: PlaybookRules) -> Past:
        """The past of an execution, with at least so many turns. Raises NotFoundFault, OperatorFault (too long)."""
        past: Past | None = self.get(execution_id)
        if past is None or len(past.turns) < turn:
            past, size = None, 0
            async with aclosing(measure_sizes_of(connection, [execution_id])) as sizes:
                async for [history] in sizes:
                    size = history.bytes
                    _refuse_long(history.turns, size)
            async with aclosing(read_histories(connection, (execution_id,), rules)) as parts:
                async for part in parts:
                    past = past or Past(part.history)
                    past.add(part.readable_turns())
            if past is None:
                raise NotFoundFault(
                    f"execution {execution_id} has no turns yet: its start waits for a broker to read it"
                )
            self.keep(execution_id, past, max(len(past.turns), size // BYTES_OF_TURN))
        if len(past.turns) < turn:
            raise NotFoundFault(f"execution {execution_id} has no turn {turn}: its last is {len(past.turns)}")
        return past


def _refuse_long(turns: int, size: int) -> None:
    if turns > MOST_TURNS:
        raise OperatorFault(f"its history has {turns:,} turns; the console shows the past of up to {MOST_TURNS:,}")
    if size > MOST_BYTES:
        raise OperatorFault(
            f"its history has {size >> 20:,} MiB; the console shows the past of up to {MOST_BYTES >> 20} MiB"
        )
