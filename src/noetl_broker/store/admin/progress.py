"""Reads the progress of iterators, and one item of an iterator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from noetl_broker.errors import NotFoundFault
from noetl_broker.explain.item import Item
from noetl_broker.explain.progress import FailedItem, ItemErrors, Progress
from noetl_broker.node_ids import ItemName, node_id, visit_name
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

MOST_VISITS = 100  # of iterators in one answer
MOST_ERROR_TYPES = 5  # that are named
MOST_FAILED_ITEMS = 20  # that are listed
PACE_ITEMS = 200  # the last items, whose ends give the pace
LATE_SECONDS = 4.0  # after a report of a worker: it reports each change within two
MOMENT = 0.001  # seconds


async def load_progress(connection: Connection, execution_id: int) -> list[Progress]:
    """The latest and the open visits of each iterator that has rows for its items, by step and visit.

    It includes visits whose one worker reports its progress, or has returned the results of all items.
    """
    rows = await connection.fetch(sql("load_progress"), execution_id, MOST_VISITS, MOST_ERROR_TYPES, PACE_ITEMS)
    reports = await connection.fetch(sql("load_reported_progress"), execution_id, MOST_VISITS)
    ended = await connection.fetch(sql("load_ended_progress"), execution_id, MOST_VISITS, MOST_ERROR_TYPES)
    found = [_progress(dict(row)) for row in rows]
    found += [_ended_progress(dict(row)) for row in ended]
    found += [reported_progress(row["step"], row["visit"], dict(row)) for row in reports]
    return sorted(found, key=lambda progress: (progress["step"], progress["visit"]))


def _ended_progress(row: Mapping[str, Any]) -> Progress:
    """The numbers of a visit whose one worker has ended: all its items have."""
    return cast(
        "Progress",
        {**row, "started": row["total"], "ended": row["total"], "cancelled": 0, "held": 0, "is_open": False}
        | {"pace": None, "seconds_left": None},
    )


async def load_failed_items(connection: Connection, execution_id: int, step: str, visit: int) -> list[FailedItem]:
    """The first MOST_FAILED_ITEMS failed items of a visit, by index."""
    rows = await connection.fetch(sql("load_failed_items"), execution_id, step, visit, MOST_FAILED_ITEMS)
    return [FailedItem(row["index"], row["error"]) for row in rows]


def reported_progress(step: str, visit: int, row: Mapping[str, Any]) -> Progress:
    """The progress of a visit that one worker runs, from what `noetl.report_progress` keeps.

    A pace is that of the report. If the next report is overdue, the pace is calculated as if an item ended now.
    """
    report = row["progress"]
    failed, total = report.get("failed", 0), report["total"]
    errors = sorted(report.get("errors", {}).items(), key=lambda error: (-error[1], error[0]))
    pace = min(report["pace"], 1 / max(row["age"] - LATE_SECONDS, MOMENT))
    ended = report["done"] + failed
    return Progress(
        step=step,
        visit=visit,
        total=total,
        started=ended,
        ended=ended,
        failed=failed,
        cancelled=0,
        retrying=0,
        held=0,
        is_open=True,
        errors=[ItemErrors(type=name or None, count=count, first=None) for name, count in errors],
        other_errors=failed - sum(count for _, count in errors),
        other_types=report.get("other_types", 0),
        last_ended_at=row["at"],
        pace=pace,
        seconds_left=(total - ended) / pace if pace else None,
    )


def _progress(row: dict[str, object]) -> Progress:
    progress: Progress = {**row, "seconds_left": None}  # type: ignore[typeddict-item]
    if progress["pace"]:
        progress["seconds_left"] = (progress["total"] - progress["ended"]) / progress["pace"]
    return progress


async def has_step(connection: Connection, execution_id: int, step: str) -> bool:
    """Whether an execution has a step of this name. Its name may look like that of an item."""
    return await connection.fetchval(sql("latest_visit"), execution_id, step) is not None


def no_step_fault(execution_id: int, step: str) -> NotFoundFault:
    """The error for a step that an execution does not have."""
    return NotFoundFault(
        f"execution {execution_id} has no step {step}; noetl-broker status {execution_id} lists its steps"
    )


async def load_item(connection: Connection, execution_id: int, name: ItemName) -> Item:
    """One item of an iterator. Raises NotFoundFault that says which items there are."""
    latest = await connection.fetchval(sql("latest_visit"), execution_id, name.step)
    if latest is None:
        raise no_step_fault(execution_id, name.step)
    visit = name.visit or max(latest, 1)
    node = node_id(execution_id, name.step, visit)
    row = await connection.fetchrow(sql("load_item"), execution_id, node, name.item_index)
    by_worker: dict[str, Any] = {}
    if row is None:
        total = await connection.fetchval(sql("count_items"), execution_id, node)
        row = None if total else await connection.fetchrow(
            sql("load_worker_item"), execution_id, name.step, visit, name.item_index)  # fmt: skip
        if row is None or not row["is_item"]:
            raise _no_item(execution_id, name, visit, total)
        by_worker = {"by_worker": True, "status": "COMPLETED" if row["error"] is None else "FAILED"}
    about = {"execution_id": execution_id, "step": name.step, "visit": visit, "index": name.item_index}
    missing = dict.fromkeys(Item.__annotations__)
    found = {**missing, **dict(row), **about, "by_worker": False, **by_worker}
    return cast("Item", {key: found[key] for key in Item.__annotations__})


def _no_item(execution_id: int, name: ItemName, visit: int, total: int) -> NotFoundFault:
    of = f"{visit_name(name.step, visit)} of execution {execution_id}"
    if total:
        return NotFoundFault(f"{of} has no item {name.item_index}: its items are 0 to {total - 1}")
    return NotFoundFault(
        f"{of} has no item {name.item_index} that is known: it does not iterate, or has not begun;"
        " if one worker does all items, they are known when its job ends"
    )
