"""Runs one scenario: the faults that it shows, and the features that it is an example of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from noetl_broker.broker.model.effects import WaitEnded
from noetl_broker.broker.model.event import Emitted
from noetl_broker.errors import PlaybookFault
from noetl_broker.history.story import format_story
from tests.simulation.checks import faults
from tests.simulation.compare import Different
from tests.simulation.life import Life
from tests.simulation.plans import Plan, Step
from tests.simulation.reference_model import arcs_of
from tests.simulation.scenarios import Scenario
from tests.simulation.world import Stuck, World, compiled

FEATURES_BY_EVENT = {
    "action_retry": "a retry",
    "iteration_failed": "a failed item",
    "iteration_started": "an iterator",
    "step_cancelled": "a cancelled visit",
    "execution_paused": "a paused execution",
    "execution_queued": "a queued execution",
    "execution_late": "a late execution",
    "step_late": "a late visit",
    "compensation_completed": "an undo",
    "compensation_failed": "an undo that failed",
}
FEATURES_BY_MAIL = {
    "timer_due": "a wait that is over",
    "approval_decided": "a decided approval",
    "execution_signal": "a signal",
}


class Trial(NamedTuple):
    """The outcome of a scenario: faults with the stories of executions, and counts of features."""

    scenario: Scenario
    differences: tuple[str, ...]
    stories: tuple[str, ...]
    counts: Counter[str]


def run_trial(scenario: Scenario) -> Trial:
    """Run a scenario and compare it with the reference."""
    world = World(scenario)
    found: list[Different] = []
    try:
        world.run()
        found += faults(world)
    except Stuck as stuck:
        found.append(Different(str(stuck)))
    except Different as different:
        found.append(different)
    except Exception as error:  # noqa: BLE001 - a broken core may decide what cannot be written
        found.append(Different(f"a decision cannot be written: {type(error).__name__}: {error}"))
    seen = Counter(dict.fromkeys(_features(world), 1))
    seen.update({f"times {name}": count for name, count in world.counts.items()})
    seen.update({"executions": len(world.lives), "turns": sum(len(life.turns) for life in world.lives.values())})
    stories = [f"execution {life.number}:\n{_story(life)}" for life in _shown(world, found)]
    return Trial(scenario, tuple(map(str, found)), tuple(stories), seen)


def _shown(world: World, found: list[Different]) -> list[Life]:
    """Return the execution with the first fault; all if it names none."""
    if not found:
        return []
    return [*world.lives.values()] if found[0].life is None else [found[0].life]


def _story(life: Life) -> str:
    return format_story((one.event, one.decision) for one in life.turns)


def is_valid(plan: Plan) -> bool:
    """Tell whether all playbooks of a plan can be registered."""
    try:
        for one in plan.family():
            compiled(one)
    except PlaybookFault:
        return False
    return True


def _features(world: World) -> Iterator[str]:
    """Yield the features that the run is an example of."""
    for life in world.lives.values():
        yield f"an execution that is {life.status}"
        if life.parent is not None:
            yield "a child"
        if any(one.event.kind == "execution_undo" and one.decision.outcome == "decided" for one in life.turns):
            yield "an undo after the end"
        steps = {step.name: step for step in life.plan.steps}
        merging = Counter(arc.target for arc in arcs_of(life.plan))
        for one in life.turns:
            if one.decision.outcome != "decided":
                yield f"an event that is {one.decision.outcome}"
            if one.event.kind in FEATURES_BY_MAIL:
                yield FEATURES_BY_MAIL[one.event.kind]
            for event in one.decision.events:
                yield from _features_of_event(event)
                if event.type == "step_started":
                    yield from _features_of_visit(steps[event.step or ""], event.visit, merging[event.step or ""] > 1)
        yield from _features_of_signals(life)
    yield "a stable plan" if world.scenario.stable else "an unstable plan"


def _features_of_event(event: Emitted) -> Iterator[str]:
    meta = event.meta or {}
    if event.type in FEATURES_BY_EVENT:
        yield FEATURES_BY_EVENT[event.type]
    if event.type == "execution_paused" and "parent_execution_id" in (event.context or {}):
        yield "a paused child"
    if (event.error or {}).get("type") == "need_not_met":
        yield "a join with too few arrivals"
    if event.type == "step_failed" and "spent" in meta:
        yield "a failure of a spent token"
    if event.type == "step_failed" and "caught" in meta:
        yield "a caught failure" if event.result is None else "a caught failure with data"
    elif event.type == "step_failed" and "catch" in meta:
        yield "a failure that no entry of catch fits"


def _features_of_visit(step: Step, visit: int, merges: bool) -> Iterator[str]:
    if step.join or merges:
        yield f"a join of {step.join or 'all'}"
        if step.need > 1:
            yield "a join of several"
    if visit > 1:
        yield "a step visited again"
    if step.kind in {"router", "wait"}:
        yield f"a {step.kind}{' for a signal' if step.signal else ''}"
        if visit > 1 and step.signal:
            yield "a wait for a signal again"
    if step.output is not None:
        yield "an output"
    names = {"fail": "a step that fails", "signal": "a step that sends a signal", "approval": "an approval"}
    if step.kind in names:
        yield names[step.kind]


def _features_of_signals(life: Life) -> Iterator[str]:
    """Yield what became of the signals that came to an execution."""
    for one in life.turns:
        ended = {(end.step, end.visit) for end in one.decision.of(WaitEnded)}
        if one.event.kind == "execution_signal" and one.decision.outcome == "decided":
            yield "a signal that is taken" if ended else "a signal that is not taken"
            if ended and (one.event.step, one.event.visit) not in ended:
                yield "a signal that another wait takes"
        started = {(event.step, event.visit) for event in one.decision.events if event.type == "step_started"}
        completed = {
            (event.step, event.visit) for event in one.decision.events
            if event.type == "step_completed" and event.node_type == "wait"
        }  # fmt: skip
        if started & completed:
            yield "a kept signal that is taken"
