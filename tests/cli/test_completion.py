"""Shell completion: commands without the database, paths, ids and steps from it, nothing if it is away."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from noetl_broker.store.connect import connection
from tests.cli.conftest import FETCH, NOWHERE, PATIENCE_SECONDS, Command, write_playbook
from tests.postgres import Database


def offered(command: Command, typed: str, **environment: str) -> list[str]:
    """Give the completions of the last word, as bash asks for them; nothing else is printed."""
    words = typed.split(" ")
    asked = {"_NOETL_BROKER_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    answer = command(**asked, **environment)
    assert (answer.exit_code, answer.stderr) == (0, "")
    return [line.partition(",")[2] for line in answer.stdout.splitlines() if line]


def offered_at_last(command: Command, typed: str) -> list[str]:
    """Ask until something is offered: a person's shell waits for a second, and a busy machine may need longer."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not (found := offered(command, typed)) and time.monotonic() < ends_at:
        pass
    return found


def test_commands_and_options_are_completed_without_a_database(lone_command: Command) -> None:
    """Commands come from the table, options from the command itself."""
    assert offered(lone_command, "noetl-broker ret") == ["retry"]
    assert offered(lone_command, "noetl-broker status --wa") == ["--watch"]
    assert offered(lone_command, "noetl-broker run --pro") == ["--processes"]


def test_completing_a_command_loads_no_driver() -> None:
    """A shell runs it at every key."""
    program = (
        "import sys\n"
        "from noetl_broker.cli.main import cli\n"
        "from click.shell_completion import BashComplete\n"
        "found = BashComplete(cli, {}, 'noetl-broker', '_NOETL_BROKER_COMPLETE').get_completions([], 'sta')\n"
        "print([item.value for item in found], sorted({'asyncpg', 'pydantic', 'rich'} & set(sys.modules)))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "['start', 'stats', 'status'] []\n"


def test_paths_ids_and_steps_come_from_the_database(
    lone_command: Command, command: Command, database: Database, started: int
) -> None:
    """The newest executions first, and the steps of the named execution. `--dsn` wins over the settings."""
    command("register", write_playbook(command.folder, FETCH, path="examples_too/fetch"))
    second = command("start", "examples/fetch").stdout.strip()
    found = {
        "start exam": ["examples/fetch", "examples_too/fetch"],
        "start examples_": ["examples_too/fetch"],
        f"status {second[:5]}": [second, str(started)],
        f"explain {started} f": ["fetch"],
        f"fork {started} --from ": ["start", "fetch", "end"],
        "graph examples/": ["examples/fetch"],
    }
    assert {typed: offered_at_last(command, f"noetl-broker {typed}") for typed in found} == found
    typed = f"noetl-broker start --dsn {database.dsn} examples/"
    assert offered_at_last(lone_command, typed) == ["examples/fetch"]


def test_completion_without_a_database_offers_nothing_quickly(
    lone_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And prints no error into the line. The driver would wait for longer."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS", PATIENCE_SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        dsn = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/none"
        for variables in ({"DSN": NOWHERE}, {"DSN": dsn}, {"LANES": "many"}):
            environment = {f"NOETL_BROKER_{name}": value for name, value in variables.items()}
            assert offered(lone_command, "noetl-broker status 9", **environment) == []
        assert time.monotonic() - began < PATIENCE_SECONDS


def test_each_shell_has_a_completion_script(lone_command: Command) -> None:
    """The script calls the program."""
    for shell in ("bash", "zsh", "fish"):
        script = lone_command.json("completion", shell)["script"]
        assert f"_NOETL_BROKER_COMPLETE={shell}_complete" in script
        assert script.strip() == lone_command("completion", shell).stdout.strip()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_with_the_script(command: Command) -> None:
    """As if the user had pressed Tab."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    program = (
        'eval "$(noetl-broker completion bash)"; COMP_WORDS=(noetl-broker start exa); COMP_CWORD=2;'
        ' _noetl_broker_completion noetl-broker; echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    answer = subprocess.run(
        ["bash", "--norc", "-c", program],  # noqa: S607 - the machine's own
        env=command.environment | {"PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (answer.stdout, answer.stderr) == ("examples/fetch\n", "")


def test_a_typing_error_gets_a_suggestion(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of playbooks, types of jobs, settings and their values."""
    (command.folder / "lane.yaml").write_text("lane: 3\n", encoding="utf-8")
    (command.folder / "gatd.yaml").write_text("notify: gatd\n", encoding="utf-8")
    monkeypatch.chdir(command.folder)
    command("register", write_playbook(command.folder, FETCH, path="examples/weather"))
    command.refuses([
        ("start wether", 1, 'no playbook wether is registered; did you mean "examples/weather"?'),
        ("start weather", 1, 'no playbook weather is registered; did you mean "examples/weather"?'),
        ("start exampels/weather", 1, 'did you mean "examples/weather"?'),
        ("worker --types pyhton", 2, "the worker has no tool for pyhton; did you mean python? It has http,"),
        ("config --config lane.yaml", 2, "lane in lane.yaml: there is no such setting; did you mean lanes?"),
        ("config --config gatd.yaml", 2, "Input should be 'gated', 'always' or 'off'; did you mean gated?"),
        ("status weather", 2, "'weather' is not the id of an execution; noetl-broker executions lists them"),
        ("status 0", 2, "'0' is not the id of an execution"),
        ("status 9223372036854775808", 2, "is not the id of an execution"),
        ("evnts", 2, "There is no command evnts. Did you mean events?"),
    ])  # fmt: skip
    nothing = command("executions", "--path", "examples/wether").stderr
    assert 'wether is registered; did you mean "examples/weather"?' in nothing
