"""Pauses over the tables in memory: what 0017_pause.sql and its two statements do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from tests.simulation.tables import LIVE, Row, Tables, execution_event

Pending = Callable[[Tables], None]
READY = frozenset({"queued", "retry"})


def ask_to_hold(tables: Tables, execution_id: int, event_type: str) -> bool:
    """Insert a request to pause or resume an execution."""
    if tables.executions[execution_id]["status"] not in LIVE - {"COMPENSATING"}:
        return False
    tables.insert_event(_request(tables, execution_id, event_type))
    return True


def _request(tables: Tables, execution_id: int, event_type: str) -> Row:
    return execution_event(execution_id, event_type, "PENDING", context={}, meta={"number": tables.next_id()})


def admit_executions(tables: Tables) -> int:
    """Admit all queued executions whose path is not paused; return their number."""
    queued = [row for row in tables.executions.values() if row["status"] == "QUEUED" and not row.get("admitted_at")]
    free = [row for row in queued if row["path"] not in tables.paused_paths]
    for row in free:
        _admit(tables, row)
    return len(free)


def _admit(tables: Tables, execution: Row) -> None:
    execution["admitted_at"] = tables.clock()
    tables.insert_event(execution_event(execution["execution_id"], "place_free", "PENDING"))


def set_statuses(*columns: Sequence[Any]) -> Pending:
    """Write new statuses, tell children, and admit queued executions whose path is not paused any more."""
    changes = [*zip(*columns, strict=True)]

    def write(tables: Tables) -> None:
        for owner, status, admitted, event_type, number, _, waits in changes:
            execution = tables.executions[owner]
            if status is not None and execution["status"] in LIVE:
                execution["status"] = status
                if status == "QUEUED" and not admitted and not waits:
                    execution["admitted_at"] = None
                    if execution["path"] not in tables.paused_paths:
                        _admit(tables, execution)
            for child in tables.children_of(owner) if event_type is not None else ():
                if child["status"] in LIVE and child["path"] is not None:
                    event = execution_event(child["execution_id"], event_type, "PENDING", meta={"number": number})
                    tables.insert_event({**event, "context": {"parent_execution_id": owner}})

    return write


def hold_jobs(executions: Sequence[int], after: Sequence[str | None], most: int) -> Pending:
    """Park or release jobs of executions, at most so many of each."""

    def write(tables: Tables) -> None:
        for owner, node in zip(executions, after, strict=True):
            _hold_jobs(tables, owner, node or "", most)

    return write


def _hold_jobs(tables: Tables, owner: int, after: str, most: int) -> None:
    status = tables.executions[owner]["status"]
    rows = [row for key, row in sorted(tables.queue.items()) if key[0] == owner]
    if status in {"PAUSED", "QUEUED"}:
        chosen = [row for row in rows if row["status"] in READY and row["node_id"] > after][:most]
        for row in chosen:
            row |= {"status": "held", "updated_at": tables.clock()}
    elif status == "RUNNING":
        chosen = [row for row in rows if row["status"] == "held"][:most]
        for row in chosen:
            _release(row, tables.clock())
    else:
        return
    if len(chosen) == most:
        event = execution_event(owner, "holds_due", "PENDING", meta={"after": chosen[-1]["node_id"]})
        tables.insert_event(event)


def _release(row: Row, at: datetime) -> None:
    is_retry = row["attempts"] > 0 and row["first_leased_at"] is None
    available_at = max(at, min(row["available_at"], at + (row["available_at"] - row["updated_at"])))
    row |= {"status": "retry" if is_retry else "queued", "available_at": available_at, "updated_at": at}
