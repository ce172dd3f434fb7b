"""Adds `compensate` to steps and tasks of a random plan."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.simulation.expressions import Compare, Constant, Default, Read, Text, Value
from tests.simulation.plans import Compensate, Inputs, Plan, Retry, Step

UNDONE = frozenset({"action", "playbook", "iterator"})


def with_undos(random: Random, made: Plan) -> Plan:
    """Return a plan some of whose steps are undone when it fails."""
    paths = [child.path for child in made.children]
    steps = tuple(_undone(random, step, paths) for step in made.steps)
    return replace(made, steps=steps, children=tuple(with_undos(random, child) for child in made.children))


def _undone(random: Random, step: Step, paths: list[str]) -> Step:
    if step.kind not in UNDONE:
        return step
    odds = 0.6 if step.kind == "action" else 0.25
    if random.random() < odds:
        step = replace(step, compensate=_compensate(random, paths))
    if step.iterate and random.random() < 0.5:
        iterate = step.iterate._replace(compensate=_compensate(random, paths), by_worker=False)
        step = replace(step, iterate=iterate)
    return step


def _compensate(random: Random, paths: list[str]) -> Compensate:
    retry = None
    if random.random() < 0.5:
        stop = Compare(Read("status_code"), "==", Constant(400)) if random.random() < 0.2 else None
        retry = Retry(max_attempts=random.randint(2, 5), initial_delay=random.choice((0, 1, 5)), stop_when=stop)
    return Compensate(
        inputs=_inputs(random),
        path=random.choice(paths) if paths and random.random() < 0.2 else None,
        retry=retry,
        timeout=random.randint(1, 3) if random.random() < 0.06 else None,
    )


def _inputs(random: Random) -> Inputs:
    values: tuple[Value, ...] = (
        Default(Read("result", ("x",)), "nothing"),
        Default(Read("result", ("items",)), None),
        Default(Read("p"), 1),
        Default(Read("size"), 2),
        Read("workload", ("mode",)),
        Default(Read("error", ("status_code",)), 0),
        Default(Read("error", ("step",)), "none"),
        Text("undo", Default(Read("result", ("word",)), 0)),
    )
    names = random.sample(("of", "why", "p", "size"), random.choice((0, 1, 2, 3)))
    chosen: list[tuple[str, Value]] = [(name, random.choice(values)) for name in names]
    if random.random() < 0.03:
        chosen.append(("bare", Read("result", ("x",))))
    return tuple(chosen)
