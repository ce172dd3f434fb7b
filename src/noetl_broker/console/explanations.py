"""Explanations of long executions that ended, kept in the process: each is made by a replay of all turns."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from noetl_broker.broker.state.state import is_live

MOST_KEPT: Final = 100
SETTLED: Final = timedelta(minutes=1)  # after an end; what starts because of it has started


class Explanations:
    """The explanations that were asked for last. Threads share them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> dict[str, Any] | None:
        """The kept explanation; None if there is none."""
        with self._lock:
            return self._kept.get(key)

    def keep(self, key: Hashable, why: dict[str, Any]) -> None:
        """Keep an explanation, and forget the oldest."""
        with self._lock:
            self._kept[key] = why
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)


def is_settled(details: Mapping[str, Any], origin: Mapping[str, Any]) -> bool:
    """Whether nothing changes any more that an explanation says: no retry, no undo, no dead letter."""
    ended = details["ended_at"]
    is_old = ended is not None and not is_live(details["status"]) and datetime.now(UTC) - ended > SETTLED
    return is_old and not (origin["forks"] or details["undo"] or details["dead_letters"])
