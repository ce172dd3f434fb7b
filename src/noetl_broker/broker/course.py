"""The course of an execution: which arcs it took, how its conditions came out, where each step stands.

Nothing is decided here again: what fires follows from the outcomes that were recorded when it was decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from noetl_broker.broker.model import JSON, Emitted
from noetl_broker.playbook.model import Playbook, Step, Target

EntryOf = tuple[str, int]  # a step's name, and the place of an entry in its `next`, from 0


class Outcomes(NamedTuple):
    """How often a condition was true, and how often it was not."""

    true: int = 0
    false: int = 0


class Items(NamedTuple):
    """How far an iterator that the broker runs has got in its latest visit."""

    total: int
    completed: int
    failed: int
    running: int


class OpenJob(NamedTuple):
    """The job of a running step: status as in `noetl.queue`, who holds it, when it may be taken again."""

    status: str
    worker_id: str | None
    available_at: datetime | None


class Trace(NamedTuple):
    """What the events of an execution say about its arcs and steps.

    `taken`: how often each arc was taken, by its ordinal. `unsure`: arcs of which no event tells whether they were.
    `retries`, `errors` and `went_on` are by step: the last error, and whether the last failure let its token go on.
    """

    taken: Mapping[int, int]
    outcomes: Mapping[EntryOf, Outcomes]
    unsure: frozenset[int] = frozenset()
    retries: Mapping[str, int] = {}
    errors: Mapping[str, JSON] = {}
    went_on: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where one step stands: its status is that of `noetl.workflow`, its times are of the latest visit.

    `arrived`: tokens that wait before a join. `children`: executions that its latest visit started and does not count
    as items.
    """

    status: str = "PENDING"
    visits: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    arrived: int = 0
    job: OpenJob | None = None
    items: Items | None = None
    children: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Everything that a picture of an execution shows; `read_at` is the moment at which it was so."""

    execution_id: int
    version: int | None
    status: str
    started_at: datetime
    ended_at: datetime | None
    read_at: datetime
    parent_execution_id: int | None = None
    error: JSON = None
    steps: Mapping[str, Standing] = field(default_factory=dict)
    trace: Trace = field(default_factory=lambda: Trace({}, {}))


def trace(
    playbook: Playbook, events: Sequence[Emitted], steps: Mapping[str, Standing], waiting: Iterable[int]
) -> Trace:
    """Follow the events that the broker wrote, in their order; `waiting` are the arcs of tokens before joins.

    A `start` without an action leaves no event: what it fired is told by the visits that its arcs led to.
    """
    tally = _Tally(playbook)
    stopped = _failure_that_ended(events)
    led = set(waiting)
    for event in events:
        step = playbook.steps.get(event.step or "")
        if step is None:
            continue
        led.update(_arcs_of(event))
        if event.type == "action_retry":
            tally.retries[step.name] += 1
        elif event.type == "step_completed":
            tally.leave(step, event)
        elif event.type == "step_failed":
            tally.fail(step, event, stopped=event is stopped)
    tally.leave_start(steps, led)
    return Trace(
        dict(tally.taken),
        {entry: Outcomes(counts[True], counts[False]) for entry, counts in tally.outcomes.items()},
        frozenset(tally.unsure),
        dict(tally.retries),
        tally.errors,
        frozenset(tally.went_on),
    )


def fired(step: Step, outcomes: Iterable[bool]) -> tuple[list[int], dict[int, bool]]:
    """The arcs that a completed visit fired, and each entry's outcome, of the outcomes recorded (spec section 2)."""
    recorded = iter(outcomes)
    arcs: list[int] = []
    otherwise: list[int] = []
    read: dict[int, bool] = {}
    for place, entry in enumerate(step.next):
        then, other = ([target.arc for target in targets] for targets in (entry.then, entry.otherwise))
        if entry.condition is None:
            (otherwise if entry.kind == "else" or _has_condition(step, before=place) else arcs).extend(then + other)
            continue
        outcome = next(recorded, None)
        if outcome is not None:
            read[place] = outcome
            arcs.extend(then if outcome else other)
    if not any(read.values()):
        arcs.extend(otherwise)
    return arcs, read


