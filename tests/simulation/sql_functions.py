"""The SQL functions of producers, workers and the reaper, over the tables in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from noetl_broker.playbook.durations import moment_text
from tests.simulation.tables import EXECUTION, INFINITY, LIVE, MICROSECOND, Row, Tables, execution_event, jsonb_order

STARTS = frozenset({"execution_start", "execution_started", "playbook_started"})


class Reserved(NamedTuple):
    """Ids that a transaction got before its commit: later ids may be visible first."""

    event_id: int
    mail_id: int


def is_undo(node_id: str) -> bool:
    """Tell whether a job undoes a visit or an item."""
    return node_id.endswith("!undo")


def reserve(tables: Tables) -> Reserved:
    """Return the ids for one event of a transaction that commits later."""
    return Reserved(tables.next_id(), tables.next_id())


def start_execution(tables: Tables, path: str, payload: dict[str, Any]) -> int:
    """Start an execution of the latest version of a playbook."""
    playbook = max((row for row in tables.catalog.values() if row["path"] == path), key=lambda row: row["version"])
    number = tables.next_id()
    tables.executions[number] = {
        **EXECUTION,
        "execution_id": number,
        "catalog_id": playbook["catalog_id"],
        "path": path,
        "version": playbook["version"],
        "started_at": tables.clock(),
    }
    tables.insert_event(start_event(tables, number, payload))
    return number


def start_event(tables: Tables, execution_id: int, payload: dict[str, Any], catalog_id: int | None = None) -> Row:
    """Return the event that starts an execution; with `catalog_id` if the execution has no row yet."""
    playbook = tables.catalog[catalog_id or tables.executions[execution_id]["catalog_id"]]
    context = jsonb_order({"path": playbook["path"], "version": playbook["version"], "workload": payload})
    columns = {"catalog_id": playbook["catalog_id"], "node_name": playbook["name"], "context": context}
    return execution_event(execution_id, "execution_start", "STARTED", **columns)


def cancel_execution(tables: Tables, execution_id: int, reason: str) -> bool:
    """Insert a request to cancel an execution."""
    if tables.executions[execution_id]["status"] not in LIVE - {"COMPENSATING"}:
        return False
    tables.insert_event(execution_event(execution_id, "execution_cancel", "CANCELLED", context={"reason": reason}))
    return True


def lease_jobs(tables: Tables, worker_id: str, max_jobs: int, lease_seconds: float) -> list[Row]:
    """Lease jobs: by priority, then by age."""
    at = tables.clock()
    ready = [row for row in tables.open_jobs() if row["status"] in {"queued", "retry"} and row["available_at"] <= at]
    ready.sort(key=lambda row: (-row["priority"], row["available_at"], row["queue_id"]))
    leased = ready[:max_jobs]
    for job in leased:
        if tables.executions[job["execution_id"]]["status"] == "PAUSED":
            tables.leased_while_paused.append(job["node_id"])
        job["status"] = "leased"
        job["attempts"] += 1
        job["worker_id"] = worker_id
        job["lease_until"] = at + timedelta(seconds=lease_seconds)
        job["first_leased_at"] = job["first_leased_at"] or at
        job["updated_at"] = max(at, job["updated_at"] + MICROSECOND)
        meta = {"queue_id": job["queue_id"], "attempt": job["attempts"]}
        _job_event(tables, job, "action_started", "RUNNING", meta, created_at=job["updated_at"], worker_id=worker_id)
    return leased


def heartbeat_job(tables: Tables, job: Row, worker_id: str, attempt: int, lease_seconds: float) -> bool:
    """Extend a lease."""
    if not _is_held(job, worker_id, attempt):
        return False
    job["lease_until"] = tables.clock() + timedelta(seconds=lease_seconds)
    return True


def complete_job(
    tables: Tables, job: Row, worker_id: str, attempt: int, result: Any, reserved: Reserved | None = None
) -> bool:
    """End a job with its result."""
    return _end_job(tables, job, worker_id, attempt, ("done", "action_completed"), reserved, result=jsonb_order(result))


def fail_job(
    tables: Tables,
    job: Row,
    worker_id: str,
    attempt: int,
    error: Any,
    reserved: Reserved | None = None,
    *,
    retryable: bool = True,
) -> bool:
    """End an attempt with an error."""
    ends = ("failed", "action_failed")
    return _end_job(tables, job, worker_id, attempt, ends, reserved, {"retryable": retryable}, error=jsonb_order(error))


def _end_job(
    tables: Tables,
    job: Row,
    worker_id: str,
    attempt: int,
    ends: tuple[str, str],
    reserved: Reserved | None,
    more: Row | None = None,
    **answer: Any,
) -> bool:
    status, event_type = ends
    at = tables.clock()
    if not _is_held(job, worker_id, attempt):
        same = job["worker_id"] == worker_id and job["attempts"] == attempt
        failed = {"retry", "dead", "cancelled"} if job["stop"] else {"retry", "dead"}
        return same and (job["status"] == status or (status == "failed" and job["status"] in failed))
    if job["stop"] and status == "failed":
        status = "cancelled"  # it needs no decision
    job |= {"status": status, "lease_until": None, "updated_at": max(at, job["updated_at"] + MICROSECOND)}
    meta = {"queue_id": job["queue_id"], "attempt": attempt, **(more or {})}
    if reserved is not None:
        answer |= {"event_id": reserved.event_id, "mail_id": reserved.mail_id}
    status = "COMPLETED" if status == "done" else "FAILED"
    _job_event(tables, job, event_type, status, meta, created_at=job["updated_at"], worker_id=worker_id, **answer)
    return True


def _is_held(job: Row, worker_id: str, attempt: int) -> bool:
    return bool(job["status"] == "leased" and job["worker_id"] == worker_id and job["attempts"] == attempt)


def _job_event(tables: Tables, job: Row, event_type: str, status: str, meta: Row | None, **columns: Any) -> None:
    """Insert an event of a job."""
    tables.insert_event(
        {
            **{key: job[key] for key in ("execution_id", "catalog_id", "node_id", "node_name", "node_type")},
            "parent_event_id": job["event_id"],
            "event_type": event_type,
            "status": status,
            "meta": meta,
            **columns,
        }
    )


def reap(tables: Tables, max_lost_leases: int) -> Row:
    """Reap: timeouts and lost leases; return the count of each."""
    at = tables.clock()
    timed_out = [
        row
        for row in tables.open_jobs()
        if row["status"] in {"leased", "delegated", "held"} and not row["stop"] and _is_timed_out(row, at)
    ]
    for job in timed_out:
        job |= {"status": "failed", "stop": job["status"] == "leased", "lease_until": None, "updated_at": at}
        _fail(tables, job, "the action ran too long", "timeout", retryable=True)
    expired = [row for row in tables.open_jobs() if row["status"] == "leased" and row["lease_until"] < at]
    lost = 0
    for job in expired:
        status = "queued" if job["lost_leases"] < max_lost_leases and not job["awaited"] else "failed"
        if status == "queued" and tables.executions[job["execution_id"]]["status"] == "PAUSED":
            status = "held"
        if job["stop"] or tables.executions[job["execution_id"]]["status"] not in LIVE:
            status = "cancelled"  # nothing waits for it
        job |= {"status": status, "lease_until": None, "updated_at": at, "lost_leases": job["lost_leases"] + 1}
        if status == "failed":
            lost += 1
            _fail(tables, job, "lost its lease too often", "lost_lease", retryable=False)
    return {"requeued": len(expired) - lost, "lost": lost, "timed_out": len(timed_out)}


def fire_timers(tables: Tables) -> int:
    """Turn the timers that are due into events; return their number."""
    at = tables.clock()
    due = [row for row in tables.timers if row["due_at"] <= at]
    tables.timers = [row for row in tables.timers if row["due_at"] > at]
    for timer in due:
        if tables.executions[timer["execution_id"]]["status"] in LIVE:
            _fire(tables, timer)
    return len(due)


def decide_approval(tables: Tables, node: tuple[int, str], by: str, form: Row, *, approved: bool) -> bool:
    """Decide an approval; false if it was decided, timed out or closed before."""
    wait = tables.waits[node]
    if wait["status"] != "open":
        return False
    timers = [row for row in tables.timers if (row["execution_id"], row["node_id"]) == node]
    if "times_out_at" in json.loads(wait["details"]) and not timers:
        return False
    tables.timers = [row for row in tables.timers if row not in timers]
    wait["status"] = "signalled"
    tables.insert_event(
        {
            "execution_id": node[0],
            "event_type": "approval_decided",
            "node_id": node[1],
            "node_name": wait["step"],
            "node_type": "approval",
            "status": "RUNNING",
            "context": {"approved": approved, "by": by, "at": moment_text(tables.clock()), "form": form},
        }
    )
    return True


def _fire(tables: Tables, timer: Row) -> None:
    owner = timer["execution_id"]
    if timer["purpose"] == "deadline":
        tables.insert_event(execution_event(owner, "execution_deadline", "FAILED"))
        return
    if timer["purpose"] == "child":
        job = tables.queue[owner, timer["node_id"]]
        _job_event(tables, job, "child_due", "PENDING", {"attempt": job["attempts"] + 1})
        return
    tables.insert_event(
        {
            "execution_id": owner,
            "event_type": "timer_due",
            "node_id": timer["node_id"],
            "node_name": timer["step"],
            "node_type": "wait",
            "status": "RUNNING",
            "context": {"due_at": moment_text(timer["due_at"]), "purpose": timer["purpose"]},
        }
    )


def _is_timed_out(job: Row, at: datetime) -> bool:
    if job["timeout_seconds"] is None or job["first_leased_at"] is None:
        return False
    return bool(job["first_leased_at"] + timedelta(seconds=job["timeout_seconds"]) < at)


def _fail(tables: Tables, job: Row, message: str, kind: str, *, retryable: bool) -> None:
    meta = {"queue_id": job["queue_id"], "attempt": job["attempts"], "retryable": retryable}
    error = {"message": message, "type": kind}
    _job_event(tables, job, "action_failed", "FAILED", meta, error=error, worker_id=job["worker_id"])


def due_times(tables: Tables) -> Iterable[Any]:
    """Yield the times at which something becomes due."""
    for job in tables.open_jobs():
        if job["status"] in {"queued", "retry"} and job["available_at"] != INFINITY:
            yield job["available_at"]
        if job["status"] == "leased":
            yield job["lease_until"]
        if (
            job["status"] in {"leased", "delegated", "held"}
            and job["timeout_seconds"] is not None
            and job["first_leased_at"]
        ):
            yield job["first_leased_at"] + timedelta(seconds=job["timeout_seconds"])
    yield from (timer["due_at"] for timer in tables.timers)
