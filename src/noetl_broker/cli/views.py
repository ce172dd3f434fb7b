"""The commands `executions`, `status` and `events`: what runs, where it stands, what happened."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.follow import event_cells, event_line, follow, step_name
from noetl_broker.cli.frame import Call, command, execution_id
from noetl_broker.cli.requests import what_went_wrong
from noetl_broker.store import executions as store
from noetl_broker.store.session import session

STATUSES = ("RUNNING", "COMPLETED", "FAILED", "CANCELLED")


@command("executions", example="noetl-broker executions --status failed --path 'examples/*'")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only those that stand so.")
@click.option("--path", metavar="PATH", help="Only those of this playbook; * stands for any characters.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most.")
def executions(call: Call, *, status: str | None, path: str | None, limit: int) -> None:
    """List executions, the newest first."""

    async def ask() -> list[dict[str, Any]]:
        async with session(call.dsn, name="executions") as connection:
            return await store.list_executions(connection, status=status, path=path, limit=limit)

    entries = asyncio.run(ask())
    if call.as_json:
        output.show_json(entries)
        return
    columns = ("execution", "path", "version", "status", "started", "took", "error")
    rows = [
        (
            entry["execution_id"],
            entry["path"],
            entry["version"],
            entry["status"],
            entry["started_at"],
            took(entry["started_at"], entry["ended_at"]),
            entry["error"] and what_went_wrong(entry["status"], entry["error"]),
        )
        for entry in entries
    ]
    output.show_table(columns, rows)


@command("status", example="noetl-broker status 58123456789012345")
@execution_id
def status(call: Call, *, execution_id: int) -> None:
    """Show where an execution stands, step by step.

    Its steps, its open jobs with their leases and next attempts, its result or its error.
    """

    async def ask() -> dict[str, Any]:
        async with session(call.dsn, name="status") as connection:
            return await store.look_into(connection, execution_id)

    found = asyncio.run(ask())
    if call.as_json:
        output.show_json(found)
        return
    click.echo(_headline(found))
    if found["steps"]:
        click.echo()
        rows = [
            (step["step"], step["type"], step["status"], step["visits"], step["started_at"], _step_took(step, found))
            for step in found["steps"]
        ]
        output.show_table(("step", "type", "status", "visits", "started", "took"), rows)
    if found["jobs"]:
        click.echo()
        jobs = [
            (step_name(job), job["type"], job["status"], job["attempts"], job["worker_id"], _job_waits(job, found))
            for job in found["jobs"]
        ]
        output.show_table(("job of", "type", "status", "leases", "worker", "next"), jobs)
    for line in _ending(found):
        click.echo(line)


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


def _ending(found: dict[str, Any]) -> list[str]:
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


@command("events", example="noetl-broker events 58123456789012345 --follow")
@execution_id
@click.option(
    "--follow", "keep_on", is_flag=True, help="Show what comes until the execution ends (--json: one a line)."
)
def events(call: Call, *, execution_id: int, keep_on: bool) -> None:
    """Show the log of an execution in the order of its turns.

    An event, then what the broker decided on it. --json gives objects with the columns of noetl.event.
    """

    async def ask() -> None:
        async with session(call.dsn, name="events") as connection:
            if not keep_on:
                _show_events(call, await store.list_events(connection, execution_id))
                return
            async for new in follow(connection, execution_id):
                for event in new:
                    click.echo(output.compact_json(event) if call.as_json else event_line(event))

    asyncio.run(ask())


def _show_events(call: Call, entries: list[dict[str, Any]]) -> None:
    if call.as_json:
        output.show_json(entries)
        return
    output.show_table(("time", "event", "step", "detail"), [event_cells(event) for event in entries])
