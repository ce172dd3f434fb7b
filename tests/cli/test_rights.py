"""Each command as each role: it works where docs/reference/security.md says so, else the error names the role."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.brokers import drain, running
from tests.cli.conftest import Command, decide, write_playbook
from tests.postgres import Database, named
from tests.roles import logins

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "security.md").read_text(encoding="utf-8")
# The group role that a command needs; OWNER owns the schema.
PRODUCER, APPROVER, AUTHOR, OPERATOR, READER, WORKER, BROKER = (
    f"noetl_{name}" for name in ("producer", "approver", "author", "operator", "reader", "worker", "broker")
)
OWNER = "the owner"
# Each command with the role that it needs.
CALLS: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    (role, tuple(call.split()))
    for role, calls in (
        (OWNER, ("archive --older-than 90d --dry-run",)),
        (AUTHOR, ("register {file}",)),
        (PRODUCER, ("start examples/echo", "cancel {id}", "signal payment --key 42")),
        (APPROVER, ("approvals", "approve {order} ask", "reject {order} ask")),
        (OPERATOR, ("executions", "status {id}", "events {id}", "explain {id}", "logs {id}", "graph {id}")),
        (OPERATOR, ("replay {id}", "verify", "dead-letters", "reevaluate {id}", "retry {id}", "fork {id} --from a")),
        (OPERATOR, ("pause {id}", "resume {id}", "step-type list", "step-type add resize", "step-type remove resize")),
        (OPERATOR, ("schedule list", "schedule pause nobody", "stats")),
    )
    for call in calls
)
# Step types are also added by workers. The login of a broker reads what its daemon reads.
# The `retry` of this file finds nothing to do.
READ_BY_BROKER = frozenset({
    "approvals", "executions", "status", "events", "logs", "explain", "graph", "replay", "verify", "dead-letters",
    "retry", "stats",
})  # fmt: skip
ECHO = "workflow: [{step: start, next: a}, {step: a, type: python, code: 'def main(): return 1'}]\n"
DONE = "workflow: [{step: start, next: end}, {step: end, result: 42}]\n"
ORDER = "workflow: [{step: start, next: ask}, {step: ask, type: approval}]\n"


@pytest.fixture
def echo(command: Command, database: Database) -> dict[str, str]:
    """Register a playbook and start it; give what the calls name."""
    file = write_playbook(command.folder, ECHO, path="examples/echo")
    assert command("register", file).exit_code == 0
    assert command("register", write_playbook(command.folder, ORDER, path="examples/order")).exit_code == 0
    execution_id, order = (command("start", f"examples/{name}").stdout.strip() for name in ("echo", "order"))
    decide(database)
    other = write_playbook(command.folder, ECHO, path="examples/other")
    return {"id": execution_id, "order": order, "file": str(other), "path": "examples/echo"}


async def test_each_command_works_as_its_role_and_names_it_to_others(
    command: Command, database: Database, echo: dict[str, str]
) -> None:
    """Exit 77, and one sentence."""
    wrong = []
    async with logins(database) as as_role:
        for role, login in zip(as_role._fields, as_role, strict=True):
            for needed, words in CALLS:
                answer = await asyncio.to_thread(command, *(word.format(**echo) for word in words), "--dsn", login.dsn)
                if not _is_right(answer, allowed=_may(f"noetl_{role}", needed, words), needed=needed):
                    wrong.append((role, words, answer.exit_code, answer.stderr))
    assert wrong == []


def _may(role: str, needed: str, words: tuple[str, ...]) -> bool:
    if role == OPERATOR:
        return needed not in {OWNER, AUTHOR}
    return (
        role == needed
        or (role == READER and words[0] in {"executions", "status"})
        or (role == AUTHOR and words[:2] in {("step-type", "list"), ("schedule", "pause")})
        or (role == WORKER and words[:2] == ("step-type", "add"))
        or (role == BROKER and (words[0] in READ_BY_BROKER or words == ("schedule", "list")))
    )


def _is_right(answer: Result, *, allowed: bool, needed: str) -> bool:
    if allowed:
        return answer.exit_code != 77
    # What a command reads in tables needs the role of operators, also if it is for another one.
    names = {named(needed), named(OPERATOR)}
    remedies = [f"the login needs the role {name}: grant " for name in names]
    if needed == OWNER:
        remedies = ["only the owner of the schema may do this"]
    return (answer.exit_code, answer.stderr.count("\n")) == (77, 1) and any(
        remedy in answer.stderr for remedy in remedies
    )


async def test_a_producer_waits_for_what_it_started(command: Command, database: Database) -> None:
    """Its role alone is enough: it sees the result, and no event."""
    async with logins(database) as as_role, running(database):
        file = write_playbook(command.folder, DONE, path="examples/done")
        assert (await asyncio.to_thread(command, "register", file)).exit_code == 0
        said = ("start", "examples/done", "--wait", "--json", "--dsn", as_role.producer.dsn)
        answer = await asyncio.to_thread(command, *said)
    found = json.loads(answer.stdout)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert (found["path"], found["version"], found["status"], found["result"]) == ("examples/done", 1, "COMPLETED", 42)


async def test_a_console_that_may_not_what_operators_may_does_not_start(command: Command, database: Database) -> None:
    """Else each of its requests would be refused."""
    async with logins(database) as as_role:
        answer = await asyncio.to_thread(command, "console", "--port", 0, "--dsn", as_role.reader.dsn)
    assert (answer.exit_code, f"the login lacks select on {database.schema}.catalog" in answer.stderr) == (77, True)
    assert f"it needs the role {named(OPERATOR)}" in answer.stderr


VALUE = "value-of-the-caller"
WITH_VALUES = """
workload: {customer: ""}
workflow:
  - {step: start, next: [{step: each}, {step: paid}, {step: ask}]}
  - {step: each, type: iterator, distribute: true, collection: ["{{ customer }}", b], element: n, next: end,
     task: {type: python, code: "def main(): return 1", args: {n: "{{ n }}"}}}
  - {step: paid, type: wait, signal: "{{ customer }}", key: "{{ customer }}", next: end}
  - {step: ask, type: approval, title: "For {{ customer }}", details: {of: "{{ customer }}"}, next: end}
  - {step: end, result: "{{ customer }}"}
