"""How an execution stands, in the words of a NoETL server: its API shows the status of the latest event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.state import COMPLETED, FAILED, RUNNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from noetl_broker.broker.model import Emitted


def in_words_of_noetl(events: Sequence[Emitted], status: str) -> tuple[Emitted, ...]:
    """The events of a turn, the last one with the status of the execution after it; that API knows no CANCELLED."""
    if not events:
        return ()
    shown = status if status in {RUNNING, COMPLETED} else FAILED
    return (*events[:-1], events[-1]._replace(status=shown))
