"""Hostile names and messages: no command prints invisible characters of others, and no text of others forges a line."""

from __future__ import annotations

import json
import os
import pty

import pytest

from noetl_broker.text import short_json
from noetl_broker.visible import is_visible
from tests.brokers import complete_jobs, drain, execute, start, value
from tests.cli.conftest import PATIENCE_SECONDS, Command
from tests.postgres import Database

FORGED = "turn 9  execution_complete"
EVIL = f"a\n{FORGED}\x1b[2J\x1b]0;t\x07\u202e\u200b\u2028\x9b1m\r\u3164z"
PLAYBOOK = f"""
apiVersion: noetl.io/v1
kind: Playbook
metadata: {{name: story, path: story, description: {json.dumps(EVIL)}}}
workload: {{text: {json.dumps(EVIL)}}}
workflow:
- {{step: start, desc: {json.dumps(EVIL)}, next: a}}
- {{step: a, type: python, code: x, args: {{text: {json.dumps(EVIL)}}}, next: b}}
- {{step: b, type: python, code: {json.dumps(EVIL)}}}
"""
OF_ONE = [
    *(
        ["replay"],
        ["replay", "--until", "1"],
        ["replay", "--until", "3"],
        ["replay", "--story"],
        ["events"],
        ["status"],
    ),
    *(["explain"], ["graph"], ["reevaluate"], ["cancel", "--reason", EVIL], ["fork", "--from", EVIL], ["retry"]),
    ["status", "--watch"],
    ["status", "--traceback"],
    ["events", "--traceback"],
    ["logs"],
]
OF_ALL = [
    *(["executions"], ["executions", "--path", EVIL], ["dead-letters"], ["verify"], ["doctor"], ["replay", "--all"]),
    *(
        ["status", EVIL],
        ["start", EVIL],
        ["graph", EVIL],
        [EVIL],
        ["start", "story", EVIL],
        ["config", "--config", EVIL],
    ),
    *([f"--{EVIL}"], ["status", f"--{EVIL}"], ["validate", EVIL], ["register", EVIL], ["worker", "--types", EVIL]),
]


@pytest.fixture
async def hostile(database: Database) -> int:
    """Run an execution in which every name and message of others is hostile; give its id."""
    await execute(
        database,
        "insert into noetl.catalog (path, version, name, content) values ('story', 1, $1, $2)",
        EVIL.replace("\x00", ""),
        PLAYBOOK,
    )
    [execution_id] = await start(database, payload={"text": EVIL, EVIL: EVIL})
    await drain(database)
    await execute(
        database,
        "insert into noetl.event (execution_id, event_type, node_name, node_id) values ($1, $2, $2, $2)",
        execution_id,
        EVIL,
    )
    await drain(database)
    await complete_jobs(database, {"text": EVIL, EVIL: 1})
    await drain(database)
    await value(
        database,
        "select noetl.fail_job(queue_id, $1, attempts, $2, false) from noetl.lease_jobs($1, 1, 60)",
        EVIL,
        {"message": EVIL, "type": EVIL, "traceback": EVIL},
    )
    await drain(database)
    await execute(
        database,
        "insert into noetl.log (execution_id, node_id, attempt, ordinal, step, level, first_byte, message)"
        " values ($1, $2, 1, 1, $2, 'info', 0, $2)",
        execution_id,
        EVIL,
    )
    await execute(
        database,
        "insert into noetl.dead_letter (execution_id, event_id, reason) values ($1, 1, $2)",
        execution_id,
        EVIL,
    )
    return execution_id


def faults(text: str) -> list[str]:
    """Give the lines with invisible characters, and those that begin with the forged words."""
    return [line for line in text.split("\n") if not is_visible(line) or line.lstrip().startswith(FORGED)]


@pytest.mark.parametrize("as_json", [False, True], ids=["plain", "json"])
def test_no_command_prints_control_characters(command: Command, hostile: int, *, as_json: bool) -> None:
    """In a pipe, on both streams, as text and as JSON, after success and failure."""
    calls = [[name, str(hostile), *rest] for name, *rest in OF_ONE] + OF_ALL
    found = {}
    for call in calls:
        answer = command(*call, *(["--json"] if as_json else []))
        if bad := faults(answer.stdout) + faults(answer.stderr):
            found[" ".join(call[:3]).replace(EVIL, "EVIL")] = bad[:2]
    assert found == {}


def test_a_terminal_gets_no_control_characters_of_others(command: Command, hostile: int) -> None:
    """The only escape sequences are our own colours."""
    started = []
    for call in ("executions", "dead-letters", f"status {hostile}", f"replay {hostile}", f"events {hostile}"):
        leader, follower = pty.openpty()
        process = command.start_with(follower, follower, *call.split(), TERM="xterm", COLUMNS="200")
        os.close(follower)
        started.append((leader, process))
    for leader, process in started:
        seen = b""
        try:
            while part := os.read(leader, 65_536):
                seen += part
        except OSError:
            pass  # the peer has closed its end
        process.wait(PATIENCE_SECONDS)
        os.close(leader)
        text = seen.decode()
        assert [bad for bad in ("\x1b[2J", "\x1b]", "\x07", "\u202e", "\u200b", "\u2028", "\x9b") if bad in text] == []
        assert [line for line in text.replace("\r", "").split("\n") if line.lstrip().startswith(FORGED)] == []


def test_escaped_json_has_the_same_values(command: Command, hostile: int) -> None:
    """JSON escapes change the text of the document, not its values."""
    events = json.loads(command("events", hostile, "--json").stdout)
    assert EVIL in [event["event_type"] for event in events]


def test_explain_keeps_the_value_in_json() -> None:
    """Text output shows invisible characters as escapes; JSON keeps the value."""
    assert short_json("red\u202eevil") == '"red\u202eevil"'


def test_a_story_with_hostile_text_is_still_a_test(command: Command, hostile: int) -> None:
    """Its literals have escapes with the same value."""
    answer = command("replay", hostile, "--story")
    assert answer.exit_code in {0, 1}
    compile(answer.stdout, "pasted", "exec")


def test_a_traceback_forges_no_line(command: Command) -> None:
    """With --debug, an error about a file with that name."""
    answer = command.run("validate", EVIL, "--debug")
    assert faults(answer.stderr) == []
