"""`start` and `cancel`: the commands of a producer, and their answers."""

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


def test_the_payload_may_be_in_a_file(command: Command, database: Database, echo: str) -> None:
    """`@file` is read, as in curl."""
    file = command.folder / "payload.json"
    file.write_text('{"city": "Oslo"}', encoding="utf-8")
    assert command("start", echo, "--payload", f"@{file}").exit_code == 0
    assert rows(database, "select context -> 'workload' from noetl.event") == [({"city": "Oslo"},)]


@pytest.mark.parametrize(
    "payload,complaint",
    [
        ("{", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"x": NaN}', "NaN is not a JSON number"),
        ("@missing.json", "missing.json cannot be read"),
        ('{"x": ' + "[" * 20_000 + "]" * 20_000 + "}", "nested too deeply; a payload has at most 190 levels"),
        ('{"x": ' + "[" * 195 + "]" * 195 + "}", "nests deeper than 190 levels"),
        ('{"x": "\\u0000"}', "the database refuses the value"),
    ],
)
def test_a_bad_payload_exits_with_2(command: Command, echo: str, payload: str, complaint: str) -> None:
    """One sentence names the error."""
    answer = command("start", echo, "--payload", payload)
    assert answer.exit_code == 2
    assert complaint in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_payload_that_breaks_the_schema_starts_nothing(command: Command, database: Database) -> None:
    """Exit 2, with each place and the version whose schema it is."""
    file = write_playbook(command.folder, f"workload_schema: {{required: [n]}}\n{ECHO}", path="examples/checked")
    assert command("register", file).exit_code == 0
    answer = command("start", "examples/checked", "--payload", '{"m": 1}')
    assert (answer.exit_code, answer.stderr) == (
        2,
        (
            "noetl-broker: the workload does not fit workload_schema: n is missing; it is that of "
            "examples/checked version 1\n"
        ),
    )
    assert rows(database, "select count(*) from noetl.execution") == [(0,)]
    assert command("start", "examples/checked", "--payload", '{"n": 1}').exit_code == 0


def test_an_idempotency_key_with_another_payload_exits_with_1(command: Command, echo: str) -> None:
    """The message names the first execution."""
    first = command("start", echo, "--idempotency-key", "k").stdout.strip()
    assert command("start", echo, "--idempotency-key", "k").stdout.strip() == first
    answer = command("start", echo, "--idempotency-key", "k", "--payload", '{"city": "Oslo"}')
    assert answer.exit_code == 1
    assert f"execution {first} was started with another payload" in answer.stderr


@pytest.mark.parametrize("path", ["examples/ehco", "echo"])
def test_an_unknown_playbook_gets_a_suggestion(command: Command, echo: str, path: str) -> None:
    """By a similar name, or by the last part of the path."""
    answer = command("start", path)
    assert answer.exit_code == 1
    assert answer.stderr == f'noetl-broker: no playbook {path} is registered; did you mean "{echo}"?\n'


def test_an_unknown_version_names_the_latest(command: Command, echo: str) -> None:
    """The path exists."""
    answer = command("start", echo, "--version", 7)
    assert answer.exit_code == 1
    assert "version 7 is registered; its latest version is 1" in answer.stderr


def test_one_key_starts_one_execution(command: Command, echo: str) -> None:
    """However often the command is repeated."""
    first, second = (command("start", echo, "--idempotency-key", "k") for _ in range(2))
    assert first.stdout == second.stdout


def test_each_line_of_a_file_starts_an_execution(command: Command, database: Database, echo: str) -> None:
    """Their ids come in the order of the lines; with a key, a repeated call starts nothing new."""
    file = command.folder / "cities.jsonl"
    file.write_text('{"city": "Oslo"}\n\n{"city": "Bern"}\n', encoding="utf-8")
    first, again = (command("start", echo, "--payloads", str(file), "--idempotency-key", "k") for _ in range(2))
    assert first.stdout == again.stdout
    found = rows(database, "select execution_id::text, context -> 'workload' ->> 'city' from noetl.event order by 1")
    assert found == [*zip(first.stdout.split(), ["Oslo", "Bern"], strict=True)]
    assert rows(database, "select idempotency_key from noetl.execution order by 1") == [("k:1",), ("k:3",)]
    ids = json.loads(command("start", echo, "--payloads", str(file), "--json").stdout)["execution_ids"]
    assert len(ids) == 2


