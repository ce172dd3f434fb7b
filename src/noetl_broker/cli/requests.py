"""The commands `start` and `cancel`: what a producer asks for."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import PlaybookPath
from noetl_broker.cli.follow import follow_to_end
from noetl_broker.cli.frame import Call, command, execution_id
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.store import executions
from noetl_broker.store.session import session

MOST_LEVELS = 190  # of a payload, as `noetl.start_execution` counts them


@command(
    "start",
    example=(
        'noetl-broker start examples/weather --payload \'{"city": "Paris"}\' --wait\n'
        "noetl-broker start examples/weather --payload @payload.json --idempotency-key monday"
    ),
)
@click.argument("path", type=PlaybookPath())
@click.option("--payload", default="{}", metavar="JSON", help="A JSON object, or @FILE with one (@- is stdin).")
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="A version of the playbook; default: the latest.")
@click.option("--idempotency-key", metavar="KEY", help="The same key starts one execution, however often it is sent.")
@click.option("--wait", is_flag=True, help="Show its events as they come, then its result; exit 1 if it fails.")
def start(call: Call, *, path: str, payload: str, version: int | None, idempotency_key: str | None, wait: bool) -> int:
    """Start an execution of a playbook.

    PATH is its path in the catalog. Prints the id of the execution.
    """
    document = read_payload(payload)

    async def ask() -> int:
        async with session(call.dsn, name="start") as connection:
            started = await executions.start_execution(
                connection, path, document, version=version, idempotency_key=idempotency_key
            )
            if not call.as_json:
                output.say(started)
            elif not wait:
                output.show_json({"execution_id": started})
            if not wait:
                return 0
            tell: Callable[[str], None] = output.note if not call.as_json else _stay_silent
            return _show_end(call, await follow_to_end(connection, started, tell=tell))

    return asyncio.run(ask())


def _stay_silent(_line: str) -> None:
    """Programs wait for the one document at the end."""


def _show_end(call: Call, ended: dict[str, Any]) -> int:
    failed = ended["status"] != "COMPLETED"
    if call.as_json:
        output.show_json({key: ended[key] for key in ("execution_id", "path", "version", "status", "result", "error")})
    elif failed:
        output.note(
            f"noetl-broker: execution {ended['execution_id']} {what_went_wrong(ended['status'], ended['error'])}"
        )
    else:
        output.show_json(ended["result"])
    return EXIT_FAILED if failed else 0


def what_went_wrong(status: str, error: Any) -> str:
    """Say how an execution ended that did not complete: `failed in step fetch: connection refused`."""
    if status == "CANCELLED":
        reason = error.get("reason") or error.get("message") if isinstance(error, dict) else error
        return f"was cancelled: {reason}" if reason and reason != "cancelled" else "was cancelled"
    if not isinstance(error, dict):
        return "failed" if error is None else f"failed: {output.compact_json(error)}"
    step = f" in step {error['step']}" if error.get("step") else ""
    message = error.get("message") or output.compact_json(error)
    place = f" (at {error['at']})" if error.get("at") else ""
    return f"failed{step}: {message}{place}"


@command("cancel", example="noetl-broker cancel 58123456789012345 --reason 'wrong city'")
@execution_id
@click.option("--reason", metavar="TEXT", help="Why; kept with the execution.")
def cancel(call: Call, *, execution_id: int, reason: str | None) -> int:
    """Cancel an execution and its children.

    The broker does it as soon as it reads the request. Ends with 1 when the execution has already ended in another way.
    """

    async def ask() -> tuple[bool, str]:
        async with session(call.dsn, name="cancel") as connection:
            asked = await executions.cancel_execution(connection, execution_id, reason)
            if asked:
                return True, "RUNNING"
            return False, str((await executions.find_execution(connection, execution_id))["status"])

    asked, status = asyncio.run(ask())
    if call.as_json:
        output.show_json({"execution_id": execution_id, "requested": asked, "status": status})
    elif asked:
        output.say(f"cancelling execution {execution_id}")
    else:
        output.say(f"execution {execution_id} has already ended: {status}")
    return 0 if asked or status == "CANCELLED" else EXIT_FAILED


def read_payload(written: str) -> str:
    """Give the JSON text of a payload, itself or from `@file`; raises OperatorFault with the place of the mistake."""
    text, source = written, "--payload"
    if written.startswith("@"):
        source = written[1:]
        try:
            text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorFault(f"the payload {source} cannot be read: {error}") from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        message = f"the payload in {source} is nested too deeply; a payload has at most {MOST_LEVELS} levels"
        raise OperatorFault(message) from error
    except ValueError as error:
        raise OperatorFault(
            f'the payload in {source} is not JSON: {error}; write for example --payload \'{{"city": "Paris"}}\''
        ) from error
    if not isinstance(value, dict):
        raise OperatorFault(
            f'the payload in {source} must be a JSON object, for example {{"items": {text.strip():.60}}}'
        )
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
