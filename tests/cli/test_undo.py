"""`undo` and `abandon`, and what other commands say of executions that undid something or left something."""

from __future__ import annotations

import asyncio
import json

import pytest

from noetl_broker.store.admin.doctor import examine
from tests.brokers import broken_invariants, drain, execute, start, value
from tests.cli.conftest import Command, as_default, decide, write_playbook
from tests.postgres import Database
from tests.undos import ORDER, complete, lease, work


@pytest.fixture
def path(command: Command) -> str:
    """Register the playbook of an order; give its path."""
    command("register", write_playbook(command.folder, ORDER, path="examples/order"))
    return "examples/order"


def run_order(database: Database, *, failing: tuple[str, ...]) -> int:
    """Run an order in which these jobs fail for good; give its execution."""

    async def run() -> int:
        [execution] = await start(database, "examples/order")
        await work(database, failing=failing)
        return execution

    return asyncio.run(run())


def finish(database: Database, *, failing: tuple[str, ...] = ()) -> None:
    """Let broker and worker go on."""
    asyncio.run(work(database, failing=failing))


async def cancelled_while_it_ships(database: Database) -> int:
    """Give an execution that undoes, with the job of its first undo queued."""
    [execution] = await start(database, "examples/order")
    for name in ("reserve", "charge"):
        await drain(database)
        await complete(database, (await lease(database))[name], {"id": name})
    await drain(database)
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    return execution


def test_undo_goes_on_with_what_is_left(command: Command, database: Database, path: str) -> None:
    """`status` names it before, and who undoes it afterwards."""
    execution = run_order(database, failing=("ship", "charge!undo"))
    assert path in command("status", execution).stdout
    lines = command("status", execution).stdout.splitlines()
    assert lines[lines.index("undo: 1 failed, 1 left") :][:4] == [
        "undo: 1 failed, 1 left",
        "the undo of charge failed: no",
        "not undone: reserve",
        f"noetl-broker undo {execution} goes on with what is left",
    ]
    answer = command("undo", execution)
    new = int(answer.stdout)
    assert answer.stderr == (
        f"it undoes what is left of execution {execution}; noetl-broker status {new} shows how far it is\n"
    )
    again = command("undo", execution)
    assert again.exit_code == 1
    assert again.stderr == (
        f"noetl-broker: execution {execution} is being undone by {new};"
        f" noetl-broker status {new} shows how far it is; noetl-broker abandon {new} ends it\n"
    )
    finish(database)
    assert f"what was left was undone by execution {new}" in command("status", execution).stdout
    assert "undo: 2 done" in command("status", new).stdout
    assert json.loads(command("status", new, "--json").stdout)["undo"]["counts"] == {"done": 2}


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
    execution = run_order(database, failing=("ship",))
    undo = f"mend `compensate`, register it, then noetl-broker undo {execution} --version latest"
    assert [undo in command(name, execution).stdout for name in ("status", "explain")] == [True, True]
    [says] = [found.do for found in asyncio.run(examine(database)) if found.check == "undo"]
    assert as_default(str(says)).endswith(f"; an undo of execution {execution} failed on a template: {undo}.")
    same = int(command("undo", execution).stdout)
    finish(database)
    assert "mend its `compensate`, register it, then undo with --version latest" in command("status", same).stdout
    without = with_refund(None).replace("reserve", "keep")
    for text in (without, with_refund("{id: by hand}")):
        command("register", write_playbook(command.folder, text, path="examples/order"))
    refused = command("undo", execution, "--version", "2")
    assert refused.exit_code == 1
    assert refused.stderr == (
        "noetl-broker: version 2 of examples/order cannot undo what is left: it has no step reserve and no `compensate`"
        " for charge; register a version that has a `compensate` for each; nothing was started\n"
    )
    assert "no playbook examples/order version 9" in command("undo", execution, "--version", "9").stderr
    new = int(command("undo", execution, "--version", "latest").stdout)
    finish(database)
    shown = json.loads(command("status", new, "--json").stdout)
    assert (shown["status"], shown["version"], shown["undo"]["counts"]) == ("COMPLETED", 3, {"done": 2})
    assert command("status", execution).stdout.splitlines()[-4:-2] == [
        f"execution {same} took over what was left, and failed",
        f"what was left was undone by execution {new}",
    ]
    assert command("replay", new).exit_code == 0
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
    """Here of the items of a block. Then the parent has nothing left, and its undo goes on."""
    command("register", write_playbook(command.folder, BLOCK.replace("ID", "nothing"), path="examples/order"))
    execution = run_order(database, failing=("ship",))
    without = BLOCK.replace(BLOCK.splitlines()[-3], "")
    for text in (without, BLOCK.replace("ID", "id")):
        command("register", write_playbook(command.folder, text, path="examples/order"))
    [child] = json.loads(command("status", execution, "--json").stdout)["undo"]["left"]
    block = child["child_execution_id"]
    failed = child["error"]["child_execution_id"]
    assert f"noetl-broker status {failed} names what that child has left\n" in command("status", execution).stdout
    assert f"then noetl-broker undo {failed} --version latest\n" in command("status", failed).stdout
    assert "examples/order#pay cannot undo what is left: it has no `compensate` for the items of each" in (
        command("undo", block, "--version", "2").stderr
    )
    mended = int(command("undo", block, "--version", "latest").stdout)
    finish(database)
    parent = int(command("undo", execution).stdout)
    finish(database)
    assert "undo: 2 done" in command("status", mended).stdout
    assert "undo: 1 done" in command("status", parent).stdout
    assert asyncio.run(broken_invariants(database)) == {}


