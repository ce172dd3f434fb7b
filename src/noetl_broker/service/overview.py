"""The overview of an operator: what there is now, what started lately, where executions are."""

from __future__ import annotations

from typing import Any, Final

from noetl_broker.service.action import Caller, Role, action
from noetl_broker.service.models import health as models
from noetl_broker.service.models.base import Given
from noetl_broker.store.admin import overview
from noetl_broker.store.connect.connection import Connection

MOST_COUNTED: Final = overview.MOST_COUNTED
SPANS: Final = {"1h": 3600.0, "6h": 21_600.0, "24h": 86_400.0, "7d": 604_800.0}  # of the activity, in seconds
USUAL: Final = "24h"
PARTS: Final = 48  # equal times of the span, in which starts are counted
LISTED: Final = 8  # rows of each list
OLDEST: Final = 50  # live executions


@action(Role.VIEWER, dict[str, Any])
async def show_overview(connection: Connection, _caller: Caller, given: models.OverviewRequest) -> Any:
    """Show counts of the present, types of jobs that nobody takes, the oldest live executions, and the activity.

    Without a known span, it is the shortest span that shows the last day.
    """
    oldest = await overview.list_oldest_live(connection, limit=OLDEST)
    span = given.span if given.span in SPANS else USUAL
    sizes = {"parts": PARTS, "most": LISTED}
    activity = await overview.load_activity(connection, seconds=SPANS[span], **sizes)
    if given.span not in SPANS and activity["first_at"] is not None:
        age = (activity["read_at"] - activity["first_at"]).total_seconds()
        shorter = next((word for word, seconds in SPANS.items() if age <= seconds), USUAL)
        if shorter != span:
            span, activity = shorter, await overview.load_activity(connection, seconds=SPANS[shorter], **sizes)
    return {
        "present": await overview.load_present(connection),
        "unserved": await overview.list_unserved(connection),
        "oldest": oldest,
        "positions": await overview.list_positions(connection, [row["execution_id"] for row in oldest]),
        "activity": activity,
        "span": span,
    }


@action(Role.VIEWER, list[dict[str, Any]])
async def list_unserved(connection: Connection, _caller: Caller, _given: Given) -> Any:
    """List types of ready jobs that no worker leases, the oldest first."""
    return await overview.list_unserved(connection)


@action(Role.VIEWER, dict[int, Any])
async def list_positions(connection: Connection, _caller: Caller, given: models.PositionsRequest) -> Any:
    """Say where executions are, by id: the steps that run, and what they wait for."""
    return await overview.list_positions(connection, given.execution_ids)
