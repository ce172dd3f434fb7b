"""What producers and workers call, and what time brings about: the functions of migrations 0003 to 0005 in memory."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.simulation.tables import EXECUTION, INFINITY, MICROSECOND, Row, Tables, in_order

STARTS = frozenset({"execution_start", "execution_started", "playbook_started"})


class Reserved(NamedTuple):
    """Ids that a transaction was given before it committed: others that began later may be seen before it."""

    event_id: int
    mail_id: int


def reserve(tables: Tables) -> Reserved:
    """Begin a transaction that will insert one event."""
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
    """Return the event that starts an execution; `catalog_id` where it has no row yet."""
    playbook = tables.catalog[catalog_id or tables.executions[execution_id]["catalog_id"]]
    return {
        "execution_id": execution_id,
        "catalog_id": playbook["catalog_id"],
        "event_type": "execution_start",
        "node_id": str(execution_id),
        "node_name": playbook["name"],
        "node_type": "playbook",
        "status": "STARTED",
        "context": in_order({"path": playbook["path"], "version": playbook["version"], "workload": payload}),
    }


def cancel_execution(tables: Tables, execution_id: int, reason: str) -> bool:
    """Ask the broker to cancel an execution."""
    if tables.executions[execution_id]["status"] != "RUNNING":
        return False
    tables.insert_event(
        {
            "execution_id": execution_id,
            "event_type": "execution_cancel",
            "node_id": str(execution_id),
            "node_type": "playbook",
            "status": "CANCELLED",
            "context": {"reason": reason},
        }
    )
    return True


def lease_jobs(tables: Tables, worker_id: str, max_jobs: int, lease_seconds: float) -> list[Row]:
    """Lease jobs: higher priority first, then the oldest."""
    at = tables.clock()
    ready = [row for row in tables.queue.values() if row["status"] in {"queued", "retry"} and row["available_at"] <= at]
    ready.sort(key=lambda row: (-row["priority"], row["available_at"], row["queue_id"]))
    leased = ready[:max_jobs]
    for job in leased:
        job["status"] = "leased"
        job["attempts"] += 1
        job["worker_id"] = worker_id
        job["lease_until"] = at + timedelta(seconds=lease_seconds)
        job["first_leased_at"] = job["first_leased_at"] or at
        job["updated_at"] = max(at, job["updated_at"] + MICROSECOND)
        meta = {"queue_id": job["queue_id"], "attempt": job["attempts"]}
        _tell(tables, job, "action_started", "RUNNING", meta, created_at=job["updated_at"], worker_id=worker_id)
    return leased


def heartbeat_job(tables: Tables, job: Row, worker_id: str, attempt: int, lease_seconds: float) -> bool:
    """Prolong a lease."""
    if not _is_held(job, worker_id, attempt):
        return False
    job["lease_until"] = tables.clock() + timedelta(seconds=lease_seconds)
    return True


def complete_job(
    tables: Tables, job: Row, worker_id: str, attempt: int, result: Any, reserved: Reserved | None = None
) -> bool:
    """End a job with its result."""
    return _end_job(tables, job, worker_id, attempt, ("done", "action_completed"), reserved, result=in_order(result))


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
    return _end_job(tables, job, worker_id, attempt, ends, reserved, {"retryable": retryable}, error=in_order(error))


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
        return same and (job["status"] == status or (status == "failed" and job["status"] in {"retry", "dead"}))
    job |= {"status": status, "lease_until": None, "updated_at": max(at, job["updated_at"] + MICROSECOND)}
    meta = {"queue_id": job["queue_id"], "attempt": attempt, **(more or {})}
    if reserved is not None:
        answer |= {"event_id": reserved.event_id, "mail_id": reserved.mail_id}
    status = "COMPLETED" if status == "done" else "FAILED"
    _tell(tables, job, event_type, status, meta, created_at=job["updated_at"], worker_id=worker_id, **answer)
    return True


def _is_held(job: Row, worker_id: str, attempt: int) -> bool:
    return bool(job["status"] == "leased" and job["worker_id"] == worker_id and job["attempts"] == attempt)


def _tell(tables: Tables, job: Row, event_type: str, status: str, meta: Row | None, **columns: Any) -> None:
    """Write an event of a job."""
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
    """See to what time alone brings about; tells how much there was of each."""
    at = tables.clock()
    timed_out = [row for row in tables.queue.values() if row["status"] in {"leased", "delegated"} and _is_late(row, at)]
    for job in timed_out:
        job |= {"status": "failed", "lease_until": None, "updated_at": at}
        _fail(tables, job, "the action ran too long", "timeout", retryable=True)
    expired = [row for row in tables.queue.values() if row["status"] == "leased" and row["lease_until"] < at]
    lost = 0
    for job in expired:
        status = "queued" if job["lost_leases"] < max_lost_leases else "failed"
        if tables.executions[job["execution_id"]]["status"] != "RUNNING":
            status = "cancelled"  # nobody waits for it any more
        job |= {"status": status, "lease_until": None, "updated_at": at, "lost_leases": job["lost_leases"] + 1}
        if status == "failed":
            lost += 1
            _fail(tables, job, "lost its lease too often", "lost_lease", retryable=False)
    overdue = _past_deadline(tables, at)
    due = [row for row in tables.queue.values() if row["status"] == "delegated" and row["available_at"] <= at]
    for job in due:
        job |= {"available_at": INFINITY, "first_leased_at": at, "updated_at": at}
        _tell(tables, job, "child_due", "PENDING", {"attempt": job["attempts"] + 1})
    return {
        "requeued": len(expired) - lost,
        "lost": lost,
        "timed_out": len(timed_out),
        "overdue": overdue,
        "woken": len(due),
    }


def _is_late(job: Row, at: datetime) -> bool:
    if job["timeout_seconds"] is None or job["first_leased_at"] is None:
        return False
    return bool(job["first_leased_at"] + timedelta(seconds=job["timeout_seconds"]) < at)


def _fail(tables: Tables, job: Row, message: str, kind: str, *, retryable: bool) -> None:
    meta = {"queue_id": job["queue_id"], "attempt": job["attempts"], "retryable": retryable}
    error = {"message": message, "type": kind}
    _tell(tables, job, "action_failed", "FAILED", meta, error=error, worker_id=job["worker_id"])


def _past_deadline(tables: Tables, at: datetime) -> int:
    past = [row for row in tables.states.values() if row["deadline_at"] is not None and row["deadline_at"] < at]
    for state in past:
        state["deadline_at"] = None
        execution_id = state["execution_id"]
        if tables.executions[execution_id]["status"] == "RUNNING":
            tables.insert_event(
                {
                    "execution_id": execution_id,
                    "event_type": "execution_deadline",
                    "node_id": str(execution_id),
                    "node_type": "playbook",
                    "status": "FAILED",
                }
            )
    return len(past)


def moments(tables: Tables) -> Iterable[Any]:
    """Yield the times at which something is due by itself."""
    for job in tables.queue.values():
        if job["status"] in {"queued", "retry", "delegated"} and job["available_at"] != INFINITY:
            yield job["available_at"]
        if job["status"] == "leased":
            yield job["lease_until"]
        if job["status"] in {"leased", "delegated"} and job["timeout_seconds"] is not None and job["first_leased_at"]:
            yield job["first_leased_at"] + timedelta(seconds=job["timeout_seconds"])
    for state in tables.states.values():
        if state["deadline_at"] is not None:
            yield state["deadline_at"]
