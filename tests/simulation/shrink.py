"""Reduces a failing scenario: leaves out parts as long as it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.simulation.plans import Catch, Compensate, Entry, Iterate, Plan, Step, Target
from tests.simulation.scenarios import Faults, Scenario

MAX_TRIALS = 600
VARIANTS = 3  # a smaller scenario has another order, so several orders are tried


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Return a failing scenario without parts that can be left out; the smallest found in MAX_TRIALS."""
    left = MAX_TRIALS
    smaller = True
    while smaller and left > 0:
        smaller = False
        for candidate in candidates(scenario):
            failing = None
            for variant in range(VARIANTS):
                left -= 1
                if fails(candidate._replace(variant=variant)):
                    failing = candidate._replace(variant=variant)
                    break
            if failing is not None:
                scenario, smaller = failing, True
                break
            if left <= 0:
                break
    return scenario


def candidates(scenario: Scenario) -> Iterator[Scenario]:
    """Yield scenarios without one part, the largest parts first."""
    if scenario.faults != Faults():
        yield scenario._replace(faults=Faults())
    for plan in _smaller_plans(scenario.plan):
        yield scenario._replace(plan=plan)
    default = Scenario(scenario.seed, scenario.plan, failing=0.0)
    for name in ("roots", "brokers", "workers", "large_bytes", "failing", "payload", "signals", "options"):
        less: dict[str, Any] = {name: getattr(default, name)}
        if getattr(scenario, name) != less[name]:
            yield scenario._replace(**less)
    for name, number in scenario.faults._asdict().items():
        for fewer in sorted({0, number - 1}) if number else ():
            yield scenario._replace(faults=scenario.faults._replace(**{name: fewer}))


def _smaller_plans(plan: Plan) -> Iterator[Plan]:
    """Yield plans without one step, arc, key or child."""
    for step in plan.steps:
        if step.name != "start":
            yield _without(plan, step.name)
    used = {step.path for step in plan.steps} | {step.iterate.path for step in plan.steps if step.iterate}
    for child in plan.children:
        others = tuple(other for other in plan.children if other is not child)
        if child.path not in used:
            yield replace(plan, children=others)
        for smaller in _smaller_plans(child):
            yield replace(plan, steps=_callers(plan.steps, smaller), children=(*others, smaller))
    for index, step in enumerate(plan.steps):
        for simpler in _simpler_steps(step):
            yield replace(plan, steps=(*plan.steps[:index], simpler, *plan.steps[index + 1 :]))
    default = Plan(path=plan.path, steps=())
    for name in ("deadline", "late_after", "pool", "priority", "tags"):
        if getattr(plan, name) != getattr(default, name):
            less: dict[str, Any] = {name: getattr(default, name)}
            yield replace(plan, **less)


def _callers(steps: tuple[Step, ...], child: Plan) -> tuple[Step, ...]:
    """Return steps that return no step that the child lacks: the reference does not know that error."""
    names = {step.name for step in child.steps}
    return tuple(
        replace(step, return_step=None) if step.path == child.path and step.return_step not in names else step
        for step in steps
    )


def _without(plan: Plan, name: str) -> Plan:
    """Return a plan without a step and the arcs that lead to it."""

    def kept(targets: tuple[Target, ...]) -> tuple[Target, ...]:
        return tuple(target for target in targets if target.step != name)

    def entries(step: Step) -> tuple[Entry, ...]:
        thinned = (entry._replace(then=kept(entry.then), otherwise=kept(entry.otherwise)) for entry in step.entries)
        return tuple(entry for entry in thinned if entry.then or entry.otherwise)

    def catch(step: Step) -> tuple[Catch, ...]:
        return tuple(entry for entry in step.catch if entry.target != name)

    rest = (step for step in plan.steps if step.name != name)
    return replace(plan, steps=tuple(replace(step, entries=entries(step), catch=catch(step)) for step in rest))


def _simpler_steps(step: Step) -> Iterator[Step]:
    """Yield the step without one of its parts."""
    for index, entry in enumerate(step.entries):
        before, after = step.entries[:index], step.entries[index + 1 :]
        yield replace(step, entries=(*before, *after))
        for simpler in _simpler_entries(entry):
            yield replace(step, entries=(*before, simpler, *after))
    default = Step(name=step.name)
    for name in (
        "inputs",
        "retry",
        "losers",
        "need",
        "join",
        "exclusive",
        "on_error",
        "timeout",
        "late_after",
        "pool",
        "priority",
        "result",
        "output",
        "catch",
        "compensate",
        "return_step",
    ):
        if getattr(step, name) != getattr(default, name):
            yield replace(step, **{name: getattr(default, name)})
    if step.iterate:
        default_task = Iterate(step.iterate.collection, ())
        for name in Iterate._fields[3:]:
            if getattr(step.iterate, name) != getattr(default_task, name):
                less: dict[str, Any] = {name: getattr(default_task, name)}
                yield replace(step, iterate=step.iterate._replace(**less))
    for undo in _simpler_undos(step.compensate):
        yield replace(step, compensate=undo)
    for undo in _simpler_undos(step.iterate and step.iterate.compensate):
        yield replace(step, iterate=step.iterate and step.iterate._replace(compensate=undo))
    if step.kind in {"iterator", "playbook", "wait", "signal", "fail"}:
        less = {"iterate": None, "path": None, "return_step": None, "seconds": None, "signal": None, "failure": None}
        yield replace(step, kind="action", **less)
    yield from _simpler_signals(step)
    yield from _simpler_catches(step)


def _simpler_undos(undo: Compensate | None) -> Iterator[Compensate]:
    for name, none in Compensate._field_defaults.items() if undo else ():
        if undo and getattr(undo, name) != none:
            less: dict[str, Any] = {name: none}
            yield undo._replace(**less)


def _simpler_catches(step: Step) -> Iterator[Step]:
    for index, entry in enumerate(step.catch):
        before, after = step.catch[:index], step.catch[index + 1 :]
        yield replace(step, catch=(*before, *after))
        if entry.when is not None or entry.inputs:
            yield replace(step, catch=(*before, entry._replace(when=None, inputs=()), *after))


def _simpler_signals(step: Step) -> Iterator[Step]:
    if step.signal:
        for name in ("key", "when", "since", "payload"):
            if getattr(step.signal, name) is not None:
                less: dict[str, Any] = {name: None}
                yield replace(step, signal=step.signal._replace(**less))


def _simpler_entries(entry: Entry) -> Iterator[Entry]:
    if entry.inputs:
        yield entry._replace(inputs=())
    if entry.when is not None and entry.then:
        yield entry._replace(when=None, otherwise=())
    if entry.then and entry.otherwise:
        yield entry._replace(otherwise=())
    for index in range(len(entry.then) if len(entry.then) > 1 else 0):
        yield entry._replace(then=entry.then[:index] + entry.then[index + 1 :])
    if any(target.inputs for target in entry.then + entry.otherwise):
        then, otherwise = (
            (target._replace(inputs=()) for target in targets) for targets in (entry.then, entry.otherwise)
        )
        yield entry._replace(then=tuple(then), otherwise=tuple(otherwise))
