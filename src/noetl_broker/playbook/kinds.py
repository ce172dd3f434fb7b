"""The kinds of steps, and what the whole program asks about a kind.

A type that workers run needs no kind: see worker/tools/. What the broker does with the steps of a kind is `KINDS` in
broker/arrivals/steps.py. A new kind also needs:

- its keys: `TYPES` in step_types.py
- its name: `noetl.is_own_type` in migrations/0024_step_types.sql
- what reads it: `READERS` in steps.py
- its form: `OUTLINES` and `BRACKETS` in diagram/

tests/broker/test_kinds.py names what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

StepKind = Literal["start", "end", "router", "action", "playbook", "iterator", "wait", "approval", "signal", "fail"]
# An open visit is ended by a worker, a child execution, items that the broker runs, or an event: a moment, a signal,
# a decision.
WaitsFor = Literal["nothing", "worker", "child", "items", "event"]


class Traits(NamedTuple):
    """The traits of all steps of one kind.

    A visit that waits for nothing ends in the turn in which it begins. A step without an action only passes a token on.
    """

    waits_for: WaitsFor = "nothing"
    has_action: bool = True
    has_result: bool = True

    @property
    def has_job(self) -> bool:
        """Whether a visit has a job: for a worker, or to keep what the broker starts."""
        return self.waits_for in {"worker", "child", "items"}

    @property
    def has_timer(self) -> bool:
        """Whether an open visit may have a timer, or a row of `noetl.wait`."""
        return self.waits_for in {"child", "event"}

    @property
    def may_have_worker(self) -> bool:
        """Whether workers run a visit, or may run its items."""
        return self.waits_for in {"worker", "items"}


TRAITS: dict[StepKind, Traits] = {
    "start": Traits(has_action=False, has_result=False),
    "end": Traits(has_action=False, has_result=False),
    "router": Traits(has_action=False, has_result=False),
    "action": Traits("worker"),
    "playbook": Traits("child"),
    "iterator": Traits("items"),
    "wait": Traits("event"),
    "approval": Traits("event"),
    "signal": Traits(),
    "fail": Traits(has_result=False),
}
# The types of steps that the broker runs itself: each is the name of a kind.
KINDS_BY_TYPE: Mapping[str, StepKind] = MappingProxyType(
    {kind: kind for kind, traits in TRAITS.items() if traits.has_action and traits.waits_for != "worker"}
)