def test_a_version_without_the_step_fails_the_undo(command: Command, database: Database, path: str) -> None:
    """Whoever calls the function of the database is not asked before; the error says what is lacking."""
    execution = run_order(database, failing=("ship", "charge!undo"))
    other = ORDER.replace("charge", "pay")
    command("register", write_playbook(command.folder, other, path=path))

    async def undo() -> int:
        return int(await value(database, "select noetl.undo_execution($1, version => 2)", execution))

    new = asyncio.run(undo())
    finish(database)
    answer = command("status", new).stdout
    assert "the undo of charge failed: this version has no such step; undo it with a version that has one" in answer
    assert [command(name, new).exit_code for name in ("explain", "graph", "replay")] == [0, 0, 0]
    last = int(command("undo", execution).stdout)
    finish(database)
    assert "undo: 2 done" in command("status", last).stdout


def test_undo_refuses_what_has_not_ended(command: Command, database: Database, path: str) -> None:
    """The sentence names the remedy."""
    running = int(command("start", path).stdout)
    decide(database)
    answer = command("undo", running)
    assert answer.exit_code == 1
    assert answer.stderr == (
        f"noetl-broker: execution {running} has not ended, it is RUNNING;"
        f" noetl-broker cancel {running} ends it, and undoes what it did\n"
    )
    assert command("undo", 7).stderr == "noetl-broker: no execution 7; noetl-broker executions lists them\n"


def test_abandon_ends_an_undo(command: Command, database: Database, path: str) -> None:
    """A second time it has already ended."""
    assert path
    execution = asyncio.run(cancelled_while_it_ships(database))
    assert [line for line in command("status", execution).stdout.splitlines() if line.startswith("undo")] == [
        "undo: 1 left",
        "undoing charge",
    ]
    for call in ("pause", "resume"):
        refused = command(call, execution)
        assert refused.exit_code == 1
        assert f"is undoing what it did; that is neither paused nor resumed; noetl-broker status {execution}" in (
            refused.stderr
        )
    cancelled = command("cancel", execution)
    assert cancelled.exit_code == 1
    assert cancelled.stdout == (
        f"execution {execution} is undoing what it did: a cancel changes nothing;"
        f" noetl-broker abandon {execution} ends it\n"
    )
    answer = command("abandon", execution, "--reason", "by hand")
    assert (answer.exit_code, answer.stdout) == (0, f"abandoning the undo of execution {execution}\n")
    decide(database)
    again = command("abandon", execution)
    assert (again.exit_code, again.stdout) == (1, f"execution {execution} has already ended: FAILED\n")
    document = json.loads(command("abandon", execution, "--json").stdout)
    assert document == {"execution_id": str(execution), "requested": False, "status": "FAILED"}
    lines = command("status", execution).stdout.splitlines()
    assert "it is unknown whether the undo of charge happened: it was abandoned" in lines
    assert "not undone: reserve" in lines
    assert f"noetl-broker undo {execution} goes on with what is left; --unknown also undoes what is unknown" in lines
    assert "it starts anew, because its undo was abandoned" in command("retry", execution).stderr


async def cancelled_while_it_charges(database: Database) -> int:
    """Give an execution that awaits the job of `charge`, which a worker has."""
    [execution] = await start(database, "examples/order")
    await drain(database)
    await complete(database, (await lease(database))["reserve"], {"id": "reserve"})
    await drain(database)
    await lease(database)
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    return execution


def test_status_names_what_is_draining(command: Command, database: Database, path: str) -> None:
    """The step is CANCELLED, but its job runs, and a success of it would be undone."""
    assert path
    execution = asyncio.run(cancelled_while_it_charges(database))
    assert "draining: charge (if it still succeeds, that is undone)" in command("status", execution).stdout.splitlines()
    assert json.loads(command("status", execution, "--json").stdout)["draining"] == [{"step": "charge", "visit": 1}]
    assert ", COMPENSATING) is draining\n" in command("explain", execution, "charge").stdout


