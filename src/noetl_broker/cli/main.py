"""The command line: a group of the commands in the table.

A command is loaded when it is called: `--help` must not load a database driver. So this module imports click alone.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from noetl_broker import __version__
from noetl_broker.commands import COMMANDS, ActionEntry
from noetl_broker.compiled_form import installed_form
from noetl_broker.visible import visible


class LazyGroup(click.Group):
    """A click group that knows its commands from the table and loads only the called command."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Give the names in the order of the table."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Load a command; None if the table has none of this name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, ActionEntry):
            made: click.Command = import_module("noetl_broker.cli.face").command_of(cmd_name, entry)
            return made
        command = getattr(import_module(f"noetl_broker.cli.{entry.module}"), cmd_name.replace("-", "_"))
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest a similar name for an unknown command."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"There is no command {args[0]}.{meant}")
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options of the group."""
        with _visible_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _visible_errors():
            return super().invoke(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands of the table."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=COMMANDS[name].sentence) for name in names), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """List the commands of the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.sentence) for name, entry in COMMANDS.items()])


@contextmanager
def _visible_errors() -> Iterator[None]:
    """Escape control characters in usage errors: they repeat arguments, which may be names that others chose."""
    try:
        yield
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
        raise  # they repeat no argument
    except click.UsageError as error:
        text = error.format_message()
        if text == visible(text):
            raise
        raise click.UsageError(visible(text), ctx=error.ctx) from None


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="\b\nExample:\n  noetl-broker demo\n  noetl-broker start --help",
)
@click.version_option(f"{__version__} ({installed_form()})", prog_name="noetl-broker")
def cli() -> None:
    """A Postgres-native workflow broker: events in, decisions out, one transaction.

    Every command takes --dsn (or NOETL_BROKER_DSN, or the PG* variables), --schema and --json.
    """


def main() -> None:
    """Run the command line and exit with its exit code."""
    if sys.stderr is None:
        # Stderr was closed. Keep its number: a file or connection that got it would receive error messages.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - to the end of the process
    if os.getpid() == 1:
        # Process 1 of a container has no default signal handlers: it would ignore SIGTERM.
        signal.signal(signal.SIGTERM, _end)
    cli(prog_name="noetl-broker")


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)
