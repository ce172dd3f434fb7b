"""A failing scenario made small: whatever can be left out while it still fails, is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.simulation.plans import Entry, Plan, Step, Target
from tests.simulation.scenarios import Faults, Scenario

MOST_TRIALS = 600
LUCKS = 3  # what is left out changes who is first, so each smaller scenario has several chances


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Return a scenario that still fails and of which no single part can be left out, or the smallest found in time."""
    left = MOST_TRIALS
    smaller = True
    while smaller and left > 0:
        smaller = False
        for candidate in candidates(scenario):
            lucky = None
            for luck in range(LUCKS):
                left -= 1
                if fails(candidate._replace(luck=luck)):
                    lucky = candidate._replace(luck=luck)
                    break
            if lucky is not None:
                scenario, smaller = lucky, True
                break
            if left <= 0:
                break
    return scenario


def candidates(scenario: Scenario) -> Iterator[Scenario]:
    """Yield scenarios with one thing less, the largest things first."""
    if scenario.faults != Faults():
        yield scenario._replace(faults=Faults())
    for plan in _smaller_plans(scenario.plan):
        yield scenario._replace(plan=plan)
    plainest = Scenario(scenario.seed, scenario.plan, failing=0.0)
    for name in ("roots", "brokers", "workers", "large_bytes", "failing", "payload"):
        less: dict[str, Any] = {name: getattr(plainest, name)}
        if getattr(scenario, name) != less[name]:
            yield scenario._replace(**less)
    for name, number in scenario.faults._asdict().items():
        for fewer in sorted({0, number - 1}) if number else ():
            yield scenario._replace(faults=scenario.faults._replace(**{name: fewer}))


def _smaller_plans(plan: Plan) -> Iterator[Plan]:
    """Yield plans with one step, arc, key or child less."""
    for step in plan.steps:
        if step.name != "start":
            yield _without(plan, step.name)
    used = {step.path for step in plan.steps} | {step.iterate.path for step in plan.steps if step.iterate}
    for child in plan.children:
        others = tuple(other for other in plan.children if other is not child)
        if child.path not in used:
            yield replace(plan, children=others)
        for smaller in _smaller_plans(child):
            yield replace(plan, children=(*others, smaller))
    for place, step in enumerate(plan.steps):
        for simpler in _simpler_steps(step):
            yield replace(plan, steps=(*plan.steps[:place], simpler, *plan.steps[place + 1 :]))
    if plan.deadline is not None:
        yield replace(plan, deadline=None)


def _without(plan: Plan, name: str) -> Plan:
    """Return a plan without a step and the arcs that lead to it."""

    def kept(targets: tuple[Target, ...]) -> tuple[Target, ...]:
        return tuple(target for target in targets if target.step != name)

    def entries(step: Step) -> tuple[Entry, ...]:
        thinned = (entry._replace(then=kept(entry.then), otherwise=kept(entry.otherwise)) for entry in step.entries)
        return tuple(entry for entry in thinned if entry.then or entry.otherwise)

    return replace(plan, steps=tuple(replace(step, entries=entries(step)) for step in plan.steps if step.name != name))


def _simpler_steps(step: Step) -> Iterator[Step]:
    """Yield a step with one thing less."""
    for place, entry in enumerate(step.entries):
        before, after = step.entries[:place], step.entries[place + 1 :]
        yield replace(step, entries=(*before, *after))
        for simpler in _simpler_entries(entry):
            yield replace(step, entries=(*before, simpler, *after))
    plainest = Step(name=step.name)
    for name in ("inputs", "retry", "join", "exclusive", "on_error", "timeout", "result", "return_step"):
        if getattr(step, name) != getattr(plainest, name):
            yield replace(step, **{name: getattr(plainest, name)})
    if step.iterate:
        for name in ("where", "order_by", "limit", "chunk", "concurrency"):
            if getattr(step.iterate, name) is not None:
                less: dict[str, Any] = {name: None}
                yield replace(step, iterate=step.iterate._replace(**less))
    if step.kind in {"iterator", "playbook"}:
        yield replace(step, kind="action", iterate=None, path=None, return_step=None)


def _simpler_entries(entry: Entry) -> Iterator[Entry]:
    if entry.inputs:
        yield entry._replace(inputs=())
    if entry.when is not None and entry.then:
        yield entry._replace(when=None, otherwise=())
    if entry.then and entry.otherwise:
        yield entry._replace(otherwise=())
    for place in range(len(entry.then) if len(entry.then) > 1 else 0):
        yield entry._replace(then=entry.then[:place] + entry.then[place + 1 :])
    if any(target.inputs for target in entry.then + entry.otherwise):
        then, otherwise = (
            (target._replace(inputs=()) for target in targets) for targets in (entry.then, entry.otherwise)
        )
        yield entry._replace(then=tuple(then), otherwise=tuple(otherwise))
