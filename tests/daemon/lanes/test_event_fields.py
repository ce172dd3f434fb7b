"""What the daemon's log lines say about an event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from noetl_broker.broker.model.event import Event
from noetl_broker.daemon.batch import event_fields
from noetl_broker.store.turn.claimed_rows import Mail


@pytest.mark.parametrize(
    "event, fields",
    [
        (Event("action_failed", "fetch", 1, attempt=2), {"step": "fetch", "visit": 1, "attempt": 2}),
        (Event("iteration_due", "fetch", 2, item_index=3), {"step": "fetch", "visit": 2, "item": 3}),
        (Event("execution_cancel"), {}),
    ],
)
def test_a_line_names_what_the_event_names(event: Event, fields: dict[str, Any]) -> None:
    """Step, visit, item and attempt."""
    assert event_fields([Mail(1, 2, event, datetime.now(UTC), 0.0, None)]) == fields
