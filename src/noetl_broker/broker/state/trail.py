"""The moves of tokens within one turn, for `explain` and forks. They are never stored."""

from __future__ import annotations

from typing import NamedTuple

from noetl_broker.broker.model.values import JSON, Visit
from noetl_broker.broker.state.state import Arrival, KeptSignal, RenderedInputs
from noetl_broker.template import Scope


class NextEvaluated(NamedTuple):
    """A visit's `next` was read: the scope of its templates, the conditions with their outcomes, and the arrivals.

    `given` are the visit's inputs if its `next` may read them. If a template fails, `conditions` and `arrivals` have
    what came before it.
    """

    step: str
    visit: int
    scope: Scope
    given: RenderedInputs
    conditions: list[dict[str, JSON]]
    arrivals: list[Arrival]


class CatchEvaluated(NamedTuple):
    """The `catch` of a failed visit was read, with `error` in the scope of its templates.

    `conditions` are those evaluated, each with its outcome, and `entry` is the one taken; None: none was true. `fault`
    says which of its own templates failed.
    """

    step: str
    visit: int
    scope: Scope
    given: RenderedInputs
    conditions: list[dict[str, JSON]]
    arrivals: list[Arrival]
    entry: int | None = None
    fault: str | None = None


class Entered(NamedTuple):
    """A token entered a step and began this visit; a join has merged those that it `gathered` into `arrival`."""

    step: str
    visit: int
    arrival: Arrival
    gathered: tuple[Arrival, ...] = ()


class SpentAtJoin(NamedTuple):
    """A token ended before a join for which it was spent."""

    arrival: Arrival


class CancelledArrival(NamedTuple):
    """A token on an arc or at a join that ended. It was spent for a join that cancels its losers."""

    arrival: Arrival
    join: str


class SpentFailure(NamedTuple):
    """A visit failed and its token ended without an effect: the token was spent for these joins."""

    step: str
    visit: int
    joins: list[str]


class CancelledVisit(NamedTuple):
    """A visit was cancelled without a result: its token was spent for these joins."""

    step: str
    visit: int
    joins: list[str]


class SignalTried(NamedTuple):
    """A wait tried a signal: whether its `when` holds in this scope, or the `fault` of the condition."""

    visit: Visit
    kept: KeptSignal
    signal: dict[str, JSON]
    scope: Scope
    holds: bool
    fault: str | None = None


Trace = (
    NextEvaluated
    | CatchEvaluated
    | Entered
    | SpentAtJoin
    | SpentFailure
    | CancelledVisit
    | CancelledArrival
    | SignalTried
)
