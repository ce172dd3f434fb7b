"""The command `logs`: what the steps of an execution printed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command, execution_id, step_argument
from noetl_broker.cli.face import service
from noetl_broker.cli.tail import polls
from noetl_broker.explain.log_text import LogLine, log_lines
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
    subject: LogSubject = service("executions").log_subject(execution_id, step)

    async def ask() -> None:
        async with LastingSession(call.database, name="logs", say=output.note, of=execution_id) as source:
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
                output.say(*_styled(line))
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


def _styled(line: LogLine) -> tuple[output.Styled, ...]:
    words = "" if line.level in {"", "info"} else f"{line.level}: "
    said = words + output.one_line(line.text)
    head = output.Styled(f"{output.one_line(line.head)}  ", dim=True)
    return head, output.Styled(said, STYLES.get(line.level), dim=not line.level)
