"""A calm scenario played by the reference alone, in an order of its own: it must end as it does in the world."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from tests.simulation.plans import Plan
from tests.simulation.reference import Reference
from tests.simulation.scenarios import Scenario, answer
from tests.simulation.tokens import Happened, Said

Due = tuple["_Execution", Happened]


class End(NamedTuple):
    """How an execution ended."""

    status: str
    result: Any


class _Execution:
    """One execution of the family, and whom it answers."""

    def __init__(self, plan: Plan, family: str, parent: Parent | None = None) -> None:
        self.reference = Reference(plan)
        self.family = family
        self.parent = parent
        self.failures: dict[str, int] = {}


class Parent(NamedTuple):
    """Who waits for a child: the execution, its visit, the place of an item, and which start of it this is."""

    execution: _Execution
    node: str
    place: int | None
    attempt: int


def play_alone(scenario: Scenario, root: int) -> End:
    """Play the scenario's plan to its end, what is due taken in a random order."""
    chance = Random(f"alone {scenario.seed} {root}")
    plans = {plan.path: plan for plan in scenario.plan.family()}
    first = _Execution(scenario.plan, str(root))
    due: list[Due] = [(first, Happened("start", value=dict(scenario.payload)))]
    while due:
        execution, happened = due.pop(chance.randrange(len(due)))
        for said in execution.reference.take(happened):
            due += _follow(scenario, plans, execution, said)
    return End(first.reference.status, first.reference.result)


def _follow(scenario: Scenario, plans: dict[str, Plan], execution: _Execution, said: Said) -> list[Due]:
    """Return what will happen because of what was said."""
    what, node, detail = said
    place, path, inputs = detail if isinstance(detail, tuple) else (None, None, detail)
    if what == "child":
        attempt = execution.failures.get(node, 0) + 1
        child = _Execution(
            plans[path], f"{execution.family}/{node}.{place}@{attempt}", Parent(execution, node, place, attempt)
        )
        return [(child, Happened("start", value=inputs))]
    if what.startswith("execution_"):
        return _answer_parent(execution)
    happened: Happened | None = None
    if what == "job":
        happened = _worked(scenario, execution, node, place)
    elif what == "post":
        happened = Happened("more" if detail == "iteration_due" else "gathered", node)
    elif what == "action_retry":
        execution.failures[node] = execution.failures.get(node, 0) + 1
        is_child = execution.reference.steps[node.partition("#")[0]].kind == "playbook"
        happened = Happened("due", node) if is_child else _worked(scenario, execution, node, None)
    return [] if happened is None else [(execution, happened)]


def _worked(scenario: Scenario, execution: _Execution, node: str, place: int | None) -> Happened:
    """Return how an action ends."""
    full = node if place is None else f"{node if '#' in node else node + '#1'}.{place}"
    given = answer(scenario, execution.family, full, execution.failures.get(node, 0) if place is None else 0)
    kind = "completed" if given.error is None else "failed"
    kind = kind if place is None else f"item_{kind}"
    return Happened(kind, node, place, given.result if given.error is None else given.error, given.retryable)


def _answer_parent(execution: _Execution) -> list[Due]:
    """Return the letter of a child to who waits for it."""
    parent, reference = execution.parent, execution.reference
    if parent is None:
        return []
    kind = "completed" if reference.status == "COMPLETED" else "failed"
    value: Any = {"message": "the child failed", **reference.error}
    if kind == "completed":
        back = parent.execution.reference.steps[parent.node.partition("#")[0]].return_step
        value = {"data": reference.result if back is None else reference.data_of(back)}  # as an action would say it
    kind = kind if parent.place is None else f"item_{kind}"
    return [(parent.execution, Happened(kind, parent.node, parent.place, value, lease=parent.attempt))]
