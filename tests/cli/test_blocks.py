"""Commands about blocks: what they list, explain and compare."""

from __future__ import annotations

from tests.cli.conftest import Command, begin, complete, write_playbook
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


def test_commands_show_an_execution_and_its_block(command: Command, database: Database) -> None:
    """The block failed in its second step. A pattern without a `#` leaves blocks out."""
    failed = begin(command, database, ORDER, path="shop/order")
    complete(database)
    lines = command("executions").stdout.splitlines()[1:]
    assert [line[19:35].rstrip() for line in lines] == ["shop/order", "  shop/order#pay"]
    found = [command.json("executions", "--path", path) for path in ("shop/*", "shop/*#*")]
    assert [[entry["path"] for entry in entries] for entries in found] == [["shop/order"], ["shop/order#pay"]]
    assert found[1][0]["parent_execution_id"] == str(failed)

    # The explanation of the execution and of the step go into the block.
    for part in ([], ["pay"]):
        block = command.json("explain", failed, *part)["because"][-1]
        assert (block["facts"]["path"], "`charge.id` is undefined" in block["says"]) == ("shop/order#pay", True)
        assert [reason["kind"] for reason in block["because"]] == ["failed", "way"]
    facts = command.json("explain", failed, "pay.charge")["facts"]
    assert (facts["path"], facts["step"]) == ("shop/order#pay", "charge")

    # A near name is no block; the graph of one is drawn by its path.
    assert 'did you mean "shop/order"?' in command("start", "shop/order#pya").stderr
    assert "shop/order → pay version 1" in command("graph", "shop/order#pay").stdout

    [block] = command.json("status", failed)["blocks"]
    assert (block["path"], block["status"], block["at"]) == ("shop/order#pay", "FAILED", [])
    assert f"pay    {block['execution_id']}  FAILED" in command("status", failed).stdout

    # Each is compared with its part of an edited file.
    edited = ORDER.replace("next: tell}", "next: start2}").replace("step: tell,", "step: start2,")
    answer = command.json("replay", "--against", write_playbook(command.folder, edited, path="shop/order"))
    assert (answer["executions"], answer["same"], answer["parting"]) == (2, 1, 1)
    assert answer["groups"][0]["examples"][0]["execution_id"] != failed