"""


async def test_a_reader_sees_executions_without_values(command: Command, database: Database) -> None:
    """Steps, waits, jobs and items, in text and in JSON; what has values needs another role."""
    await asyncio.to_thread(command, "register", write_playbook(command.folder, WITH_VALUES, path="examples/values"))
    payload = json.dumps({"customer": VALUE})
    made = (await asyncio.to_thread(command, "start", "examples/values", "--payload", payload)).stdout.strip()
    await drain(database)
    calls = [("executions",), ("executions", "--path", "examples/*", "--since", "1h", "--json"), ("status", made)]
    async with logins(database) as as_role:
        dsn = as_role.reader.dsn
        answers = [await asyncio.to_thread(command, *words, "--dsn", dsn) for words in calls]
        details = await asyncio.to_thread(command, "status", made, "--json", "--dsn", dsn)
        operator = await asyncio.to_thread(command, "status", made, "--json", "--dsn", as_role.operator.dsn)
        refused = await asyncio.to_thread(command, "executions", "--error", "x", "--dsn", dsn)
        asked = await asyncio.to_thread(command, "approvals", "--json", "--dsn", as_role.approver.dsn)
    assert [VALUE in answer.stdout for answer in (*answers, details)] == [False] * 4
    found = json.loads(details.stdout)
    assert [len(found[key]) for key in ("steps", "waits", "jobs", "iterators")] == [5, 2, 2, 1]
    assert {*json.loads(operator.stdout)} - {*found} == {"result", "error", "archived", "key", "starts_at"}
    assert (refused.exit_code, f"needs the role {named(OPERATOR)}" in refused.stderr) == (77, True)
    [approval] = json.loads(asked.stdout)
    assert (approval["title"], approval["details"]) == (f"For {VALUE}", {"of": VALUE})


async def test_a_producer_may_cancel_what_has_ended(command: Command, database: Database, echo: dict[str, str]) -> None:
    """It is told so, without the status."""
    await asyncio.to_thread(command, "cancel", echo["id"])
    await drain(database)
    async with logins(database) as as_role:
        answer = await asyncio.to_thread(command, "cancel", echo["id"], "--dsn", as_role.producer.dsn)
    assert (answer.exit_code, answer.stdout) == (1, f"execution {echo['id']} has already ended\n")


def test_the_page_lists_each_command_with_its_role() -> None:
    """As the calls of this file."""
    listed = set(_listed())
    names = {(needed, " ".join(words[:1]) if words[0] != "schedule" else "schedule") for needed, words in CALLS}
    assert {(role, name) for role, name in listed if name in {name for _, name in names}} == names


def _listed() -> Iterator[tuple[str, str]]:
    table = PAGE.split("\n| commands | need |\n|---|---|\n", 1)[1].split("\n\n")[0]
    for line in table.splitlines():
        commands, need = line.strip("|").split("|")
        role = OWNER if "owner" in need else need.strip().strip("`")
        for name in re.findall(r"`([a-z-]+)`", commands):
            yield role, name
