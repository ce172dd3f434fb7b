"""`approvals`, `approve` and `reject`: the commands of a person who decides."""

from __future__ import annotations

from tests.cli.conftest import Command, begin, decide, rows
from tests.postgres import Database

ORDER = """\
workflow:
  - {step: start, next: approve}
  - step: approve
    type: approval
    title: "Order {{ workload.order }}"
    form: {discount: {type: number, maximum: 30}}
    approvers: [finance]
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


def waiting(command: Command, database: Database, body: str = ORDER) -> int:
    """Start an execution that waits for a decision; give its id."""
    return begin(command, database, body, "--payload", '{"order": 7}', path="shop/order")


def result(database: Database) -> dict[str, object]:
    """Decide; give the result of the newest execution."""
    decide(database)
    found: dict[str, object] = rows(database, "select result from noetl.execution order by execution_id desc")[0][0]
    return found


def test_what_waits_is_listed(command: Command, database: Database) -> None:
    """Title, fields of the form, approvers; filters by path and approver. `status` shows it too."""
    execution = waiting(command, database)
    line = command("approvals").stdout.splitlines()[1].split()
    assert line[:6] == [str(execution), "approve", "shop/order", "Order", "7", "discount"]
    [shown] = command.json("approvals", "--path", "shop/*", "--approver", "finance")
    assert shown["node_id"] == f"{execution}:approve"
    assert shown["form"] == {"discount": {"type": "number", "maximum": 30}}
    assert [command.json("approvals", *other) for other in (("--path", "hr/*"), ("--approver", "sales"))] == [[], []]
    text = command("status", execution).stdout
    assert "approve a person: Order 7" in " ".join(text.split("wait of")[1].split())
    [wait] = command.json("status", execution)["waits"]
    assert (wait["step"], wait["kind"], wait["due_at"] is not None) == ("approve", "approval", True)


def test_a_step_is_approved_or_rejected(command: Command, database: Database) -> None:
    """By the login of the database. Afterwards nothing waits, and the events say who it was, and who says so."""
    approved = waiting(command, database)
    [(login,)] = rows(database, "select 'login:' || session_user")
    answer = command("approve", approved, "approve", "--comment", "fine", "--form", '{"discount": 5}')
    assert (answer.exit_code, answer.stdout) == (0, f"approved by {login}: Order 7\n")
    wanted = {"approved": True, "by": login, "comment": "fine", "discount": 5}
    assert wanted.items() <= result(database).items()
    rejected = waiting(command, database)
    said = command.json("reject", rejected, "approve", "--decided-by", "Ann")
    assert (said["execution_id"], said["node_id"]) == (str(rejected), f"{rejected}:approve")
    assert (said["approved"], said["decided"]) == (False, True)
    assert {"approved": False, "by": login}.items() <= result(database).items()
    assert f"rejected by {login} (Ann)" in command("events", rejected).stdout
    was = f"step approve of execution {rejected} was rejected by {login} (Ann) at 20"
    command.refuses([(f"approve {rejected} approve", 1, was)])


def test_two_visits_that_fit_are_both_named(command: Command, database: Database) -> None:
    """A visit is named by its number. A step that does not wait is named with those that do."""
    execution = waiting(command, database, TWICE)
    rest = "approve and approve#2 of this execution can be decided"
    command.refuses(
        [
            (f"{execution} approve", 2, "2 visits of step approve wait for a decision: name one of approve#1 and"),
            (f"{execution} aprove", 1, f"execution {execution} has no step aprove; {rest}"),
            (f"{execution} start", 1, f"in step start of execution {execution}: it timed out, it was cancelled, or"),
            (f"{execution} start", 1, f"it has not begun; {rest}"),
        ],
        "approve",
    )
    assert [command("approve", execution, f"approve#{visit}").exit_code for visit in (2, 1)] == [0, 0]


def test_a_wrong_decision_is_refused(command: Command, database: Database) -> None:
    """As a usage error; the approval still waits. An empty name may come from a variable that is not set."""
    execution = waiting(command, database)
    much = ("--form", '{"discount": 40}')
    cases = [
        (("--form", "{"), "the form in --form is not JSON"),
        (("--form", "[1]"), "the form in --form must be a JSON object"),
        (much, "does not fit: discount: is 40, the most is 30"),
        (much, "noetl-broker approvals --json shows the fields"),
        (("--form", '{"comment": "a"}', "--comment", "b"), "two comments"),
        (("--decided-by", ""), "--decided-by: it must not be empty"),
    ]
    command.refuses([((execution, "approve", *options), 2, words) for options, words in cases], "approve")
    assert rows(database, "select count(*) from noetl.pending_approvals") == [(1,)]
