"""How the standing of an execution is told: a headline, its steps, its open jobs, its result or its error."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from noetl_broker.cli import output
from noetl_broker.cli.follow import step_name
from noetl_broker.cli.output import Lines, Part, Rows
from noetl_broker.cli.requests import what_went_wrong
from noetl_broker.store import executions as store


def standing(found: dict[str, Any]) -> Iterator[Part]:
    """Give what `look_into` has found, part by part."""
    yield Lines((_headline(found),))
    if found["steps"]:
        yield Lines(("",))
        rows = [
            (step["step"], step["type"], step["status"], step["visits"], step["started_at"], _step_took(step, found))
            for step in found["steps"]
        ]
        yield Rows(("step", "type", "status", "visits", "started", "took"), rows)
    if found["jobs"]:
        yield Lines(("",))
        jobs = [
            (step_name(job), job["type"], job["status"], job["attempts"], job["worker_id"], _job_waits(job, found))
            for job in found["jobs"]
        ]
        yield Rows(("job of", "type", "status", "leases", "worker", "next"), jobs)
    yield Lines(tuple(ending(found)))


def _headline(found: dict[str, Any]) -> str:
    version = "" if found["version"] is None else f" version {found['version']}"
    time = took(found["started_at"], found["ended_at"] or found["read_at"])
    manner = "for" if found["ended_at"] is None else "after"
    line = f"execution {found['execution_id']}  {found['path']}{version}  {found['status']} {manner} {time}"
    for origin, words in (("parent_execution_id", "child of"), ("forked_from", "forked from")):
        if found[origin] is not None:
            line = f"{line}, {words} {found[origin]}"
    return line


def _step_took(step: dict[str, Any], found: dict[str, Any]) -> str | None:
    running = step["status"] == store.OPEN and found["ended_at"] is None
    return took(step["started_at"], found["read_at"] if running else step["ended_at"])


def _job_waits(job: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Say what a job waits for, by the database's clock."""
    now = found["read_at"]
    if job["status"] == "leased" and job["lease_until"] is not None:
        left = (job["lease_until"] - now).total_seconds()
        return f"lease ends in {output.span(left)}" if left > 0 else f"lease ran out {output.span(-left)} ago"
    if job["status"] in {"queued", "retry"}:
        left = (job["available_at"] - now).total_seconds()
        return f"again in {output.span(left)}" if left > 0 else f"waits for a worker since {output.span(-left)}"
    return "waits for the broker's decision" if job["status"] == "failed" else None


def ending(found: dict[str, Any]) -> list[str]:
    """Say what came of it, or what is in the way; a blank line before, where there is anything to say."""
    lines = []
    if found["error"] is not None:
        lines.append(what_went_wrong(found["status"], found["error"]))
        if isinstance(found["error"], dict) and found["error"].get("template"):
            lines.append(f"template: {found['error']['template']}")
    elif found["status"] == "COMPLETED":
        lines.append(f"result: {output.compact_json(found['result'], longest=2000)}")
    if found["archived"]:
        lines.append("archived: its steps, events and jobs are in the schema noetl_archive")
    if found["unread"]:
        lines.append(f"events that wait for a broker to read them: {found['unread']}")
    lines += [
        f"set aside: {letter['event_type']} {letter['node_name']} ({letter['event_id']}): {letter['reason']}"
        for letter in found["dead_letters"]
    ]
    return ["", *lines] if lines else []


def took(started: datetime | None, ended: datetime | None) -> str | None:
    """Give the time between two moments for people; None when one of them is not known."""
    return None if started is None or ended is None else output.span((ended - started).total_seconds())
