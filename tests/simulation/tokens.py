"""The nouns of the reference: what happens and what is said, tokens, and the arcs on which they travel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.simulation.plans import Entry, Inputs, Iterate, Plan


class Happened(NamedTuple):
    """What reaches an execution.

    `kind` is start, completed, failed (of a node's job or child), item_completed, item_failed, gathered (the list of an
    iterator), more (go on starting items), due (start the child again), cancel or deadline; `value` the payload, the
    result or the error; `place` that of an item. `lease` is the lease, or the start of a child, that it speaks of (None
    if it does not say), `leases` how many the job has had; `through_job`: its sender went through the job's functions.
    """

    kind: str
    node: str = ""
    place: int | None = None
    value: Any = None
    may_retry: bool = True
    lease: int | None = None
    leases: int = 0
    through_job: bool = True


class Said(NamedTuple):
    """One thing that comes of an event."""

    what: str
    node: str = ""
    detail: Any = None


@dataclass(eq=False, slots=True, kw_only=True)
class Token:
    """One place where the execution is alive: under way to a step, waiting at it, or inside a visit."""

    step: str
    arc: int = -1
    given: dict[str, Any] = field(default_factory=dict)
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
    items: Items | None = None


@dataclass(eq=False, slots=True, kw_only=True)
class Items:
    """The items of an iterator: what is still to be started, what is open, what came back."""

    iterate: Iterate
    values: list[Any]
    next: int = 0
    open: set[int] = field(default_factory=set)
    results: dict[int, Any] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)

    @property
    def failed_in_order(self) -> tuple[int, ...]:
        """The places of the items that failed."""
        return tuple(sorted(self.failed))


class Arc(NamedTuple):
    """One arc of the workflow; its number is its place in the document."""

    number: int
    source: str
    target: str
    inputs: Inputs


def arcs_of(plan: Plan) -> Iterator[Arc]:
    """Yield all arcs in the order of the document."""
    number = 0
    for step in plan.steps:
        for entry in step.entries:
            for target in entry.then + entry.otherwise:
                yield Arc(number, step.name, target.step, _over(entry, target.inputs))
                number += 1


def _over(entry: Entry, inputs: Inputs) -> Inputs:
    """Lay a target's inputs over those of its entry."""
    return tuple({**dict(entry.inputs), **dict(inputs)}.items())
