"""The way that tokens take within one turn: nobody stores it, it is there for whoever asks why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.state import Arrival, Token, Visit

if TYPE_CHECKING:
    from noetl_broker.broker.given import Given
    from noetl_broker.broker.model import JSON
    from noetl_broker.template import Scope


class Left(NamedTuple):
    """A visit's `next` was read: what its templates saw, the conditions with their outcomes, the arrivals it gave.

    `given` are the visit's inputs, where its `next` may read them. `conditions` and `arrivals` are filled
    while it is read: where a template failed, they end before it.
    """

    step: str
    visit: int
    scope: Scope
    given: Given
    conditions: list[dict[str, JSON]]
    arrivals: list[Arrival]


class Entered(NamedTuple):
    """A token came into a step, as this visit of it; `arrival` is merged where a join gathered several."""

    step: str
    visit: int
    arrival: Arrival


class Absorbed(NamedTuple):
    """A token ended silently before a join for which it was spent."""

    arrival: Arrival


class Dropped(NamedTuple):
    """A visit failed and its token ended there, which failed nothing: it was spent for these joins."""

    step: str
    visit: int
    joins: list[str]


class Lost(NamedTuple):
    """What lived when the execution ended: running visits, what waited at joins, what was on arcs."""

    tokens: dict[Visit, Token]
    waiting: dict[str, tuple[Arrival, ...]]
    arrivals: tuple[Arrival, ...]


Trace = Left | Entered | Absorbed | Dropped
