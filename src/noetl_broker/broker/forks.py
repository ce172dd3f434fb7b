"""Forks: an execution that takes over results of another one and goes on from there.

What it takes over stands in its own `execution_start`, under `fork` in `meta`: names, numbers and arrivals, as data.
The results themselves are events of its own, copied in SQL and named by their ids. So a fork needs nothing of the
execution that it comes from once it is written, and a replay retakes it from its own rows alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.entering import enter_step
from noetl_broker.broker.model import JSON, Row
from noetl_broker.broker.state import (
    FAILED,
    RUNNING,
    Arrival,
    Reached,
    decode_arrival,
    decode_inputs,
    encode_arrival,
    encode_inputs,
)

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft


MOST_VISITS = 2**31 - 1
LARGEST_ID = 2**63 - 1


class Malformed(Exception):
    """What stands under `fork` is no fork of this playbook."""


class Taken(NamedTuple):
    """One result that was taken over: of this visit of a step, with its status, and the event that carries it now.

    `source`: the event of the other execution that it was copied from (0: it was given by hand).
    """

    step: str
    visit: int
    status: str
    event_id: int = 0
    source: int = 0


class Fork(NamedTuple):
    """What a fork takes over, and where it goes on. Arrivals name results by their place in `results`, from 1.

    `execution_id` and `turn`: where it comes from, up to which turn. `visits` counts the visits of each step that are
    done, `total` all of them. `enter` are visits to be made (again), `arrive` tokens on their arcs, `waiting` those
    before joins; `ends` the ends of branches so far, `end` as in the state.
    """

    execution_id: int
    turn: int
    results: tuple[Taken, ...] = ()
    visits: dict[str, int] = {}  # noqa: RUF012 - never changed in place
    total: int = 0
    enter: tuple[tuple[int, Arrival], ...] = ()
    arrive: tuple[Arrival, ...] = ()
    waiting: dict[str, tuple[Arrival, ...]] = {}  # noqa: RUF012 - as above
    ends: tuple[str, ...] = ()
    end: Reached | None = None


def fork_of(meta: JSON) -> dict[str, Any] | None:
    """What an `execution_start` says of a fork; None where it is an ordinary start."""
    return meta.get("fork") if isinstance(meta, dict) else None


def take_over(draft: Draft, document: JSON) -> None:
    """Set up what the fork takes over, and enter the steps where it goes on; raises Malformed, with nothing changed."""
    fork = decode_fork(document)
    steps = draft.playbook.steps
    named = [*fork.visits, *fork.ends, *(result.step for result in fork.results), *fork.waiting]
    named += [arrival.step for arrival in (*fork.arrive, *(arrival for _, arrival in fork.enter))]
    unknown = sorted({name for name in named if name not in steps})
    if unknown:
        raise Malformed(f"the playbook has no step {unknown[0]}")
    results = {result.step: result for result in sorted(fork.results, key=lambda result: result.visit)}
    for name, visits in fork.visits.items():
        result = results.get(name)
        draft.count_visits(steps[name], visits)
        status = result.status if result is not None and result.visit == visits else "COMPLETED"
        draft.rows[name] = Row(name, status, visits, 0, 0, result.visit if result is not None else None, taken=True)
    draft.total = fork.total
    draft.ends = dict.fromkeys(fork.ends)
    draft.end = None if fork.end is None else fork.end._replace(result=_named(fork, fork.end.result))
    draft.waiting = {step: tuple(_arrived(fork, one) for one in found) for step, found in fork.waiting.items()}
    draft.arrivals.extend(_arrived(fork, one) for one in fork.arrive)
    for place, (visit, arrival) in enumerate(fork.enter):
        enter_step(draft, steps[arrival.step], _arrived(fork, arrival), visit)
        if draft.status != RUNNING and draft.lost is not None:
            # The execution has ended in this one; the next that is forked from it still finds the others.
            rest = tuple(_arrived(fork, one) for _, one in fork.enter[place + 1 :])
            draft.lost = draft.lost._replace(arrivals=draft.lost.arrivals + rest)
            return


def encode_fork(fork: Fork) -> dict[str, JSON]:
    """The fork as JSON for the start event: what is empty is left out. The store adds the ids of the events."""
    document: dict[str, JSON] = {"execution_id": fork.execution_id, "turn": fork.turn, "total": fork.total}
    document["results"] = [
        {"step": result.step, "visit": result.visit, "status": result.status, "source": result.source}
        for result in fork.results
    ]
    document["visits"] = fork.visits
    document["enter"] = [{"visit": visit, **encode_arrival(arrival)} for visit, arrival in fork.enter]
    if fork.arrive:
        document["arrive"] = [encode_arrival(arrival) for arrival in fork.arrive]
    if fork.waiting:
        document["waiting"] = {step: [encode_arrival(one) for one in found] for step, found in fork.waiting.items()}
    if fork.ends:
        document["ends"] = list(fork.ends)
    if fork.end is not None:
        document["end"] = {"result": fork.end.result, **encode_inputs(fork.end)}
    return document


def decode_fork(document: JSON) -> Fork:
    """The fork from its JSON; raises Malformed where it is none."""
    try:
        fork = Fork(
            int(document["execution_id"]),
            int(document["turn"]),
            tuple(
                Taken(one["step"], int(one["visit"]), one["status"], int(one["event_id"]), int(one.get("source") or 0))
                for one in document["results"]
            ),
            {step: int(visits) for step, visits in document["visits"].items()},
            int(document["total"]),
            tuple((int(one["visit"]), decode_arrival(one)) for one in document["enter"]),
            tuple(map(decode_arrival, document.get("arrive", ()))),
            {step: tuple(map(decode_arrival, found)) for step, found in document.get("waiting", {}).items()},
            tuple(document.get("ends", ())),
            Reached(document["end"]["result"], *decode_inputs(document["end"])) if "end" in document else None,
        )
        _check(fork)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from error
    return fork


def _check(fork: Fork) -> None:
    """What JSON's form does not say by itself; raises ValueError or TypeError."""
    waiting = [arrival for found in fork.waiting.values() for arrival in found]
    arrivals = [*fork.arrive, *waiting, *(arrival for _, arrival in fork.enter)]
    handed: list[Arrival | Reached] = [*arrivals, *([fork.end] if fork.end is not None else [])]
    places = [one.result for one in handed if one.result is not None]
    if not all(1 <= place <= len(fork.results) for place in places):
        raise ValueError("there is no result of that place")
    names = {*fork.visits, *fork.ends, *fork.waiting, *(result.step for result in fork.results)}
    for arrival in arrivals:
        names |= {arrival.step, *arrival.sources, *arrival.spent}
        if type(arrival.arc) is not int:
            raise TypeError(f"no arrival: {arrival!r:.80}")
    if not all(isinstance(one.inputs, dict) for one in handed):
        raise TypeError("inputs are a mapping")
    if not all(isinstance(name, str) for name in names):
        raise TypeError("the name of a step is text")
    if not all(result.status in {"COMPLETED", FAILED} for result in fork.results):
        raise ValueError("a result is COMPLETED or FAILED")
    numbers = [*fork.visits.values(), *(visit for visit, _ in fork.enter), *(result.visit for result in fork.results)]
    if not all(1 <= number <= MOST_VISITS for number in numbers) or not 0 <= fork.total <= MOST_VISITS:
        raise ValueError("visits count from 1")
    if not all(1 <= result.event_id <= LARGEST_ID for result in fork.results):
        raise ValueError("an event has no such id")


def _named(fork: Fork, place: int | None) -> int | None:
    """The name by which the state knows a result that was taken over."""
    return None if place is None else -fork.results[place - 1].event_id


def _arrived(fork: Fork, arrival: Arrival) -> Arrival:
    return arrival._replace(result=_named(fork, arrival.result))
