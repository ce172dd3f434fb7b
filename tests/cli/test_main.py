"""The whole command line: its help, what it imports, and how it reports errors."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import asyncpg
import click
import pytest
from click.testing import CliRunner

from noetl_broker.cli.command import one_sentence
from noetl_broker.cli.main import cli
from noetl_broker.commands import COMMANDS
from noetl_broker.store.connect.schema_name import with_schema
from tests.cli.conftest import Command, plain_environment
from tests.postgres import SCHEMA


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
def test_each_command_explains_itself(name: str) -> None:
    """Its help has the table's sentence, the common options and an example."""
    answer = CliRunner().invoke(cli, [name, "--help"], terminal_width=120)
    assert answer.exit_code == 0
    assert answer.output.splitlines()[2].strip() == COMMANDS[name].sentence
    missing = [word for word in ("--dsn", "--json", "--config", "--debug", "Example") if word not in answer.output]
    assert missing == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_example_is_a_call_that_can_be_made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command and options exist; nothing is called."""
    for file in ("broker.toml", "payload.json", "diamond.yaml", "weather.yaml"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "playbooks").symlink_to(tmp_path)
    lines = (
        CliRunner().invoke(cli, [name, "--help"], terminal_width=120).output.partition("Example")[2].splitlines()[1:]
    )
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


def test_an_unexpected_error_does_not_show_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """So stored output of commands contains no payload."""
    error = asyncpg.CheckViolationError("refused")
    error.detail = "Failing row contains (hunter2)."
    with click.Context(cli), pytest.raises(click.exceptions.Exit), one_sentence(debug=False):
        raise error
    sentence = "noetl-broker: CheckViolationError: refused; this is a bug of the program: --debug shows where\n"
    assert ("hunter2" in str(error), capsys.readouterr().err) == (True, sentence)


def test_an_unknown_command_gets_a_suggestion(lone_command: Command) -> None:
    """A typing error is easy to correct."""
    answer = lone_command("evnts")
    assert answer.exit_code == 2
    assert "There is no command evnts. Did you mean events?" in answer.stderr


def test_a_refused_connection_exits_with_69(lone_command: Command) -> None:
    """A one-shot command does not wait for a missing database."""
    answer = lone_command("executions", "--dsn", "postgresql://127.0.0.1:1/nowhere")
    assert answer.exit_code == 69
    assert answer.stderr.startswith("noetl-broker: the database cannot be reached: ")
    assert answer.stderr.count("\n") == 1


def test_a_host_without_an_address_is_named(lone_command: Command) -> None:
    """The system's message omits it. The password stays hidden."""
    answer = lone_command("executions", "--dsn", "postgresql://me:topsecret@nowhere.invalid/a")
    assert answer.exit_code == 69
    assert answer.stderr.endswith(" (nowhere.invalid/a)\n")


def test_without_a_dsn_the_error_says_how_to_give_one(lone_command: Command) -> None:
    """The driver then tries its default, where no server runs."""
    answer = lone_command("executions")
    if answer.exit_code != 69:
        pytest.skip("a Postgres listens at its usual place on this machine")
    assert "; nothing names a database: give --dsn, set NOETL_BROKER_DSN, or run noetl-broker dev" in answer.stderr


def test_debug_shows_where_an_error_comes_from(lone_command: Command) -> None:
    """The traceback comes first, the sentence is still last."""
    answer = lone_command("executions", "--dsn", "postgresql://127.0.0.1:1/nowhere", "--debug")
    assert answer.exit_code == 69
    assert answer.stderr.startswith("  | Traceback")
    assert answer.stderr.splitlines()[-1].startswith("noetl-broker: the database cannot be reached")


def test_an_empty_database_exits_with_78(bare_command: Command) -> None:
    """A database without our schema is refused."""
    answer = bare_command("executions")
    assert answer.exit_code == 78
    assert answer.stderr == f"noetl-broker: the database has no {SCHEMA} schema of ours; run noetl-broker migrate\n"


def test_a_setting_out_of_bounds_exits_with_2(lone_command: Command) -> None:
    """The sentence names the setting, its value and its place."""
    answer = lone_command.run("config", NOETL_BROKER_LANES="99")
    assert answer.returncode == 2
    assert "setting lanes '99' in the environment (NOETL_BROKER_LANES)" in answer.stderr
    assert "Traceback" not in answer.stderr


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
