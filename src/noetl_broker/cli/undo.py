"""The commands `undo` and `abandon`: go on after a failed undo, or give one up."""

from __future__ import annotations

import asyncio

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import LATEST, VersionOrLatest
from noetl_broker.cli.command import Call, command, execution_id
from noetl_broker.errors import EXIT_FAILED
from noetl_broker.service.recoveries import OnVersion
from noetl_broker.service.undos import undo_execution
from noetl_broker.store.admin import executions
from noetl_broker.store.admin.undo import abandon_execution
from noetl_broker.store.connect.session import session


@command(
    "undo",
    example=(
        "noetl-broker undo 58123456789012345\n"
        "noetl-broker undo 58123456789012345 --unknown   # also what may not have happened\n"
        "noetl-broker undo 58123456789012345 --version latest   # with a mended compensate"
    ),
)
@execution_id
@click.option(
    "--unknown", is_flag=True, help="Undo also actions of unknown outcome: they timed out, or lost their lease."
)
@click.option(
    "--version", type=VersionOrLatest(), metavar="N|latest", help="Undo with the `compensate` of this version."
)
def undo(call: Call, *, execution_id: int, unknown: bool, version: int | None) -> None:
    """Undo what is left of an execution that has ended, in a new execution.

    That is what was not undone when the execution failed or was cancelled, or all of one that completed. The last
    success is undone first. Prints the id of the new execution. It has the version of the execution. --version gives
    another one, which must have a `compensate` for all that is left.
    """
    on = None if version is None else OnVersion(None if version == LATEST else version, call.playbook_rules)

    async def ask() -> int:
        async with session(call.database, name="undo") as connection:
            return await undo_execution(connection, execution_id, unknown=unknown, on=on)

    new = asyncio.run(ask())
    if call.as_json:
        output.show_json({"execution_id": execution_id, "undone_by": new})
        return
    output.say(new)
    remedy = call.with_schema(f"noetl-broker status {new}")
    output.note(f"it undoes what is left of execution {execution_id}; {remedy} shows how far it is")


@command(
    "abandon",
    example="noetl-broker abandon 58123456789012345 --reason 'the bank does it by hand'",
)
@execution_id
@click.option("--reason", metavar="TEXT", help="The reason; stored with the execution.")
def abandon(call: Call, *, execution_id: int, reason: str | None) -> int:
    """Give up the undo of an execution: it fails, and lists what is left.

    An undo that runs is stopped, and its outcome is unknown. Exit 1 if the execution has already ended.
    """

    async def ask() -> tuple[bool, str]:
        async with session(call.database, name="abandon") as connection:
            requested = await abandon_execution(connection, execution_id, reason)
            return requested, str((await executions.find_execution(connection, execution_id))["status"])

    requested, status = asyncio.run(ask())
    if call.as_json:
        output.show_json({"execution_id": execution_id, "requested": requested, "status": status})
    elif requested:
        output.say(f"abandoning the undo of execution {execution_id}")
    else:
        output.say(f"execution {execution_id} has already ended: {status}")
    return 0 if requested else EXIT_FAILED
