"""`undo` and `abandon`, and what other commands say of executions that undid something or left something."""

from __future__ import annotations

import asyncio

import pytest

from tests.brokers import broken_invariants, drain, start, value
from tests.cli.conftest import Command, as_default, decide, execute, write_playbook
from tests.postgres import Database
from tests.undos import ORDER, complete, lease, work


@pytest.fixture
def path(command: Command) -> str:
    """Register the playbook of an order; give its path."""
    command("register", write_playbook(command.folder, ORDER, path="examples/order"))
    return "examples/order"


def run_order(database: Database, *failing: str) -> int:
    """Run an order in which these jobs fail for good; give its execution."""
    [execution] = asyncio.run(start(database, "examples/order"))
    finish(database, *failing)
    return execution


def finish(database: Database, *failing: str) -> None:
    """Let broker and worker go on."""
    asyncio.run(work(database, failing=failing))


async def cancelled_during(database: Database, step: str) -> int:
    """Give an execution that was cancelled in `ship`, which nobody had leased, or in `charge`, which a worker has."""
    [execution] = await start(database, "examples/order")
    for name in ("reserve", "charge") if step == "ship" else ("reserve",):
        await drain(database)
        await complete(database, (await lease(database))[name], {"id": name})
    await drain(database)
    if step == "charge":
        await lease(database)
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    return execution


def test_undo_goes_on_with_what_is_left(command: Command, database: Database, path: str) -> None:
    """`status` names it before, while it runs, and afterwards. Another undo with other options is refused."""
    execution = run_order(database, "ship", "charge!undo")
    assert path in command("status", execution).stdout
    lines = command("status", execution).stdout.splitlines()
    assert lines[lines.index("undo: 1 failed, 1 left") :][:4] == [
        "undo: 1 failed, 1 left",
        "the undo of charge failed: no",
        "not undone: reserve",
        f"noetl-broker undo {execution} goes on with what is left",
    ]
    answer = command("undo", execution)
    follow = f"noetl-broker status {execution} shows how far it is"
    assert (answer.stdout, answer.stderr) == (f"execution {execution} undoes what it did\n", f"{follow}\n")
    again = (
        f"execution {execution} is being undone with other options: {{}}; {follow}; noetl-broker abandon {execution}"
    )
    command.refuses([(f"undo {execution} --unknown", 1, again)])
    decide(database)
    assert "\nit is undoing what it did\n" in command("status", execution).stdout
    finish(database)
    shown = command.json("status", execution)
    assert (shown["status"], shown["undo_status"], shown["undo"]["counts"]) == ("FAILED", "undone", {"done": 2})
    assert "; undone" in command("executions").stdout
    nothing = command("undo", execution)
    assert (nothing.exit_code, nothing.stdout) == (1, f"nothing of execution {execution} is left to undo\n")


def test_what_was_undone_by_hand_is_settled(command: Command, database: Database, path: str) -> None:
    """With a reason; then nothing is left of that step."""
    assert path
    execution = run_order(database, "ship", "charge!undo")
    command.refuses([
        (f"undo {execution} --settle charge", 2, "say who undid it, and how"),
        (f"undo {execution} --reason by-hand", 2, "it is for a step that was undone by hand: name it with `settle`"),
        (f"undo {execution} --settle ship --reason bank", 1, "nothing of step ship of execution"),
    ])  # fmt: skip
    settled = command("undo", execution, "--settle", "charge", "--reason", "by the bank").stdout
    assert settled == f"settling 1 of step charge of execution {execution}\n"
    [told] = [line for line in command("events", execution).stdout.splitlines() if "undo_settled" in line]
    assert "by the bank" in told
    decide(database)
    assert "undo: 1 settled, 1 left" in command("status", execution).stdout
    command("undo", execution)
    finish(database)
    assert command.json("status", execution)["undo"]["counts"] == {"done": 1, "settled": 1}


def with_refund(args: str | None) -> str:
    """An order whose charge is undone with these arguments, or not at all."""
    compensate = '    compensate: {type: python, code: "def main(id): ...", args: {id: "{{ result.id }}"}, retry: 2}\n'
    assert compensate in ORDER
    return ORDER.replace(compensate, "" if args is None else compensate.replace('{id: "{{ result.id }}"}', args))


