"""The command `logs`: what the steps of an execution printed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command, execution_id, step_argument
from noetl_broker.cli.tail import polls, step_name
from noetl_broker.node_ids import read_node
from noetl_broker.store.admin.executions import find_execution
from noetl_broker.store.admin.logs import LogReader, LogSubject, read_log
from noetl_broker.store.connect.lasting_session import LastingSession

POLL_SECONDS = 0.5
STYLES = {"warning": "yellow", "error": "red"}
Entry = dict[str, Any]


@command(
    "logs",
    example=(
        "noetl-broker logs 58123456789012345\n"
        "noetl-broker logs 58123456789012345 load --follow\n"
        "noetl-broker logs 58123456789012345 load#2[7]   # of item 7 of the second visit"
    ),
)
@execution_id
@step_argument
@click.option("--follow", "live", is_flag=True, help="Show new lines until the execution ends (--json: one a line).")
def logs(call: Call, *, execution_id: int, step: str | None, live: bool) -> None:
    """Show what the steps of an execution printed and logged, by time.

    Each line names its step, its attempt from the second on, and its level unless that is info. STEP is the name of a
    step, load#2 for its second visit, or load[7] for an item. Of each attempt, the first and the last 32 KiB are kept;
    a line says how much is missing between them. --json prints the entries with their levels and times.
    """
    name, visit, index = (None, None, None) if step is None else read_node(step)
    subject = LogSubject(execution_id=execution_id, step=name, visit=visit, item_index=index)

    async def ask() -> None:
        async with LastingSession(call.database, name="logs", say=output.note) as source:
            await _show(call, follow(source, subject) if live else read_log(source, subject), live=live)

    asyncio.run(ask())


async def _show(call: Call, pages: AsyncIterator[list[Entry]], *, live: bool) -> None:
    whole: list[Entry] = []
    is_empty = True
    async for entries in pages:
        is_empty = is_empty and not entries
        if call.as_json and not live:
            whole += entries
        elif call.as_json:
            for entry in entries:
                output.show_json_line(entry)
        else:
            for line in log_lines(entries):
                output.say(*line)
    if call.as_json and not live:
        output.show_json(whole)
    elif is_empty and not call.as_json:
        output.note("nothing was printed")


async def follow(source: LastingSession, subject: LogSubject) -> AsyncIterator[list[Entry]]:
    """Yield the new entries of each poll (perhaps none), until the execution has ended."""
    reader = LogReader(subject)
    find = partial(find_execution, execution_id=subject.execution_id)
    async for _ in polls(source, find, lambda: POLL_SECONDS):
        while entries := await source.read(reader.read):
            yield entries


def log_lines(entries: list[Entry]) -> Iterator[tuple[output.Styled, ...]]:
    """Give entries as lines: time, step with its attempt, level, text. Parts of one line become one."""
    started: dict[tuple[str, int, str], tuple[Entry, str]] = {}  # lines that have not ended
    for entry in entries:
        key = entry["node_id"], entry["attempt"], entry["level"]
        if entry["missing_bytes"]:
            for other in [other for other in started if other[:2] == key[:2]]:
                yield _line(*started.pop(other))
            yield _line(entry, f"… {entry['missing_bytes']:,} bytes are missing …", is_note=True)
        first, begun = started.pop(key, (entry, ""))
        *lines, rest = (begun + entry["message"]).split("\n")
        for line in lines:
            yield _line(first, line)
            first = entry
        if rest:
            started[key] = first, rest
    for first, rest in started.values():
        yield _line(first, rest)


def _line(entry: Entry, text: str, *, is_note: bool = False) -> tuple[output.Styled, ...]:
    attempt = f" (attempt {entry['attempt']})" if entry["attempt"] > 1 else ""
    head = f"{output.moment(entry['created_at'])}  {output.one_line(step_name(entry))}{attempt}  "
    level = entry["level"]
    words = "" if level == "info" or is_note else f"{level}: "
    shown = output.one_line(text.removesuffix("\r").expandtabs())
    return output.Styled(head, dim=True), output.Styled(
        words + shown, None if is_note else STYLES.get(level), dim=is_note
    )
