"""The commands `executions`, `status` and `events`: what runs, where it stands, what happened."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import PlaybookPath
from noetl_broker.cli.follow import event_cells, event_line, follow
from noetl_broker.cli.frame import Call, command, execution_id
from noetl_broker.cli.requests import what_went_wrong
from noetl_broker.cli.standing import standing, took
from noetl_broker.cli.watch import watch
from noetl_broker.errors import EXIT_FAILED
from noetl_broker.store import executions as store
from noetl_broker.store.catalog import what_was_meant
from noetl_broker.store.session import session

STATUSES = ("RUNNING", "COMPLETED", "FAILED", "CANCELLED")


@command(
    "executions",
    example=(
        "noetl-broker executions --status failed --path 'examples/*'\nnoetl-broker executions --limit 1000 --json"
    ),
)
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only those that stand so.")
@click.option(
    "--path", type=PlaybookPath(), metavar="PATH", help="Only those of this playbook; * stands for any characters."
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most.")
def executions(call: Call, *, status: str | None, path: str | None, limit: int) -> None:
    """List executions, the newest first."""
    meant: list[str] = []

    async def ask() -> list[dict[str, Any]]:
        async with session(call.dsn, name="executions") as connection:
            found = await store.list_executions(connection, status=status, path=path, limit=limit)
            if path is not None and not found:
                meant.extend(filter(None, [await what_was_meant(connection, path, None)]))
            return found

    entries = asyncio.run(ask())
    if call.as_json:
        output.show_json(entries)
        return
    if meant:
        output.note(f"no playbook {path} is registered; {meant[0]}")
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


@command(
    "status",
    example=("noetl-broker status 58123456789012345\nnoetl-broker status 58123456789012345 --watch"),
)
@execution_id
@click.option("--watch", "keep_on", is_flag=True, help="Show what changes until it has ended; exit 1 if it fails.")
def status(call: Call, *, execution_id: int, keep_on: bool) -> int:
    """Show where an execution stands, step by step.

    Its steps, its open jobs with their leases and next attempts, its result or its error. With --watch a terminal shows
    it as it moves; a pipe gets a line for each change, with --json the whole document for each.
    """

    async def ask() -> dict[str, Any]:
        async with session(call.dsn, name="status") as connection:
            if keep_on:
                return await watch(connection, execution_id, as_json=call.as_json)
            return await store.look_into(connection, execution_id)

    found = asyncio.run(ask())
    if keep_on:
        return 0 if found["status"] == "COMPLETED" else EXIT_FAILED
    if call.as_json:
        output.show_json(found)
    else:
        for part in standing(found):
            part.show()
    return 0


@command(
    "events",
    example=("noetl-broker events 58123456789012345\nnoetl-broker events 58123456789012345 --follow --json"),
)
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
                    if call.as_json:
                        output.show_json_line(event)
                    else:
                        output.say(event_line(event))

    asyncio.run(ask())


def _show_events(call: Call, entries: list[dict[str, Any]]) -> None:
    if call.as_json:
        output.show_json(entries)
        return
    output.show_table(("time", "event", "step", "detail"), [event_cells(event) for event in entries])
