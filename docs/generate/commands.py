"""Generates the page of the command line, from what `--help` prints."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from docs.generate.markdown import table
from noetl_broker.cli.main import cli

SHARED = {"--dsn URL", "--schema NAME", "--json", "--config FILE", "--debug"}
ABOUT = """\
Each command with its options. `noetl-broker COMMAND --help` prints the same.

These options are not repeated below. A command that needs no database lacks `--dsn` and `--schema`."""


def commands_page() -> str:
    """Return the page: a heading for each command; those of a group are one level below."""
    context = click.Context(cli, info_name="noetl-broker")
    shared: dict[str, str] = {}
    sections = [part for name in cli.list_commands(context) for part in _sections(context, cli, name, shared)]
    options = table(("option", "meaning"), [(f"`{name}`", shared[name]) for name in sorted(shared)])
    return "\n\n".join(["# Command line", ABOUT, options, *sections]) + "\n"


def _sections(parent: click.Context, group: click.Group, name: str, shared: dict[str, str]) -> Iterator[str]:
    if (command := group.get_command(parent, name)) is None:
        raise LookupError(name)
    context = click.Context(command, info_name=name, parent=parent)
    path = context.command_path.removeprefix("noetl-broker ")
    yield f"##{'#' * path.count(' ')} `{path}`"
    yield inspect.cleandoc(command.help or "")
    examples = inspect.cleandoc((command.epilog or "").replace("\b", "")).splitlines()[1:]
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield "\n".join(["```text", usage, "", *(line.strip() for line in examples), "```"])
    records = [record for option in command.params if (record := option.get_help_record(context)) and record[1]]
    shared.update(record for record in records if record[0] in SHARED)
    if own := [(f"`{option}`", meaning) for option, meaning in records if option not in SHARED]:
        yield table(("option", "meaning"), own)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            yield from _sections(context, command, inner, shared)
