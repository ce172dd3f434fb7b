"""Reads the path of an execution in one snapshot, for a diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from noetl_broker.broker.model.event import Emitted
from noetl_broker.errors import NotFoundFault
from noetl_broker.history.path import ExecutionPath, Items, StepJob, StepStatus, trace_path
from noetl_broker.node_ids import parse_node
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.model import Playbook
from noetl_broker.store.admin.archive import archived_fault
from noetl_broker.store.admin.executions import find_execution
from noetl_broker.store.admin.history import Versions
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

Row = Any  # of the driver, read by column name
Rows = Sequence[Row]


async def load_execution_path(
    connection: Connection, execution_id: int, rules: PlaybookRules
) -> tuple[Playbook, ExecutionPath]:
    """The playbook and the path of an execution; raises NotFoundFault if there is no such execution."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        execution = await find_execution(connection, execution_id)
        if (archived := await archived_fault(connection, execution_id)) is not None:
            raise archived
        [found] = await connection.fetch(sql("history_heads"), [execution_id])
        versions = Versions(rules)
        await versions.load(connection, {found["catalog_id"]} - {None})
        playbook = versions.of(found)
        if isinstance(playbook, str):
            raise NotFoundFault(f"execution {execution_id} cannot be drawn: {playbook}")
        rows = {
            name: await connection.fetch(sql(statement), execution_id, *arguments)
            for name, statement, arguments in (
                ("steps", "list_steps", ()),
                ("jobs", "list_open_jobs", (0,)),  # none of items
                ("items", "path_items", ()),
                ("children", "path_children", ()),
                ("events", "path_events", ()),
            )
        }
    waiting = (found["tokens"] or {}).get("waiting") or {}
    steps = _step_statuses(rows, waiting)
    arcs = [arrival["arc"] for arrivals in waiting.values() for arrival in arrivals]
    names = ("execution_id", "status", "started_at", "ended_at", "read_at", "parent_execution_id", "error", "version")
    return playbook, ExecutionPath(
        **{name: execution[name] for name in names},
        steps=steps,
        trace=trace_path(playbook, [_emitted(row) for row in rows["events"]], steps, arcs),
    )


def _step_statuses(rows: Mapping[str, Rows], waiting: Mapping[str, Sequence[Any]]) -> dict[str, StepStatus]:
    """The status of each step, from its row and the rows of its latest visit."""
    visits = {row["step"]: row["visits"] for row in rows["steps"]}
    jobs = _latest(rows["jobs"], visits)
    items = _latest(rows["items"], visits)
    children = _latest(rows["children"], visits)
    return {
        row["step"]: StepStatus(
            status=row["status"] or "PENDING",
            visits=row["visits"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            arrived=len(waiting.get(row["step"], ())),
            job=_job(jobs.get(row["step"], ())),
            items=_items(items.get(row["step"], ())),
            children=tuple(child["execution_id"] for child in children.get(row["step"], ())),
        )
        for row in rows["steps"]
    }


def _latest(rows: Rows, visits: Mapping[str, int]) -> dict[str, list[Row]]:
    """The rows of each step's latest visit, by step."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        step, visit, _ = parse_node(row["node_id"], None)
        if step is not None and visit == visits.get(step):
            found.setdefault(step, []).append(row)
    return found


def _job(rows: Rows) -> StepJob | None:
    """The step's own job, not the jobs of iterator items."""
    own = next((row for row in rows if parse_node(row["node_id"], None).item_index is None), None)
    return None if own is None else StepJob(own["status"], own["worker_id"], own["available_at"])


def _items(rows: Rows) -> Items | None:
    return Items(*(rows[0][name] for name in Items._fields)) if rows else None


def _emitted(row: Row) -> Emitted:
    step, visit, _ = parse_node(row["node_id"], row["node_name"])
    of_execution = row["node_type"] == "playbook" and row["event_type"].startswith("execution")
    return Emitted(
        row["event_type"],
        row["status"],
        None if of_execution else step,
        visit or 0,
        row["node_type"],
        row["meta"],
        error=row["error"],
    )
