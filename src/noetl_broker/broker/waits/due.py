"""The moment at which a wait that a fork or a retry repeats ends or times out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.template.durations import parse_moment

if TYPE_CHECKING:
    from datetime import datetime

    from noetl_broker.broker.state.state import Arrival


def due_of_fork(arrival: Arrival) -> datetime | None:
    """The moment of the original; None: this is no repeated wait, and its time counts from now."""
    return None if arrival.due is None else parse_moment(arrival.due)
