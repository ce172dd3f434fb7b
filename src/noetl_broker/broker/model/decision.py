"""Decisions: everything that one turn writes."""

from __future__ import annotations

from typing import NamedTuple

from noetl_broker.broker.model.effects import Effect, Kind, OnFailureStart
from noetl_broker.broker.model.event import Emitted
from noetl_broker.broker.model.values import JSON


class JobThrottle(NamedTuple):
    """The throttle that counts a job: name and key, and the playbook's numbers for a new throttle."""

    name: str
    key: str
    concurrency: int | None = None
    rate: float | None = None  # a second
    burst: int | None = None


class JobRow(NamedTuple):
    """A job that the turn writes; `ordinal` is the position of its step_started, `timeout` is in seconds."""

    step: str
    visit: int
    node_type: str
    ordinal: int
    action: dict[str, JSON]
    context: dict[str, JSON]
    priority: int
    max_attempts: int
    timeout: float | None
    delegated: bool = False  # the broker runs the step, no worker leases it
    item_index: int | None = None  # of an item of an iterator, from 0
    start_timeout: float | None = None  # seconds in which a worker must lease it
    undo: bool = False  # undoes the visit or item: its node_id ends in `!undo`, as its node_name does
    again: bool = False  # an undo job of an earlier undo is used again
    throttle: JobThrottle | None = None
    pool: str | None = None  # of workers; None: the default one


class StepRow(NamedTuple):
    """The tracking row of a step after the turn; `started` and `ended` are positions of events in the turn.

    `result_visit`: the visit whose result the event of this turn carries (or its step_failed). `result_at`: an event
    that the turn writes carries it, at this position. With `taken`, a fork took the result over, and the row names it
    already.
    """

    step: str
    status: str
    visits: int
    started: int | None = None
    ended: int | None = None
    result_visit: int | None = None
    taken: bool = False
    result_at: int | None = None


class ExecutionEnd(NamedTuple):
    """The end of an execution: status COMPLETED, FAILED or CANCELLED, with its result or its error.

    `on_failure`: what starts because it failed.
    """

    status: str
    result: JSON = None
    error: dict[str, JSON] | None = None
    answer: JSON = None  # for the parent: the result, or the data of `return_step`, in an envelope if needed
    undo: bool = False  # it has something to be undone: the meta of its answer has `undo: true`
    on_failure: OnFailureStart | None = None


class Decision(NamedTuple):
    """Everything that one turn writes.

    `outcome` is "decided", or why the event changed nothing. `carrier` is the position of the emitted event with the
    result of the visit which this event ended; None: the read event has it. `effects` is what few turns write.
    """

    outcome: str
    note: str | None = None
    events: tuple[Emitted, ...] = ()
    jobs: tuple[JobRow, ...] = ()
    rows: tuple[StepRow, ...] = ()
    ended: ExecutionEnd | None = None
    carrier: int | None = None
    effects: tuple[Effect, ...] = ()

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The effects of a kind, in their order."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def last(self, kind: type[Kind]) -> Kind | None:
        """The last effect of a kind, which counts where there can be one only."""
        return next((effect for effect in reversed(self.effects) if isinstance(effect, kind)), None)

    @property
    def kinds(self) -> tuple[type, ...]:
        """The kinds of its effects. Two effects of different kinds with the same fields are equal tuples."""
        return tuple(map(type, self.effects))


class Refused(Exception):
    """The event changes nothing, for this reason. Only what is asked for beside the state shows it."""
