"""Commands about blocks: what they list, explain and compare."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Command, decide, execute, write_playbook
from tests.postgres import Database

ORDER = """
workload: {order: 7}
workflow:
- {step: start, next: pay}
- step: pay
  type: playbook
  args: {order: "{{ workload.order }}"}
  workflow:
  - {step: start, next: charge}
  - {step: charge, type: http, url: "http://bank/{{ order }}", next: tell}
  - {step: tell, type: http, url: "http://mail/{{ charge.id }}"}
"""
DONE = "select noetl.complete_job(queue_id, 'w', attempts, '{}') from noetl.lease_jobs('w', 9)"


@pytest.fixture
def failed(command: Command, database: Database) -> int:
    """An execution whose block failed in its second step."""
    command("register", write_playbook(command.folder, ORDER, path="shop/order"))
    execution_id = int(command("start", "shop/order").stdout)
    decide(database)
    execute(database, DONE)
    decide(database)
    return execution_id


def test_executions_of_blocks_stand_below_their_parents(command: Command, failed: int) -> None:
    """A pattern without a `#` leaves them out."""
    lines = command("executions").stdout.splitlines()[1:]
    assert [line[19:35].rstrip() for line in lines] == ["shop/order", "  shop/order#pay"]
    found = [json.loads(command("executions", "--path", path, "--json").stdout) for path in ("shop/*", "shop/*#*")]
    assert [[entry["path"] for entry in entries] for entries in found] == [["shop/order"], ["shop/order#pay"]]
    assert found[1][0]["parent_execution_id"] == str(failed)


def test_an_explanation_goes_into_the_block(command: Command, failed: int) -> None:
    """Of the execution, of the step, and of a step of the block by its name."""
    message = "`charge.id` is undefined"
    for part in ([], ["pay"]):
        why = json.loads(command("explain", failed, *part, "--json").stdout)
        block = why["because"][-1]
        assert (block["facts"]["path"], message in block["says"]) == ("shop/order#pay", True)
        assert [reason["kind"] for reason in block["because"]] == ["failed", "way"]
    why = json.loads(command("explain", failed, "pay.charge", "--json").stdout)
    assert (why["facts"]["path"], why["facts"]["step"]) == ("shop/order#pay", "charge")


def test_the_list_of_playbooks_has_no_blocks(command: Command, failed: int) -> None:
    """A near name is no block either; the graph of one is drawn by its path."""
    assert failed
    assert 'did you mean "shop/order"?' in command("start", "shop/order#pya").stderr
    assert "shop/order → pay version 1" in command("graph", "shop/order#pay").stdout


def test_an_edited_block_is_compared_with_its_executions(command: Command, failed: int) -> None:
    """Each with its part of the file."""
    edited = ORDER.replace("next: tell}", "next: start2}").replace("step: tell,", "step: start2,")
    file = write_playbook(command.folder, edited, path="shop/order")
    answer = json.loads(command("replay", "--against", file, "--json").stdout)
    assert (answer["executions"], answer["same"], answer["parting"]) == (2, 1, 1)
    assert answer["groups"][0]["examples"][0]["execution_id"] != failed


def test_the_status_lists_blocks_that_failed(command: Command, failed: int) -> None:
    """And those that run, with their live steps."""
    [block] = json.loads(command("status", failed, "--json").stdout)["blocks"]
    assert (block["path"], block["status"], block["at"]) == ("shop/order#pay", "FAILED", [])
    assert f"pay    {block['execution_id']}  FAILED" in command("status", failed).stdout