def test_an_undo_goes_on_with_a_mended_compensate(command: Command, database: Database) -> None:
    """A version that cannot undo all is refused before anything starts; the remedy is named wherever one looks."""
    command(
        "register", write_playbook(command.folder, with_refund('{id: "{{ result.nothing }}"}'), path="examples/order")
    )
    execution = run_order(database, "ship")
    undo = f"mend `compensate`, register it, then noetl-broker undo {execution} --version latest"
    assert [undo in command(name, execution).stdout for name in ("status", "explain")] == [True, True]
    [says] = [found["do"] for found in command.json("doctor")["findings"] if found["check"] == "undo"]
    assert as_default(says).endswith(f"; an undo of execution {execution} failed on a template: {undo}.")
    command("undo", execution)
    finish(database)
    assert undo in command("status", execution).stdout
    without = with_refund(None).replace("reserve", "keep")
    for text in (without, with_refund("{id: by hand}")):
        command("register", write_playbook(command.folder, text, path="examples/order"))
    cannot = (
        "version 2 of examples/order cannot undo what is left: it has no step reserve and no `compensate` for charge"
    )
    remedy = "; register a version that has a `compensate` for each; nothing was begun\n"
    command.refuses([
        (f"undo {execution} --version 2", 1, f"{cannot}{remedy}"),
        (f"undo {execution} --version 9", 1, "no playbook examples/order version 9"),
    ])  # fmt: skip
    command("undo", execution, "--version", "latest")
    finish(database)
    shown = command.json("status", execution)
    assert (shown["status"], shown["version"], shown["undo"]["counts"]) == ("FAILED", 1, {"done": 2})
    assert command("replay", execution).exit_code == 0
    assert asyncio.run(broken_invariants(database)) == {}


BLOCK = """
workflow:
  - {step: start, next: pay}
  - step: pay
    type: playbook
    workflow:
      - {step: start, next: each}
      - step: each
        type: iterator
        collection: [1, 2]
        element: item
        task:
          type: python
          code: "def main(): ..."
          compensate: {type: python, code: "def main(id): ...", args: {id: "{{ result.ID }}"}}
    next: ship
  - {step: ship, type: python, code: "def main(): ..."}
"""


def test_a_compensate_of_a_child_is_mended_first(command: Command, database: Database) -> None:
    """Here of the items of a block, or with its parent: blocks follow the version."""
    command("register", write_playbook(command.folder, BLOCK.replace("ID", "nothing"), path="examples/order"))
    execution = run_order(database, "ship")
    without = BLOCK.replace(BLOCK.splitlines()[-3], "")
    for text in (without, BLOCK.replace("ID", "id")):
        command("register", write_playbook(command.folder, text, path="examples/order"))
    [child] = command.json("status", execution)["undo"]["left"]
    block = child["child_execution_id"]
    assert f"noetl-broker status {block} names what that child has left\n" in command("status", execution).stdout
    assert f"then noetl-broker undo {block} --version latest\n" in command("status", block).stdout
    assert "examples/order#pay cannot undo what is left: it has no `compensate` for the items of each" in (
        command("undo", block, "--version", "2").stderr
    )
    command("undo", block, "--version", "latest")
    finish(database)
    command("undo", execution)
    finish(database)
    assert [command.json("status", one)["undo"]["counts"] for one in (block, execution)] == [{"done": 2}, {"done": 1}]
    assert asyncio.run(broken_invariants(database)) == {}


def test_abandon_ends_an_undo(command: Command, database: Database, path: str) -> None:
    """A second time there is none."""
    assert path
    execution = asyncio.run(cancelled_during(database, "ship"))
    assert [line for line in command("status", execution).stdout.splitlines() if line.startswith("undo")] == [
        "undo: 1 left",
        "undoing charge",
    ]
    undoing = f"is undoing what it did; that is neither paused nor resumed; noetl-broker status {execution}"
    command.refuses([(f"{name} {execution}", 1, undoing) for name in ("pause", "resume")])
    cancelled = command("cancel", execution)
    nothing = "is undoing what it did: a cancel changes nothing; noetl-broker abandon"
    assert (cancelled.exit_code, cancelled.stdout) == (1, f"execution {execution} {nothing} {execution} ends it\n")
    answer = command("abandon", execution, "--reason", "by hand")
    assert (answer.exit_code, answer.stdout) == (0, f"abandoning the undo of execution {execution}\n")
    decide(database)
    again = command("abandon", execution)
    assert (again.exit_code, again.stdout) == (1, f"execution {execution} undoes nothing: FAILED\n")
    document = command.json("abandon", execution)
    assert document == {"execution_id": str(execution), "requested": False, "status": "FAILED"}
    lines = command("status", execution).stdout.splitlines()
    assert "it is unknown whether the undo of charge happened: it was abandoned" in lines
    assert "not undone: reserve" in lines
    assert f"noetl-broker undo {execution} goes on with what is left; --unknown also undoes what is unknown" in lines
    assert "it starts anew, because its undo was abandoned" in command("retry", execution).stderr


