"""The snapshot of an execution after a turn: open visits, waiting joins, and the latest results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.arrivals.joins import waits_for
from noetl_broker.broker.draft.known import Found, ItemState
from noetl_broker.broker.draft.wants import want_action
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.writing.inputs import inputs_of_job
from noetl_broker.history.replay import sentences
from noetl_broker.history.story import format_turn

if TYPE_CHECKING:
    from noetl_broker.broker.draft.known import Known
    from noetl_broker.broker.state.state import Counts, ExecutionState
    from noetl_broker.history.record import History
    from noetl_broker.history.replay import ReplayedTurn
    from noetl_broker.playbook.model import Playbook


class OpenVisit(NamedTuple):
    """A visit whose job is open. An iterator has `items` (counts) and `open_items` (indexes from 0)."""

    step: str
    visit: int
    type: str
    inputs: JSON
    failures: int
    items: Counts | None
    open_items: tuple[int, ...]


class WaitingJoin(NamedTuple):
    """A join that waits: the steps that tokens arrived from, and the visits and other joins that it waits for."""

    step: str
    join: str
    arrived: tuple[str, ...]
    visits: tuple[tuple[str, int], ...]
    joins: tuple[str, ...]


class Snapshot(NamedTuple):
    """An execution after a turn; `results` are by step, of its latest visit with one: {visit, status, data, error}."""

    status: str
    visits: tuple[OpenVisit, ...]
    joins: tuple[WaitingJoin, ...]
    results: dict[str, dict[str, JSON]]


def take_snapshot(playbook: Playbook | str, state: ExecutionState, known: Known) -> Snapshot:
    """The snapshot of an execution, all of whose turns were decided with this `known`."""
    if isinstance(playbook, str):
        return Snapshot(state.status, (), (), {})
    open_items: dict[tuple[object, ...], list[int]] = {visit: [] for visit in state.tokens}
    results: dict[str, dict[str, JSON]] = {}
    for want, answer in known.answers.items():
        if isinstance(answer, ItemState) and answer.status == "RUNNING" and want[1:3] in open_items:
            open_items[want[1:3]].append(int(str(want[3])))
        elif want[0] == "step" and isinstance(answer, Found):
            results[str(want[1])] = {"visit": answer.visit, **answer.result._asdict()}
    visits = [
        OpenVisit(
            token.step,
            token.visit,
            playbook.steps[token.step].type,
            _inputs(known, visit),
            token.failures,
            token.items,
            tuple(open_items[visit]),
        )
        for visit, token in state.tokens.items()
    ]
    ordered = {name: results[name] for name in playbook.steps if name in results}
    return Snapshot(state.status, tuple(visits), _waiting_joins(playbook, state), ordered)


def _waiting_joins(playbook: Playbook, state: ExecutionState) -> tuple[WaitingJoin, ...]:
    found = []
    for name in sorted(state.waiting, key=lambda name: playbook.steps[name].index):
        step = playbook.steps[name]
        arrived = tuple(playbook.arcs[arrival.arc].source for arrival in state.waiting[name] if arrival.arc >= 0)
        kind = f"need {step.need}" if step.need > 1 else step.join or ("end" if step is playbook.end else "all")
        visits, joins = waits_for(playbook, step, state.tokens, state.waiting)
        found.append(WaitingJoin(name, kind, arrived, tuple(visits), tuple(joins)))
    return tuple(found)


def _inputs(known: Known, visit: tuple[str, int]) -> JSON:
    action = known.answers.get(want_action(*visit))
    return as_stored(inputs_of_job(action if isinstance(action, dict) else {}).values)


def snapshot_document(history: History, taken: ReplayedTurn, known: Known) -> dict[str, Any]:
    """One JSON object about a replayed turn and the state after it; with this `known`, all turns were decided."""
    snapshot = take_snapshot(history.playbook, taken.state, known)
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
