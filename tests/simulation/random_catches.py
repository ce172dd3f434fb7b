"""Adds to a random plan what handles failures: `catch`, `output`, and steps that fail."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Literal

from tests.simulation.expressions import Compare, Constant, Default, Expression, Read, Text, Value
from tests.simulation.plans import Catch, Entry, Failure, Inputs, Plan, Step, Target

ERROR_TYPES = ("", "declined", "timeout", "need_not_met", "lost_lease", "all_items_failed")
WITH_OUTPUT = frozenset({"action", "playbook"})


def with_catches(random: Random, made: Plan, *, stable: bool) -> Plan:
    """Return a plan some of whose steps catch errors, have an output, or fail."""
    names = [step.name for step in made.steps if step.name != "start"]
    steps = tuple(_handling(random, step, names, stable=stable) for step in made.steps)
    children = tuple(with_catches(random, child, stable=stable) for child in made.children)
    return replace(made, steps=steps, children=children)


def _handling(random: Random, step: Step, names: list[str], *, stable: bool) -> Step:
    if step.name == "start":
        return step
    if step.kind in WITH_OUTPUT and random.random() < 0.3:
        step = replace(step, output=_output(random))
    if step.name == "end":
        return step
    if step.kind == "action" and step.output is None and random.random() < 0.1:
        step = replace(step, kind="fail", failure=_failure(random), retry=None, timeout=None)
    if random.random() < (0.5 if step.kind != "router" else 0.25):
        targets = [name for name in names if _is_later(step.name, name)] if stable else names
        number = random.choice((1, 1, 1, 2, 3)) if targets else 0
        step = replace(step, catch=tuple(_catch(random, step, targets, stable=stable) for _ in range(number)))
        if targets and random.random() < 0.15:  # of a result without `x`, it fails
            small = Compare(Read("result", ("x",)), "<", Constant(random.randint(0, 9)))
            step = replace(step, entries=(*step.entries, Entry(then=(Target(random.choice(targets)),), when=small)))
    return step


def _is_later(name: str, other: str) -> bool:
    """Tell whether a step stands later in a plan without loops."""
    return other == "end" or other > name


def _catch(random: Random, step: Step, targets: list[str], *, stable: bool) -> Catch:
    # Which of several items fails first depends on the order, and so does the error.
    is_plain = stable and step.kind == "iterator"
    inputs = (("p", _from_error(random)),) if random.random() < 0.3 and not is_plain else ()
    return Catch(random.choice(targets), None if is_plain else _condition(random, step), inputs)


def _condition(random: Random, step: Step) -> Expression | None:
    error_type = Default(Read("error", ("type",)), "")
    status_code = Default(Read("error", ("status_code",)), 0)
    conditions: tuple[Expression | None, ...] = (
        None, None, None, None,
        Compare(status_code, ">=", Constant(500)),
        Compare(status_code, "==", Constant(400)),
        Compare(Read("error", ("message",)), "==", Constant("busy")),
        Compare(Read("error", ("step",)), "==", Constant(step.name)),
        Compare(error_type, "==", Constant(random.choice(ERROR_TYPES))),
        Compare(error_type, "!=", Constant(random.choice(ERROR_TYPES))),
        Compare(Default(Read(step.name, ("status",)), ""), "==", Constant("FAILED")),
        Compare(Default(Read(step.name, ("x",)), 3), "<", Constant(4)),
        Compare(Default(Read("result", ("x",)), 3), ">", Constant(2)),
        Compare(Default(Read("p"), 1), "!=", Constant(7)),
    )  # fmt: skip
    if random.random() < 0.04:
        return Compare(Read("error", ("unknown",)), "<", Constant(5))
    return random.choice(conditions)


def _from_error(random: Random) -> Value:
    values: tuple[Value, ...] = (
        Read("error", ("step",)),
        Default(Read("error", ("status_code",)), 1),
        Text("after", Default(Read("error", ("status_code",)), 0)),
        Default(Read("result", ("x",)), None),
    )
    return Read("error", ("unknown",)) if random.random() < 0.04 else random.choice(values)


def _output(random: Random) -> Inputs | Value:
    number = Default(Read("result", ("x",)), random.randint(0, 9))
    outputs: tuple[Inputs | Value, ...] = (
        (("x", number),),
        (("x", number), ("flag", Constant(value=True)), ("items", Default(Read("result", ("items",)), [1]))),
        (("data", number),),
        number,
        Default(Read("result", ("items",)), None),
        Read("result"),
        Read("result", ("x",)),
        (("word", Text("word", Default(Read("p"), 0))), ("x", Read("workload", ("size",)))),
    )
    return random.choice(outputs)


def _failure(random: Random) -> Failure:
    kind: Literal["declined", "timeout"] = random.choice(("declined", "declined", "timeout"))
    messages: tuple[Value, ...] = (Constant("no"), Constant("busy"), Text("no", Default(Read("p"), 0)), Read("p"))
    return Failure(Constant(kind), random.choice(messages), random.choice((None, 400, 503)))
