"""The scenario of a seed: plans, brokers, workers, faults, and what each action answers."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from tests.simulation.plans import Plan
from tests.simulation.random_catches import with_catches
from tests.simulation.random_items import with_items
from tests.simulation.random_plans import (
    APPROVALS_FROM,
    NEEDS_FROM,
    SCHEMAS_FROM,
    SIGNALS_FROM,
    WAITS_FROM,
    plan,
    start_options,
    with_options,
)
from tests.simulation.random_undos import with_undos

STABLE_EVERY = 5
WORDS = ("007", "no", "Yes", " FALSE ", "text", "")


class Faults(NamedTuple):
    """The maximal number of each fault."""

    crashes: int = 0  # a batch of turns is lost before its commit
    worker_deaths: int = 0  # a worker answers after its lease
    disorder: int = 0  # the unread mail of an execution is shuffled
    late_commits: int = 0  # an answer is committed long after the job was answered
    copies: int = 0  # an event is inserted again
    stray_events: int = 0  # unknown events, and answers that do not come through the job
    cancels: int = 0  # an execution is cancelled


class Scenario(NamedTuple):
    """Everything that a simulation depends on: equal scenarios give equal runs, to the last microsecond.

    `variant` changes only the order, and when faults occur.
    """

    seed: int
    plan: Plan
    faults: Faults = Faults()
    variant: int = 0
    roots: int = 1
    brokers: int = 1
    workers: int = 1
    large_bytes: int = 8192
    max_lost_leases: int = 5
    failing: float = 0.1
    payload: Mapping[str, Any] = {}
    stable: bool = False  # its end does not depend on the order in which actions end
    pauses: int = 0  # how often an execution or a path is paused, and resumed later
    signals: int = 0  # how many signals are sent from outside
    undos: int = 0  # how often an undo is abandoned, or asked for after the end
    options: Mapping[str, Any] = {}  # of the start: tags and priority


PAUSES_FROM = 5_000_000  # executions and paths of these seeds are paused; half of their plans have waits
CATCHES_FROM = 7_000_000  # plans of these seeds have `catch`, `output` and steps that fail; some have joins or waits
ITEMS_FROM = 8_000_000  # plans of these seeds have more iterators, with retries, `catch` and `tolerate`
UNDOS_FROM = 9_000_000  # plans of these seeds have `compensate`; no plan is stable
KINDS = (
    0, NEEDS_FROM, WAITS_FROM, SCHEMAS_FROM, APPROVALS_FROM, PAUSES_FROM, SIGNALS_FROM,
    CATCHES_FROM, ITEMS_FROM, UNDOS_FROM,
)  # fmt: skip
BASES = (0, 0, 0, NEEDS_FROM, WAITS_FROM, APPROVALS_FROM, SIGNALS_FROM)  # of seeds that add to the plan of another seed


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    made, random = _made(seed), Random(f"options {seed}")
    return made._replace(plan=with_options(random, made.plan), options=start_options(random))


def _made(seed: int) -> Scenario:
    """Return the scenario of a seed without pools, priorities and tags."""
    if seed >= CATCHES_FROM:
        return _with_words(seed)
    if PAUSES_FROM <= seed < SIGNALS_FROM:
        pauses = Random(f"pauses {seed}").choice((1, 3, 10))
        base = seed - PAUSES_FROM
        return _made(base + WAITS_FROM * (base % 2))._replace(seed=seed, pauses=pauses)
    if seed >= SIGNALS_FROM:
        outside = Random(f"outside {seed}")
        signals, pauses = outside.choice((0, 5, 20, 40)), outside.choice((0, 0, 2))
        return _scenario(seed)._replace(signals=signals, pauses=pauses)
    return _scenario(seed)


def _with_words(seed: int) -> Scenario:
    """Return the scenario of a seed that adds words to the plan of another seed."""
    random = Random(f"words {seed}")
    if seed >= UNDOS_FROM:
        made = _made(_unstable(_base(seed - UNDOS_FROM)))
        added = made.plan
        if random.random() < 0.4:
            added = with_catches(random, added, stable=False)
        if random.random() < 0.3:
            added = with_items(random, added, stable=False)
        faults = made.faults._replace(cancels=random.choice((0, 0, 1, 3)))
        undos = random.choice((0, 1, 4))
        return made._replace(seed=seed, plan=with_undos(random, added), faults=faults, undos=undos)
    if seed >= ITEMS_FROM:
        made = _made(_base(seed - ITEMS_FROM))
        added = with_items(random, made.plan, stable=made.stable)
        if random.random() < 0.3:
            added = with_catches(random, added, stable=made.stable)
        return made._replace(seed=seed, plan=added)
    made = _made(_base(seed - CATCHES_FROM))
    return made._replace(seed=seed, plan=with_catches(random, made.plan, stable=made.stable))


def _unstable(seed: int) -> int:
    return seed + 1 if seed % STABLE_EVERY == 0 else seed


def _base(number: int) -> int:
    """Return a seed whose scenario is added to; a stable one stays stable."""
    return number + (0 if number % STABLE_EVERY == 0 else Random(f"base {number}").choice(BASES))


def _scenario(seed: int) -> Scenario:
    random = Random(f"scenario {seed}")
    has_faults = random.random() < 0.75
    faults = Faults(*(random.choice((0, 0, 1, 5)) for _ in Faults._fields)) if has_faults else Faults()
    faults = faults._replace(cancels=int(faults.cancels == 5))
    if seed % STABLE_EVERY == 0:
        # Cancels, stray answers and too many lost leases change the end of an execution. Other faults must not.
        return Scenario(
            seed,
            plan(seed, stable=True),
            faults._replace(cancels=0, stray_events=0),
            stable=True,
            roots=2,
            brokers=2,
            workers=random.choice((2, 4)),
            failing=random.choice((0.0, 0.1)),
        )
    return Scenario(
        seed,
        plan(seed),
        faults,
        roots=random.choice((1, 1, 2)),
        brokers=random.choice((1, 2, 3)),
        workers=random.choice((1, 2, 4)),
        large_bytes=random.choice((8192, 8192, 20)),
        max_lost_leases=random.choice((5, 5, 1, 0)),
        failing=random.choice((0.0, 0.1, 0.2, 0.4)),
        payload=random.choice(({}, {"size": 5}, {"deep": {"x": 9, "z": [1]}, "more": "{{ not.a.template }}"})),
    )


class Answer(NamedTuple):
    """The answer of a worker: a result or an error."""

    result: Any = None
    error: dict[str, Any] | None = None
    retryable: bool = True


def answer(scenario: Scenario, family: str, node: str, failures: int) -> Answer:
    """Return an action's answer; it depends on the execution's place in its family, the visit, and its failures."""
    random = Random(f"{scenario.seed} {family} {node} {failures}")
    if random.random() < scenario.failing:
        error = {"message": random.choice(("busy", "no")), "status_code": random.choice((400, 503, None))}
        return Answer(error={key: value for key, value in error.items() if value}, retryable=random.random() > 0.1)
    items = [random.randint(0, 9) for _ in range(random.choice((0, 1, 2, 4)))]
    data = {"x": random.randint(0, 9), "flag": random.random() < 0.5, "word": random.choice(WORDS), "items": items}
    [shape] = random.choices(("plain", "envelope", "number", "null", "list", "odd", "nested"), (54, 12, 4, 4, 4, 14, 8))
    shaped: dict[str, Any] = {
        "plain": data,
        "envelope": {"status": "success", "data": data},
        "number": data["x"],
        "null": None,
        "list": items,
        "nested": {"data": {"id": 7, "status": "success", "data": data}},
        "odd": {**data, "data": {"x": 3}, "status": "open"},
    }
    return Answer(result=shaped[shape])
