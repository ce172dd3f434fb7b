"""Prints `replay --until`: the state of an execution after one of its turns."""

from __future__ import annotations

from typing import Any

from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.history.replay import ReplayedTurn, sentences
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
    at = output.moment(recorded.turn.at)
    output.say(f"execution {history.execution_id}  {history.path}  {snapshot.status} after turn {_number(taken)}, {at}")
    output.say()
    for line in format_turn(recorded.event, taken.decision):
        output.say(line)
    _show_snapshot(snapshot)
    for sentence in sentences(taken.differences):
        output.say(f"differs: {sentence}")


def _number(taken: ReplayedTurn) -> int:
    return taken.recorded.turn.number


def _show_snapshot(snapshot: Snapshot) -> None:
    if snapshot.visits:
        output.say()
        jobs = [
            (visit_name(one.step, one.visit), one.type, one.failures, one.inputs, _items(one))
            for one in snapshot.visits
        ]
        output.show_table(("open job", "type", "failures", "inputs", "items"), jobs)
    if snapshot.joins:
        output.say()
        joins = [(one.step, one.join, ", ".join(one.arrived), _awaited(one)) for one in snapshot.joins]
        output.show_table(("waiting", "join", "arrived from", "waits for"), joins)
    if snapshot.results:
        output.say()
        results = [
            (
                visit_name(step, found["visit"]),
                found["status"],
                output.compact_json(_value_or_error(found), longest=LONGEST_VALUE),
            )
            for step, found in snapshot.results.items()
        ]
        output.show_table(("result of", "status", "value"), results)


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


def _value_or_error(found: dict[str, Any]) -> Any:
    return found["error"] if found["status"] == "FAILED" else found["data"]
