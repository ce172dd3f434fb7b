"""The command `step-type`: the step types of people's own workers, which registration accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.store.admin import catalog
from noetl_broker.store.connect.session import session


@command("step-type", example="noetl-broker step-type list\nnoetl-broker step-type add resize dbt")
@click.argument("action", type=click.Choice(["list", "add", "remove"]))
@click.argument("names", metavar="[TYPE]...", nargs=-1)
def step_type(call: Call, *, action: str, names: Sequence[str]) -> int:
    """List, add and remove the step types of your own workers.

    `register` accepts these types beside the built-in ones. A Python worker adds its own when it starts. To remove a
    type changes no registered playbook. Exit 1 if there is none to remove.
    """
    if action == "list":
        if names:
            raise OperatorFault("step-type list takes no names")
        return _show(call, asyncio.run(_list(call)))
    if not names:
        raise OperatorFault(f"step-type {action} needs a name, for example: noetl-broker step-type {action} resize")
    changed = asyncio.run(_change(call, action, names))
    if call.as_json:
        output.show_json({"action": action, "names": [*names], "changed": changed})
    else:
        output.say(f"{changed} of {len(names)} step types {'added' if action == 'add' else 'removed'}")
    return EXIT_FAILED if action == "remove" and not changed else 0


async def _list(call: Call) -> list[dict[str, Any]]:
    async with session(call.database, name="step-type") as connection:
        return await catalog.list_step_types(connection)


async def _change(call: Call, action: str, names: Sequence[str]) -> int:
    change = catalog.announce_step_types if action == "add" else catalog.remove_step_types
    async with session(call.database, name="step-type") as connection:
        return await change(connection, names)


def _show(call: Call, found: list[dict[str, Any]]) -> int:
    if call.as_json:
        output.show_json(found)
    elif found:
        output.show_table(("type", "added", "by"), [(row["name"], row["added_at"], row["added_by"]) for row in found])
    else:
        output.say("no step types; a Python worker adds its own when it starts")
    return 0
