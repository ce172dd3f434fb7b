"""The command `step-type`: the step types of people's own workers, which registration accepts."""

from __future__ import annotations

from collections.abc import Sequence

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import ask
from noetl_broker.errors import EXIT_FAILED, OperatorFault


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
        found = ask(call, "playbooks.list_step_types")["items"]
        none = "no step types; a Python worker adds its own when it starts"
        call.show_rows(found, {"type": "name", "added": "added_at", "by": "added_by"}, none=none)
        return 0
    if not names:
        raise OperatorFault(f"step-type {action} needs a name, for example: noetl-broker step-type {action} resize")
    changed = ask(call, f"playbooks.{action}_step_types", names=[*names])["changed"]
    if not call.printed({"action": action, "names": [*names], "changed": changed}):
        output.say(f"{changed} of {len(names)} step types {'added' if action == 'add' else 'removed'}")
    return EXIT_FAILED if action == "remove" and not changed else 0
