"""The command `completion`: a script with which a shell completes our commands, options, paths and ids."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.errors import OperatorFault

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "noetl-broker"
VARIABLE = "_NOETL_BROKER_COMPLETE"  # as click makes it of the program's name


@command("completion", example='eval "$(noetl-broker completion bash)"    # in ~/.bashrc; zsh is alike')
@click.argument("shell", type=click.Choice(SHELLS))
def completion(call: Call, *, shell: str) -> None:
    """Print a script that completes commands for bash, zsh or fish.

    It completes commands, options, paths of playbooks, ids of executions and names of steps; the last three it asks of
    the database that the settings name, for a second at most. For fish: noetl-broker completion fish >
    ~/.config/fish/completions/noetl-broker.fish. bash must be 4.4 or newer.
    """
    made = get_completion_class(shell)
    if made is None:
        raise OperatorFault(f"there is no completion for {shell}; there is for {', '.join(SHELLS)}")
    script = made(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE).source()
    if call.as_json:
        output.show_json({"shell": shell, "script": script})
    else:
        output.show_text(script)