@pytest.mark.parametrize(
    "lines, options, complaint",
    [
        ("{}\n[1]\n", [], "the payload in line 2 of {file} must be a JSON object"),
        ("{}\n{\n", [], "the payload in line 2 of {file} is not JSON"),
        ('{"n": 1}\n{}\n', [], "line 2 of {file}: the workload does not fit workload_schema: n is missing"),
        ('{"n": 1}\n', ["--wait"], "--payloads goes neither with --payload nor with --wait"),
        (None, [], "the payloads {file} cannot be read"),
    ],
)
def test_a_bad_line_is_named_and_nothing_starts(
    command: Command, database: Database, lines: str | None, options: list[str], complaint: str
) -> None:
    """All lines are checked first."""
    playbook = write_playbook(command.folder, f"workload_schema: {{required: [n]}}\n{ECHO}", path="examples/checked")
    assert command("register", playbook).exit_code == 0
    file = command.folder / "lines.jsonl"
    if lines is not None:
        file.write_text(lines, encoding="utf-8")
    answer = command("start", "examples/checked", "--payloads", str(file), *options)
    assert answer.exit_code == 2
    assert complaint.format(file=file) in answer.stderr
    assert rows(database, "select count(*) from noetl.execution") == [(0,)]


def test_wait_shows_events_and_then_the_result(command: Command, echo: str) -> None:
    """Id and result on stdout, the events on stderr."""
    waiting = command.start("start", echo, "--payload", '{"city": "Oslo"}', "--wait")
    started = waiting.stdout.readline() if waiting.stdout else ""
    assert command("run", "--drain").exit_code == 0
    out, err = waiting.communicate()
    assert (waiting.returncode, started.strip().isdigit(), json.loads(out)) == (0, True, {"city": "Oslo"})
    assert [line.split()[2] for line in err.splitlines() if "execution_" in line] == [
        "execution_start",
        "execution_complete",
    ]


def test_wait_for_a_failure_exits_with_1(command: Command) -> None:
    """The output names the step and the reason."""
    command("register", write_playbook(command.folder, DIVIDE, path="examples/divide"))
    waiting = command.start("start", "examples/divide", "--wait", "--json")
    assert rows_when_there(command)
    out, _ = waiting.communicate()
    ended = json.loads(out)
    assert (waiting.returncode, ended["status"], ended["error"]["step"]) == (1, "FAILED", "start")


def rows_when_there(command: Command) -> bool:
    """Run a broker until it has taken the turn for which the command waits."""
    for _ in range(20):
        answer = command.run("run", "--drain", "--json")
        if json.loads(answer.stdout)["turns"]:
            return True
    return False


def test_cancel_sends_an_event_to_the_broker(command: Command, database: Database, echo: str) -> None:
    """The request is an event with its reason."""
    started = command("start", echo).stdout.strip()
    answer = command("cancel", started, "--reason", "wrong city")
    assert (answer.exit_code, answer.stdout) == (0, f"cancelling execution {started}\n")
    query = "select context from noetl.event where event_type = 'execution_cancel'"
    assert rows(database, query) == [({"reason": "wrong city"},)]


def test_an_ended_execution_cannot_be_cancelled(command: Command, echo: str) -> None:
    """The answer says how it ended."""
    started = command("start", echo).stdout.strip()
    command("run", "--drain")
    answer = command("cancel", started)
    assert (answer.exit_code, answer.stdout) == (1, f"execution {started} has already ended: COMPLETED\n")


@pytest.mark.parametrize("name", ["cancel", "status", "events"])
def test_an_unknown_execution_exits_with_1(command: Command, name: str) -> None:
    """The error names the command that lists executions."""
    answer = command(name, 5)
    assert answer.exit_code == 1
    assert answer.stderr == "noetl-broker: no execution 5; noetl-broker executions lists them\n"


def test_a_role_without_rights_exits_with_77(command: Command, database: Database, echo: str) -> None:
    """The error says that the login may not start executions."""
    name = f"guest_{database.name}"
    execute(database, f"create role {name} login password 'guest'")
    dsn = f"postgresql://{name}:guest@{database.dsn.partition('@')[2]}"
    answer = command("start", echo, "--dsn", dsn)
    execute(database, f"drop role {name}")
    assert answer.exit_code == 77
    assert "because a right is missing" in answer.stderr


async def test_a_producer_may_start_and_cancel(command: Command, database: Database, echo: str) -> None:
    """Its role sees neither the schema's version nor running executions."""
    async with logins(database) as as_role:

        async def ask(*arguments: str) -> Result:
            return await asyncio.to_thread(command, *arguments, "--dsn", as_role.producer.dsn)

        started = await ask("start", echo)
        answers = [started, await ask("cancel", started.stdout.strip()), await ask("executions")]
    assert [answer.exit_code for answer in answers] == [0, 0, EXIT_NO_PERMISSION]
