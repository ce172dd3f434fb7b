"""Prints `replay --until`: the state of an execution after one of its turns."""

from __future__ import annotations

from typing import Any

from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.node_ids import visit_name
from noetl_broker.service.histories import state_after
from noetl_broker.store.connect.session import session

LONGEST_VALUE = 200  # characters of a result; --json has all


async def show_until(call: Call, execution_id: int, until: str) -> int:
    """Replay the turns up to the chosen one and print the state after it; gives the exit code."""
    async with session(call.database, name="replay", of=execution_id) as connection:
        state = await state_after(connection, execution_id, until, call.playbook_rules)
    if not call.printed(state):
        _show(state)
    return 0


def _show(state: dict[str, Any]) -> None:
    turn = f"turn {state['turn']}, {output.moment(state['at'])}"
    output.say(f"execution {state['execution_id']}  {state['path']}  {state['status']} after {turn}")
    output.say()
    for line in state["decision"]:
        output.say(line)
    results = [{"step": step, **found} for step, found in state["results"].items()]
    for rows, columns in ((state["live"], VISITS), (state["waiting"], JOINS), (results, RESULTS)):
        if rows:
            output.say()
            output.Rows.of(rows, columns).show()
    for sentence in state["differences"]:
        output.say(f"differs: {sentence}")


def _name(of: dict[str, Any]) -> str:
    return visit_name(of["step"], of["visit"]) if "visit" in of else f"the join {of['join']}"


def _items(live: dict[str, Any]) -> str | None:
    items = live["items"]
    if items is None:
        return None
    missed = f", {items['failed']} failed" if items["failed"] else ""
    return f"{items['ended']} of {items['total']} ended{missed}, {len(live['open_items'])} open"


def _value(found: dict[str, Any]) -> str:
    value = found["error"] if found["status"] == "FAILED" else found["data"]
    return output.compact_json(value, longest=LONGEST_VALUE)


VISITS: output.Columns = {
    "open job": _name, "type": "type", "failures": "failures", "inputs": "inputs", "items": _items,
}  # fmt: skip
JOINS: output.Columns = {
    "waiting": "step", "join": "join", "arrived from": lambda one: ", ".join(one["arrived_from"]),
    "waits for": lambda one: ", ".join(map(_name, one["waits_for"])),
}  # fmt: skip
RESULTS: output.Columns = {"result of": _name, "status": "status", "value": _value}
