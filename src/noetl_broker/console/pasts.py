"""The pasts of a few executions, kept in the process: the slider asks for one turn after another."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from noetl_broker.errors import NotFoundFault, OperatorFault
from noetl_broker.history.past import Past
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service.histories import read_histories
from noetl_broker.store.admin.history_scan import measure_sizes_of
from noetl_broker.store.connect.connection import Connection

MOST_TURNS: Final = 10_000  # of a history that is replayed for a page
MOST_BYTES: Final = 32 << 20  # of a history, as stored
KEPT_TURNS: Final = 30_000  # of all kept pasts
KEPT_BYTES: Final = 64 << 20


@dataclass(slots=True)
class _Kept:
    """A past, the bytes of its history, and what else was read of an execution that has ended."""

    past: Past
    size: int
    ended: Any = None


class Pasts:
    """The pasts that were asked for last. Threads share them."""

    def __init__(self, *, most_turns: int = MOST_TURNS) -> None:
        """None is kept yet; a history with more than `most_turns` is refused."""
        self._most_turns = most_turns
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    async def after(self, connection: Connection, execution_id: int, turn: int, rules: PlaybookRules) -> Past:
        """The past of an execution, with at least so many turns. Raises NotFoundFault, OperatorFault (too long)."""
        kept = self._find(execution_id, turn) or await self._read(connection, execution_id, rules)
        if len(kept.turns) < turn:
            raise NotFoundFault(f"execution {execution_id} has no turn {turn}: its last is {len(kept.turns)}")
        return kept

    def _find(self, execution_id: int, turn: int) -> Past | None:
        with self._lock:
            found = self._kept.get(execution_id)
            if found is None or len(found.past.turns) < turn:
                return None
            self._kept.move_to_end(execution_id)
            return found.past

    def ended(self, execution_id: int) -> Any:
        """The past that `keep_ended` kept; None if it kept none."""
        with self._lock:
            found = self._kept.get(execution_id)
            return None if found is None else found.ended

    def keep_ended(self, execution_id: int, value: Any) -> None:
        """Keep what was read of an execution that has ended, beside its past."""
        with self._lock:
            if execution_id in self._kept:
                self._kept[execution_id].ended = value

    async def _read(self, connection: Connection, execution_id: int, rules: PlaybookRules) -> Past:
        past: Past | None = None
        size = 0
        async with aclosing(measure_sizes_of(connection, [execution_id])) as sizes:
            async for [history] in sizes:
                size = history.bytes
                _refuse_long(history.turns, size, self._most_turns)
        async with aclosing(read_histories(connection, (execution_id,), rules)) as parts:
            async for part in parts:
                past = past or Past(part.history)
                past.add(part.readable_turns())
        if past is None:
            raise NotFoundFault(f"execution {execution_id} has no turns yet: its start waits for a broker to read it")
        with self._lock:
            self._kept[execution_id] = _Kept(past, size)
            self._kept.move_to_end(execution_id)
            self._drop()
        return past

    def _drop(self) -> None:
        """Drop the oldest ones while there are too many turns or bytes; the last one stays."""
        while len(self._kept) > 1 and (
            sum(len(kept.past.turns) for kept in self._kept.values()) > KEPT_TURNS
            or sum(kept.size for kept in self._kept.values()) > KEPT_BYTES
        ):
            self._kept.popitem(last=False)


def _refuse_long(turns: int, size: int, most_turns: int) -> None:
    if turns > most_turns:
        raise OperatorFault(f"its history has {turns:,} turns; the console shows the past of up to {most_turns:,}")
    if size > MOST_BYTES:
        raise OperatorFault(
            f"its history has {size >> 20:,} MiB; the console shows the past of up to {MOST_BYTES >> 20} MiB"
        )
