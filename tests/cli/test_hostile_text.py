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
    ["cancel", "--reason", EVIL],
    ["fork", "--from", EVIL],
    *(call.split() for call in (
        "replay", "replay --until 1", "replay --until 3", "replay --story", "events", "events --traceback", "status",
        "status --watch", "status --traceback", "explain", "graph", "reevaluate", "retry", "logs",
    )),
]  # fmt: skip
OF_ALL = [
    *([call] for call in ("executions", "dead-letters", "verify", "doctor", EVIL, f"--{EVIL}")),
    *([name, EVIL] for name in ("status", "start", "graph", "validate", "register")),
    ["executions", "--path", EVIL], ["replay", "--all"], ["start", "story", EVIL], ["config", "--config", EVIL],
    ["status", f"--{EVIL}"], ["worker", "--types", EVIL],
]  # fmt: skip


@pytest.fixture
async def hostile(database: Database) -> int:
    """Run an execution in which every name and message of others is hostile; give its id."""
    insert = "insert into noetl.catalog (path, version, name, content) values ('story', 1, $1, $2)"
    await execute(database, insert, EVIL.replace("\x00", ""), PLAYBOOK)
    [execution_id] = await start(database, payload={"text": EVIL, EVIL: EVIL})
    await drain(database)
    event = "insert into noetl.event (execution_id, event_type, node_name, node_id) values ($1, $2, $2, $2)"
    await execute(database, event, execution_id, EVIL)
    await drain(database)
    await complete_jobs(database, {"text": EVIL, EVIL: 1})
    await drain(database)
    failed = "select noetl.fail_job(queue_id, $1, attempts, $2, false) from noetl.lease_jobs($1, 1, 60)"
    await value(database, failed, EVIL, {"message": EVIL, "type": EVIL, "traceback": EVIL})
    await drain(database)
    log = """insert into noetl.log (execution_id, node_id, attempt, ordinal, step, level, first_byte, message)
        values ($1, $2, 1, 1, $2, 'info', 0, $2)"""
    await execute(database, log, execution_id, EVIL)
    letter = "insert into noetl.dead_letter (execution_id, event_id, reason) values ($1, 1, $2)"
    await execute(database, letter, execution_id, EVIL)
    return execution_id


def faults(text: str) -> list[str]:
    """Give the lines with invisible characters, and those that begin with the forged words."""
    return [line for line in text.split("\n") if not is_visible(line) or line.lstrip().startswith(FORGED)]


def test_no_command_prints_control_characters(command: Command, hostile: int) -> None:
    """In a pipe, on both streams, as text and as JSON, after success and failure. JSON and stories have the values."""
    calls = [[name, str(hostile), *rest] for name, *rest in OF_ONE] + OF_ALL
    found = {}
    for call in [*calls, *([*call, "--json"] for call in calls)]:
        answer = command(*call)
        if bad := faults(answer.stdout) + faults(answer.stderr):
            found[" ".join(call).replace(EVIL, "EVIL")] = bad[:2]
    assert found == {}
    assert EVIL in [event["event_type"] for event in command.json("events", hostile)]
    story = command("replay", hostile, "--story")
    assert story.exit_code in {0, 1}
    compile(story.stdout, "pasted", "exec")
    # A traceback forges no line either.
    assert faults(command("validate", EVIL, "--debug").stderr) == []


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


def test_explain_keeps_the_value_in_json() -> None:
    """Text output shows invisible characters as escapes; JSON keeps the value."""
    assert short_json("red\u202eevil") == '"red\u202eevil"'