def test_a_retry_of_what_was_undone_starts_anew(command: Command, database: Database, path: str) -> None:
    """It says so. While something is left it is refused, with the remedy."""
    assert path
    execution = run_order(database, failing=("ship",))
    answer = command("retry", execution)
    assert answer.exit_code == 0
    assert "it starts anew, because what it did was undone" in answer.stderr
    left = run_order(database, failing=("ship", "charge!undo"))
    refused = command("retry", left)
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"noetl-broker: execution {left} has something left to undo;"
        f" noetl-broker undo {left} goes on with it, then it can be retried\n"
    )
    new = json.loads(command("undo", left, "--json").stdout)["undone_by"]
    refused = command("retry", left)
    assert f"execution {left} is being undone by {new}" in refused.stderr
    finish(database, failing=("reserve!undo",))
    assert command("retry", new).stderr == (
        f"noetl-broker: execution {new} undoes what execution {left} did; noetl-broker undo {left} goes on with"
        " what is left\n"
    )
    last = int(command("undo", left).stdout)
    finish(database)
    for call in (("retry", last), ("fork", last, "--from", "charge"), ("fork", new, "--from", "start")):
        refused = command(*call)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert f"execution {call[1]} undoes what execution {left} did" in refused.stderr
        assert f"noetl-broker undo {left} goes on with what is left" in refused.stderr
    bulk = command("fork", "--from", "charge", "--status", "completed", "--yes", "--json").stdout
    assert json.loads(bulk)["done"] == []
    assert f"what was left was undone by execution {last}" in command("status", left).stdout
    assert "continued as" not in command("status", left).stdout
    retried = json.loads(command("retry", "--all", "--yes", "--json").stdout)
    assert [one["execution_id"] for one in retried["done"]] == [str(left)]
    assert str(new) not in [one["execution_id"] for one in retried["failed"]]
    assert "continued as" in command("status", left).stdout


def test_a_fork_never_takes_over_what_was_undone(command: Command, database: Database, path: str) -> None:
    """The sentence names the step and the remedy."""
    assert path
    execution = run_order(database, failing=("ship",))
    refused = command("fork", execution, "--from", "ship")
    assert refused.stderr == (
        f"noetl-broker: execution {execution} undid reserve, or tried to, so no fork takes over its result;"
        f" fork from reserve or a step before it, or noetl-broker retry {execution} starts again with the same"
        " payload\n"
    )
    assert command("fork", execution, "--from", "reserve").exit_code == 0


def test_a_failed_undo_is_named_where_the_execution_is(command: Command, database: Database, path: str) -> None:
    """By `start --wait` with the remedy, and in the list of executions."""
    call = ("start", path, "--idempotency-key", "order-7")
    execution = int(command(*call).stdout)
    finish(database, failing=("ship", "charge!undo"))
    waited = command(*call, "--wait")
    assert waited.exit_code == 1
    assert "the undo of charge failed: no\n" in waited.stderr
    assert waited.stderr.endswith(f"noetl-broker undo {execution} goes on with what is left\n")
    document = json.loads(command(*call, "--wait", "--json").stdout)
    assert document["undo"]["counts"] == {"failed": 1, "open": 1}
    assert "; left undone: 1 failed, 1 not tried" in command("executions").stdout
    [listed] = json.loads(command("executions", "--json").stdout)
    assert listed["left_undone"] == {"open": 1, "failed": 1, "unknown": 0}
    new = command("undo", execution).stdout.strip()
    finish(database)
    assert "left undone" not in command("executions").stdout
    assert "\n  it was undone in turn " in command("explain", new, "charge").stdout


def test_doctor_names_what_is_left_undone(command: Command, database: Database, path: str) -> None:
    """With counts, an example and the remedy; `executions --undone` lists the executions."""
    execution = run_order(database, failing=("ship", "charge!undo"))
    [finding] = [found for found in asyncio.run(examine(database)) if found.check == "undo"]
    assert finding.says == f"1 execution has something left to undo: 1 failed, 1 not tried; the latest is {execution}"
    assert as_default(str(finding.do)) == (
        f"noetl-broker executions --undone lists all; noetl-broker undo {execution} goes on with the latest."
    )
    listed = [line.split()[:3] for line in command("executions", "--undone").stdout.splitlines()]
    assert listed == [["execution", "path", "status"], [str(execution), path, "FAILED"]]
    assert command("executions", "--undone").stdout.endswith("1 failed, 1 not tried\n")
    [left] = json.loads(command("executions", "--undone", "--json").stdout)
    assert (left["execution_id"], left["failed"], left["open"], left["unknown"]) == (str(execution), 1, 1, 0)
    refused = command("executions", "--undone", "--status", "failed")
    assert (refused.exit_code, "--undone takes no filters" in refused.stderr) == (2, True)
    command("undo", execution)
    finish(database)
    assert command("executions", "--undone").stdout == "no execution has left anything undone\n"
    assert [found for found in asyncio.run(examine(database)) if found.check == "undo"] == []


def test_archive_keeps_what_is_left_undone(command: Command, database: Database, path: str) -> None:
    """Its inputs and results are needed for the undo."""
    assert path
    execution = run_order(database, failing=("ship", "charge!undo"))
    asyncio.run(
        execute(
            database,
            "update noetl.period set first_id = 0, next_id = $1 where name = (select max(name) from noetl.period)",
            execution + 1,
        )
    )
    lines = command("archive", "--older-than", "0s", "--dry-run").stdout
    assert "it left something to undo" in lines
