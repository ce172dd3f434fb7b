"""The path of an execution: the arcs that it took, the outcomes of its conditions, the status of each step.

Nothing is decided again: the recorded outcomes say which arcs fired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from noetl_broker.broker.model.event import Emitted
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.writing.events import CAUGHT
from noetl_broker.playbook.model import Arc, Entry, Playbook, Step, Target

EntryKey = tuple[str, int]  # a step, and the index of an entry in its `next` from 0; in its `catch` from -1 down


class Outcomes(NamedTuple):
    """How often a condition was true, and how often it was false."""

    true: int = 0
    false: int = 0


class Items(NamedTuple):
    """The progress of an iterator that the broker expands, in its latest visit."""

    total: int
    completed: int
    failed: int
    running: int


class StepJob(NamedTuple):
    """The job of a running step: its status in `noetl.queue`, its worker, and when it may be leased again."""

    status: str
    worker_id: str | None
    available_at: datetime | None


UNDO_EVENTS = "compensation_"  # compensation_started, and so on


@dataclass(slots=True)
class PathTrace:
    """The arcs and steps of an execution, as its events tell them.

    `taken` counts by the ordinal of an arc. `unknown` are arcs that no event mentions. `retries` and `errors` (the
    last one) are by step. `went_on` are steps whose last failure let the token continue. `undos` counts
    by step how many undos were started, completed and failed.
    """

    taken: Counter[int] = field(default_factory=Counter)
    outcomes: dict[EntryKey, Outcomes] = field(default_factory=dict)
    unknown: set[int] = field(default_factory=set)
    retries: Counter[str] = field(default_factory=Counter)
    errors: dict[str, JSON] = field(default_factory=dict)
    went_on: set[str] = field(default_factory=set)
    undos: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, step: Step, outcomes: Iterable[bool]) -> None:
        """Count what the `next` of a finished visit fired."""
        arcs, read = fired_arcs(step, outcomes)
        self.taken.update(arcs)
        for index, outcome in read.items():
            true, false = self.outcomes.get((step.name, index), Outcomes())
            self.outcomes[step.name, index] = Outcomes(true + outcome, false + (not outcome))

    def add_catch(self, step: Step, event: Emitted) -> None:
        """Count what the `catch` of a failed visit came to."""
        meta: dict[str, Any] = event.meta or {}
        recorded = iter(meta.get("catch") or ())
        caught = meta.get("caught")
        taken = caught["entry"] if isinstance(caught, dict) else None
        for index, entry in enumerate(step.catch):
            outcome = next(recorded, None) if entry.condition is not None else None
            if outcome is not None:
                true, false = self.outcomes.get((step.name, -1 - index), Outcomes())
                holds = bool(outcome["outcome"])
                self.outcomes[step.name, -1 - index] = Outcomes(true + holds, false + (not holds))
            if index == taken:
                self.taken.update(target.arc for target in entry.then)
                break


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatus:
    """A step: its status in `noetl.workflow`, and the times of its latest visit.

    `arrived` counts tokens that wait at a join. `children` are executions that the latest visit started, except items.
    """

    status: str = "PENDING"
    visits: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    arrived: int = 0
    job: StepJob | None = None
    items: Items | None = None
    children: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPath:
    """The data of an execution's diagram, as it was at `read_at`."""

    execution_id: int
    version: int | None
    status: str
    started_at: datetime
    ended_at: datetime | None
    read_at: datetime
    parent_execution_id: int | None = None
    error: JSON = None
    steps: Mapping[str, StepStatus] = field(default_factory=dict)
    trace: PathTrace = field(default_factory=PathTrace)

    @property
    def seconds(self) -> float:
        """The duration, so far while it is running."""
        return ((self.ended_at or self.read_at) - self.started_at).total_seconds()

    @property
    def failed_step(self) -> str | None:
        """The step that failed the execution; None if the error names none."""
        return self.error.get("step") if isinstance(self.error, dict) else None

    @property
    def message(self) -> str | None:
        """The message of the error."""
        return error_message(self.error)


def entry_key(arc: Arc) -> EntryKey:
    """The key of the entry of an arc."""
    return arc.source, -1 - arc.entry if arc.branch == "catch" else arc.entry


def error_message(error: JSON) -> str | None:
    """The message or reason of an error; None if it has neither."""
    message = error.get("message") or error.get("reason") if isinstance(error, dict) else error
    return str(message) if message else None


def trace_path(
    playbook: Playbook, events: Sequence[Emitted], steps: Mapping[str, StepStatus], waiting: Iterable[int]
) -> PathTrace:
    """The arcs and outcomes that the broker's events show; `waiting` are the arcs of tokens that wait at joins.

    A `start` without an action leaves no event. The visits that its arcs led to show what fired.
    """
    trace = PathTrace()
    fatal = _fatal_failure(events)
    reached = set(waiting)  # arcs that led to a visit
    for event in events:
        step = playbook.steps.get(event.step or "")
        if step is None:
            continue
        reached.update(_arcs_of(event))
        if event.type == "action_retry" and event.context is None:  # else of an item
            trace.retries[step.name] += 1
        elif event.type.startswith(UNDO_EVENTS):
            trace.undos.setdefault(step.name, Counter())[event.type.removeprefix(UNDO_EVENTS)] += 1
        elif event.type == "step_completed":
            trace.add(step, _recorded_outcomes(event))
        elif event.type == "step_failed":
            trace.errors[step.name] = event.error
            trace.went_on.discard(step.name)
            trace.add_catch(step, event)
            if (event.meta or {}).get("status") == CAUGHT:
                trace.went_on.add(step.name)
            elif step.on_error == "continue" and event is not fatal and "spent" not in (event.meta or {}):
                trace.went_on.add(step.name)
                trace.add(step, _recorded_outcomes(event))
    start = playbook.start
    if not start.has_action and start.name in steps and steps[start.name].status == "COMPLETED":
        _StartInference(playbook, steps, reached).add_to(trace)
    return trace


