"""`start` and `cancel`: the commands of a producer, and their answers."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Command, begin, rows, write_playbook
from tests.postgres import Database

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
CHECKED = f"workload_schema: {{required: [n]}}\n{ECHO}"


@pytest.fixture
def echo(command: Command) -> str:
    """Register a playbook that needs no worker; give its path."""
    assert command("register", write_playbook(command.folder, ECHO, path="examples/echo")).exit_code == 0
    return "examples/echo"


def test_starting_prints_the_id(command: Command, database: Database, echo: str) -> None:
    """And nothing else, so that a script can take it. `@file` is read, as in curl."""
    file = command.folder / "payload.json"
    file.write_text('{"city": "Oslo"}', encoding="utf-8")
    answer = command("start", echo, "--payload", f"@{file}")
    found = rows(database, "select execution_id::text, context -> 'workload' from noetl.event")
    assert found == [(answer.stdout.strip(), {"city": "Oslo"})]


def test_a_bad_start_is_refused(command: Command, database: Database, echo: str) -> None:
    """One sentence names the error. An unknown playbook gets a suggestion: a similar name, or one that ends so."""
    command("register", write_playbook(command.folder, CHECKED, path="examples/checked"))
    payloads = [
        ("[1]", "must be a JSON object"),
        ('{"x": NaN}', "NaN is not a JSON number"),
        ("@missing.json", "missing.json cannot be read"),
        ('{"x": ' + "[" * 20_000 + "]" * 20_000 + "}", "at most 190 levels"),
        ('{"x": ' + "[" * 195 + "]" * 195 + "}", "nests deeper than 190 levels"),
        ('{"x": "\\u0000"}', "a text has the character U+0000"),
        ('{"x": "\\ud800"}', "surrogates not allowed"),
    ]
    schema = "the workload does not fit workload_schema: n is missing; it is that of examples/checked version 1\n"
    command.refuses(
        [
            *(((echo, "--payload", payload), 2, words) for payload, words in payloads),
            (("examples/checked", "--payload", '{"m": 1}'), 2, schema),
            *((path, 1, f'no playbook {path} is registered; did you mean "{echo}"?') for path in ("examples/ehco",)),
            ("echo", 1, f'no playbook echo is registered; did you mean "{echo}"?'),
            (f"{echo} --version latest", 2, "--version takes a number; leave it out for the latest version"),
            (f"{echo} --version 7", 1, "version 7 is registered; its latest version is 1"),
        ],
        "start",
    )
    assert rows(database, "select count(*) from noetl.execution") == [(0,)]
    assert command("start", "examples/checked", "--payload", '{"n": 1}').exit_code == 0


def test_an_idempotency_key_with_another_payload_exits_with_1(command: Command, echo: str) -> None:
    """One key starts one execution, however often the command is repeated. The message names it."""
    call = ("start", echo, "--idempotency-key", "k")
    [first] = {command(*call).stdout.strip() for _ in range(2)}
    words = f"execution {first} was started with another payload"
    command.refuses([((*call, "--payload", '{"city": "Oslo"}'), 1, words)])


def test_each_line_of_a_file_starts_an_execution(command: Command, database: Database, echo: str) -> None:
    """Their ids come in the order of the lines; with a key, a repeated call starts nothing new."""
    file = command.folder / "cities.jsonl"
    file.write_text('{"city": "Oslo"}\n\n{"city": "Bern"}\n', encoding="utf-8")
    first, again = (command("start", echo, "--payloads", str(file), "--idempotency-key", "k") for _ in range(2))
    assert first.stdout == again.stdout
    found = rows(database, "select execution_id::text, context -> 'workload' ->> 'city' from noetl.event order by 1")
    assert found == [*zip(first.stdout.split(), ["Oslo", "Bern"], strict=True)]
    assert rows(database, "select idempotency_key from noetl.execution order by 1") == [("k:1",), ("k:3",)]
    assert len(command.json("start", echo, "--payloads", str(file))["execution_ids"]) == 2


def test_a_bad_line_is_named_and_nothing_starts(command: Command, database: Database) -> None:
    """All lines are checked first."""
    command("register", write_playbook(command.folder, CHECKED, path="examples/checked"))
    file = command.folder / "lines.jsonl"
    cases = [
        ("{}\n[1]\n", "", "the payload in line 2 of {file} must be a JSON object"),
        ("{}\n{\n", "", "the payload in line 2 of {file} is not JSON"),
        ('{"n": 1}\n{}\n', "", "line 2 of {file}: the workload does not fit workload_schema: n is missing"),
        ('{"n": 1}\n', "--wait", "--payloads goes neither with --payload nor with --wait"),
    ]
    for lines, option, words in cases:
        file.write_text(lines, encoding="utf-8")
        command.refuses([(f"start examples/checked --payloads {file} {option}", 2, words.format(file=file))])
    away = command.folder / "away.jsonl"
    command.refuses([(f"start examples/checked --payloads {away}", 2, f"the payloads {away} cannot be read")])
    assert rows(database, "select count(*) from noetl.execution") == [(0,)]


def test_wait_shows_events_and_then_the_result(command: Command, echo: str) -> None:
    """Id and result on stdout, the events on stderr."""
    waiting = command.start("start", echo, "--payload", '{"city": "Oslo"}', "--wait")
    started = waiting.stdout.readline() if waiting.stdout else ""
    assert command("run", "--drain").exit_code == 0
    out, err = waiting.communicate()
    assert (waiting.returncode, started.strip().isdigit(), json.loads(out)) == (0, True, {"city": "Oslo"})
    shown = [line.split()[2] for line in err.splitlines() if "execution_" in line]
    assert shown == ["execution_start", "execution_complete"]


def test_wait_for_a_failure_exits_with_1(command: Command, database: Database) -> None:
    """The output names the step and the reason."""
    begin(command, database, DIVIDE, "--idempotency-key", "k", path="examples/divide")
    answer = command("start", "examples/divide", "--idempotency-key", "k", "--wait", "--json")
    ended = json.loads(answer.stdout)
    assert (answer.exit_code, ended["status"], ended["error"]["step"]) == (1, "FAILED", "start")


def test_cancel_sends_an_event_to_the_broker(command: Command, database: Database, echo: str) -> None:
    """The request is an event with its reason."""
    started = command("start", echo).stdout.strip()
    answer = command("cancel", started, "--reason", "wrong city")
    assert (answer.exit_code, answer.stdout) == (0, f"cancelling execution {started}\n")
    query = "select context, 'login:' || session_user from noetl.event where event_type = 'execution_cancel'"
    [(context, login)] = rows(database, query)
    assert context == {"reason": "wrong city", "by": login}


def test_an_execution_that_ended_is_not_cancelled(command: Command, database: Database) -> None:
    """The answer says how it ended."""
    started = begin(command, database, ECHO)
    answer = command("cancel", started)
    assert (answer.exit_code, answer.stdout) == (1, f"execution {started} has already ended: COMPLETED\n")
