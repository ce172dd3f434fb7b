"""`approvals`, `approve` and `reject`: the commands of a person who decides."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import Result

from noetl_broker.errors import EXIT_NO_PERMISSION
from tests.cli.conftest import Command, decide, rows, write_playbook
from tests.postgres import Database
from tests.roles import logins

ORDER = """\
workflow:
  - {step: start, next: approve}
  - step: approve
    type: approval
    title: "Order {{ workload.order }}"
    form: {discount: {type: number, maximum: 30}}
    assignees: [finance]
    timeout: 1d
    next: end
  - {step: end, result: "{{ approve }}"}
"""
TWICE = """\
workflow:
  - {step: start, next: [{step: approve}, {step: again}]}
  - {step: again, next: approve}
  - {step: approve, type: approval, join: each}
"""
RESULT = "select result from noetl.execution"


def waiting(command: Command, database: Database, body: str = ORDER) -> str:
    """Start an execution that waits for a decision; give its id."""
    assert command("register", write_playbook(command.folder, body, path="shop/order")).exit_code == 0
    started = command("start", "shop/order", "--payload", '{"order": 7}').stdout.strip()
    decide(database)
    return started


def test_what_waits_is_listed(command: Command, database: Database) -> None:
    """Title, fields of the form, assignees; filters by path and assignee."""
    execution = waiting(command, database)
    line = command("approvals").stdout.splitlines()[1].split()
    assert line[:6] == [execution, "approve", "shop/order", "Order", "7", "discount"]
    [shown] = json.loads(command("approvals", "--path", "shop/*", "--assignee", "finance", "--json").stdout)
    assert shown["node_id"] == f"{execution}:approve"
    assert shown["form"] == {"discount": {"type": "number", "maximum": 30}}
    assert json.loads(command("approvals", "--path", "hr/*", "--json").stdout) == []
    assert json.loads(command("approvals", "--assignee", "sales", "--json").stdout) == []


def test_a_step_is_approved(command: Command, database: Database) -> None:
    """By the login of the database, unless `--by` says who."""
    execution = waiting(command, database)
    [(login,)] = rows(database, "select session_user::text")
    answer = command("approve", execution, "approve", "--comment", "fine", "--form", '{"discount": 5}')
    assert (answer.exit_code, answer.stdout) == (0, f"approved by {login}: Order 7\n")
    decide(database)
    [(result,)] = rows(database, RESULT)
    assert (result["approved"], result["by"], result["comment"], result["discount"]) == (
        True,
        login,
        "fine",
        5,
    )


def test_a_step_is_rejected(command: Command, database: Database) -> None:
    """With --json the answer is a document."""
    execution = waiting(command, database)
    answer = command("reject", execution, "approve", "--by", "ann", "--json")
    assert json.loads(answer.stdout) == {
        "execution_id": execution, "node_id": f"{execution}:approve", "approved": False, "decided": True,
    }  # fmt: skip
    decide(database)
    [(result,)] = rows(database, RESULT)
    assert (result["approved"], result["by"]) == (False, "ann")


def test_a_decided_step_waits_no_longer(command: Command, database: Database) -> None:
    """The error says who decided, and when; to a person with no other role, too."""
    execution = waiting(command, database)
    assert command("reject", execution, "approve", "--by", "ann").exit_code == 0
    [(at,)] = rows(database, "select context ->> 'at' from noetl.event where event_type = 'approval_decided'")

    async def ask() -> Result:
        async with logins(database) as roles:
            return await asyncio.to_thread(command, "approve", execution, "approve", "--dsn", roles.approver.dsn)

    answer = asyncio.run(ask())
    assert (answer.exit_code, answer.stderr) == (
        1,
        (
            f"noetl-broker: step approve of execution {execution} was rejected by ann at {at}; nothing of this"
            " execution can be decided now\n"
        ),
    )


def test_a_step_that_does_not_wait_is_named(command: Command, database: Database) -> None:
    """With the steps that wait; a step that is none is called so."""
    execution = waiting(command, database, TWICE)
    rest = "approve and approve#2 of this execution can be decided"
    assert [
        command("approve", *words).stderr for words in ((execution, "aprove"), (execution, "start"), ("7", "x"))
    ] == [
        f"noetl-broker: execution {execution} has no step aprove; {rest}\n",
        (
            f"noetl-broker: nothing waits for a decision in step start of execution {execution}: it timed out, it was"
            f" cancelled, or it has not begun; {rest}\n"
        ),
        "noetl-broker: there is no execution 7; noetl-broker approvals lists what waits\n",
    ]


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--form", "{"), "the form in --form is not JSON"),
        (("--form", "[1]"), "the form in --form must be a JSON object"),
        (("--form", '{"discount": 40}'), "does not fit: discount: is 40, the most is 30"),
        (("--form", '{"discount": 40}'), "noetl-broker approvals --json shows the fields"),
        (("--form", '{"comment": "a"}', "--comment", "b"), "two comments"),
    ],
)
def test_a_wrong_form_is_refused(
    command: Command, database: Database, options: tuple[str, ...], complaint: str
) -> None:
    """As a usage error; the approval still waits."""
    execution = waiting(command, database)
    answer = command("approve", execution, "approve", *options)
    assert (answer.exit_code, complaint in answer.stderr) == (2, True), answer.stderr
    assert rows(database, "select count(*) from noetl.pending_approvals") == [(1,)]


def test_two_visits_that_fit_are_both_named(command: Command, database: Database) -> None:
    """A visit is named by its number."""
    execution = waiting(command, database, TWICE)
    answer = command("approve", execution, "approve")
    assert (answer.exit_code, answer.stderr) == (
        2,
        "noetl-broker: 2 visits of step approve wait for a decision: name one of approve#1 and approve#2\n",
    )
    assert command("approve", execution, "approve#2").exit_code == 0
    assert command("approve", execution, "approve#1").exit_code == 0


def test_an_approver_needs_no_other_role(command: Command, database: Database) -> None:
    """A login in noetl_approver lists and decides; a producer may not."""
    execution = waiting(command, database)

    async def ask() -> list[int]:
        async with logins(database) as roles:
            calls = (
                (roles.producer, "approvals"),
                (roles.producer, "approve", execution, "approve"),
                (roles.approver, "approvals"),
                (roles.approver, "approve", execution, "approve"),
            )
            return [(await asyncio.to_thread(command, *words, "--dsn", login.dsn)).exit_code for login, *words in calls]

    assert asyncio.run(ask()) == [EXIT_NO_PERMISSION, EXIT_NO_PERMISSION, 0, 0]


def test_status_shows_what_waits(command: Command, database: Database) -> None:
    """The title, and the moment of the timeout."""
    execution = waiting(command, database)
    shown = command("status", execution).stdout
    assert "approve a person: Order 7" in " ".join(shown.split("wait of")[1].split())
    [wait] = json.loads(command("status", execution, "--json").stdout)["waits"]
    assert (wait["step"], wait["kind"], wait["due_at"] is not None) == ("approve", "approval", True)


def test_an_empty_name_does_not_decide(command: Command, database: Database) -> None:
    """As from a variable of a shell that is not set."""
    execution = waiting(command, database)
    answer = command("approve", execution, "approve", "--by", "")
    assert answer.exit_code == 2
    assert "decide_approval needs to know who decides: `decided_by` is empty" in answer.stderr


def test_events_say_who_decided(command: Command, database: Database) -> None:
    """And how."""
    execution = waiting(command, database)
    assert command("reject", execution, "approve", "--by", "ann").exit_code == 0
    assert "rejected by ann" in command("events", execution).stdout
