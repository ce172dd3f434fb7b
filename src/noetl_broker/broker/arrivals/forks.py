"""Forks: executions that begin with the state of another execution, as it was after a turn.

The state is in the `meta` of the fork's `execution_start`, under `fork`. Steps and arcs have names in it, because
another version of the playbook may read it. The results are copied to events of the fork, and the state of the fork
names them by these events. So a written fork does not need the other execution, and a replay reads only its own rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model.decision import StepRow
from noetl_broker.broker.model.limits import MAX_ID
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import (
    FAILED,
    NEW,
    TO_START,
    Arrival,
    ExecutionState,
    TakenItems,
    decode,
    encode,
    on_arcs,
)
from noetl_broker.template.durations import parse_moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.playbook.model import Arc, Playbook


MAX_VISIT = 2**31 - 1


class MalformedFork(Exception):
    """The `fork` document is malformed or does not fit the playbook."""


class CopiedResult(NamedTuple):
    """A result that was taken over: its visit, its status, and the event of the fork that has it.

    `name` is its name in the state of the other execution (None: no token carries it).
    """

    step: str
    visit: int
    status: str
    event_id: int
    name: int | None = None


class Fork(NamedTuple):
    """What a fork takes over from `execution_id` after `turn`. `visits`: the finished visits of each step.

    `state` has the tokens at joins, `ends`, `end`, and `total`, which counts the finished visits. Its `hold.kept` has
    the visits to begin, or to repeat, and the tokens on arcs. Nothing else of it counts.
    """

    execution_id: int
    turn: int
    visits: dict[str, int]
    state: ExecutionState
    results: tuple[CopiedResult, ...] = ()

    @property
    def arrivals(self) -> tuple[Arrival, ...]:
        """All tokens: those that it delivers, and those at joins."""
        return (*on_arcs(self.state), *(arrival for found in self.state.waiting.values() for arrival in found))


class ArcNames:
    """The names of the arcs of a playbook, by which other versions of it find them."""

    def __init__(self, arcs: tuple[Arc, ...]) -> None:
        self._arcs = arcs
        self._between: dict[tuple[str, str, bool], list[int]] = {}  # by source, target, and whether of a `catch`
        for arc in arcs:
            self._between.setdefault((arc.source, arc.target, arc.branch == "catch"), []).append(arc.ordinal)

    def name(self, ordinal: int) -> JSON:
        """The source of an arc, its place among those to the same step, and whether it is of a `catch`."""
        if ordinal == TO_START:
            return None
        arc = self._arcs[ordinal]
        caught = arc.branch == "catch"
        return [arc.source, self._between[arc.source, arc.target, caught].index(ordinal), caught]

    def find(self, name: JSON, target: str) -> int:
        """The arc of this name that leads to `target`, or the last such arc; else raises MalformedFork."""
        if name is None:
            return TO_START
        source, place, caught = name
        arcs = self._between.get((source, target, caught))
        if arcs is None:
            raise MalformedFork(f"the playbook has no transition from {source} to {target}")
        return arcs[min(int(place), len(arcs) - 1)]


def fork_of(meta: JSON) -> JSON:
    """The `fork` of an `execution_start`, unchecked; None for an ordinary start."""
    return meta.get("fork") if isinstance(meta, dict) else None


def take_over(draft: Draft, document: JSON) -> None:
    """Begin with the state of the other execution; raises MalformedFork before anything changes."""
    fork = decode_fork(document, draft.playbook)
    latest = {result.step: result for result in sorted(fork.results, key=lambda result: result.visit)}
    for name, visits in fork.visits.items():
        result = latest.get(name)
        draft.state.count_visits(draft.playbook.steps[name], visits)
        status = result.status if result is not None and result.visit == visits else "COMPLETED"
        own = None if result is None else result.visit
        draft.writes.rows[name] = StepRow(name, status, visits, 0, 0, own, taken=True)
    draft.state.total, draft.state.end = fork.state.total, fork.state.end
    draft.state.ends, draft.state.waiting = dict.fromkeys(fork.state.ends), dict(fork.state.waiting)
    kept = on_arcs(fork.state)
    draft.arrivals.extend(kept)
    draft.resumed = sum(arrival.visit > 0 and arrival.arc >= 0 for arrival in kept)


def encode_fork(fork: Fork, arcs: tuple[Arc, ...]) -> dict[str, JSON]:
    """The fork as JSON, without its results: the store adds them. `arcs` are those of its playbook."""
    state, names = encode(fork.state), ArcNames(arcs)
    del state["status"], state["seen"]
    state = _change_arrivals(state, lambda one: {**one, "arc": names.name(one["arc"])})
    return {"execution_id": fork.execution_id, "turn": fork.turn, "visits": fork.visits, "state": state}


def decode_fork(document: JSON, playbook: Playbook) -> Fork:
    """The fork from its JSON, with the arcs of this playbook, and results named by events; raises MalformedFork."""
    try:
        results = tuple(
            CopiedResult(one["step"], one["visit"], one["status"], one["event_id"], one.get("name"))
            for one in document["results"]
        )
        names, arcs = {result.name: -result.event_id for result in results}, ArcNames(playbook.arcs)

        def named(result: JSON) -> JSON:
            return result if isinstance(result, dict) else names.get(result)

        def own(one: dict[str, JSON]) -> dict[str, JSON]:
            return {**one, "arc": arcs.find(one["arc"], one["step"]), "result": named(one["result"])}

        stored = {**document["state"], "status": NEW, "seen": "0", "end_turn": named(document["state"].get("end_turn"))}
        state = decode(_change_arrivals(stored, own))
        fork = Fork(document["execution_id"], document["turn"], dict(document["visits"]), state, results)
        _check(fork, playbook)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise MalformedFork(f"{type(error).__name__}: {error}") from error
    return fork


def _change_arrivals(state: dict[str, JSON], change: Callable[[dict[str, JSON]], dict[str, JSON]]) -> dict[str, JSON]:
    """The JSON of a state, with changed tokens."""
    kept = state.get("hold", {}).get("kept", ())
    waiting = {step: [change(one) for one in found] for step, found in state.get("waiting", {}).items()}
    return {**state, "hold": {"kept": [change(one) for one in kept]}, "waiting": waiting}


def _check(fork: Fork, playbook: Playbook) -> None:
    """Check values and references; raises ValueError or TypeError, and MalformedFork for an unknown step."""
    state, arrivals = fork.state, fork.arrivals
    names = [*fork.visits, *state.ends, *state.waiting, *(result.step for result in fork.results)]
    unknown = [name for name in (*names, *(one.step for one in arrivals)) if name not in playbook.steps]
    if unknown:
        raise MalformedFork(f"the playbook has no step {unknown[0]}")
    numbers = [*fork.visits.values(), *(result.visit for result in fork.results), state.total + 1, fork.turn + 1]
    numbers += [arrival.visit or 1 for arrival in arrivals]
    if not all(type(number) is int and 1 <= number <= MAX_VISIT for number in numbers):
        raise ValueError("visits and turns count from 1")
    ids = [fork.execution_id, *(result.event_id for result in fork.results)]
    if not all(type(number) is int and 1 <= number <= MAX_ID for number in ids):
        raise ValueError("there is no such id")
    if not all(result.status in {"COMPLETED", FAILED} for result in fork.results):
        raise ValueError("a result is COMPLETED or FAILED")
    inputs = [arrival.inputs for arrival in arrivals] + ([state.end.inputs] if state.end is not None else [])
    if not all(isinstance(one, dict) for one in inputs):
        raise TypeError("inputs are a mapping")
    for arrival in arrivals:
        if not all(isinstance(name, str) for name in (*arrival.sources, *arrival.spent)):
            raise TypeError("the name of a step is text")
        if arrival.due is not None:
            parse_moment(arrival.due)
        if arrival.items is not None:
            _check_items(arrival.items)


def _check_items(items: TakenItems) -> None:
    """Check what a visit takes over; raises ValueError or TypeError."""
    if type(items.total) is not int or not 0 <= int(items.again, 16) < 1 << items.total:
        raise ValueError("the items to be run again are none of the items")
