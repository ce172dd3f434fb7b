"""The group of all commands, each loaded when it is asked for: `--help` must not load a database driver.

The table says of each command which module holds it and what it does. Nothing heavy may be imported here but click.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from noetl_broker import __version__
from noetl_broker.visible import visible


class Entry(NamedTuple):
    """One line of the help: the module below `noetl_broker.cli` with a command of this name, and what it does."""

    module: str
    sentence: str


COMMANDS: Mapping[str, Entry] = {
    "demo": Entry("demo", "Show it all at work: a Postgres of its own, a broker, a worker, two playbooks."),
    "migrate": Entry("migrate", "Bring the database's schema up to date."),
    "validate": Entry("playbooks", "Check playbooks; needs no database."),
    "register": Entry("playbooks", "Catalog a new version of playbooks."),
    "schema": Entry("schema", "Print the JSON Schema of playbooks, for editors."),
    "run": Entry("run", "Run the broker: decide on events until it is stopped."),
    "worker": Entry("worker", "Run the reference worker: lease jobs, do them, report."),
    "start": Entry("requests", "Start an execution of a playbook."),
    "cancel": Entry("requests", "Cancel an execution and its children."),
    "executions": Entry("views", "List executions, the newest first."),
    "status": Entry("views", "Show where an execution stands, step by step."),
    "events": Entry("views", "Show the log of an execution in the order of its turns."),
    "explain": Entry("explain", "Say why a step ran, why it did not, or what it waits for."),
    "dead-letters": Entry("recovery", "List mail that the broker has set aside, the oldest first."),
    "reevaluate": Entry("recovery", "Give an execution's mail back to the broker, which decides again."),
    "retry": Entry("recovery", "Bring back a failed execution, or what was set aside of one."),
    "fork": Entry("fork", "Start an execution that takes over the results of another and goes on from a step."),
    "graph": Entry("graph", "Draw a playbook, or an execution with the path it took."),
    "replay": Entry("replay", "Retake the recorded turns of executions and compare."),
    "verify": Entry("verify", "Check that what must always hold does hold."),
    "archive": Entry("archive", "Take old history out of the tables, whole periods at a time; nothing is deleted."),
    "doctor": Entry("doctor", "Find what keeps brokers from working here, and say what to do."),
    "completion": Entry("completion", "Print a script that completes commands for bash, zsh or fish."),
    "config": Entry("config", "Show the settings and where each comes from."),
}


class LazyGroup(click.Group):
    """A click group that reads the table instead of loading its commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Give the names in the order of the table."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Load one command; None when there is none of the name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(f"noetl_broker.cli.{entry.module}"), cmd_name.replace("-", "_"))
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the command that was probably meant."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"There is no command {args[0]}.{meant}")
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options of the group."""
        with _errors_made_visible():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with _errors_made_visible():
            return super().invoke(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer commands by the table."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=COMMANDS[name].sentence) for name in names), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """Write the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.sentence) for name, entry in COMMANDS.items()])


@contextmanager
def _errors_made_visible() -> Iterator[None]:
    """Let no argument that an error repeats forge a line or move the cursor: it may be a name of somebody's."""
    try:
        yield
    except click.MissingParameter:
        raise  # nobody's words but ours
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
@click.version_option(__version__, prog_name="noetl-broker")
def cli() -> None:
    """A Postgres-native workflow broker: events in, decisions out, one transaction.

    Every command takes --dsn (or NOETL_BROKER_DSN, or the PG* variables) and --json.
    """


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.stderr is None:
        # It was closed. Its number must go to no file or connection of ours, since others write to it too.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - to the end of the process
    if os.getpid() == 1:
        # In a container: the kernel gives the first process no default, it would not hear that it is to stop.
        signal.signal(signal.SIGTERM, _end)
    cli(prog_name="noetl-broker")


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)