def fired_arcs(step: Step, outcomes: Iterable[bool]) -> tuple[list[int], dict[int, bool]]:
    """The arcs that a completed visit fired, and the outcome of each entry that was read."""
    recorded = iter(outcomes)
    arcs: list[int] = []
    otherwise: list[int] = []
    read: dict[int, bool] = {}
    for index, entry in enumerate(step.next):
        then, other = ([target.arc for target in targets] for targets in (entry.then, entry.otherwise))
        if entry.condition is None:
            (otherwise if entry.kind == "else" or _has_condition(step, before=index) else arcs).extend(then + other)
            continue
        outcome = next(recorded, None)
        if outcome is not None:
            read[index] = outcome
            arcs.extend(then if outcome else other)
    if not any(read.values()):
        arcs.extend(otherwise)
    return arcs, read


class _StartInference:
    """Infers what a `start` without an action fired, from the visits that it led to."""

    def __init__(self, playbook: Playbook, steps: Mapping[str, StepStatus], reached: set[int]) -> None:
        self._playbook, self._start = playbook, playbook.start
        self._steps = steps
        self._reached = reached  # arcs that led to a visit

    def add_to(self, trace: PathTrace) -> None:
        """Count the arcs and outcomes of `start`."""
        start = self._start
        outcomes = self._infer_from_otherwise(
            [self._outcome(entry) for entry in start.next if entry.condition is not None]
        )
        known = outcomes[: outcomes.index(True) + 1] if start.exclusive and True in outcomes else outcomes
        if None not in known:
            trace.add(start, [outcome is True for outcome in known])
        else:
            own = {target.arc for entry in start.next for target in (*entry.then, *entry.otherwise)}
            trace.taken.update(own & self._reached)
            trace.unknown = own - self._reached

    def _outcome(self, entry: Entry) -> bool | None:
        """The outcome of a condition; None if no event and no visit shows it."""
        if self._any_reached(entry.then):
            return True
        if self._any_reached(entry.otherwise) or any(map(self._not_taken, entry.then)):
            return False
        return True if any(map(self._not_taken, entry.otherwise)) else None

    def _infer_from_otherwise(self, outcomes: list[bool | None]) -> list[bool | None]:
        """Fill in unknown outcomes: if "otherwise" fired, no condition was true; if it did not, one was."""
        otherwise = _otherwise(self._start)
        if None not in outcomes or True in outcomes or not otherwise:
            return outcomes
        if self._any_reached(otherwise):
            return [False] * len(outcomes)
        if outcomes.count(None) == 1 and any(map(self._not_taken, otherwise)):
            return [outcome is None for outcome in outcomes]
        return outcomes

    def _any_reached(self, targets: Iterable[Target]) -> bool:
        return any(target.arc in self._reached for target in targets)

    def _not_taken(self, target: Target) -> bool:
        """Whether an arc that no visit names was certainly not taken."""
        status, step = self._steps.get(target.step, StepStatus()), self._playbook.steps[target.step]
        # one visit of a join that merges may stand for several arcs, so that its event does not name each
        merges = step.join == "all" or step.need > 1 or (step is self._playbook.end and step.join is None)
        return not (status.visits or status.arrived) or not merges


def _fatal_failure(events: Sequence[Emitted]) -> Emitted | None:
    """The step_failed that failed the execution."""
    ends = {"execution_failed", "execution_compensating"}  # with undos, the first one names the failure
    end = next((event for event in events if event.type in ends), None)
    if end is None or not isinstance(end.error, dict):
        return None
    turn, step = (end.meta or {}).get("turn"), end.error.get("step")
    return next(
        (
            event
            for event in reversed(events)
            if event.type == "step_failed" and event.step == step and (event.meta or {}).get("turn") == turn
        ),
        None,
    )


def _arcs_of(event: Emitted) -> Iterable[int]:
    arcs: Any = (event.meta or {}).get("arcs")
    return arcs if event.type == "step_started" and isinstance(arcs, list) else ()


def _recorded_outcomes(event: Emitted) -> list[bool]:
    conditions: Any = (event.meta or {}).get("next") or ()
    return [condition["outcome"] for condition in conditions]


def _otherwise(step: Step) -> list[Target]:
    """The targets that fire if no condition is true."""
    entries = [
        entry
        for index, entry in enumerate(step.next)
        if entry.condition is None and (entry.kind == "else" or _has_condition(step, before=index))
    ]
    return [target for entry in entries for target in (*entry.then, *entry.otherwise)]


def _has_condition(step: Step, *, before: int) -> bool:
    return any(entry.condition is not None for entry in step.next[:before])
