"""Plans: playbooks as objects, and their documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tests.simulation.expressions import Expression, Value, template

Inputs = tuple[tuple[str, Value], ...]
ACTION = {"type": "python", "code": "def main(**inputs): return inputs"}
Kind = Literal["router", "action", "playbook", "iterator", "wait", "approval", "signal", "fail"]


class Target(NamedTuple):
    """A target of an entry of `next`, with inputs for this target only."""

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
        """Tell whether it fires only if no condition of the list is true."""
        return self.when is None and not self.then


class Catch(NamedTuple):
    """One entry of `catch`: where the token of a failed visit goes on."""

    target: str
    when: Expression | None = None
    inputs: Inputs = ()


class Failure(NamedTuple):
    """The error of a step that fails."""

    type: Value
    message: Value
    status_code: int | None = None


class Retry(NamedTuple):
    """The retry of an action: attempts, delays and conditions."""

    max_attempts: int
    initial_delay: int = 1
    backoff_multiplier: int = 2
    max_delay: int = 60
    retry_when: Expression | None = None
    stop_when: Expression | None = None


class ItemCatch(NamedTuple):
    """One entry of the `catch` of an iterator's task: the result that a failed item gets."""

    result: Inputs | Value
    when: Expression | None = None


class Compensate(NamedTuple):
    """What undoes a visit or an item: an action, or a playbook (`path`)."""

    inputs: Inputs = ()
    path: str | None = None
    retry: Retry | None = None
    timeout: int | None = None
    pool: Value | None = None
    priority: int | None = None


class Iterate(NamedTuple):
    """The task of an iterator: a playbook (`path`) or an action, one job an item or one for all (`by_worker`)."""

    collection: Value
    inputs: Inputs
    path: str | None = None
    by_worker: bool = False
    concurrency: int | None = None
    where: Expression | None = None
    order_by: Expression | None = None
    limit: int | None = None
    chunk: int | None = None
    compensate: Compensate | None = None  # from here on: of the task
    retry: Retry | None = None
    timeout: int | None = None
    catch: tuple[ItemCatch, ...] = ()
    tolerate: int | str | None = None  # how many items may fail; of the iterator
    pool: Value | None = None  # of the task
    priority: int | None = None


class Signal(NamedTuple):
    """The signal that a wait is for, or that a step sends with a payload."""

    names: tuple[str, ...]
    key: Value | None = None
    when: Expression | None = None
    since: int | None = None
    payload: Inputs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan; `start` and `end` without an action are routers here."""

    name: str
    kind: Kind = "router"
    entries: tuple[Entry, ...] = ()
    exclusive: bool = False
    join: Literal["all", "any", "each"] | None = None
    need: int = 1
    losers: Literal["run", "cancel"] = "run"
    inputs: Inputs = ()
    retry: Retry | None = None
    on_error: Literal["fail", "continue"] = "fail"
    timeout: int | None = None
    path: str | None = None
    return_step: str | None = None
    iterate: Iterate | None = None
    seconds: int | None = None  # of a wait
    signal: Signal | None = None  # of a wait, or of a step that sends it
    catch: tuple[Catch, ...] = ()
    output: Inputs | Value | None = None
    failure: Failure | None = None  # of a step that fails
    compensate: Compensate | None = None
    result: tuple[tuple[str, Value], ...] | Value | None = None
    late_after: int | None = None
    pool: Value | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A playbook, with the playbooks that it starts."""

    path: str
    steps: tuple[Step, ...]
    workload: dict[str, Any] = field(default_factory=dict)
    max_visits: int = 60
    deadline: int | None = None
    late_after: int | None = None
    required: tuple[str, ...] = ()  # keys of the workload, by its schema
    largest_size: int | None = None  # of `size` in the workload, by its schema
    children: tuple[Plan, ...] = ()
    pool: Value | None = None
    priority: int | None = None
    tags: Inputs = ()

    def family(self) -> Iterator[Plan]:
        """Yield this plan and all plans that it can start."""
        yield self
        for child in self.children:
            yield from child.family()

    def by_path(self) -> dict[str, Plan]:
        """Return the family by path."""
        return {plan.path: plan for plan in self.family()}


def document(plan: Plan) -> dict[str, Any]:
    """Return the document of a plan's playbook."""
    metadata: dict[str, Any] = {"name": plan.path, "path": plan.path, "max_visits": plan.max_visits}
    if plan.deadline is not None:
        metadata["deadline"] = plan.deadline
    if plan.late_after is not None:
        metadata["late_after"] = plan.late_after
    metadata |= _of_jobs(plan)
    if plan.tags:
        metadata["tags"] = _inputs(plan.tags)
    schema: dict[str, Any] = {"required": [*plan.required]} if plan.required else {}
    if plan.largest_size is not None:
        schema["properties"] = {"size": {"maximum": plan.largest_size}}
    return {
        "apiVersion": "noetl.io/v1",
        "kind": "Playbook",
        "metadata": metadata,
        "workload": plan.workload,
        **({"workload_schema": schema} if schema else {}),
        "workflow": [_step(step) for step in plan.steps],
    }


