"""The model of the reference: events, effects, tokens and arcs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.simulation.expressions import EvaluationError
from tests.simulation.plans import Catch, Entry, Inputs, Iterate, Plan

Row = dict[str, Any]
LIVE = frozenset({"QUEUED", "RUNNING", "PAUSED", "COMPENSATING"})  # statuses of executions that have not ended
ENVELOPE = frozenset({"id", "status", "data", "error", "meta", "duration"})  # the keys of a result in an envelope
LONGEST_TAG = 256
SENT = frozenset({"success", "error"})  # the statuses of envelopes


def item_node_id(node_id: str, index: int) -> str:
    """Return the node id of an iterator's item, as `noetl.item_node_id` does."""
    return f"{node_id if '#' in node_id else node_id + '#1'}.{index}"


def tag_text(value: Any) -> str:
    """Return the value of a tag as text. Raises EvaluationError."""
    if not isinstance(value, str | int | float) or len(str(value)) > LONGEST_TAG:
        raise EvaluationError(f"{value!r} is no tag")
    return value if isinstance(value, str) else json.dumps(value)


class ReferenceEvent(NamedTuple):
    """An event that an execution reads.

    `kind`: start, cancel, deadline, completed, failed, item_completed, item_failed, gathered (all results of an
    iterator), more (start more items), due (start the child again), timer (the moment of a wait came), decided (an
    approval), signal, undo, settled, abandon, pause, resume (`node` is the cause, `lease` the number), slot.
    `path_is_paused`: of a start. `value`: the payload, the result, the error or the signal. `item_index`: of an item.
    `lease`: the number of the lease, or of the start of a child; None if the event has none. `leases`: how many the
    job had. `through_job`: whether it was sent by a function of the job. `is_undo`: of the undo of a visit or item.
    `undo_child`: the child that ended and has something to undo. `by_child`: a child sent it. `number`: of the turn.
    """

    kind: str
    node: str = ""
    item_index: int | None = None
    value: Any = None
    may_retry: bool = True
    lease: int | None = None
    leases: int = 0
    through_job: bool = True
    path_is_paused: bool = False
    is_undo: bool = False
    undo_child: int | None = None
    by_child: bool = False
    number: int = 0


class Awaited(NamedTuple):
    """What a wait for a signal is for, and the turn in which it began."""

    names: tuple[str, ...]
    key: str
    since: float
    turn: int


class Effect(NamedTuple):
    """One effect of an event: an event of the broker, a job, a child, or mail to itself."""

    what: str
    node: str = ""
    detail: Any = None


@dataclass(eq=False, slots=True, kw_only=True)
class Token:
    """A token: moving to a step, waiting at it, or in a visit."""

    step: str
    arc: int = -1
    arc_inputs: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    origins: frozenset[str] = frozenset()
    spent: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()
    node: str = ""
    visit: int = 0
    inputs: dict[str, Any] = field(default_factory=dict)
    failures: int = 0
    failed_lease: int = 0
    is_due: bool = False
    begun: int = 0  # the turn in which its visit began
    is_kept: bool = False  # items or a child of it start when the execution runs on
    items: Items | None = None
    awaited: Awaited | None = None
    is_late: bool = False
    unsure: set[int | None] = field(default_factory=set)  # slots of items, None: itself; it may have had an effect


@dataclass(eq=False, slots=True, kw_only=True)
class Items:
    """The items of an iterator: the next one to start, the open ones, the results."""

    iterate: Iterate
    values: list[Any]
    next: int = 0
    open: set[int] = field(default_factory=set)
    results: dict[int, Any] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    inputs: dict[int, dict[str, Any]] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    failed_leases: dict[int, int] = field(default_factory=dict)
    due: set[int] = field(default_factory=set)  # children of them start again after a delay
    kept: list[int] = field(default_factory=list)  # children of them start when the execution runs on

    @property
    def failed_in_order(self) -> tuple[int, ...]:
        """The slots of the items that failed."""
        return tuple(sorted(self.failed))


class Arc(NamedTuple):
    """One arc of the workflow, numbered in document order; those of `catch` after those of `next`."""

    number: int
    source: str
    target: str
    inputs: Inputs
    catch: Catch | None = None


def arcs_of(plan: Plan) -> Iterator[Arc]:
    """Yield all arcs in document order."""
    number = 0
    for step in plan.steps:
        for entry in step.entries:
            for target in entry.then + entry.otherwise:
                yield Arc(number, step.name, target.step, _merged_inputs(entry, target.inputs))
                number += 1
        for caught in step.catch:
            yield Arc(number, step.name, caught.target, caught.inputs, caught)
            number += 1


def _merged_inputs(entry: Entry, inputs: Inputs) -> Inputs:
    """Return the inputs of an entry, replaced by those of its target."""
    return tuple({**dict(entry.inputs), **dict(inputs)}.items())
