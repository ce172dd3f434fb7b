"""The command `completion`."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
PROGRAM = "noetl-broker"
VARIABLE = "_NOETL_BROKER_COMPLETE"  # as click makes it of the program's name


@command("completion", example='eval "$(noetl-broker completion bash)"    # in ~/.bashrc; zsh is alike')
@click.argument("shell", type=click.Choice([*SHELLS]))
def completion(call: Call, *, shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    It completes commands, options, paths of playbooks, ids of executions and names of steps. It reads the last three
    from the database of the settings, for a second at most. For fish: noetl-broker completion fish >
    ~/.config/fish/completions/noetl-broker.fish. Needs bash 4.4 or newer.
    """
    script = SHELLS[shell](click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE).source()
    if not call.printed({"shell": shell, "script": script}):
        output.show_text(script)