def _of_jobs(of: Plan | Step | Iterate | Compensate) -> dict[str, Any]:
    """Return the pool and the priority of jobs."""
    pool = {} if of.pool is None else {"pool": template(of.pool)}
    return pool if of.priority is None else {**pool, "priority": of.priority}


def _step(step: Step) -> dict[str, Any]:
    written: dict[str, Any] = {"step": step.name, **_work(step)}
    if step.join == "any" and (step.need > 1 or step.losers == "cancel"):
        written["join"] = {"need": step.need, "losers": step.losers}
    elif step.join:
        written["join"] = step.join
    if step.exclusive:
        written["next_mode"] = "exclusive"
    if step.inputs:
        written["args"] = _inputs(step.inputs)
    if step.on_error != "fail":
        written["on_error"] = step.on_error
    written |= _of_action(step) | _of_jobs(step)
    if step.compensate:
        written["compensate"] = _compensate(step.compensate)
    if step.entries:
        written["next"] = [_entry(entry) for entry in step.entries]
    if step.catch:
        written["catch"] = [_catch(entry) for entry in step.catch]
    return written


def _of_action(step: Step) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if step.retry:
        written["retry"] = _retry(step.retry)
    if step.timeout is not None:
        written["timeout"] = step.timeout
    if step.late_after is not None and step.kind not in {"router", "signal", "fail"}:
        written["late_after"] = step.late_after
    for name in ("result", "output"):
        value = getattr(step, name)
        if value is not None:
            written[name] = _inputs(value) if _is_inputs(value) else template(value)
    return written


def _compensate(compensate: Compensate) -> dict[str, Any]:
    written: dict[str, Any] = {"args": _inputs(compensate.inputs)} if compensate.inputs else {}
    if compensate.retry:
        written["retry"] = _retry(compensate.retry)
    if compensate.timeout is not None:
        written["timeout"] = compensate.timeout
    written |= _of_jobs(compensate)
    if compensate.path is not None:
        return {"type": "playbook", "path": compensate.path, **written}
    return {**ACTION, **written}


def _catch(entry: Catch) -> dict[str, Any]:
    written: dict[str, Any] = {"step": entry.target}
    if entry.when is not None:
        written["when"] = template(entry.when)
    if entry.inputs:
        written["args"] = _inputs(entry.inputs)
    return written


def _is_inputs(result: Any) -> bool:
    """Tell whether a result is a mapping; expressions are tuples, too."""
    return type(result) is tuple


def _work(step: Step) -> dict[str, Any]:
    """Return the keys for the action of a step."""
    if step.kind == "action":
        return {**ACTION}
    if step.kind == "playbook":
        back = {"return_step": step.return_step} if step.return_step else {}
        return {"type": "playbook", "path": step.path, **back}
    if step.iterate:
        return {"type": "iterator", **_iterate(step.iterate)}
    if step.signal:
        return {"type": step.kind, **_signal(step.signal)}
    return _work_of_broker(step)


def _work_of_broker(step: Step) -> dict[str, Any]:
    if step.kind == "approval":
        return {"type": "approval", "title": step.name, "form": {"x": {"type": "integer"}}}
    if step.failure:
        error = {"type": template(step.failure.type), "message": template(step.failure.message)}
        code = step.failure.status_code
        return {"type": "fail", "error": error if code is None else {**error, "status_code": code}}
    return {"type": "wait", "for": step.seconds} if step.kind == "wait" else {}


def _signal(signal: Signal) -> dict[str, Any]:
    written: dict[str, Any] = {"signal": signal.names[0] if len(signal.names) == 1 else [*signal.names]}
    for name in ("key", "when"):
        value = getattr(signal, name)
        if value is not None:
            written[name] = template(value)
    if signal.since is not None:
        written["since"] = signal.since
    if signal.payload is not None:
        written["payload"] = _inputs(signal.payload)
    return written


def _iterate(iterate: Iterate) -> dict[str, Any]:
    task: dict[str, Any] = {"args": _inputs(iterate.inputs)}
    written: dict[str, Any] = {"collection": template(iterate.collection), "element": "item", "task": task}
    if iterate.path:
        task |= {"type": "playbook", "path": iterate.path}
    else:
        task |= ACTION
        if not iterate.by_worker:
            written["distribute"] = True
    task |= _of_task(iterate)
    if iterate.tolerate is not None:
        written["tolerate"] = iterate.tolerate
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


def _of_task(iterate: Iterate) -> dict[str, Any]:
    written = _of_jobs(iterate)
    if iterate.compensate:
        written["compensate"] = _compensate(iterate.compensate)
    if iterate.retry:
        written["retry"] = _retry(iterate.retry)
    if iterate.timeout is not None:
        written["timeout"] = iterate.timeout
    if iterate.catch:
        written["catch"] = [_item_catch(entry) for entry in iterate.catch]
    return written


def _item_catch(entry: ItemCatch) -> dict[str, Any]:
    result = _inputs(entry.result) if _is_inputs(entry.result) else template(entry.result)  # type: ignore[arg-type]
    return {"result": result} if entry.when is None else {"when": template(entry.when), "result": result}


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
