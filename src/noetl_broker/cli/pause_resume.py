"""The commands `pause` and `resume`: executions, or the new executions of a playbook."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.bulk import BulkOptions, act_on_each, bulk_options
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.selection import Selection, selection
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.service.bulk import BulkAction, find_executions
from noetl_broker.store.admin import executions
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.session import session

Ask = Callable[[Connection, int], Awaitable[bool]]


@command(
    "pause",
    example=(
        "noetl-broker pause 58123456789012345 --reason 'disk full'\n"
        "noetl-broker pause --path examples/weather                          # its new executions are queued\n"
        "noetl-broker pause --path examples/weather --status running --yes   # and these are paused"
    ),
)
@selection(several=True)
@bulk_options
@click.option("--reason", metavar="TEXT", help="The reason; stored with the pause.")
def pause(call: Call, *, chosen: Selection, bulk: BulkOptions, reason: str | None) -> int:
    """Pause executions, or queue the new executions of a playbook.

    A paused execution enters no step, starts nothing, and does not end. Its children pause, too. Leased jobs go on.
    Failures, deadlines and cancels count. With --path alone, new executions of that playbook are queued, and those that
    run are not paused.
    """
    path = _path_alone(chosen)

    async def ask() -> int:
        async with session(call.database, name="pause") as connection:
            if path is not None:
                new = await executions.pause_path(connection, path, reason)
                _show_path(call, {"path": path, "paused": True, "changed": new}, (
                    f"new executions of {path} are queued"
                    f"; noetl-broker pause --path {path} --status running pauses running executions"
                ))  # fmt: skip
                return 0
            found = await _find(connection, chosen, "pause", bulk.limit)

            async def pause_one(connection: Connection, execution_id: int) -> bool:
                return await executions.pause_execution(connection, execution_id, reason)

            return await _act(call, connection, chosen, found, pause_one, bulk, words=("pausing", "paused"))

    return asyncio.run(ask())


@command(
    "resume",
    example=(
        "noetl-broker resume 58123456789012345\n"
        "noetl-broker resume --path examples/weather                       # admits queued executions\n"
        "noetl-broker resume --path examples/weather --status paused --yes"
    ),
)
@selection(several=True)
@bulk_options
def resume(call: Call, *, chosen: Selection, bulk: BulkOptions) -> int:
    """Resume paused executions, or the new executions of a playbook.

    The kept tokens go on in their order. Children are resumed, too; one that was paused by itself stays paused. With
    --path alone, the queued executions of that playbook are admitted, the oldest first.
    """
    path = _path_alone(chosen)

    async def ask() -> int:
        async with session(call.database, name="resume") as connection:
            if path is not None:
                was_paused, admitted = await executions.resume_path(connection, path)
                _show_path(call, {"path": path, "paused": False, "changed": was_paused, "admitted": admitted}, (
                    f"{path} is not paused" if not was_paused and not admitted
                    else f"new executions of {path} run again; admitted: {output.executions(admitted)}"
                ))  # fmt: skip
                return 0
            found = await _find(connection, chosen, "resume", bulk.limit)
            return await _act(
                call, connection, chosen, found, executions.resume_execution, bulk, words=("resuming", "resumed")
            )

    return asyncio.run(ask())


def _path_alone(chosen: Selection) -> str | None:
    """The path of a call that names nothing else; raises OperatorFault for a pattern."""
    path = chosen.which.path
    if chosen.ids or path is None or chosen.which != Filter(path=path):
        return None
    if "*" in path:
        name = click.get_current_context().info_name
        status = "running" if name == "pause" else "paused"
        raise OperatorFault(
            f"--path {path} alone names the new executions of one playbook, and {path} is a pattern; "
            f"add --status {status} to {name} executions"
        )
    return path


def _show_path(call: Call, document: dict[str, Any], sentence: str) -> None:
    if call.as_json:
        output.show_json(document)
    else:
        output.say(call.with_schema(sentence))


async def _find(connection: Connection, chosen: Selection, action: BulkAction, limit: int) -> list[dict[str, Any]]:
    if chosen.ids:
        return [{"execution_id": one} for one in chosen.ids]
    return await find_executions(connection, action, chosen.which, limit=limit)


async def _act(
    call: Call,
    connection: Connection,
    chosen: Selection,
    found: list[dict[str, Any]],
    ask: Ask,
    bulk: BulkOptions,
    *,
    words: tuple[str, str],
) -> int:
    """Ask the broker for each; `words`: pausing and paused."""
    if len(chosen.ids) == 1:
        return await _act_on_one(call, connection, chosen.ids[0], ask, words[0])

    async def request(execution_id: int) -> dict[str, Any]:
        return {"requested": await ask(connection, execution_id)}

    asked = bulk._replace(yes=True) if chosen.ids else bulk
    return await act_on_each(
        call, found, request, asked, what=f"executions are {words[1]}", none=f"no execution is left to be {words[1]}"
    )


async def _act_on_one(call: Call, connection: Connection, execution_id: int, ask: Ask, doing: str) -> int:
    requested = await ask(connection, execution_id)
    status = str((await executions.find_execution(connection, execution_id))["status"])
    if call.as_json:
        output.show_json({"execution_id": execution_id, "requested": requested, "status": status})
    elif requested:
        output.say(f"{doing} execution {execution_id}")
    else:
        output.say(f"execution {execution_id} has already ended: {status}")
    return 0 if requested else EXIT_FAILED
