"""`start` and `cancel`: what a producer may ask, and what is answered."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import Result

from noetl_broker.errors import EXIT_NO_PERMISSION
from tests.cli.conftest import Command, execute, rows, write_playbook
from tests.postgres import Database
from tests.roles import logins

ECHO = """\
workload: {city: Rome}
workflow:
  - {step: start, next: end}
  - {step: end, result: {city: "{{ workload.city }}"}}
"""
DIVIDE = """\
workflow:
  - {step: start, next: [{when: "{{ 1 / workload.zero > 0 }}", step: end}]}
  - {step: end}
workload: {zero: 0}
"""


@pytest.fixture
def echo(command: Command) -> str:
    """Register a playbook that needs no worker; give its path."""
    assert command("register", write_playbook(command.folder, ECHO, path="examples/echo")).exit_code == 0
    return "examples/echo"


def test_starting_prints_the_id(command: Command, database: Database, echo: str) -> None:
    """And nothing else, so that a script can take it."""
    answer = command("start", echo)
    assert rows(database, "select execution_id::text from noetl.execution") == [(answer.stdout.strip(),)]


def test_the_payload_may_stand_in_a_file(command: Command, database: Database, echo: str) -> None:
    """`@file` is read, as with curl."""
    file = command.folder / "payload.json"
    file.write_text('{"city": "Oslo"}', encoding="utf-8")
    assert command("start", echo, "--payload", f"@{file}").exit_code == 0
    assert rows(database, "select context -> 'workload' from noetl.event") == [({"city": "Oslo"},)]


@pytest.mark.parametrize(
    "payload,complaint",
    [
        ("{", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"x": NaN}', "NaN is no JSON number"),
        ("@missing.json", "missing.json cannot be read"),
        ('{"x": ' + "[" * 20_000 + "]" * 20_000 + "}", "nested too deeply; a payload has at most 190 levels"),
        ('{"x": ' + "[" * 195 + "]" * 195 + "}", "nests deeper than 190 levels"),
        ('{"x": "\\u0000"}', "the database refuses the value"),
    ],
)
def test_a_bad_payload_is_2(command: Command, echo: str, payload: str, complaint: str) -> None:
    """One sentence says what is wrong with it."""
    answer = command("start", echo, "--payload", payload)
    assert answer.exit_code == 2
    assert complaint in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize("path", ["examples/ehco", "echo"])
def test_an_unknown_playbook_is_told_with_the_one_that_was_meant(command: Command, echo: str, path: str) -> None:
    """By a close name, or by the last part of the path."""
    answer = command("start", path)
    assert answer.exit_code == 1
    assert answer.stderr == f'noetl-broker: no playbook {path} is registered; did you mean "{echo}"?\n'


def test_an_unknown_version_is_told_with_the_latest(command: Command, echo: str) -> None:
    """The path was right."""
    answer = command("start", echo, "--version", 7)
    assert answer.exit_code == 1
    assert "version 7 is registered; its latest version is 1" in answer.stderr


def test_one_key_starts_one_execution(command: Command, echo: str) -> None:
    """However often it is sent."""
    first, second = (command("start", echo, "--idempotency-key", "k") for _ in range(2))
    assert first.stdout == second.stdout


def test_waiting_shows_the_way_and_ends_with_the_result(command: Command, echo: str) -> None:
    """The id and the result on stdout, the events beside it."""
    waiting = command.start("start", echo, "--payload", '{"city": "Oslo"}', "--wait")
    started = waiting.stdout.readline() if waiting.stdout else ""
    assert command.run("run", "--drain").returncode == 0
    out, err = waiting.communicate()
    assert (waiting.returncode, started.strip().isdigit(), json.loads(out)) == (0, True, {"city": "Oslo"})
    assert [line.split()[2] for line in err.splitlines()] == ["execution_start", "execution_complete"]


def test_waiting_for_a_failure_ends_with_1(command: Command) -> None:
    """And says in which step, and why."""
    command("register", write_playbook(command.folder, DIVIDE, path="examples/divide"))
    waiting = command.start("start", "examples/divide", "--wait", "--json")
    assert rows_when_there(command)
    out, _ = waiting.communicate()
    ended = json.loads(out)
    assert (waiting.returncode, ended["status"], ended["error"]["step"]) == (1, "FAILED", "start")


def rows_when_there(command: Command) -> bool:
    """Run a broker beside the waiting command until it has taken the turn that it waits for."""
    for _ in range(20):
        answer = command.run("run", "--drain", "--json")
        if json.loads(answer.stdout)["turns"]:
            return True
    return False


def test_cancelling_asks_the_broker(command: Command, database: Database, echo: str) -> None:
    """The request is an event; its reason stays with it."""
    started = command("start", echo).stdout.strip()
    answer = command("cancel", started, "--reason", "wrong city")
    assert (answer.exit_code, answer.stdout) == (0, f"cancelling execution {started}\n")
    asked = "select context from noetl.event where event_type = 'execution_cancel'"
    assert rows(database, asked) == [({"reason": "wrong city"},)]


def test_what_has_ended_cannot_be_cancelled(command: Command, echo: str) -> None:
    """The answer says how it ended."""
    started = command("start", echo).stdout.strip()
    command.run("run", "--drain")
    answer = command("cancel", started)
    assert (answer.exit_code, answer.stdout) == (1, f"execution {started} has already ended: COMPLETED\n")


@pytest.mark.parametrize("name", ["cancel", "status", "events"])
def test_an_unknown_execution_is_1(command: Command, name: str) -> None:
    """With a word on where the known ones are listed."""
    answer = command(name, 5)
    assert answer.exit_code == 1
    assert answer.stderr == "noetl-broker: no execution 5; noetl-broker executions lists them\n"


def test_a_role_without_rights_is_77(command: Command, database: Database, echo: str) -> None:
    """Whoever may not start executions is told so."""
    name = f"guest_{database.name}"
    execute(database, f"create role {name} login password 'guest'")
    dsn = f"postgresql://{name}:guest@{database.dsn.partition('@')[2]}"
    answer = command("start", echo, "--dsn", dsn)
    execute(database, f"drop role {name}")
    assert answer.exit_code == 77
    assert "for want of rights" in answer.stderr


async def test_a_producer_may_start_and_cancel(command: Command, database: Database, echo: str) -> None:
    """With the rights of its role, which do not let it see the version of the schema, nor what runs."""
    async with logins(database) as as_role:

        async def ask(*arguments: str) -> Result:
            return await asyncio.to_thread(command, *arguments, "--dsn", as_role.producer.dsn)

        started = await ask("start", echo)
        answers = [started, await ask("cancel", started.stdout.strip()), await ask("executions")]
    assert [answer.exit_code for answer in answers] == [0, 0, EXIT_NO_PERMISSION]
