"""Where an execution stands after a turn: what lives, what waits at joins and for whom, and which results are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.context import Found, want_action
from noetl_broker.broker.inputs import given_by
from noetl_broker.broker.joins import holding
from noetl_broker.broker.model import JSON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.context import Known
    from noetl_broker.broker.state import Counts, ExecutionState
    from noetl_broker.playbook.model import Playbook


class Live(NamedTuple):
    """A running visit: its job is open. `failures` so far; `items` and `open_items` (from 0) of an iterator."""

    step: str
    visit: int
    type: str
    inputs: JSON
    failures: int
    items: Counts | None
    open_items: tuple[int, ...]


class Waiting(NamedTuple):
    """A join that waits: from which steps somebody came, and the visits and the other joins that it waits for."""

    step: str
    join: str
    arrived: tuple[str, ...]
    visits: tuple[tuple[str, int], ...]
    joins: tuple[str, ...]


class Standing(NamedTuple):
    """All of it; `results` by step, of the latest visit that has one: {visit, status, data, error}."""

    status: str
    live: tuple[Live, ...]
    waiting: tuple[Waiting, ...]
    results: dict[str, dict[str, JSON]]


def where_it_stands(playbook: Playbook | str, state: ExecutionState, known: Known) -> Standing:
    """The standing after a turn of an execution whose turns were all taken with this `known`."""
    if isinstance(playbook, str):
        return Standing(state.status, (), (), {})
    answers = known.answers
    opened: dict[tuple[object, ...], list[int]] = {visit: [] for visit in state.tokens}
    for want, answer in answers.items():
        if want[0] == "item" and answer == "RUNNING" and want[1:3] in opened:
            opened[want[1:3]].append(int(str(want[3])))
    live = [
        Live(
            token.step,
            token.visit,
            playbook.steps[token.step].type,
            given_by(_action(answers, visit)).values,
            token.failures,
            token.items,
            tuple(opened[visit]),
        )
        for visit, token in state.tokens.items()
    ]
    results = {
        str(want[1]): {"visit": answer.visit, **answer.result._asdict()}
        for want, answer in answers.items()
        if want[0] == "step" and isinstance(answer, Found)
    }
    ordered = {name: results[name] for name in playbook.steps if name in results}
    return Standing(state.status, tuple(live), _waiting(playbook, state), ordered)


def _waiting(playbook: Playbook, state: ExecutionState) -> tuple[Waiting, ...]:
    found = []
    for name in sorted(state.waiting, key=lambda name: playbook.steps[name].index):
        step = playbook.steps[name]
        arrived = tuple(playbook.arcs[arrival.arc].source for arrival in state.waiting[name] if arrival.arc >= 0)
        kind = step.join or ("end" if step is playbook.end else "all")
        visits, joins = holding(playbook, step, state.tokens, state.waiting)
        found.append(Waiting(name, kind, arrived, tuple(visits), tuple(joins)))
    return tuple(found)


def _action(answers: Mapping[tuple[object, ...], object], visit: tuple[str, int]) -> dict[str, JSON]:
    action = answers.get(want_action(*visit))
    return action if isinstance(action, dict) else {}
