"""What `replay --until` tells: where an execution stood after one of its turns."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Any

from noetl_broker.broker.history import History
from noetl_broker.broker.replay import Retaken, Retaking
from noetl_broker.broker.standing import Standing, where_it_stands
from noetl_broker.broker.story import tell_turn
from noetl_broker.cli import output
from noetl_broker.cli.frame import Call
from noetl_broker.cli.walking import Chosen, walk
from noetl_broker.errors import NotFoundFault, OperatorFault
from noetl_broker.store.history import find_turn
from noetl_broker.store.session import session

LONGEST_VALUE = 200  # characters of a result; --json has all


async def show_until(call: Call, execution_id: int, until: str) -> int:
    """Take the turns up to the one that is meant, and tell where the execution stood then."""
    number = await _turn(call, execution_id, until)
    retaking: Retaking | None = None
    async with aclosing(walk(call, Chosen(ids=(execution_id,)))) as parts:
        async for part in parts:
            retaking = retaking or Retaking(part.history, in_parts=True)
            for recorded in part.readable_turns():
                taken = retaking.take(recorded)
                if recorded.turn.number == number:
                    standing = where_it_stands(part.history.playbook, taken.state, retaking.known)
                    _show(call, part.history, taken, standing)
                    return 0
    last = retaking.number if retaking is not None else 0
    raise NotFoundFault(f"execution {execution_id} has no turn {number}: its last is {last}")


async def _turn(call: Call, execution_id: int, until: str) -> int:
    numbered = re.fullmatch(r"turn:([1-9]\d{0,8})", until.strip())
    if numbered:
        return int(numbered[1])
    if not re.fullmatch(r"\d{1,18}", until.strip()):
        raise OperatorFault(f'--until takes the id of an event, or turn:4 for the fourth turn, not "{until}"')
    async with session(call.dsn, name="replay") as connection:
        return await find_turn(connection, execution_id, int(until))


def _show(call: Call, history: History, taken: Retaken, standing: Standing) -> None:
    recorded, decision = taken.recorded, taken.decision
    ended = decision.ended
    if call.as_json:
        output.show_json(
            {
                "execution_id": history.execution_id,
                "path": history.path,
                "turn": recorded.turn.number,
                "at": recorded.turn.at,
                **_standing_as_json(standing),
                "result": ended.result if ended else None,
                "error": ended.error if ended else None,
                "event_id": recorded.event_id,
                "outcome": decision.outcome,
                "decision": [*tell_turn(recorded.event, decision)],
                "differences": list(taken.differences),
            }
        )
        return
    at = output.moment(recorded.turn.at)
    output.say(f"execution {history.execution_id}  {history.path}  {standing.status} after turn {_number(taken)}, {at}")
    output.say()
    for line in tell_turn(recorded.event, decision):
        output.say(line)
    _show_standing(standing)
    for sentence in taken.differences:
        output.say(f"differs: {sentence}")


def _number(taken: Retaken) -> int:
    return taken.recorded.turn.number


def _show_standing(standing: Standing) -> None:
    if standing.live:
        output.say()
        jobs = [(_visit(one.step, one.visit), one.type, one.failures, one.inputs, _items(one)) for one in standing.live]
        output.show_table(("open job", "type", "failures", "inputs", "items"), jobs)
    if standing.waiting:
        output.say()
        joins = [(one.step, one.join, ", ".join(one.arrived), _awaited(one)) for one in standing.waiting]
        output.show_table(("waiting", "join", "arrived from", "waits for"), joins)
    if standing.results:
        output.say()
        results = [
            (_visit(step, found["visit"]), found["status"], output.compact_json(_told(found), longest=LONGEST_VALUE))
            for step, found in standing.results.items()
        ]
        output.show_table(("result of", "status", "value"), results)


def _standing_as_json(standing: Standing) -> dict[str, Any]:
    return {
        "status": standing.status,
        "live": [
            {**one._asdict(), "items": one.items._asdict() if one.items else None, "open_items": list(one.open_items)}
            for one in standing.live
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
            for one in standing.waiting
        ],
        "results": standing.results,
    }


def _awaited(waiting: Any) -> str:
    return ", ".join([*(_visit(*visit) for visit in waiting.visits), *(f"the join {join}" for join in waiting.joins)])


def _items(live: Any) -> str | None:
    if live.items is None:
        return None
    total, _, ended, failed = live.items
    missed = f", {failed} failed" if failed else ""
    return f"{ended} of {total} ended{missed}, {len(live.open_items)} open"


def _told(found: dict[str, Any]) -> Any:
    return found["error"] if found["status"] == "FAILED" else found["data"]


def _visit(step: str, visit: int) -> str:
    return step if visit == 1 else f"{step} #{visit}"
