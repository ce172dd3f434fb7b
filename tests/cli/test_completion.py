"""What a shell offers: commands without the database, paths, ids and steps from it, nothing where it is away."""

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

from tests.cli.conftest import Command, decide, write_playbook
from tests.postgres import Database

FETCH = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): return 1", next: end}
  - {step: end}
"""


def offered(command: Command, typed: str, **environment: str) -> list[str]:
    """What is offered for the last word of what is typed, as bash asks it; nothing is said beside it."""
    words = typed.split(" ")
    answer = command.run(
        _NOETL_BROKER_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1), **environment
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    return [line.partition(",")[2] for line in answer.stdout.splitlines() if line]


def test_commands_and_options_are_completed_without_a_database(lone_command: Command) -> None:
    """From the table; the options of a command from itself."""
    assert offered(lone_command, "noetl-broker re") == ["register", "reevaluate", "retry", "replay"]
    assert offered(lone_command, "noetl-broker status --wa") == ["--watch"]
    assert offered(lone_command, "noetl-broker run --pro") == ["--processes"]


def test_completing_a_command_loads_no_driver() -> None:
    """A shell asks at every key."""
    program = (
        "import sys\n"
        "from noetl_broker.cli.group import cli\n"
        "from click.shell_completion import BashComplete\n"
        "found = BashComplete(cli, {}, 'noetl-broker', '_NOETL_BROKER_COMPLETE').get_completions([], 'st')\n"
        "print([item.value for item in found], sorted({'asyncpg', 'pydantic', 'rich'} & set(sys.modules)))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "['start', 'status'] []\n"


def test_paths_ids_and_steps_come_from_the_database(command: Command, database: Database) -> None:
    """The ids of the newest executions first, the steps of the one that is named."""
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


def test_the_database_is_the_one_that_is_typed(lone_command: Command, command: Command, database: Database) -> None:
    """`--dsn` wins over the settings, as for the command itself."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    assert offered(lone_command, f"noetl-broker start --dsn {database.dsn} ex") == ["examples/fetch"]


def test_a_database_that_is_away_or_mute_offers_nothing_and_soon(lone_command: Command) -> None:
    """And no word of it: the line is being typed."""
    assert offered(lone_command, "noetl-broker status 9", NOETL_BROKER_DSN="postgresql://127.0.0.1:1/none") == []
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        dsn = f"postgresql://127.0.0.1:{mute.getsockname()[1]}/none"
        assert offered(lone_command, "noetl-broker status 9", NOETL_BROKER_DSN=dsn) == []
    assert time.monotonic() - began < 5
    assert offered(lone_command, "noetl-broker status 9", NOETL_BROKER_LANES="many") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script(lone_command: Command, shell: str) -> None:
    """Which calls us back."""
    script = json.loads(lone_command("completion", shell, "--json").stdout)["script"]
    assert f"_NOETL_BROKER_COMPLETE={shell}_complete" in script
    assert script.strip() == lone_command("completion", shell).stdout.strip()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_with_the_script(command: Command) -> None:
    """As if somebody had pressed the tabulator."""
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
def test_a_typing_error_is_told_with_what_was_meant(command: Command, call: tuple[str, ...], sentence: str) -> None:
    """Names of playbooks, types of jobs, settings and their values."""
    (command.folder / "lane.yaml").write_text("lane: 3\n", encoding="utf-8")
    (command.folder / "gatd.yaml").write_text("notify: gatd\n", encoding="utf-8")
    command("register", write_playbook(command.folder, FETCH, path="examples/weather"))
    answer = command.run(*call)
    assert sentence in answer.stderr
