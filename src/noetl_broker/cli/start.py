"""The command `start`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from noetl_broker.broker.model.limits import MAX_STARTS
from noetl_broker.broker.state.state import is_live
from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Face, ask, caller_of, session_of
from noetl_broker.cli.rights import PRODUCER
from noetl_broker.cli.tail import LATE_SHARE, POLL_SECONDS, follow_to_end, polls
from noetl_broker.cli.typed import read_object, read_text, read_typed
from noetl_broker.errors import EXIT_FAILED, EXIT_UNENDED, BrokerError, OperatorFault, PermissionFault
from noetl_broker.explain.error_text import failure_text
from noetl_broker.explain.undo_text import undo_lines
from noetl_broker.service.executions import start_executions
from noetl_broker.service.models.executions import StartManyRequest, StartRequest
from noetl_broker.service.payload_check import payload_check
from noetl_broker.store.admin import executions
from noetl_broker.store.admin.undo import load_undo
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.store.connect.places import in_first
from noetl_broker.store.connect.session import translate_faults

END_NAMES = ("execution_id", "path", "version", "status", "result", "error")
LAST_POLL_SECONDS = 2.0


SAID = Face(
    StartRequest,
    ("path",),
    helps={
        "payload": "A JSON object, or @FILE with one (@- is stdin).",
        "version": "A version of the playbook; default: the latest.",
        "idempotency_key": "A key starts one execution, however often the call is repeated with the same payload. With "
        "--payloads, each line has its own: KEY:3 is that of line 3.",
        "tags": "What lists find it by, such as customer=7; at most 16.",
        "start_at": "The moment at which it starts, such as 2026-03-01T09:00:00Z.",
        "start_after": "How long after now it starts.",
        "priority": "Of its jobs, where neither step nor playbook says one.",
    },
    names={"start_at": "--at", "start_after": "--after"},
)


@command(
    "start",
    role=PRODUCER,
    example=(
        'noetl-broker start examples/weather --payload \'{"city": "Paris"}\' --wait\n'
        "noetl-broker start examples/weather --payload @payload.json --idempotency-key monday\n"
        "noetl-broker start examples/weather --payloads cities.jsonl\n"
        "noetl-broker start examples/weather --tag customer=7 --tag region=eu --after 2h"
    ),
)
@SAID.given_to
@click.option(
    "--payloads",
    metavar="FILE",
    help="Start one execution for each line of a file (- is stdin) with a JSON object in each line.",
)
@click.option("--wait", is_flag=True, help="Show its events live, then its result; exit 1 if it fails.")
@click.option("--timeout", metavar="DURATION", help="With --wait: exit 75 after so long; the execution goes on.")
def start(call: Call, *, payloads: str | None, wait: bool, timeout: str | None, **given: Any) -> int:
    """Start an execution of a playbook.

    PATH is its path in the catalog. Prints the id of each execution. A payload that breaks the playbook's
    workload_schema starts nothing. A wait takes signals that are sent after the start, unless its step has `since`.
    """
    if timeout is not None and not wait:
        raise OperatorFault("--timeout is for --wait: without it, start waits for nothing")
    if payloads is not None and (wait or given["payload"] is not None):
        raise OperatorFault("--payloads goes neither with --payload nor with --wait; leave one of them out")
    if given["version"] == "latest":
        raise OperatorFault("--version takes a number; leave it out for the latest version")
    most = read_typed("timeout", float, timeout, "--timeout")
    asked = SAID.read(given)
    if payloads is not None:
        return asyncio.run(start_many(call, asked, payloads))
    started: int = ask(call, "executions.start_execution", asked)["execution_id"]
    if not call.as_json:
        output.say(started)
    elif not wait:
        output.show_json({"execution_id": started})
    return asyncio.run(_wait(call, started, most)) if wait else 0


async def _wait(call: Call, started: int, most: float | None) -> int:
    """Show an execution until its end, or until the time is over; gives the exit code."""
    # With --json only the document at the end is printed.
    reads_events = True
    show_line: Callable[[str], None] = output.note if not call.as_json else lambda _line: None
    async with LastingSession(call.database, name="start", say=output.note, of=started, known_to_answer=True) as source:
        try:
            async with asyncio.timeout(most):
                try:
                    ended = await follow_to_end(source, started, show_line=show_line)
                except PermissionFault:  # a producer sees no events
                    reads_events = False
                    ended = await _poll_to_end(source, started)
        except TimeoutError:
            ended = await _last_poll(source, started)
        has_ended = ended["status"] is not None and not is_live(ended["status"])
        undo = await source.read(partial(load_undo, execution_id=started)) if has_ended and reads_events else None
    is_printed = call.printed({**{name: ended[name] for name in END_NAMES}, "undo": undo})
    if not has_ended:
        text = f"execution {started} has not ended after {output.span(most or 0.0)}, and goes on"
        remedies = f"noetl-broker status {started} shows it, noetl-broker cancel {started} ends it"
        output.note(f"noetl-broker: {text}; {call.with_schema(remedies)}")
        return EXIT_UNENDED
    if is_printed:
        pass
    elif ended["status"] == "COMPLETED":
        output.show_value(ended["result"])
    else:
        output.note(f"noetl-broker: execution {started} {failure_text(ended['status'], ended['error'])}")
        for line in undo_lines(started, ended["status"], undo) if undo is not None else ():
            output.note(call.with_schema(line))
    return 0 if ended["status"] == "COMPLETED" else EXIT_FAILED


async def _poll_to_end(source: LastingSession, execution_id: int) -> dict[str, Any]:
    """The outcome of an execution that the login started, when it has ended."""
    shortest, longest = POLL_SECONDS
    began = time.monotonic()

    def pause() -> float:
        return min(max(LATE_SHARE * (time.monotonic() - began), shortest), longest)

    ended: dict[str, Any] = {}
    async for found in polls(source, partial(executions.find_outcome, execution_id=execution_id), pause):
        ended = found
    return ended


async def _last_poll(source: LastingSession, execution_id: int) -> dict[str, Any]:
    """Give the row of an execution; with nulls if the database does not answer soon."""
    try:
        async with asyncio.timeout(LAST_POLL_SECONDS):
            return await source.read(partial(executions.find_outcome, execution_id=execution_id))
    except TimeoutError:
        return dict.fromkeys(END_NAMES) | {"execution_id": execution_id}


async def start_many(call: Call, asked: StartRequest, file: str) -> int:
    """Start an execution for each line of a file, MAX_STARTS in one transaction; prints their ids in that order.

    All lines are checked before the first start.
    """
    lines = [
        (number, read_object(line, f"line {number} of {file}", "payload"))
        for number, line in enumerate(read_text(file, "payloads").split("\n"), 1)
        if line.strip()
    ]
    started: list[int] = []
    async with session_of(call) as connection:
        check = await in_first(
            connection, lambda one: payload_check(one, asked.path, asked.version, call.playbook_rules)
        )
        for number, line in lines:
            check(line, f"line {number} of {file}: ")
        for first in range(0, len(lines), MAX_STARTS):
            some = lines[first : first + MAX_STARTS]
            key = asked.idempotency_key
            many = StartManyRequest(
                path=asked.path,
                version=asked.version,
                payloads=[line for _, line in some],
                idempotency_keys=None if key is None else [f"{key}:{number}" for number, _ in some],
                bucket_key=asked.bucket_key,
                tags=asked.tags,
                start_at=asked.start_at,
                start_after=asked.start_after,
                priority=asked.priority,
            )
            try:
                with translate_faults():
                    answer = await start_executions(connection, caller_of(call), many)
            except BrokerError as fault:
                if not started:
                    raise
                which = f"lines {some[0][0]} to {some[-1][0]} of {file}"
                raise type(fault)(f"{which}: {fault}; the executions of earlier lines are started") from fault
            started += answer["execution_ids"]
            for execution_id in () if call.as_json else started[first:]:
                output.say(execution_id)
    call.printed({"execution_ids": started})
    return 0
