"""Reads the visits of an execution in the order of time, and one visit with its inputs and its outcome."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import is_live
from noetl_broker.broker.writing.inputs import inputs_of_job
from noetl_broker.history.visit_spans import ExecutionSpans, lanes_of
from noetl_broker.node_ids import node_id, parse_node
from noetl_broker.store.admin.executions import Entry
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.json_codec import load_json
from noetl_broker.store.queries import sql

MOST_VISITS = 5_000
MOST_CHILDREN = 200
MOST_EVENTS = 300  # of one visit


class VisitDetails(NamedTuple):
    """One visit or item: what it was given, its events, and what came of it.

    `result` is that of the last event with one. `has_ended` is false while it is open. `attempts` of `max_attempts`: of
    its job; None if it has none.
    """

    node_id: str
    inputs: JSON
    result: JSON
    error: JSON
    events: list[Entry]
    is_cut: bool
    attempts: int | None
    max_attempts: int | None
    item_status: str | None
    child_execution_id: int | None


async def load_spans(
    connection: Connection,
    execution: Mapping[str, Any],
    *,
    went_on: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
) -> ExecutionSpans:
    """The visits and children of an execution, of which this is the row. `went_on` and `notes` as of `lanes_of`."""
    execution_id = execution["execution_id"]
    rows = [dict(row) for row in await connection.fetch(sql("visit_spans"), execution_id, MOST_VISITS + 1)]
    children = await list_children(connection, execution_id, limit=MOST_CHILDREN + 1)
    for row in (*rows, *children):
        node = parse_node(row["node_id"], None)
        row["step"], row["visit"] = row.get("step") or node.step, node.visit or 1
    ended_at = execution["ended_at"]
    until_at = ended_at or execution["read_at"]
    queued = await connection.fetchrow(sql("queued_span"), execution_id)
    return ExecutionSpans(
        execution_id,
        execution["path"],
        execution["started_at"],
        until_at,
        ended_at is None,
        lanes_of(
            rows[:MOST_VISITS],
            children[:MOST_CHILDREN],
            is_live=is_live(execution["status"]),
            went_on=went_on,
            notes=notes,
        ),
        queued_until=None if queued is None else queued["admitted_at"] or until_at,
        left_out=len(rows) > MOST_VISITS,
        children_left_out=len(children) > MOST_CHILDREN,
    )


async def list_children(connection: Connection, execution_id: int, *, limit: int, after: int = 0) -> list[Entry]:
    """Children by their ids: those that run, and those that answered."""
    return [dict(row) for row in await connection.fetch(sql("child_spans"), execution_id, after, limit)]


async def load_visit(
    connection: Connection, execution_id: int, step: str, visit: int, index: int | None = None
) -> VisitDetails:
    """A visit, or one of its items."""
    node, parent = node_id(execution_id, step, visit, index), node_id(execution_id, step, visit)
    [given] = await connection.fetch(sql("visit_request"), execution_id, node, parent, index)
    rows = [dict(row) for row in await connection.fetch(sql("visit_events"), execution_id, node, MOST_EVENTS + 1)]
    rows = [row for row in rows if index is None or row["event_type"] != "execution_start"]
    results = [row["result"] for row in rows if row["result"] is not None]
    errors = [row["error"] for row in rows if row["error"] is not None]
    ended = next((row for row in reversed(rows) if row["status"] in {"COMPLETED", "FAILED", "CANCELLED"}), None)
    failed = ended is not None and ended["status"] == "FAILED"
    return VisitDetails(
        node,
        _inputs(given),
        results[-1] if results and not failed else None,
        given["item_error"] or (errors[-1] if errors and failed else None),
        rows[:MOST_EVENTS],
        len(rows) > MOST_EVENTS,
        given["attempts"],
        given["max_attempts"],
        given["item_status"],
        given["child_execution_id"],
    )


def _inputs(given: Any) -> JSON:
    """The inputs of a job or a wait; of an item without a job, the item."""
    if given["action"] is not None:
        action = load_json(given["action"])
        return inputs_of_job(action).values if isinstance(action, dict) else None
    if given["request"] is not None:
        return inputs_of_job(given["request"]).values if isinstance(given["request"], dict) else None
    return given["item"]


async def find_following(connection: Connection, execution_id: int, step: str) -> str | None:
    """The step that comes after this one: the first that was visited, else the first; None if none does."""
    found: str | None = await connection.fetchval(sql("following_step"), execution_id, step)
    return found


async def load_origin(connection: Connection, execution_id: int) -> Entry:
    """Its `turns`, `workload`, `idempotency_key`, and `forks`: the latest executions that were made from it."""
    row = await connection.fetchrow(sql("execution_origin"), execution_id)
    return {"turns": 0, "workload": None, "idempotency_key": None, "forks": []} if row is None else dict(row)
