"""Runs a stable scenario with the reference only, in another order: it must end as in the simulator."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from tests.simulation.plans import Plan
from tests.simulation.reference import Reference
from tests.simulation.reference_model import Effect, ReferenceEvent, item_node_id
from tests.simulation.scenarios import Scenario, answer

Due = tuple["_Execution", ReferenceEvent]


class End(NamedTuple):
    """The status and the result of an ended execution."""

    status: str
    result: Any


class _Execution:
    """One execution of the family, with its parent."""

    def __init__(self, plan: Plan, family: str, parent: Parent | None = None) -> None:
        self.reference = Reference(plan)
        self.family = family
        self.parent = parent
        self.failures: dict[str, int] = {}


class Parent(NamedTuple):
    """The visit that waits for a child, the index of an item, and the number of this start."""

    execution: _Execution
    node: str
    item_index: int | None
    attempt: int


def run_reference(scenario: Scenario, root: int) -> End:
    """Run the scenario's plan to its end; events that are due are applied in a random order."""
    random = Random(f"alone {scenario.seed} {root}")
    plans = scenario.plan.by_path()
    first = _Execution(scenario.plan, str(root))
    due: list[Due] = [(first, ReferenceEvent("start", value=dict(scenario.payload)))]
    while due:
        execution, event = due.pop(random.randrange(len(due)))
        for effect in execution.reference.apply(event):
            due += _caused_events(scenario, plans, execution, effect)
    return End(first.reference.status, first.reference.result)


def _caused_events(scenario: Scenario, plans: dict[str, Plan], execution: _Execution, effect: Effect) -> list[Due]:
    """Return the events that an effect causes."""
    what, node, detail = effect
    index, path, inputs = detail if isinstance(detail, tuple) else (None, None, detail)
    if what == "child":
        attempt = execution.failures.get(node if index is None else item_node_id(node, index), 0) + 1
        child = _Execution(
            plans[path], f"{execution.family}/{node}.{index}@{attempt}", Parent(execution, node, index, attempt)
        )
        return [(child, ReferenceEvent("start", value=inputs))]
    if what.startswith("execution_"):
        return _answer_parent(execution)
    event: ReferenceEvent | None = None
    if what == "job":
        event = _action_end(scenario, execution, node, index)
    elif what == "post":
        event = ReferenceEvent("more" if detail == "iteration_due" else "gathered", node)
    elif what == "action_retry":
        event = _next_attempt(scenario, execution, node, detail[0] if isinstance(detail, list) else None)
    return [] if event is None else [(execution, event)]


def _next_attempt(scenario: Scenario, execution: _Execution, node: str, index: int | None) -> ReferenceEvent:
    """Return the event that starts the child again, or that ends the next attempt of an action."""
    key = node if index is None else item_node_id(node, index)
    execution.failures[key] = execution.failures.get(key, 0) + 1
    step = execution.reference.steps[node.partition("#")[0]]
    is_child = step.kind == "playbook" or bool(step.iterate and step.iterate.path)
    if is_child:
        return ReferenceEvent("due" if index is None else "item_due", node, index)
    return _action_end(scenario, execution, node, index)


def _action_end(scenario: Scenario, execution: _Execution, node: str, index: int | None) -> ReferenceEvent:
    """Return the event that ends an action."""
    full = node if index is None else item_node_id(node, index)
    answered = answer(scenario, execution.family, full, execution.failures.get(full, 0))
    kind = "completed" if answered.error is None else "failed"
    kind = kind if index is None else f"item_{kind}"
    return ReferenceEvent(
        kind, node, index, answered.result if answered.error is None else answered.error, answered.retryable
    )


def _answer_parent(execution: _Execution) -> list[Due]:
    """Return the event that answers the parent of an ended child."""
    parent, reference = execution.parent, execution.reference
    if parent is None:
        return []
    kind = "completed" if reference.status == "COMPLETED" else "failed"
    value: Any = {"message": "the child failed", **reference.error}
    if kind == "completed":
        back = parent.execution.reference.steps[parent.node.partition("#")[0]].return_step
        value = {"data": reference.result if back is None else reference.data_of(back)}  # as an action's result
    kind = kind if parent.item_index is None else f"item_{kind}"
    return [(parent.execution, ReferenceEvent(kind, parent.node, parent.item_index, value, lease=parent.attempt))]
