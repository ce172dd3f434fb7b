"""The whole command line: its help, what it imports, and how it reports errors."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from noetl_broker.cli.main import cli
from noetl_broker.commands import COMMANDS
from noetl_broker.store.connect.schema_name import with_schema
from tests.cli.conftest import NOWHERE, Command, execute, plain_environment
from tests.postgres import SCHEMA, Database


def test_help_loads_no_driver_and_no_models() -> None:
    """`--help` is fast: it lists the commands without importing one."""
    program = (
        "import sys\n"
        "from noetl_broker.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "print(sorted({'asyncpg', 'pydantic', 'rich', 'structlog', 'yaml'} & set(sys.modules)))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its help has the table's sentence, the common options, and examples: calls that can be made; none is made."""
    answer = CliRunner().invoke(cli, [name, "--help"], terminal_width=120)
    assert answer.exit_code == 0
    assert answer.output.splitlines()[2].strip() == COMMANDS[name].sentence
    missing = [word for word in ("--dsn", "--json", "--config", "--debug", "Example") if word not in answer.output]
    assert missing == []
    for file in ("broker.toml", "payload.json", "diamond.yaml", "weather.yaml"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "playbooks").symlink_to(tmp_path)
    lines = answer.output.partition("Example")[2].splitlines()[1:]
    calls = [line.partition("  #")[0].partition(" > ")[0].strip() for line in lines if line.strip()]
    words = [shlex.split(call.removeprefix('eval "$(').removesuffix(')"')) for call in calls]
    assert [call for call in words if call[:2] != ["noetl-broker", name]] == []
    with cli.make_context("noetl-broker", [name], resilient_parsing=True) as context:
        command = cli.get_command(context, name)
        assert command is not None
        for _, _, *arguments in words:
            command.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_in_a_message_gets_the_schema(name: str) -> None:
    """Behind the name of the command that has the option; a group has it not, only its commands."""
    with cli.make_context("noetl-broker", [name], resilient_parsing=True) as context:
        command = cli.get_command(context, name)
        own = [f"{name} {one}" for one in command.commands] if isinstance(command, click.Group) else [name]
    for call in own:
        assert with_schema(f"see noetl-broker {call} x", "orders") == f"see noetl-broker {call} --schema orders x"


def test_an_unexpected_error_does_not_show_rows(command: Command, database: Database) -> None:
    """So stored output of commands contains no payload."""
    execute(database, "alter table noetl.step_type add constraint short check (length(name) < 3)")
    answer = command("step-type", "add", "hunter2")
    refused = 'violates check constraint "short"'
    assert (answer.exit_code, "hunter2" in answer.output, refused in answer.stderr) == (69, False, True)


def test_a_database_that_cannot_be_reached_exits_with_69(lone_command: Command) -> None:
    """A one-shot command does not wait for it. A host is named, the password stays hidden. --debug shows where."""
    gone = "the database cannot be reached: "
    hidden = "postgresql://me:topsecret@nowhere.invalid/a"
    lone_command.refuses([(f"executions --dsn {NOWHERE}", 69, gone), (f"executions --dsn {hidden}", 69, gone)])
    assert lone_command("executions", "--dsn", hidden).stderr.endswith(" (nowhere.invalid/a)\n")
    answer = lone_command("executions", "--dsn", NOWHERE, "--debug")
    assert (answer.exit_code, answer.stderr[:13]) == (69, "  | Traceback")
    assert answer.stderr.splitlines()[-1].startswith(f"noetl-broker: {gone}")


def test_without_a_dsn_the_error_says_how_to_give_one(lone_command: Command) -> None:
    """The driver then tries its default, where no server runs."""
    answer = lone_command("executions")
    if answer.exit_code != 69:
        pytest.skip("a Postgres listens at its usual place on this machine")
    assert "; nothing names a database: give --dsn, set NOETL_BROKER_DSN, or run noetl-broker dev" in answer.stderr


def test_an_empty_database_exits_with_78(bare_command: Command) -> None:
    """A database without our schema is refused."""
    answer = bare_command("executions")
    assert answer.exit_code == 78
    assert answer.stderr == f"noetl-broker: the database has no {SCHEMA} schema of ours; run noetl-broker migrate\n"


def test_the_package_is_the_command(lone_command: Command) -> None:
    """`python -m noetl_broker` is `noetl-broker`."""
    answer = lone_command.run("--version")
    assert (answer.returncode, answer.stdout.split(",")[0]) == (0, "noetl-broker")


def test_a_pipe_that_closes_early_is_no_fault() -> None:
    """`noetl-broker config | head -1` shows a line, and no traceback."""
    answer = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m noetl_broker migrate --sql | head -c 1"],
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stderr == ""


def test_a_group_without_a_command_shows_its_help(lone_command: Command) -> None:
    """In lines."""
    assert "\nCommands:\n  delete " in lone_command("limit").output


def test_a_value_past_its_bound_is_refused_before_any_connection(lone_command: Command) -> None:
    """By the model of the request, in one sentence that names the option or the field."""
    long, least = "x" * 1_001, "it must be at least 1"
    calls: dict[tuple[str, ...], str] = {
        ("start", long): "PATH", ("start", "a", "--idempotency-key", long): "--idempotency-key",
        ("cancel", "5", "--reason", long): "--reason", ("pause", "--path", "a", "--reason", long): "reason",
        ("fork", "5", "--from", long): "--from", ("signal", long, "--key", "1"): "NAME",
        ("explain", "5", long): "step", ("events", "5", long): "step", ("status", "5", f"{long}[1]"): "step",
        ("approve", "5", long): "STEP", ("schedule", "show", long): "NAME",
        ("limit", "delete", long): "NAME", ("executions", "--text", long): "text",
        ("executions", "--path", long): "--path",
        ("verify", "--error", long): "--error", ("dead-letters", "--step", long): "--step", ("graph", long): "path",
    }  # fmt: skip
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (call, 2, f"noetl-broker: {field}: it must have at most") for call, field in calls.items()
    ]
    cases += [
        (("undo", "5", "--version", "0"), 2, f"--version: {least}"),
        (("schedule", "next", "a", "--count", "0"), 2, least),
    ]
    lone_command.refuses(cases)
