"""The overview of an operator: what there is now, what started lately, where executions are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import add
from typing import Any, Final

from noetl_broker.service.action import Caller, Role, action
from noetl_broker.service.models import health as models
from noetl_broker.service.models.base import Given
from noetl_broker.service.where import Do, grouped, joined, least, most, of_ids, with_unanswered
from noetl_broker.store.admin import overview
from noetl_broker.store.connect.bucket_connections import BucketConnections
from noetl_broker.store.connect.connection import Connection

MOST_COUNTED: Final = overview.MOST_COUNTED
SPANS: Final = {
    "1h": 3600.0,
    "6h": 21_600.0,
    "24h": 86_400.0,
    "7d": 604_800.0,
    "21d": 1_814_400.0,
}  # of the activity, in seconds
USUAL: Final = "24h"
PARTS: Final = 48  # equal times of the span, in which starts are counted
LISTED: Final = 8  # rows of each list
OLDEST: Final = 50  # live executions


async def of_overview(buckets: BucketConnections, do: Do, given: models.OverviewRequest) -> Any:
    """In all buckets at once. Where they choose different spans, the longest is asked of all."""
    found = await buckets.in_all(lambda connection: do(connection, given))
    spans = {answer["span"] for answer in found.of.values()}
    if len(spans) > 1:
        asked = models.OverviewRequest(span=next(word for word in reversed(SPANS) if word in spans))
        found = await buckets.in_all(lambda connection: do(connection, asked))
    return with_unanswered(_merge([*found.of.values()]), found)


def _merge(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One overview of those of several buckets. Counts are added up; a broker serves all buckets."""
    present = dict(parts[0]["present"])
    for part in parts[1:]:
        present |= {name: _JOIN.get(name, add)(present[name], value) for name, value in part["present"].items()}
    unserved = grouped(
        [row for part in parts for row in part["unserved"]], "type", "pool", jobs=add, seconds=most, execution_id=least,
        limits=lambda one, other: sorted({*one, *other}),
    )  # fmt: skip
    oldest = sorted((row for part in parts for row in part["oldest"]), key=lambda row: row["started_at"])[:OLDEST]
    return {
        "present": present,
        "unserved": sorted(unserved, key=lambda row: -row["seconds"]),
        "oldest": oldest,
        "positions": {key: value for part in parts for key, value in part["positions"].items()},
        "activity": _merge_activities([part["activity"] for part in parts]),
        "span": parts[0]["span"],
    }


_JOIN: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("read_at", "brokers"), least),
    **dict.fromkeys(("oldest_ready_seconds", "oldest_mail_seconds", "leasing_workers"), most),
}


def _merge_activities(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts: dict[tuple[int, str], int] = {}
    for part in parts:
        for index, status, count in part["parts"]:
            counts[index, status] = counts.get((index, status), 0) + count
    playbooks = grouped(
        [row for part in parts for row in part["playbooks"]], "path",
        executions=add, failed=add, live=add, median_seconds=most, last_seconds=least,
    )  # fmt: skip
    failures = grouped(
        [row for part in parts for row in part["failures"]], "path", "step", "type",
        count=add, last_seconds=least, execution_id=most,
    )  # fmt: skip
    return {
        **{name: least(*(part[name] for part in parts)) for name in ("read_at", "first_at")},
        "since": max(part["since"] for part in parts),
        **{name: sum(part[name] for part in parts) for name in ("executions", "recovered")},
        "is_cut": any(part["is_cut"] for part in parts),
        "parts": [[*key, count] for key, count in counts.items()],
        "playbooks": sorted(playbooks, key=lambda row: -row["executions"])[:LISTED],
        "failures": sorted(failures, key=lambda row: row["last_seconds"])[:LISTED],
    }


@action(Role.VIEWER, dict[str, Any], where=of_overview)
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


@action(Role.VIEWER, dict[str, Any], where=joined)
async def list_unserved(connection: Connection, _caller: Caller, _given: Given) -> Any:
    """List types and pools of ready jobs that no worker serves, the oldest first."""
    return {"items": await overview.list_unserved(connection)}


@action(Role.VIEWER, dict[int, Any], where=of_ids)
async def list_positions(connection: Connection, _caller: Caller, given: models.PositionsRequest) -> Any:
    """Say where executions are, by id: the steps that run, and what they wait for."""
    return await overview.list_positions(connection, given.execution_ids)
