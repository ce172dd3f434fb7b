"""The command `signal`, and the same from a program."""

from __future__ import annotations

import asyncio
import re

from noetl_broker import Client
from tests.cli.conftest import Command, begin, decide, read_until, rows, write_playbook
from tests.postgres import Database

WAIT = "workflow:\n- {step: start, next: go}\n- {step: go, type: wait, signal: go, key: KEY}\n"


def waiting(command: Command, database: Database, key: str) -> int:
    """Start an execution that waits; return its id."""
    return begin(command, database, WAIT.replace("key: KEY", f"key: {key}" if key else "timeout: 1d"))


def result(database: Database) -> tuple[object, ...]:
    """Decide; return the status and the result of the only execution."""
    decide(database)
    [found] = rows(database, "select status, result from noetl.execution")
    return found


def test_signal_sends_by_key(command: Command, database: Database) -> None:
    """It prints the id; an idempotency key sends one. The events show its name, its key and its payload."""
    execution_id = waiting(command, database, "42")
    for _ in range(2):
        answer = command("signal", "go", "--key", "42", "--payload", '{"a": 5}', "--idempotency-key", "i")
        assert (answer.exit_code, answer.stdout) == (0, "1\n")
    assert result(database) == ("COMPLETED", {"a": 5})
    used = "the idempotency key i of the signal go is used: signal 1 has another payload; send the same payload, or"
    command.refuses([("signal go --key 42 --payload 6 --idempotency-key i", 1, used)])
    [line] = [line for line in command("events", execution_id).stdout.splitlines() if "execution_signal" in line]
    assert line.endswith('go of 42: {"a": 5}, by login:postgres')


def test_signal_sends_to_an_execution(command: Command, database: Database) -> None:
    """One that has ended gets none."""
    execution_id = waiting(command, database, "")
    assert command("signal", "go", "--execution", execution_id, "--payload", "7").stdout == "1\n"
    assert result(database) == ("COMPLETED", 7)
    kept = "a signal to an execution is kept until the execution ends; leave out --keep"
    command.refuses([
        (f"signal go --execution {execution_id}", 1, f"execution {execution_id} has ended, so nothing was sent"),
        (f"signal go --execution {execution_id} --keep 1d", 2, kept),
    ])  # fmt: skip


def test_a_program_sends_signals(command: Command, database: Database) -> None:
    """By key, where a number is its JSON text, and to an execution."""
    execution_id = waiting(command, database, "42")

    async def send() -> list[int | None]:
        async with Client(database.dsn, schema=database.schema) as client:
            return [
                await client.signal_execution(execution_id, "other", {"x": 1}),
                await client.signal("go", 42, [1, 2], idempotency_key="i"),
                await client.signal("go", 42, [1, 2], idempotency_key="i"),
            ]

    assert asyncio.run(send()) == [1, 2, 2]
    assert result(database) == ("COMPLETED", [1, 2])


def test_signal_to_an_execution_says_that_its_waits_have_another_key(command: Command, database: Database) -> None:
    """So does explain: a signal to an execution reaches its waits without `key`."""
    execution_id = waiting(command, database, "42")
    answer = command("signal", "go", "--execution", execution_id)
    missed = (
        f"noetl-broker: execution {execution_id} waits for go with the key 42, so it does not take this signal; "
        "send it by the key: noetl-broker signal go --key 42\n"
    )
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "1\n", missed)
    said = command("explain", execution_id).stdout
    assert "    1 signal go was sent to this execution, and it cannot reach this wait, which has the key 42" in said
    assert "signal go of 42" in command("status", execution_id).stdout


def test_status_names_the_signal_that_came_too_early(command: Command, database: Database) -> None:
    """And since when signals count, so that nobody waits for one that was sent. `explain` names it, too."""
    command("signal", "go", "--key", "42")
    execution_id = waiting(command, database, "42")
    said = command("status", execution_id).stdout
    assert re.search(r"\ngo +signal go of 42, sent since 20", said)
    assert re.search(r"\na signal go of 42 was sent at 20\S+ \S+, too early for go: `since` would include it\n", said)
    [wait] = command.json("status", execution_id)["waits"]
    assert wait["sent_too_early"] < wait["since_at"]
    said = command("explain", execution_id).stdout
    assert re.search(r"a signal of this name and key was sent \S+ \w+ before the start; `since` would include it", said)


def test_start_says_what_it_waits_for(command: Command, database: Database) -> None:
    """As soon as the wait begins; it goes on when the signal comes."""
    command("signal", "go", "--key", "42")
    command("register", write_playbook(command.folder, WAIT.replace("KEY", "42")))
    process = command.start("start", "examples/story", "--wait", "--timeout", "10m")
    assert process.stdout is not None
    process.stdout.readline()
    decide(database)
    assert re.search(r"^go waits for signal go of 42, sent since 20", read_until(process, "waits for"))
    assert "too early for go" in read_until(process, "too early")
    command("signal", "go", "--key", "42", "--payload", "5")
    decide(database)
    out, _ = process.communicate()
    assert (process.returncode, out) == (0, "5\n")


def test_start_does_not_wait_past_its_timeout(command: Command, database: Database) -> None:
    """The execution goes on; the message says so, and how to look at it."""
    command("register", write_playbook(command.folder, WAIT.replace("KEY", "42")))
    call = ("start", "examples/story", "--idempotency-key", "k")
    started = command(*call).stdout.strip()
    decide(database)
    answer = command(*call, "--wait", "--timeout", "0.001s")
    assert (answer.exit_code, answer.stdout) == (75, f"{started}\n")
    assert answer.stderr.endswith(
        f"noetl-broker: execution {started} has not ended after 1 ms, and goes on;"
        f" noetl-broker status {started} shows it, noetl-broker cancel {started} ends it\n"
    )
    document = command.json(*call, "--wait", "--timeout", "0.001s")
    assert (document["execution_id"], document["status"], document["result"]) == (started, "RUNNING", None)
    refused = command(*call, "--timeout", "1s")
    assert (refused.exit_code, "--timeout is for --wait" in refused.stderr) == (2, True)
