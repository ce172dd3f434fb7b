"""What one seed stands for: plans, how many serve them, what goes wrong, and what each action answers."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from tests.simulation.plans import Plan
from tests.simulation.playbooks import plan
from tests.simulation.tables import Row, Tables

CALM_EVERY = 5
WORDS = ("007", "no", "Yes", " FALSE ", "text", "")


class Faults(NamedTuple):
    """How often each thing goes wrong at most; so that everything ends."""

    crashes: int = 0  # a broker dies at an await; what it had not committed is gone
    hangs: int = 0  # the server gives a broker's session up, and the broker hears of it later
    lost_commits: int = 0  # a broker's commit took place, and it never learns of it
    deaths: int = 0  # a worker dies with a job, or answers when its lease is long over
    repeats: int = 0  # a worker sends its answer again
    late_commits: int = 0  # an answer becomes visible long after its event was given an id
    copies: int = 0  # an event of anybody is inserted again
    strangers: int = 0  # events that fit nothing, or that pass the job by
    cancels: int = 0  # somebody cancels an execution


class Scenario(NamedTuple):
    """Everything that decides how a simulation goes; equal ones go alike, to the last microsecond.

    `luck` changes who is first and what goes wrong when, and nothing else.
    """

    seed: int
    plan: Plan
    faults: Faults = Faults()
    luck: int = 0
    roots: int = 1
    brokers: int = 1
    workers: int = 1
    large_bytes: int = 8192
    max_lost_leases: int = 5
    failing: float = 0.1
    payload: Mapping[str, Any] = {}
    calm: bool = False  # it ends alike in whatever order its actions end


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    chance = Random(f"scenario {seed}")
    wild = chance.random() < 0.75
    faults = Faults(*(chance.choice((0, 0, 1, 5)) for _ in Faults._fields)) if wild else Faults()
    faults = faults._replace(cancels=int(faults.cancels == 5))
    if seed % CALM_EVERY == 0:
        # Whoever cancels, passes the job by or loses a lease too often decides how it ends; all else must not.
        return Scenario(
            seed,
            plan(seed, calm=True),
            faults._replace(cancels=0, strangers=0),
            calm=True,
            roots=2,
            brokers=2,
            workers=chance.choice((2, 4)),
            failing=chance.choice((0.0, 0.1)),
        )
    return Scenario(
        seed,
        plan(seed),
        faults,
        roots=chance.choice((1, 1, 2)),
        brokers=chance.choice((1, 2, 3)),
        workers=chance.choice((1, 2, 4)),
        large_bytes=chance.choice((8192, 8192, 20)),
        max_lost_leases=chance.choice((5, 5, 1, 0)),
        failing=chance.choice((0.0, 0.1, 0.2, 0.4)),
        payload=chance.choice(({}, {"size": 5}, {"deep": {"x": 9, "z": [1]}, "more": "{{ not.a.template }}"})),
    )


class Answer(NamedTuple):
    """What a worker reports: a result, or an error."""

    result: Any = None
    error: dict[str, Any] | None = None
    retryable: bool = True


def answer(scenario: Scenario, family: str, node: str, failures: int) -> Answer:
    """Return what an action gives: it depends on its execution's place in the family, its visit, and its failures."""
    chance = Random(f"{scenario.seed} {family} {node} {failures}")
    if chance.random() < scenario.failing:
        error = {"message": chance.choice(("busy", "no")), "status_code": chance.choice((400, 503, None))}
        return Answer(error={key: value for key, value in error.items() if value}, retryable=chance.random() > 0.1)
    items = [chance.randint(0, 9) for _ in range(chance.choice((0, 1, 2, 4)))]
    data = {"x": chance.randint(0, 9), "flag": chance.random() < 0.5, "word": chance.choice(WORDS), "items": items}
    [shape] = chance.choices(("plain", "envelope", "number", "null", "list", "odd", "nested"), (54, 12, 4, 4, 4, 14, 8))
    shaped: dict[str, Any] = {
        "plain": data,
        "envelope": {"status": "success", "data": data},
        "number": data["x"],
        "null": None,
        "list": items,
        "nested": {"data": {"id": 7, "status": "open", "data": data}},
        "odd": {**data, "data": {"x": 3}, "status": "open"},
    }
    return Answer(result=shaped[shape])


def answer_of(scenario: Scenario, tables: Tables, job: Row) -> Answer:
    """Return what the action of a job gives now."""
    family = lineage(tables, job["execution_id"])
    return answer(scenario, family, job["node_id"].partition(":")[2], job["failures"])


def lineage(tables: Tables, execution_id: int) -> str:
    """Return a name for an execution's place in its family, which does not depend on who was first."""
    execution = tables.executions[execution_id]
    parent = execution["parent_execution_id"]
    if parent is None:
        return str(execution.get("root", ""))
    start = next(
        event
        for event in tables.events.values()
        if event["execution_id"] == execution_id and event["event_type"] == "execution_start"
    )
    attempt = start["meta"]["parent"]["attempt"]
    node = execution["parent_node_id"].partition(":")[2]
    return f"{lineage(tables, parent)}/{node}.{execution['parent_index']}@{attempt}"
