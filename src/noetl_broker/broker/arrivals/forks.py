"""Forks: executions that take over results of another execution and continue from there.

What a fork takes over is in the `meta` of its `execution_start`, under `fork`: names, numbers and arrivals, as data.
The results are copied to events of the fork, which are named by their ids. So a written fork does not need the other
execution, and a replay reads only the fork's rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.arrivals.steps import enter_step
from noetl_broker.broker.model.decision import StepRow
from noetl_broker.broker.model.limits import MAX_ID
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import (
    FAILED,
    QUEUED,
    Arrival,
    EndReached,
    ResultRef,
    TakenItems,
    decode_arrival,
    decode_result,
    encode_arrival,
    encode_result,
    is_live,
)
from noetl_broker.template.durations import parse_moment

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft


MAX_VISIT = 2**31 - 1


class MalformedFork(Exception):
    """The `fork` document is malformed or does not fit the playbook."""


class CopiedResult(NamedTuple):
    """A result that was taken over: its visit, its status, and the event of the fork that has it.

    `source` is the event of the other execution from which it was copied (0: an operator gave it).
    """

    step: str
    visit: int
    status: str
    event_id: int = 0
    source: int = 0


class Fork(NamedTuple):
    """What a fork takes over, and where it continues. Arrivals name results by their position in `results`, from 1.

    `execution_id` and `turn`: the other execution, and its last turn that counts. `visits`: the finished visits of each
    step; `total`: all visits. `enter`: visits to begin, or to repeat; `arrive`: tokens on arcs; `waiting`: tokens at
    joins. `ends` and `end` as in the state.
    """

    execution_id: int
    turn: int
    results: tuple[CopiedResult, ...] = ()
    visits: dict[str, int] = {}  # noqa: RUF012 - never changed in place
    total: int = 0
    enter: tuple[tuple[int, Arrival], ...] = ()
    arrive: tuple[Arrival, ...] = ()
    waiting: dict[str, tuple[Arrival, ...]] = {}  # noqa: RUF012 - as above
    ends: tuple[str, ...] = ()
    end: EndReached | None = None


def fork_of(meta: JSON) -> JSON:
    """The `fork` of an `execution_start`, unchecked; None for an ordinary start."""
    return meta.get("fork") if isinstance(meta, dict) else None


def take_over(draft: Draft, document: JSON) -> None:
    """Take over what the fork names and enter its steps; raises MalformedFork before anything changes."""
    fork = decode_fork(document)
    steps = draft.playbook.steps
    named = [*fork.visits, *fork.ends, *(result.step for result in fork.results), *fork.waiting]
    named += [arrival.step for arrival in (*fork.arrive, *(arrival for _, arrival in fork.enter))]
    unknown = sorted({name for name in named if name not in steps})
    if unknown:
        raise MalformedFork(f"the playbook has no step {unknown[0]}")
    results = {result.step: result for result in sorted(fork.results, key=lambda result: result.visit)}
    for name, visits in fork.visits.items():
        result = results.get(name)
        draft.state.count_visits(steps[name], visits)
        status = result.status if result is not None and result.visit == visits else "COMPLETED"
        draft.writes.rows[name] = StepRow(
            name, status, visits, 0, 0, result.visit if result is not None else None, taken=True
        )
    draft.state.total = fork.total
    draft.state.ends = dict.fromkeys(fork.ends)
    draft.state.end = None if fork.end is None else fork.end._replace(result=_named(fork, fork.end.result))
    draft.state.waiting = {step: tuple(_arrived(fork, one) for one in found) for step, found in fork.waiting.items()}
    if draft.state.status == QUEUED:
        draft.arrivals.extend(_arrived(fork, one)._replace(visit=visit) for visit, one in fork.enter)
    draft.arrivals.extend(_arrived(fork, one) for one in fork.arrive)
    if draft.state.status == QUEUED:
        return
    for index, (visit, arrival) in enumerate(fork.enter):
        enter_step(draft, steps[arrival.step], _arrived(fork, arrival), visit)
        if not is_live(draft.state.status) and draft.cancelled_at_end is not None:
            # The execution ended while this step was entered. A fork of this fork still needs the other arrivals.
            rest = tuple(_arrived(fork, one) for _, one in fork.enter[index + 1 :])
            draft.cancelled_at_end = draft.cancelled_at_end._replace(arrivals=draft.cancelled_at_end.arrivals + rest)
            return


def encode_fork(fork: Fork) -> dict[str, JSON]:
    """The fork as JSON, without empty fields. The store adds the ids of the events."""
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
        document["end"] = {"result": encode_result(fork.end.result)}
        if fork.end.inputs:
            document["end"]["inputs"] = fork.end.inputs
    return document


def decode_fork(document: JSON) -> Fork:
    """The fork from its JSON; raises MalformedFork."""
    try:
        fork = Fork(
            int(document["execution_id"]),
            int(document["turn"]),
            tuple(
                CopiedResult(
                    one["step"], int(one["visit"]), one["status"], int(one["event_id"]), int(one.get("source") or 0)
                )
                for one in document["results"]
            ),
            {step: int(visits) for step, visits in document["visits"].items()},
            int(document["total"]),
            tuple((int(one["visit"]), decode_arrival(one)) for one in document["enter"]),
            tuple(map(decode_arrival, document.get("arrive", ()))),
            {step: tuple(map(decode_arrival, found)) for step, found in document.get("waiting", {}).items()},
            tuple(document.get("ends", ())),
            EndReached(decode_result(document["end"]["result"]), document["end"].get("inputs", {}))
            if "end" in document
            else None,
        )
        _check(fork)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedFork(f"{type(error).__name__}: {error}") from error
    return fork


def _check(fork: Fork) -> None:
    """Check values and references; raises ValueError or TypeError."""
    waiting = [arrival for found in fork.waiting.values() for arrival in found]
    arrivals = [*fork.arrive, *waiting, *(arrival for _, arrival in fork.enter)]
    carriers: list[Arrival | EndReached] = [*arrivals, *([fork.end] if fork.end is not None else [])]
    numbers = [one.result for one in carriers if isinstance(one.result, int)]
    if not all(1 <= number <= len(fork.results) for number in numbers):
        raise ValueError("there is no result of that number")
    names = {*fork.visits, *fork.ends, *fork.waiting, *(result.step for result in fork.results)}
    for arrival in arrivals:
        names |= {arrival.step, *arrival.sources, *arrival.spent}
        if type(arrival.arc) is not int:
            raise TypeError(f"no arrival: {arrival!r:.80}")
    for due in (arrival.due for arrival in arrivals if arrival.due is not None):
        parse_moment(due)
    _check_items([arrival.items for arrival in arrivals if arrival.items is not None])
    if not all(isinstance(one.inputs, dict) for one in carriers):
        raise TypeError("inputs are a mapping")
    if not all(isinstance(name, str) for name in names):
        raise TypeError("the name of a step is text")
    if not all(result.status in {"COMPLETED", FAILED} for result in fork.results):
        raise ValueError("a result is COMPLETED or FAILED")
    numbers = [*fork.visits.values(), *(visit for visit, _ in fork.enter), *(result.visit for result in fork.results)]
    if not all(1 <= number <= MAX_VISIT for number in numbers) or not 0 <= fork.total <= MAX_VISIT:
        raise ValueError("visits count from 1")
    if not all(1 <= result.event_id <= MAX_ID for result in fork.results):
        raise ValueError("an event has no such id")


def _check_items(taken: list[TakenItems]) -> None:
    """Check what visits take over; raises ValueError or TypeError."""
    for items in taken:
        if type(items.total) is not int or not 0 <= int(items.again, 16) < 1 << items.total:
            raise ValueError("the items to be run again are none of the items")


def _named(fork: Fork, ref: ResultRef) -> ResultRef:
    """The name of a taken result in the state: the negative id of its event. An inline result stays."""
    return -fork.results[ref - 1].event_id if isinstance(ref, int) else ref


def _arrived(fork: Fork, arrival: Arrival) -> Arrival:
    return arrival._replace(result=_named(fork, arrival.result))
