"""Explains one item of an iterator: its status, its value, its job or child, its result or error."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from noetl_broker.explain.error_text import attempt_text, error_text
from noetl_broker.explain.reason import Reason
from noetl_broker.explain.waiting import explain_job
from noetl_broker.node_ids import visit_name
from noetl_broker.text import moment, short_json, shorten, span

if TYPE_CHECKING:
    from datetime import datetime

    from noetl_broker.broker.model.values import JSON
    from noetl_broker.explain.facts import Facts, JobFact

STATUSES = {
    "WAITING": "has not started",
    "RUNNING": "is open",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "was cancelled: it was open when its iterator ended",
}


class Item(TypedDict):
    """One item of an iterator.

    `status` is WAITING, RUNNING, COMPLETED, FAILED or CANCELLED. `item` is its value; None if one worker ran the
    iterator, which then has `by_worker`. `ended_by` is the event that ended it. `attempt` is the job's attempt.
    `failures` counts its failed attempts; `is_caught`: a `catch` handled the last one, whose `error` stays.
    """

    execution_id: int
    step: str
    visit: int
    index: int
    status: str
    by_worker: bool
    item: JSON
    child_execution_id: int | None
    child_path: str | None
    child_status: str | None
    began_at: datetime | None
    ended_at: datetime | None
    ended_by: int | None
    event_type: str | None
    worker_id: str | None
    attempt: int | None
    failures: int | None
    is_caught: bool | None
    error: JSON
    result: JSON
    read_at: datetime


def item_headline(item: Item) -> str:
    """`fetch[3] of execution 58123 failed after 1.2 s`."""
    began, ended = item["began_at"], item["ended_at"]
    took = f" after {span((ended - began).total_seconds())}" if began is not None and ended is not None else ""
    if item["status"] == "RUNNING" and began is not None:
        took = f" for {span((item['read_at'] - began).total_seconds())}"
    name = visit_name(item["step"], item["visit"], item["index"])
    return f"{name} of execution {item['execution_id']} {STATUSES.get(item['status'], item['status'])}{took}"


def item_outcome(item: Item) -> str:
    """The error or the result of an item; empty where it has not ended."""
    if item["status"] == "RUNNING":
        return ""
    if item["is_caught"]:
        return f"it failed: {error_text(item['error'])}; its catch gave {short_json(item['result'])}"
    if item["error"] is not None and item["status"] != "COMPLETED":
        return f"it failed: {error_text(item['error'], attempt_text(item['attempt']))}"
    return f"its result is {short_json(item['result'])}" if item["status"] == "COMPLETED" else ""


def explain_item(item: Item, facts: Facts) -> Reason:
    """The state of an item, with its reasons."""
    node = (item["step"], item["visit"], item["index"])
    because: list[Reason] = []
    if item["by_worker"]:
        says = "one worker ran all items of its iterator as one job"
        because.append(Reason("by_worker", says))
    else:
        because.append(Reason("item", f"its item is {short_json(item['item'])}", {"item": shorten(item["item"])}))
    if item["child_execution_id"] is not None:
        child = item["child_execution_id"]
        says = f"its execution {child} ({item['child_path']}) is {item['child_status']}: noetl-broker explain {child}"
        because.append(Reason("child", says, {"execution_id": child, "status": item["child_status"]}))
    because += _failed_attempts(item)
    job = facts.jobs.get(node)
    if job is not None and item["status"] == "RUNNING":
        because += _explain_open(node, job, facts)
    if outcome := item_outcome(item):
        about: dict[str, JSON] = {"event_id": item["ended_by"], "worker_id": item["worker_id"]}
        failed = item["status"] != "COMPLETED"
        about |= {"error": item["error"]} if failed or item["is_caught"] else {"data": shorten(item["result"])}
        because.append(Reason("failed" if failed or item["is_caught"] else "gave", outcome, about))
    if item["ended_by"] is not None and item["ended_at"] is not None:
        by = f" from {item['worker_id']}" if item["worker_id"] else ""
        says = f"it ended with {item['event_type']}{by} (event {item['ended_by']}), at {moment(item['ended_at'])}"
        because.append(Reason("ended", says, {"event_id": item["ended_by"], "at": item["ended_at"]}))
    about = {name: item[name] for name in ("execution_id", "step", "visit", "index", "status")}
    return Reason("item", item_headline(item), about, tuple(because))


def _failed_attempts(item: Item) -> list[Reason]:
    """How often an item failed before its present or last attempt, and why the last time, while it is open."""
    failures = item["failures"] or 0
    if not failures:
        return []
    why = f": {error_text(item['error'])}" if item["status"] == "RUNNING" and item["error"] is not None else ""
    says = f"{failures} earlier {'attempt' if failures == 1 else 'attempts'} failed{why}"
    return [Reason("attempt", says, {"failures": failures, **({"error": item["error"]} if why else {})})]


def _explain_open(node: tuple[str, int, int], job: JobFact, facts: Facts) -> list[Reason]:
    """The reason why the job of an open item waits; for a child, when the child is started again."""
    name, about = visit_name(*node), {"index": node[2]}
    if job.status != "delegated":
        return [explain_job(name, about, job, facts)]
    if job.available_at is None or job.available_at <= facts.read_at:
        return []
    remaining = span((job.available_at - facts.read_at).total_seconds())
    return [Reason("retry", f"the playbook of {name} will start again in {remaining}", about)]
