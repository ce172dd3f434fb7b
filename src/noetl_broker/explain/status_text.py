"""The state of an execution as text: its headline, what its jobs wait for, how it ended, what keeps it from moving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.explain.error_text import attempt_text, failure_text, traceback_lines, traceback_of
from noetl_broker.explain.slots import slot_of_row, slot_text
from noetl_broker.explain.unserved import served_name
from noetl_broker.node_ids import name_of_row, node_of_job, parse_node, visit_name
from noetl_broker.playbook.keywords import DEFAULT_POOL
from noetl_broker.template.durations import moment_text
from noetl_broker.text import short_json, span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

LONGEST_RESULT = 2000  # characters
HOLDS = {
    "PAUSED": "it is paused: noetl-broker resume {0} resumes it",
    "QUEUED": "it is queued, its playbook is paused: noetl-broker resume --path {path} admits it",
}
JOB_WAITS = {
    "failed": "waits for the broker's decision",
    "held": "until the execution is resumed",
    "dead": "it failed, and has no attempt left",
    "delegated": "the broker runs its child executions or items",
}


def headline(found: dict[str, Any]) -> str:
    """`execution 58123  orders version 2  RUNNING for 3.2 s, child of 57001`."""
    version = "" if found["version"] is None else f" version {found['version']}"
    time = took(found["started_at"], found["ended_at"] or found["read_at"])
    manner = "for" if found["ended_at"] is None else "after"
    playbook = f"{found['path'] or 'without a playbook'}{version}"
    line = f"execution {found['execution_id']}  {playbook}  {found['status']} {manner} {time}"
    kin = {"parent_execution_id": "child of", "forked_from": "continues", "recovered_as": "continued as"}
    line += f", {found['undo_status']}" if found["undo_status"] == "undone" else ""
    line += f", late since {moment_text(found['late_at'])}" if found["late_at"] is not None else ""
    return ", ".join([line, *(f"{words} {found[kind]}" for kind, words in kin.items() if found[kind] is not None)])


def kept_by(found: dict[str, Any]) -> Iterator[str]:
    """Lines about the pause of its playbook, and about the slots that it holds or waits for."""
    if found.get("starts_at") is not None:
        yield f"it starts at {moment_text(found['starts_at'])}: noetl-broker cancel {found['execution_id']} ends it"
    pause = found["path_pause"]
    if pause is not None:
        reason = f": {pause['reason']}" if pause["reason"] else ""
        yield f"its playbook is paused{reason} (noetl-broker resume --path {found['path']} admits it)"
    yield from (slot_text(slot_of_row(slot)) for slot in found["slots"])


def block_name(block: dict[str, Any]) -> str:
    """The visit or item that a block belongs to: `pay`, `ship[3]`."""
    step, visit, _ = node_of_job(block["node_id"])
    return visit_name(step, visit, block["index"])


def job_waits(job: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Say what a job waits for; `read_at` is the database's clock."""
    now = found["read_at"]
    if job["status"] == "leased" and job["lease_until"] is not None:
        remaining = (job["lease_until"] - now).total_seconds()
        if remaining <= 0:
            return f"lease ran out {span(-remaining)} ago"
        told = "its worker is to stop; " if job["stop"] else ""
        return f"{told}lease ends in {span(remaining)}"
    waits_for_throttle = job.get("held_for") == ["limit"]
    if job["status"] in {"queued", "retry"} or waits_for_throttle:
        remaining = (job["available_at"] - now).total_seconds()
        if remaining > 0:
            return f"{'again in' if job['attempts'] else 'in'} {span(remaining)}"
        if waits_for_throttle:
            return f"waits for a slot of the throttle {job['limit_name']}"
        pool = job.get("pool") or DEFAULT_POOL
        of_pool = "" if pool == DEFAULT_POOL else f" of pool {pool}"
        return f"waits for a worker{of_pool} since {span(-remaining)}"
    return JOB_WAITS.get(job["status"])


def ending(found: dict[str, Any], *, traceback: bool = False) -> list[str]:
    """Give lines about the result or error, unread events and dead letters."""
    lines = []
    if "result" not in found:
        lines.append("values are shown to logins with the role noetl_operator")
    elif found["error"] is not None:
        lines.append(failure_text(found["status"], found["error"], _attempt(found)))
        if isinstance(found["error"], dict) and found["error"].get("template"):
            lines.append(f"template: {found['error']['template']}")
        if traceback:
            lines += traceback_lines(traceback_of(found["error"]))
    elif found["status"] == "COMPLETED" and found.get("erased_at") is None:
        lines.append(f"result: {short_json(found['result'], longest=LONGEST_RESULT)}")
    if found.get("erased_at") is not None:
        lines.append(f"erased at {found['erased_at']:%Y-%m-%d %H:%M} UTC: statuses, times and names of steps are kept")
    if found.get("archived"):
        lines.append("archived: its steps, events and jobs are in the schema of the archive")
    if found["unread"]:
        lines.append(f"events that wait for a broker to read them: {found['unread']}")
    lines += [
        f"set aside: {letter['event_type']} {letter['node_name']} ({letter['event_id']}): {letter['reason']}"
        if "reason" in letter
        else f"set aside: event {letter['event_id']}"
        for letter in found["dead_letters"]
    ]
    return lines


def _attempt(found: dict[str, Any]) -> str:
    """Give the attempt that failed the execution, from the job of its step; lost leases are no attempts."""
    step = found["error"].get("step") if isinstance(found["error"], dict) else None
    jobs = [job for job in found["jobs"] if job["step"] == step and not is_item(job)]
    return attempt_text(jobs[-1]["attempts"] - jobs[-1]["lost_leases"], jobs[-1]["max_attempts"]) if jobs else ""


def is_item(job: dict[str, Any]) -> bool:
    """Whether a job is of one item of an iterator."""
    return parse_node(job["node_id"], None).item_index is not None


def took(started: datetime | None, ended: datetime | None) -> str | None:
    """Give the time between two moments as text; None if one of them is missing."""
    return None if started is None or ended is None else span((ended - started).total_seconds())


def standstill(found: dict[str, Any]) -> list[str]:
    """Say why nothing moves: it is held, or a broker or a worker seems to be missing."""
    if found["unread"]:
        return ["its events are unread: is a broker running? (noetl-broker run)"]
    waiting = [slot_text(slot) for slot in map(slot_of_row, found["slots"]) if slot.held_at is None]
    if waiting:
        return [f"it {text}" for text in waiting]
    if found["starts_at"] is not None:
        return [*kept_by(found)]
    if found["status"] in HOLDS:
        return [HOLDS[found["status"]].format(found["execution_id"], path=found["path"])]
    free = [job for job in found["jobs"] if job["status"] == "queued"]
    return [
        f"the job of {name_of_row(job)} waits: is a worker for"
        f" {served_name(job['type'], job.get('pool') or DEFAULT_POOL)} running? (noetl-broker worker)"
        for job in free[:1]
    ]