def test_status_names_what_is_draining(command: Command, database: Database, path: str) -> None:
    """The step is CANCELLED, but its job runs, and a success of it would be undone."""
    assert path
    execution = asyncio.run(cancelled_during(database, "charge"))
    assert "draining: charge (if it still succeeds, that is undone)" in command("status", execution).stdout.splitlines()
    assert command.json("status", execution)["draining"] == [{"step": "charge", "visit": 1}]
    assert ", COMPENSATING) is draining\n" in command("explain", execution, "charge").stdout


def test_a_retry_of_what_was_undone_starts_anew(command: Command, database: Database, path: str) -> None:
    """It says so; no fork takes over what was undone. While something is left it is refused, with the remedy."""
    assert path
    execution = run_order(database, "ship")
    answer = command("retry", execution)
    assert answer.exit_code == 0
    assert "it starts anew, because what it did was undone" in answer.stderr
    undid = f"execution {execution} undid reserve, or tried to, so no fork takes over its result; fork from reserve or"
    command.refuses([(f"fork {execution} --from ship", 2, f"{undid} a step before it\n")])
    assert command("fork", execution, "--from", "reserve").exit_code == 0
    left = run_order(database, "ship", "charge!undo")
    left_to_undo = f"execution {left} has something left to undo; noetl-broker undo {left} goes on with it, then {left}"
    command.refuses([(f"retry {left}", 1, left_to_undo)])
    command("undo", left)
    decide(database)
    command.refuses([
        (f"retry {left}", 1, f"execution {left} is undoing what it did"),
        (f"fork {left} --from reserve", 1, f"execution {left} is undoing what it did"),
    ])  # fmt: skip
    finish(database)
    assert "continued as" not in command("status", left).stdout
    retried = command.json("retry", "--all", "--yes")
    assert [one["execution_id"] for one in retried["done"]] == [str(left)]
    assert "continued as" in command("status", left).stdout


def test_a_failed_undo_is_named_where_the_execution_is(command: Command, database: Database, path: str) -> None:
    """By `start --wait` with the remedy, and in the list of executions."""
    call = ("start", path, "--idempotency-key", "order-7")
    execution = int(command(*call).stdout)
    finish(database, "ship", "charge!undo")
    waited = command(*call, "--wait")
    assert waited.exit_code == 1
    assert "the undo of charge failed: no\n" in waited.stderr
    assert waited.stderr.endswith(f"noetl-broker undo {execution} goes on with what is left\n")
    document = command.json(*call, "--wait")
    assert document["undo"]["counts"] == {"failed": 1, "open": 1}
    assert "; left undone: 1 failed, 1 not tried" in command("executions").stdout
    [listed] = command.json("executions")
    assert listed["left_undone"] == {"open": 1, "failed": 1, "unknown": 0}
    command("undo", execution)
    finish(database)
    assert "left undone" not in command("executions").stdout
    assert "\n  it was undone in turn " in command("explain", execution, "charge").stdout


def test_doctor_names_what_is_left_undone(command: Command, database: Database, path: str) -> None:
    """With counts, an example and the remedy; `executions --undone` lists the executions, and `archive` keeps them."""
    execution = run_order(database, "ship", "charge!undo")
    [finding] = [found for found in command.json("doctor")["findings"] if found["check"] == "undo"]
    says = f"1 execution has something left to undo: 1 failed, 1 not tried; the latest is {execution}"
    do = f"noetl-broker executions --undone lists all; noetl-broker undo {execution} goes on with the latest."
    assert (finding["says"], as_default(finding["do"])) == (says, do)
    listed = [line.split()[:3] for line in command("executions", "--undone").stdout.splitlines()]
    assert listed == [["execution", "path", "status"], [str(execution), path, "FAILED"]]
    assert command("executions", "--undone").stdout.endswith("1 failed, 1 not tried\n")
    [left] = command.json("executions", "--undone")
    assert (left["execution_id"], left["failed"], left["open"], left["unknown"]) == (str(execution), 1, 1, 0)
    command.refuses([("executions --undone --status failed", 2, "--undone takes no filters")])
    ended = f"update noetl.period set first_id = 0, next_id = {execution + 1}"
    execute(database, f"{ended} where name = (select max(name) from noetl.period)")
    assert "it left something to undo" in command("archive", "--older-than", "0s", "--dry-run").stdout
    command("undo", execution)
    finish(database)
    assert command("executions", "--undone").stdout == "no execution has left anything undone\n"
    assert "undo" not in [found["check"] for found in command.json("doctor")["findings"]]
