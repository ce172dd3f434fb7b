"""Plans: playbooks as the simulation thinks of them, before they are written as documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tests.simulation.expressions import Expression, Value, template

Inputs = tuple[tuple[str, Value], ...]
Kind = Literal["router", "action", "playbook", "iterator"]


class Target(NamedTuple):
    """Where an entry of `next` leads, and the inputs that this target alone is given."""

    step: str
    inputs: Inputs = ()


class Entry(NamedTuple):
    """One entry of `next`."""

    then: tuple[Target, ...] = ()
    when: Expression | None = None
    otherwise: tuple[Target, ...] = ()
    inputs: Inputs = ()

    @property
    def is_only_else(self) -> bool:
        """Tell whether it is read when no condition of the list holds."""
        return self.when is None and not self.then


class Retry(NamedTuple):
    """How often, how long apart, and under which conditions an action is tried again."""

    max_attempts: int
    initial_delay: int = 1
    backoff_multiplier: int = 2
    max_delay: int = 60
    retry_when: Expression | None = None
    stop_when: Expression | None = None


class Iterate(NamedTuple):
    """What an iterator repeats: a playbook (`path`), or an action: one job an item, or one for all (`by_worker`)."""

    collection: Value
    inputs: Inputs
    path: str | None = None
    by_worker: bool = False
    concurrency: int | None = None
    where: Expression | None = None
    order_by: Expression | None = None
    limit: int | None = None
    chunk: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan; `start` and `end` without an action are routers here."""

    name: str
    kind: Kind = "router"
    entries: tuple[Entry, ...] = ()
    exclusive: bool = False
    join: Literal["all", "any", "each"] | None = None
    inputs: Inputs = ()
    retry: Retry | None = None
    on_error: Literal["fail", "continue"] = "fail"
    timeout: int | None = None
    path: str | None = None
    return_step: str | None = None
    iterate: Iterate | None = None
    result: tuple[tuple[str, Value], ...] | Value | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A playbook, and those that it starts."""

    path: str
    steps: tuple[Step, ...]
    workload: dict[str, Any] = field(default_factory=dict)
    max_visits: int = 60
    deadline: int | None = None
    children: tuple[Plan, ...] = ()

    def family(self) -> Iterator[Plan]:
        """Yield this plan and all that it can start."""
        yield self
        for child in self.children:
            yield from child.family()


def document(plan: Plan) -> dict[str, Any]:
    """Return a plan as the document that an author would write."""
    metadata: dict[str, Any] = {"name": plan.path, "path": plan.path, "max_visits": plan.max_visits}
    if plan.deadline is not None:
        metadata["deadline"] = plan.deadline
    return {
        "apiVersion": "noetl.io/v1",
        "kind": "Playbook",
        "metadata": metadata,
        "workload": plan.workload,
        "workflow": [_step(step) for step in plan.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    written: dict[str, Any] = {"step": step.name, **_work(step)}
    if step.join:
        written["join"] = step.join
    if step.exclusive:
        written["next_mode"] = "exclusive"
    if step.inputs:
        written["args"] = _inputs(step.inputs)
    if step.retry:
        written["retry"] = _retry(step.retry)
    if step.on_error != "fail":
        written["on_error"] = step.on_error
    if step.timeout is not None:
        written["timeout"] = step.timeout
    if step.result is not None:
        written["result"] = _inputs(step.result) if _is_inputs(step.result) else template(step.result)  # type: ignore[arg-type]
    if step.entries:
        written["next"] = [_entry(entry) for entry in step.entries]
    return written


def _is_inputs(result: Any) -> bool:
    """Tell a mapping of values from one value: both are tuples."""
    return type(result) is tuple


def _work(step: Step) -> dict[str, Any]:
    """Return what the step does."""
    if step.kind == "action":
        return {"type": "python", "code": "def main(**inputs): return inputs"}
    if step.kind == "playbook":
        back = {"return_step": step.return_step} if step.return_step else {}
        return {"type": "playbook", "path": step.path, **back}
    if step.iterate:
        return {"type": "iterator", **_iterate(step.iterate)}
    return {}


def _iterate(iterate: Iterate) -> dict[str, Any]:
    task: dict[str, Any] = {"args": _inputs(iterate.inputs)}
    written: dict[str, Any] = {"collection": template(iterate.collection), "element": "item", "task": task}
    if iterate.path:
        task |= {"type": "playbook", "path": iterate.path}
    else:
        task |= {"type": "python", "code": "def main(**inputs): return inputs"}
        written["distribute"] = not iterate.by_worker
    if iterate.concurrency:
        written |= {"mode": "async", "concurrency": iterate.concurrency}
    if iterate.where:
        written["where"] = template(iterate.where)
    if iterate.order_by:
        written["order_by"] = template(iterate.order_by)
    for key, bound in (("limit", iterate.limit), ("chunk", iterate.chunk)):
        if bound is not None:
            written[key] = bound
    return written


def _retry(retry: Retry) -> dict[str, Any]:
    written = retry._asdict() | {"jitter": False}
    for condition in ("retry_when", "stop_when"):
        value = written.pop(condition)
        if value is not None:
            written[condition] = template(value)
    return written


def _entry(entry: Entry) -> dict[str, Any] | str:
    if entry == Entry(then=entry.then) and len(entry.then) == 1 and not entry.then[0].inputs:
        return entry.then[0].step
    written: dict[str, Any] = {}
    if entry.when is not None:
        written["when"] = template(entry.when)
    if len(entry.then) == 1 and not entry.then[0].inputs:
        written["step"] = entry.then[0].step
    elif entry.then:
        written["then"] = [_target(target) for target in entry.then]
    if entry.otherwise:
        written["else"] = [_target(target) for target in entry.otherwise]
    if entry.inputs:
        written["args"] = _inputs(entry.inputs)
    return written


def _target(target: Target) -> dict[str, Any] | str:
    return {"step": target.step, "args": _inputs(target.inputs)} if target.inputs else target.step


def _inputs(inputs: Inputs) -> dict[str, Any]:
    return {name: template(value) for name, value in inputs}
