"""The state of an execution after one of its turns."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Any

from noetl_broker.errors import NotFoundFault, OperatorFault
from noetl_broker.history.record import History
from noetl_broker.history.replay import Replay, ReplayedTurn, sentences
from noetl_broker.history.snapshot import Snapshot, take_snapshot
from noetl_broker.history.story import format_turn
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service.histories import read_histories
from noetl_broker.store.admin.history import find_turn
from noetl_broker.store.connect.connection import Connection


async def state_after(connection: Connection, execution_id: int, until: str, rules: PlaybookRules) -> dict[str, Any]:
    """The document about the turn of `until` (the id of an event, or turn:4), and about the state after it.

    The turns up to it are replayed. Raises OperatorFault, NotFoundFault.
    """
    number = await _turn(connection, execution_id, until)
    replay: Replay | None = None
    async with aclosing(read_histories(connection, (execution_id,), rules)) as parts:
        async for part in parts:
            replay = replay or Replay(part.history, in_parts=True)
            for recorded in part.readable_turns():
                taken = replay.apply(recorded)
                if recorded.turn.number == number:
                    snapshot = take_snapshot(part.history.playbook, taken.state, replay.known)
                    return _document(part.history, taken, snapshot)
    last = replay.number if replay is not None else 0
    raise NotFoundFault(f"execution {execution_id} has no turn {number}: its last is {last}")


async def _turn(connection: Connection, execution_id: int, until: str) -> int:
    numbered = re.fullmatch(r"turn:([1-9]\d{0,8})", until.strip())
    if numbered:
        return int(numbered[1])
    if not re.fullmatch(r"\d{1,18}", until.strip()):
        raise OperatorFault(f'--until takes the id of an event, or turn:4 for the fourth turn, not "{until}"')
    return await find_turn(connection, execution_id, int(until))


def _document(history: History, taken: ReplayedTurn, snapshot: Snapshot) -> dict[str, Any]:
    recorded, decision = taken.recorded, taken.decision
    ended = decision.ended
    return {
        "execution_id": history.execution_id,
        "path": history.path,
        "turn": recorded.turn.number,
        "at": recorded.turn.at,
        "status": snapshot.status,
        "live": [
            {**one._asdict(), "items": one.items._asdict() if one.items else None, "open_items": list(one.open_items)}
            for one in snapshot.visits
        ],
        "waiting": [
            {
                "step": one.step,
                "join": one.join,
                "arrived_from": list(one.arrived),
                "waits_for": [
                    *({"step": step, "visit": visit} for step, visit in one.visits),
                    *({"join": join} for join in one.joins),
                ],
            }
            for one in snapshot.joins
        ],
        "results": snapshot.results,
        "result": ended.result if ended else None,
        "error": ended.error if ended else None,
        "event_id": recorded.event_id,
        "outcome": decision.outcome,
        "decision": [*format_turn(recorded.event, decision)],
        "differences": sentences(taken.differences),
    }
