"""Events, decisions and rules: what the core reads and what it gives back.

The types of the hot path are named tuples, because frozen dataclasses cost five times as much to make. The core knows
no database ids. A visit is a step and a number. An earlier event is the number of the turn that read it. A time is the
position of an event in its turn.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.effects import Effect, Kind
from noetl_broker.broker.event_types import ALIASES, canonical_event_type
from noetl_broker.broker.values import JSON
from noetl_broker.template import MAX_OUTPUT_CHARS, MAX_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping


class Turn(NamedTuple):
    """The only time and the only source of ids of a decision; `number` counts from 1 in an execution."""

    execution_id: int
    number: int
    at: datetime


class Event(NamedTuple):
    """An event that the broker reads.

    `type` is as the sender wrote it. `result` is NOT_LOADED if it was left in the database. `attempt` is the lease that
    the event names (0: none). `settled`: the sender has changed the job's row already. `broken`: the context or the
    result is not JSON.
    """

    type: str
    step: str | None = None
    visit: int | None = None
    result: JSON = None
    error: JSON = None
    context: JSON = None
    attempt: int = 0
    retryable: bool = True
    settled: bool = True
    broken: bool = False
    meta: JSON = None
    item_index: int | None = None  # of an item of an iterator, from 0
    stale: bool = False  # it names another lease than the job has, and was not sent through the job
    bytes_over: int = 0  # the bytes of a result that is larger than MAX_RESULT_BYTES
    oversize: str = ""  # the part that was too large to be read, and its bytes: `context 50000012`
    path_paused: bool = False  # of a start: new executions of the playbook are queued
    undo: bool = False  # its node_id ends in `!undo`: it is about the undo of the visit or item, not about the visit
    places: JSON = None  # what the turn was told about the places that it wants: recorded facts

    @property
    def kind(self) -> str:
        """The event type under the name that the core uses."""
        return ALIASES.get(self.type) or canonical_event_type(self.type)


class Emitted(NamedTuple):
    """An event that the broker writes; `step` is None if it is about the execution."""

    type: str
    status: str
    step: str | None = None
    visit: int = 0
    node_type: str = "playbook"
    meta: dict[str, JSON] | None = None
    result: JSON = None
    error: JSON = None
    context: dict[str, JSON] | None = None


class JobLimit(NamedTuple):
    """The limit that a job counts for: its name and key, and the numbers of the playbook for a limit that is new."""

    name: str
    key: str
    concurrency: int | None = None
    rate: float | None = None  # a second
    burst: int | None = None


class Job(NamedTuple):
    """A job; `ordinal` is the position of its step_started in the turn, `timeout` is in seconds."""

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
    limit: JobLimit | None = None


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


class OnFailureStart(NamedTuple):
    """An execution that starts because one failed: the latest version of a playbook. It is no child."""

    path: str
    payload: dict[str, JSON]


class ExecutionEnd(NamedTuple):
    """The end of an execution: status COMPLETED, FAILED or CANCELLED, with its result or its error.

    `on_failure`: what starts because it failed.
    """

    status: str
    result: JSON = None
    error: dict[str, JSON] | None = None
    answer: JSON = None  # for the parent: the result, or the data of `return_step`, in an envelope if needed
    undo: bool = False  # it completed and has open rows of `noetl.undo`: the meta of its answer has `undo: true`
    on_failure: OnFailureStart | None = None


class Decision(NamedTuple):
    """Everything that one turn writes.

    `outcome` is "decided", or why the event changed nothing. `carrier` is the position of the emitted event with the
    result of the visit which this event ended; None: the read event has it. `effects` is what few turns write.
    """

    outcome: str
    note: str | None = None
    events: tuple[Emitted, ...] = ()
    jobs: tuple[Job, ...] = ()
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that decisions depend on. They are stored when an execution starts and stay as they are.

    A later version changes a rule by a new field, whose default is the new meaning. `stored_rules` then gives the old
    meaning to an execution that has not stored the field.
    """

    max_visits: int = 10_000
    max_open_jobs: int = 10_000
    max_nesting: int = 32
    default_max_attempts: int = 1
    undefined_when: str = "error"
    retry_owner: str = "broker"  # or "worker": an error that a worker reports beside the job decides nothing
    template_max_output_chars: int = MAX_OUTPUT_CHARS
    template_max_steps: int = MAX_STEPS
    max_turns: int = 1_000_000
    max_fan_out: int = 1_000
    max_payload_keys: int = 100_000
    max_signals: int = 1_000  # kept by one execution
    beside_noetl: bool = False  # inputs and event statuses as NoETL reads them

    def pinned(self) -> dict[str, JSON]:
        """The rules as they are stored with an execution."""
        return asdict(self)


def stored_rules(document: Mapping[str, JSON]) -> Rules:
    """The rules that are stored with an execution. Raises TypeError if this version does not know one of them."""
    return Rules(**document)