class _Tally:
    """What was counted so far."""

    def __init__(self, playbook: Playbook) -> None:
        self._playbook = playbook
        self.taken: Counter[int] = Counter()
        self.outcomes: dict[EntryOf, Counter[bool]] = {}
        self.unsure: set[int] = set()
        self.retries: Counter[str] = Counter()
        self.errors: dict[str, JSON] = {}
        self.went_on: set[str] = set()

    def leave(self, step: Step, event: Emitted) -> None:
        """A token left its visit: count what its `next` fired."""
        conditions: Any = (event.meta or {}).get("next") or ()
        arcs, read = fired(step, [condition["outcome"] for condition in conditions])
        self.taken.update(arcs)
        for place, outcome in read.items():
            self.outcomes.setdefault((step.name, place), Counter())[outcome] += 1

    def fail(self, step: Step, event: Emitted, *, stopped: bool) -> None:
        """A visit failed for good; with `on_error: continue` its token goes on all the same."""
        self.errors[step.name] = event.error
        if step.on_error == "continue" and not stopped and "spent" not in (event.meta or {}):
            self.went_on.add(step.name)
            self.leave(step, event)
        else:
            self.went_on.discard(step.name)

    def leave_start(self, steps: Mapping[str, Standing], led: set[int]) -> None:
        """Count what a `start` without an action fired."""
        start = self._playbook.start
        standing = steps.get(start.name)
        if start.kind != "control" or standing is None or standing.status != "COMPLETED":
            return
        held = self._settled(start, [self._held(start, place, steps, led) for place in _conditions(start)], steps, led)
        known = held[: held.index(True) + 1] if start.exclusive and True in held else held
        if None not in known:
            arcs, read = fired(start, [outcome is True for outcome in known])
        else:
            own = {target.arc for entry in start.next for target in (*entry.then, *entry.otherwise)}
            arcs, read = sorted(own & led), {}
            self.unsure = own - led
        self.taken.update(arcs)
        for place, outcome in read.items():
            self.outcomes[start.name, place] = Counter([outcome])

    def _settled(
        self, start: Step, held: list[bool | None], steps: Mapping[str, Standing], led: set[int]
    ) -> list[bool | None]:
        """The outcomes with those settled that "otherwise" tells: it was taken, so none held; or not, so one did."""
        otherwise = _otherwise(start)
        if None not in held or True in held or not otherwise:
            return held
        if any(target.arc in led for target in otherwise):
            return [False] * len(held)
        if held.count(None) == 1 and any(self._missed(target, steps) for target in otherwise):
            return [outcome is None for outcome in held]
        return held

    def _held(self, start: Step, place: int, steps: Mapping[str, Standing], led: set[int]) -> bool | None:
        """Whether a condition of `start` held; None where neither an event nor a visit tells."""
        then, otherwise = start.next[place].then, start.next[place].otherwise
        if any(target.arc in led for target in then):
            return True
        if any(target.arc in led for target in otherwise) or any(self._missed(target, steps) for target in then):
            return False
        return True if any(self._missed(target, steps) for target in otherwise) else None

    def _missed(self, target: Target, steps: Mapping[str, Standing]) -> bool:
        """Whether an arc that no visit names was not taken: its step was not reached, or each visit names its arc."""
        standing, step = steps.get(target.step, Standing()), self._playbook.steps[target.step]
        return not (standing.visits or standing.arrived) or not self._merges(step)

    def _merges(self, step: Step) -> bool:
        """Whether a visit of the step may stand for several arcs, of which its event names one, or none."""
        return step.join == "all" or (step is self._playbook.end and step.join is None)


def _failure_that_ended(events: Sequence[Emitted]) -> Emitted | None:
    """The step_failed after which nothing went on: the last one of its step before execution_failed."""
    end = next((event for event in reversed(events) if event.type == "execution_failed"), None)
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


def _conditions(step: Step) -> list[int]:
    return [place for place, entry in enumerate(step.next) if entry.condition is not None]


def _otherwise(step: Step) -> list[Target]:
    """The targets of what fires if no condition of the list is true."""
    entries = [
        entry
        for place, entry in enumerate(step.next)
        if entry.condition is None and (entry.kind == "else" or _has_condition(step, before=place))
    ]
    return [target for entry in entries for target in (*entry.then, *entry.otherwise)]


def _has_condition(step: Step, *, before: int) -> bool:
    return any(entry.condition is not None for entry in step.next[:before])
