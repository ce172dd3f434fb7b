"""Adds retries, timeouts and `catch` to the tasks of iterators, and iterators to a random plan."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Literal

from tests.simulation.expressions import Compare, Constant, Default, Expression, Read, Value
from tests.simulation.plans import Inputs, ItemCatch, Iterate, Plan, Retry, Step

TOLERATED: tuple[int | str, ...] = (0, 1, 2, "50%", "34%", "100%", "0%")


def with_items(random: Random, made: Plan, *, stable: bool) -> Plan:
    """Return a plan with more iterators; items of some are retried or caught, some tolerate failed items."""
    paths = [child.path for child in made.children]
    steps = tuple(_iterating(random, step, paths, stable=stable) for step in made.steps)
    return replace(
        made, steps=steps, children=tuple(with_items(random, child, stable=stable) for child in made.children)
    )


def _iterating(random: Random, step: Step, paths: list[str], *, stable: bool) -> Step:
    if step.kind == "action" and step.name not in {"start", "end"} and step.output is None and random.random() < 0.4:
        continues: Literal["fail", "continue"] = "continue" if random.random() < 0.6 else "fail"
        step = replace(
            step, kind="iterator", iterate=_iterate(random, paths), retry=None, timeout=None, inputs=(),
            on_error=continues, compensate=None,
        )  # fmt: skip
    if not step.iterate or random.random() < 0.3:
        return step
    iterate = step.iterate._replace(
        retry=_retry(random) if random.random() < 0.6 else None,
        timeout=random.randint(1, 3) if not stable and random.random() < 0.1 else None,
        catch=_catch(random) if random.random() < 0.4 else (),
    )
    if iterate.retry or iterate.timeout is not None or iterate.catch:
        iterate = iterate._replace(by_worker=False)
    if not iterate.by_worker and random.random() < 0.4:
        iterate = iterate._replace(tolerate=random.choice(TOLERATED))
        step = replace(step, on_error="fail")
    return replace(step, iterate=iterate)


def _iterate(random: Random, paths: list[str]) -> Iterate:
    size = random.choice((1, 2, 3, 3, 5, 8))
    return Iterate(
        collection=Constant([random.randint(0, 9) for _ in range(size)]),
        inputs=(("size", Read("item")),),
        path=random.choice(paths) if paths and random.random() < 0.4 else None,
        concurrency=random.choice((None, 1, 2, 3)),
    )


def _retry(random: Random) -> Retry:
    conditions: tuple[Expression | None, ...] = (
        None, None, Compare(Read("status_code"), ">=", Constant(500)), Compare(Read("error"), "==", Constant("busy")),
        Compare(Read("attempt"), "<", Constant(2)), Compare(Default(Read("size"), 3), ">", Constant(2)),
        Compare(Default(Read("item"), 3), ">", Constant(2)), Compare(Read("result", ("x",)), "==", Constant(1)),
    )  # fmt: skip
    return Retry(
        max_attempts=random.randint(1, 4),
        initial_delay=random.choice((0, 1, 5)),
        backoff_multiplier=random.choice((1, 2, 3)),
        max_delay=random.choice((4, 60)),
        retry_when=random.choice(conditions),
        stop_when=Compare(Read("status_code"), "==", Constant(400)) if random.random() < 0.2 else None,
    )


def _catch(random: Random) -> tuple[ItemCatch, ...]:
    return tuple(ItemCatch(_result(random), _condition(random)) for _ in range(random.choice((1, 1, 2))))


def _result(random: Random) -> Inputs | Value:
    results: tuple[Inputs | Value, ...] = (
        Constant(None), Constant(7), Read("item"), (("x", Default(Read("error", ("status_code",)), 0)),),
        (("data", Constant(1)),), (("x", Default(Read("size"), 1)), ("word", Constant("no"))),
        Default(Read("error", ("attempt",)), 1),
    )  # fmt: skip
    return Read("error", ("unknown",)) if random.random() < 0.03 else random.choice(results)


def _condition(random: Random) -> Expression | None:
    status_code = Default(Read("error", ("status_code",)), 0)
    conditions: tuple[Expression | None, ...] = (
        None, None, Compare(status_code, ">=", Constant(500)), Compare(status_code, "==", Constant(400)),
        Compare(Read("error", ("message",)), "==", Constant("busy")),
        Compare(Default(Read("error", ("type",)), ""), "==", Constant("timeout")),
        Compare(Default(Read("size"), 3), ">", Constant(2)),
    )  # fmt: skip
    return (
        Compare(Read("error", ("unknown",)), "<", Constant(5)) if random.random() < 0.03 else random.choice(conditions)
    )
