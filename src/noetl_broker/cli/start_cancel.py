"""The commands `start` and `cancel`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from noetl_broker.broker.model.limits import MAX_STARTS
from noetl_broker.broker.state.state import COMPENSATING, is_live
from noetl_broker.cli import output
from noetl_broker.cli.arguments import VERSION_OF_PLAYBOOK, Duration, PlaybookPath
from noetl_broker.cli.bulk import BulkOptions, act_on_each, bulk_options
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.rights import PRODUCER
from noetl_broker.cli.selection import Selection, selection
from noetl_broker.cli.tail import follow_to_end
from noetl_broker.errors import EXIT_FAILED, EXIT_UNENDED, BrokerError, OperatorFault, PermissionFault
from noetl_broker.explain.error_text import error_text
from noetl_broker.explain.undo_text import undo_lines
from noetl_broker.service.bulk import find_executions
from noetl_broker.service.payload_check import payload_check
from noetl_broker.store.admin import executions
from noetl_broker.store.admin.undo import load_undo
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.store.connect.session import session, translate_faults

END_NAMES = ("execution_id", "path", "version", "status", "result", "error")
LAST_POLL_SECONDS = 2.0
MOST_LEVELS = 190  # of nesting in a payload, as `noetl.start_execution` counts


@command(
    "start",
    role=PRODUCER,
    example=(
        'noetl-broker start examples/weather --payload \'{"city": "Paris"}\' --wait\n'
        "noetl-broker start examples/weather --payload @payload.json --idempotency-key monday\n"
        "noetl-broker start examples/weather --payloads cities.jsonl"
    ),
)
@click.argument("path", type=PlaybookPath())
@click.option("--payload", default="{}", metavar="JSON", help="A JSON object, or @FILE with one (@- is stdin).")
@click.option(
    "--payloads",
    metavar="FILE",
    help="Start one execution for each line of a file (- is stdin) with a JSON object in each line.",
)
@VERSION_OF_PLAYBOOK
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="A key starts one execution, however often the call is repeated with the same payload. With --payloads, each "
    "line has its own: KEY:3 is that of line 3.",
)
@click.option("--wait", is_flag=True, help="Show its events live, then its result; exit 1 if it fails.")
@click.option("--timeout", type=Duration(), help="With --wait: exit 75 after so long; the execution goes on.")
def start(
    call: Call,
    *,
    path: str,
    payload: str,
    payloads: str | None,
    version: int | None,
    idempotency_key: str | None,
    wait: bool,
    timeout: timedelta | None,
) -> int:
    """Start an execution of a playbook.

    PATH is its path in the catalog. Prints the id of each execution. A payload that breaks the playbook's
    workload_schema starts nothing. A wait takes signals that are sent after the start, unless its step has `since`.
    """
    if timeout is not None and not wait:
        raise OperatorFault("--timeout is for --wait: without it, start waits for nothing")
    if payloads is not None:
        if wait or payload != "{}":
            raise OperatorFault("--payloads goes neither with --payload nor with --wait; leave one of them out")
        return asyncio.run(start_many(call, path, payloads, version=version, idempotency_key=idempotency_key))
    document = read_payload(payload)

    async def ask() -> int:
        async with session(call.database, name="start") as connection:
            check = await payload_check(connection, path, version, call.playbook_rules)
            check(document, "")
            started = await executions.start_execution(
                connection, path, document, version=version, idempotency_key=idempotency_key
            )
            if not call.as_json:
                output.say(started)
            elif not wait:
                output.show_json({"execution_id": started})
        return await _wait(call, started, timeout) if wait else 0

    return asyncio.run(ask())


async def _wait(call: Call, started: int, most: timedelta | None) -> int:
    """Show an execution until its end, or until the time is over; gives the exit code."""
    show_line: Callable[[str], None] = output.note if not call.as_json else no_output
    async with LastingSession(call.database, name="start", say=output.note, known_to_answer=True) as source:
        try:
            async with asyncio.timeout(None if most is None else most.total_seconds()):
                ended = await follow_to_end(source, started, show_line=show_line)
        except PermissionFault as fault:
            raise PermissionFault(f"execution {started} is started; to wait for it: {fault}") from fault
        except TimeoutError:
            ended = await _last_poll(source, started)
        if ended["status"] is None or is_live(ended["status"]):
            return _show_unended(call, ended, most or timedelta())
        return _show_end(call, ended, await source.read(partial(load_undo, execution_id=started)))


async def _last_poll(source: LastingSession, execution_id: int) -> dict[str, Any]:
    """Give the row of an execution; with nulls if the database does not answer soon."""
    try:
        async with asyncio.timeout(LAST_POLL_SECONDS):
            return await source.read(partial(executions.find_execution, execution_id=execution_id))
    except TimeoutError:
        return dict.fromkeys(END_NAMES) | {"execution_id": execution_id}


def _show_unended(call: Call, found: dict[str, Any], waited: timedelta) -> int:
    if call.as_json:
        output.show_json({**{name: found[name] for name in END_NAMES}, "undo": None})
    execution_id = found["execution_id"]
    text = f"execution {execution_id} has not ended after {output.span(waited.total_seconds())}, and goes on"
    remedies = f"noetl-broker status {execution_id} shows it, noetl-broker cancel {execution_id} ends it"
    output.note(f"noetl-broker: {text}; {call.with_schema(remedies)}")
    return EXIT_UNENDED


async def start_many(call: Call, path: str, file: str, *, version: int | None, idempotency_key: str | None) -> int:
    """Start an execution for each line of a file, MAX_STARTS in one transaction; prints their ids in that order.

    All lines are checked before the first start.
    """
    lines = read_lines(file)
    started: list[int] = []
    async with session(call.database, name="start") as connection:
        check = await payload_check(connection, path, version, call.playbook_rules)
        for number, line in lines:
            check(line, f"line {number} of {file}: ")
        for first in range(0, len(lines), MAX_STARTS):
            some = lines[first : first + MAX_STARTS]
            keys = None if idempotency_key is None else [f"{idempotency_key}:{number}" for number, _ in some]
            try:
                with translate_faults(connection):
                    started += await executions.start_executions(
                        connection, path, [line for _, line in some], version=version, idempotency_keys=keys
                    )
            except BrokerError as fault:
                if not started:
                    raise
                which = f"lines {some[0][0]} to {some[-1][0]} of {file}"
                raise type(fault)(f"{which}: {fault}; the executions of earlier lines are started") from fault
            for execution_id in () if call.as_json else started[first:]:
                output.say(execution_id)
    if call.as_json:
        output.show_json({"execution_ids": started})
    return 0


def no_output(_line: str) -> None:
    """With --json only the document at the end is printed."""


def _show_end(call: Call, ended: dict[str, Any], undo: dict[str, Any] | None) -> int:
    failed = ended["status"] != "COMPLETED"
    if call.as_json:
        output.show_json({**{name: ended[name] for name in END_NAMES}, "undo": undo})
    elif failed:
        output.note(
            f"noetl-broker: execution {ended['execution_id']} {describe_failure(ended['status'], ended['error'])}"
        )
        for line in undo_lines(ended["execution_id"], ended["status"], undo) if undo is not None else ():
            output.note(call.with_schema(line))
    else:
        output.show_value(ended["result"])
    return EXIT_FAILED if failed else 0


def describe_failure(status: str, error: Any, attempt: str = "") -> str:
    """Give the reason why an execution did not complete: `failed in step fetch: http: connection refused`."""
    if status == "CANCELLED":
        reason = error.get("reason") or error.get("message") if isinstance(error, dict) else error
        return f"was cancelled: {reason}" if reason and reason != "cancelled" else "was cancelled"
    if not isinstance(error, dict):
        return "failed" if error is None else f"failed: {output.compact_json(error)}"
    item = f"[{error['index']}]" if isinstance(error.get("index"), int) else ""
    step = f" in step {error['step']}{item}" if error.get("step") else ""
    return f"failed{step}: {error_text(error, attempt)}"


@command(
    "cancel",
    role=PRODUCER,
    example=(
        "noetl-broker cancel 58123456789012345 --reason 'wrong city'\n"
        "noetl-broker cancel --path 'examples/*' --until 2h          # counts them\n"
        "noetl-broker cancel --path 'examples/*' --until 2h --yes    # does it"
    ),
)
@selection(several=True)
@bulk_options
@click.option("--reason", metavar="TEXT", help="The reason; stored with the execution.")
def cancel(call: Call, *, chosen: Selection, bulk: BulkOptions, reason: str | None) -> int:
    """Cancel an execution and its children.

    The broker cancels it when it reads the request. Exit 1 if the execution has already completed or failed. With
    filters instead of an ID: all that have not ended.
    """

    async def ask() -> int:
        async with session(call.database, name="cancel") as connection:
            if len(chosen.ids) == 1:
                return await _cancel_one(call, connection, chosen.ids[0], reason)

            async def request(execution_id: int) -> dict[str, Any]:
                return {"requested": await executions.cancel_execution(connection, execution_id, reason)}

            found = [{"execution_id": one} for one in chosen.ids] or await find_executions(
                connection, "cancel", chosen.which, limit=bulk.limit
            )
            return await act_on_each(
                call, found, request, bulk._replace(yes=bulk.yes or bool(chosen.ids)),
                what="executions are cancelled", none="no execution is left to be cancelled",
            )  # fmt: skip

    return asyncio.run(ask())


async def _cancel_one(call: Call, connection: Connection, execution_id: int, reason: str | None) -> int:
    requested = await executions.cancel_execution(connection, execution_id, reason)
    # A producer may not read the status.
    status = "RUNNING" if requested else await executions.find_status(connection, execution_id)
    if call.as_json:
        output.show_json({"execution_id": execution_id, "requested": requested, "status": status})
    elif requested:
        output.say(f"cancelling execution {execution_id}")
    elif status == COMPENSATING:
        abandon = call.with_schema(f"noetl-broker abandon {execution_id}")
        output.say(f"execution {execution_id} is undoing what it did: a cancel changes nothing; {abandon} ends it")
    else:
        output.say(f"execution {execution_id} has already ended" + (f": {status}" if status else ""))
    return 0 if requested or status == "CANCELLED" else EXIT_FAILED


def read_payload(
    written: str, *, what: str = "payload", example: str = '{"city": "Paris"}', is_object: bool = True
) -> str:
    """Give the JSON text of a payload, from the argument or from `@file`; raises OperatorFault where it is invalid.

    `what` names it in messages, and is its option. With `is_object`, anything but a JSON object is invalid.
    """
    if not written.startswith("@"):
        return checked_payload(written, f"--{what}", what=what, example=example, is_object=is_object)
    source = written[1:]
    return checked_payload(read_text(source, what), source, what=what, example=example, is_object=is_object)


def read_lines(file: str) -> list[tuple[int, str]]:
    """Give the number and the text of each line with a payload; raises OperatorFault where it is no JSON object."""
    lines = enumerate(read_text(file, "payloads").split("\n"), 1)
    return [(number, checked_payload(line, f"line {number} of {file}")) for number, line in lines if line.strip()]


def read_text(file: str, what: str) -> str:
    """Give the text of a file; `-` is stdin. Raises OperatorFault if it cannot be read."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorFault(f"the {what} {file} cannot be read: {error}") from error


def checked_payload(
    text: str, source: str, *, what: str = "payload", example: str = '{"city": "Paris"}', is_object: bool = True
) -> str:
    """Give the text back; raises OperatorFault where it is no JSON, or with `is_object` no JSON object."""
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except RecursionError as error:
        message = f"the {what} in {source} is nested too deeply; a {what} has at most {MOST_LEVELS} levels"
        raise OperatorFault(message) from error
    except ValueError as error:
        raise OperatorFault(
            f"the {what} in {source} is not JSON: {error}; write for example --{what} '{example}'"
        ) from error
    if is_object and not isinstance(value, dict):
        raise OperatorFault(
            f'the {what} in {source} must be a JSON object, for example {{"items": {text.strip():.60}}}'
        )
    return text


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's JSON parser accepts."""
    raise ValueError(f"{name} is not a JSON number")
