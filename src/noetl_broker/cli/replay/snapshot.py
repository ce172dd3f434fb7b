"""Prints `replay --until`: the state of an execution after one of its turns."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.history.replay import sentences
from noetl_broker.history.snapshot import Snapshot
from noetl_broker.history.story import format_turn
from noetl_broker.node_ids import visit_name
from noetl_broker.service.snapshots import StateAfter, state_after
from noetl_broker.store.connect.session import session

LONGEST_VALUE = 200  # characters of a result; --json has all


async def show_until(call: Call, execution_id: int, until: str) -> int:
    """Replay the turns up to the chosen one and print the state after it; gives the exit code."""
    async with session(call.database, name="replay") as connection:
        state = await state_after(connection, execution_id, until, call.playbook_rules)
    if not call.printed(state.as_document()):
        _show(state)
    return 0


def _show(state: StateAfter) -> None:
    history, taken, snapshot = state
    recorded = taken.recorded
    turn = f"turn {recorded.turn.number}, {output.moment(recorded.turn.at)}"
    output.say(f"execution {history.execution_id}  {history.path}  {snapshot.status} after {turn}")
    output.say()
    for line in format_turn(recorded.event, taken.decision):
        output.say(line)
    _show_snapshot(snapshot)
    for sentence in sentences(taken.differences):
        output.say(f"differs: {sentence}")


def _show_snapshot(snapshot: Snapshot) -> None:
    for rows, columns in (
        (snapshot.visits, VISITS),
        (snapshot.joins, JOINS),
        ([{"step": step, **found} for step, found in snapshot.results.items()], RESULTS),
    ):
        if rows:
            output.say()
            output.Rows.of(rows, columns).show()


def _awaited(waiting: Any) -> str:
    return ", ".join(
        [*(visit_name(*visit) for visit in waiting.visits), *(f"the join {join}" for join in waiting.joins)]
    )


def _items(live: Any) -> str | None:
    if live.items is None:
        return None
    total, _, ended, failed = live.items
    missed = f", {failed} failed" if failed else ""
    return f"{ended} of {total} ended{missed}, {len(live.open_items)} open"


def _value(found: dict[str, Any]) -> str:
    value = found["error"] if found["status"] == "FAILED" else found["data"]
    return output.compact_json(value, longest=LONGEST_VALUE)


VISITS: output.Columns = {
    "open job": lambda one: visit_name(one.step, one.visit), "type": attrgetter("type"),
    "failures": attrgetter("failures"), "inputs": attrgetter("inputs"), "items": _items,
}  # fmt: skip
JOINS: output.Columns = {
    "waiting": attrgetter("step"), "join": attrgetter("join"),
    "arrived from": lambda one: ", ".join(one.arrived), "waits for": _awaited,
}  # fmt: skip
RESULTS: output.Columns = {
    "result of": lambda found: visit_name(found["step"], found["visit"]), "status": "status", "value": _value,
}  # fmt: skip
