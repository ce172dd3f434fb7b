"""Prints `status`: a headline, the steps, the open jobs, the result or error; `--watch` shows changes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from rich.console import Group
from rich.live import Live

from noetl_broker.cli import output
from noetl_broker.cli.output import Lines, Part, Rows
from noetl_broker.cli.tail import polls
from noetl_broker.explain.progress import failures_text, progress_text
from noetl_broker.explain.status_changes import States, changes, part_states
from noetl_broker.explain.status_text import block_name, ending, headline, job_waits, kept_by, took
from noetl_broker.explain.undo_text import draining_text, undo_lines
from noetl_broker.explain.wait_text import awaited_by, too_early
from noetl_broker.node_ids import name_of_node, name_of_row
from noetl_broker.store.admin import executions
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.store.connect.schema_name import with_schema
from noetl_broker.text import join_names

WATCH_SECONDS = 0.25  # between two polls of `--watch`


def status_parts(found: dict[str, Any], schema: str, *, traceback: bool = False) -> Iterator[Part]:
    """Give the parts of an answer from `load_execution_details`; `traceback`: with the traceback of the error.

    The commands that it names get the schema.
    """
    yield Lines((headline(found), *(with_schema(line, schema) for line in kept_by(found))))
    yield from _table(found["steps"], _step_columns(found), "items")
    yield from _paragraph(filter(None, map(failures_text, found["iterators"])))
    wait_columns: output.Columns = {
        "wait of": lambda wait: name_of_node(wait["node_id"]),
        "for": lambda wait: awaited_by(wait, found["execution_id"]),
        "since": lambda wait: took(wait["since"], found["read_at"]),
        "until": "due_at",
    }
    yield from _table(found["waits"], wait_columns, "for")
    if early := tuple(too_early(found["waits"])):
        yield Lines(early)
    job_columns: output.Columns = {
        "job of": name_of_row, "type": "type", "status": "status", "leases": "attempts",
        "worker": lambda job: job.get("worker_id"), "next": lambda job: job_waits(job, found),
    }  # fmt: skip
    yield from _table(found["jobs"], job_columns, "worker")
    block_columns: output.Columns = {
        "block": block_name, "execution": "execution_id", "status": "status", "at": lambda one: join_names(one["at"])
    }  # fmt: skip
    yield from _table(found.get("blocks") or (), block_columns)
    yield from _paragraph(found.get("unserved", ()))
    if found["unlisted_jobs"]:
        yield Lines((f"and {found['unlisted_jobs']:,} more open jobs of items",))
    yield from _paragraph(filter(None, (draining_text(found["draining"]),)))
    if found["undo"] is not None:
        undone = undo_lines(found["execution_id"], found["status"], found["undo"])
        yield from _paragraph(with_schema(line, schema) for line in undone)
    yield from _paragraph(ending(found, traceback=traceback))


def _table(rows: Sequence[Any], columns: output.Columns, *folding: str) -> Iterator[Part]:
    """A table after a blank line, if it has rows."""
    if rows:
        yield Lines(("",))
        yield Rows.of(rows, columns, frozenset(folding))


def _paragraph(lines: Iterable[str]) -> Iterator[Part]:
    """Lines after a blank one, if there are any."""
    if found := tuple(lines):
        yield Lines(("", *found))


def _step_columns(found: dict[str, Any]) -> output.Columns:
    """The columns of steps, with one for the progress of iterators if there are any."""
    progress: dict[str, list[str]] = {}
    for one in found["iterators"]:
        progress.setdefault(one["step"], []).append(progress_text(one))
    items: output.Columns = {"items": lambda step: "; ".join(progress.get(step["step"], ()))} if progress else {}
    return {
        "step": "step", "type": "type", "status": "status", **items, "visits": "visits", "started": "started_at",
        "took": lambda step: _step_took(step, found),
    }  # fmt: skip


def _step_took(step: dict[str, Any], found: dict[str, Any]) -> str | None:
    running = step["status"] == "RUNNING" and found["ended_at"] is None
    return took(step["started_at"], found["read_at"] if running else step["ended_at"])


Found = dict[str, Any]


async def watch(source: LastingSession, execution_id: int, *, as_json: bool, traceback: bool = False) -> Found:
    """Show the state of an execution until it ends; gives the last one.

    On a terminal it redraws one picture; a pipe gets a line for each change, with `as_json` a document for each.
    """
    read = partial(executions.load_execution_details, execution_id=execution_id)
    states = polls(source, read, lambda: WATCH_SECONDS)
    if not as_json and sys.stdout.isatty():
        return await _draw(states, source.schema, traceback=traceback)
    found: Found = {}
    before: States = {}
    async for found in states:
        now = part_states(found)
        changed = [*changes(before, now)]
        if as_json and changed:
            output.show_json_line(found)
        for line in () if as_json else changed:
            output.say(f"{output.moment(found['read_at'])}  {output.one_line(line)}")
        before = now
    for part in () if as_json else _paragraph(ending(found, traceback=traceback)):
        part.show()
    return found


async def _draw(states: AsyncIterator[Found], schema: str, *, traceback: bool) -> Found:
    found: Found = {}
    with Live(console=output.console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        async for found in states:
            parts = status_parts(found, schema, traceback=traceback)
            live.update(Group(*(part.drawn() for part in parts)), refresh=True)
        live.vertical_overflow = "visible"  # the last picture stays, whole
    return found
