"""Shell completion: commands without the database, paths, ids and steps from it, nothing if it is away."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from noetl_broker.cli import arguments
from noetl_broker.store.connect import connection
from tests.cli.conftest import PATIENCE_SECONDS, Command, decide, write_playbook
from tests.postgres import Database

FETCH = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): return 1", next: end}
  - {step: end}
"""


@pytest.fixture(autouse=True)
def patient_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine answer: a person's shell waits for a second."""
    monkeypatch.setattr(arguments, "TIMEOUT_SECONDS", PATIENCE_SECONDS)


def offered(command: Command, typed: str, **environment: str) -> list[str]:
    """Give the completions of the last word, as bash asks for them; nothing else is printed."""
    words = typed.split(" ")
    answer = command(
        _NOETL_BROKER_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1), **environment
    )
    assert (answer.exit_code, answer.stderr) == (0, "")
    return [line.partition(",")[2] for line in answer.stdout.splitlines() if line]


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
    assert answer.stdout == "['start', 'status'] []\n"


def test_paths_ids_and_steps_come_from_the_database(command: Command, database: Database) -> None:
    """The newest executions first, and the steps of the named execution."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    command("register", write_playbook(command.folder, FETCH, path="examples_too/fetch"))
    started = [command("start", "examples/fetch").stdout.strip() for _ in range(2)]
    decide(database)
    assert offered(command, "noetl-broker start exam") == ["examples/fetch", "examples_too/fetch"]
    assert offered(command, "noetl-broker start examples_") == ["examples_too/fetch"]
    assert offered(command, f"noetl-broker status {started[0][:5]}") == started[::-1]
    assert offered(command, f"noetl-broker explain {started[0]} f") == ["fetch"]
    assert offered(command, f"noetl-broker fork {started[0]} --from ") == ["start", "fetch", "end"]
    assert offered(command, "noetl-broker graph examples/") == ["examples/fetch"]


def test_completion_uses_the_dsn_on_the_command_line(
    lone_command: Command, command: Command, database: Database
) -> None:
    """`--dsn` wins over the settings, as for the command itself."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    assert offered(lone_command, f"noetl-broker start --dsn {database.dsn} ex") == ["examples/fetch"]


def test_completion_without_a_database_offers_nothing_quickly(
    lone_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And prints no error into the line. The driver would wait for longer."""
    monkeypatch.setattr(arguments, "TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", PATIENCE_SECONDS)
    assert offered(lone_command, "noetl-broker status 9", NOETL_BROKER_DSN="postgresql://127.0.0.1:1/none") == []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        dsn = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/none"
        assert offered(lone_command, "noetl-broker status 9", NOETL_BROKER_DSN=dsn) == []
        assert time.monotonic() - began < PATIENCE_SECONDS
    assert offered(lone_command, "noetl-broker status 9", NOETL_BROKER_LANES="many") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_completion_script(lone_command: Command, shell: str) -> None:
    """The script calls the program."""
    script = json.loads(lone_command("completion", shell, "--json").stdout)["script"]
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


@pytest.mark.parametrize(
    "call, sentence",
    [
        (("start", "wether"), 'no playbook wether is registered; did you mean "examples/weather"?'),
        (("start", "exampels/weather"), 'did you mean "examples/weather"?'),
        (("executions", "--path", "examples/wether"), 'wether is registered; did you mean "examples/weather"?'),
        (("worker", "--types", "pyhton"), "the worker has no tool for pyhton; did you mean python? It has http,"),
        (("config", "--config", "lane.yaml"), "lane in lane.yaml: there is no such setting; did you mean lanes?"),
        (("config", "--config", "gatd.yaml"), "Input should be 'gated', 'always' or 'off'; did you mean gated?"),
        (("status", "weather"), "'weather' is not the id of an execution; noetl-broker executions lists them"),
        (("status", "0"), "'0' is not the id of an execution"),
        (("status", "9223372036854775808"), "is not the id of an execution"),
    ],
)  # fmt: skip
def test_a_typing_error_gets_a_suggestion(command: Command, call: tuple[str, ...], sentence: str) -> None:
    """Names of playbooks, types of jobs, settings and their values."""
    (command.folder / "lane.yaml").write_text("lane: 3\n", encoding="utf-8")
    (command.folder / "gatd.yaml").write_text("notify: gatd\n", encoding="utf-8")
    command("register", write_playbook(command.folder, FETCH, path="examples/weather"))
    in_folder = command.run if call[0] in {"worker", "config"} else command
    assert sentence in in_folder(*call).stderr
