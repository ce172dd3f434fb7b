"""One scenario tried: what was wrong with it, and what it was an example of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.findings import Rules
from noetl_broker.store.codec import dump_json
from tests.simulation.checks import Difference, differences, tellings
from tests.simulation.plans import Plan, document
from tests.simulation.scenarios import Scenario
from tests.simulation.tables import Row
from tests.simulation.tokens import arcs_of
from tests.simulation.world import Stuck, World

SHOWN_BY_EVENTS = {
    "action_retry": "a retry",
    "iteration_failed": "a failed item",
    "iteration_started": "an iterator",
}


class Trial(NamedTuple):
    """What came of a scenario: nothing wrong, or the differences and the stories of its executions."""

    scenario: Scenario
    wrong: tuple[str, ...]
    stories: tuple[str, ...]
    seen: Counter[str]


def attempt(scenario: Scenario, *, sloppy: frozenset[str] = frozenset()) -> Trial:
    """Let a scenario happen and hold it against the reference; `sloppy` as in `Server`."""
    world = World(scenario, sloppy=sloppy)
    found: list[Difference] = []
    stories: list[str] = []
    seen: Counter[str] = Counter()
    try:
        world.run()
    except Stuck as stuck:
        found.append(Difference(str(stuck)))
    try:
        found += differences(world)
        seen = Counter(dict.fromkeys(_features(world), 1))
        if found:
            stories = [f"execution {owner}:\n{story}" for owner, story in _stories(world, found)]
    except Exception as error:  # noqa: BLE001 - a broken core may write what cannot even be read again
        found.append(Difference(f"what was written cannot be read again: {type(error).__name__}: {error}"))
    seen.update({f"times {name}": count for name, count in world.seen.items()})
    seen.update({"executions": len(world.tables.executions), "turns": len(world.tables.turns)})
    return Trial(scenario, tuple(difference.message for difference in found), tuple(stories), seen)


def _stories(world: World, found: list[Difference]) -> Iterator[tuple[int, str]]:
    """Yield the story of the execution that shows the first difference, or else of all."""
    first = found[0].telling
    if first is not None:
        yield first.execution["execution_id"], first.story()
        return
    for telling, _ in tellings(world):
        yield telling.execution["execution_id"], telling.story()


def is_valid(plan: Plan) -> bool:
    """Tell whether all of a plan's family are playbooks that can be registered."""
    try:
        for one in plan.family():
            compile_playbook(dump_json(document(one)), rules=Rules())
    except PlaybookFault:
        return False
    return True


def _features(world: World) -> Iterator[str]:
    """Yield what the scenario turned out to be an example of."""
    tables = world.tables
    for event in tables.events.values():
        if event["event_type"] in SHOWN_BY_EVENTS:
            yield SHOWN_BY_EVENTS[event["event_type"]]
        if event["event_type"] == "step_failed" and "spent" in (event["meta"] or {}):
            yield "a failure of a spent token"
        if event["event_type"] == "step_started" and event["execution_id"] in tables.executions:
            yield from _features_of_visit(world, event)
    for execution in tables.executions.values():
        yield f"an execution that is {execution['status']}"
        if execution["parent_execution_id"] is not None:
            yield "a child"
    yield from (f"an event that is {turn['outcome']}" for turn in tables.turns.values() if turn["outcome"] != "decided")
    yield "a calm plan" if world.scenario.calm else "a wild plan"


def _features_of_visit(world: World, event: Row) -> Iterator[str]:
    path, name = world.tables.executions[event["execution_id"]]["path"], event["node_name"]
    plan = next(plan for plan in world.scenario.plan.family() if plan.path == path)
    step = next(step for step in plan.steps if step.name == name)
    if step.join or sum(arc.target == name for arc in arcs_of(plan)) > 1:
        yield f"a join of {step.join or 'all'}"
    if "#" in event["node_id"]:
        yield "a step visited again"
    if step.kind == "router":
        yield "a router"
