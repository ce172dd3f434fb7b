"""The pasts of a few executions, kept in the process: a slider asks for one turn after the other."""

from __future__ import annotations

import threading
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
KEPT_EXPLANATIONS: Final = 100
BYTES_OF_TURN: Final = 2_048  # a history with larger turns counts as one of more turns


class Replays:
    """The pasts that were asked for last. Threads share them."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Past, int]] = {}  # with the turns that it counts as; the last used one is last
        self.explanations: dict[Hashable, dict[str, Any]] = {}  # of long executions that ended
        self._lock = threading.Lock()

    def keep_explanation(self, key: Hashable, explanation: dict[str, Any]) -> None:
        """Keep an explanation; the oldest one goes."""
        with self._lock:
            self.explanations[key] = explanation
            if len(self.explanations) > KEPT_EXPLANATIONS:
                del self.explanations[next(iter(self.explanations))]

    async def past(self, connection: Connection, execution_id: int, turn: int, rules: PlaybookRules) -> Past:
        """The past of an execution, with at least so many turns. Raises NotFoundFault, OperatorFault (too long)."""
        past, count = self._kept.get(execution_id, (None, 0))
        if past is None or len(past.turns) < turn:
            past, count = await _replay(connection, execution_id, rules)
        with self._lock:
            self._kept.pop(execution_id, None)
            self._kept[execution_id] = past, count
            while len(self._kept) > 1 and sum(count for _, count in self._kept.values()) > KEPT_TURNS:
                del self._kept[next(iter(self._kept))]
        if len(past.turns) < turn:
            raise NotFoundFault(f"execution {execution_id} has no turn {turn}: its last is {len(past.turns)}")
        return past


async def _replay(connection: Connection, execution_id: int, rules: PlaybookRules) -> tuple[Past, int]:
    past, size, shown = None, 0, "the console shows the past of up to"
    async with aclosing(measure_sizes_of(connection, [execution_id])) as sizes:
        async for [history] in sizes:
            size = history.bytes
            if history.turns > MOST_TURNS:
                raise OperatorFault(f"its history has {history.turns:,} turns; {shown} {MOST_TURNS:,}")
            if size > MOST_BYTES:
                raise OperatorFault(f"its history has {size >> 20:,} MiB; {shown} {MOST_BYTES >> 20} MiB")
    async with aclosing(read_histories(connection, (execution_id,), rules)) as parts:
        async for part in parts:
            past = past or Past(part.history)
            past.add(part.readable_turns())
    if past is None:
        raise NotFoundFault(f"execution {execution_id} has no turns yet: its start waits for a broker to read it")
    return past, max(len(past.turns), size // BYTES_OF_TURN)
