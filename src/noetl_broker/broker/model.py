"""Events, decisions and rules: what the core reads and what it gives back.

The types of the hot path are named tuples, because frozen dataclasses cost five times as much to make. The core knows
no database ids. A visit is a step and a number. An earlier event is the number of the turn that read it. A time is the
position of an event in its turn.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from noetl_broker.broker.event_types import ALIASES, canonical_event_type
from noetl_broker.template import MAX_OUTPUT_CHARS, MAX_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SIGNALS = 1_000  # the default of a rule
JSON = Any  # None | bool | int | float | str | list | dict, checked where it enters


def as_stored(value: JSON) -> JSON:
    """The value with the keys of its mappings in the order of jsonb: shorter first, then by bytes.

    So a value from the database and one from an earlier turn of the batch read the same.
    """
    if isinstance(value, dict):
        ordered = [(key, value[key]) for key in sorted(value, key=_rank_of_key)]
        return {key: as_stored(item) if isinstance(item, dict | list) else item for key, item in ordered}
    return [as_stored(item) for item in value] if isinstance(value, list) else value


def _rank_of_key(key: str) -> tuple[int, bytes]:
    encoded = key.encode()
    return len(encoded), encoded


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


OWN_VERSION: Final = 0  # of a child: that of its parent. The child is a block of the same playbook


class Child(NamedTuple):
    """A child execution to start for a visit; `item_index` is the index of an iterator's item.

    `version`: None is the latest, OWN_VERSION that of the parent. `ordinal` is the position of its iteration_started in
    the turn. `meta` goes into its execution_start: {parent: {depth, return_step, attempt}}. `undo`: it undoes the visit
    or item, and `parent` has `undoes`, so that no pause of its path holds it. Its answer is an `action_completed` or
    `action_failed`, also that of an item, with the node_id of the undo job. With `undo_of`, it is an undo execution of
    that child execution, which completed: of the same version, with its workload as the payload. Its meta has `undo` as
    `Undoing` says; it takes over the open rows of that child.
    """

    step: str
    visit: int
    item_index: int | None
    path: str
    version: int | None
    payload: dict[str, JSON]
    meta: dict[str, JSON]
    ordinal: int | None = None
    undo: bool = False
    undo_of: int | None = None


class Undo(NamedTuple):
    """A visit, or an item (`item_index`), that is to be undone: a new row of `noetl.undo`.

    status `open`: its action or child reported success in this turn. `unknown`: it never did, but an attempt timed out
    or lost its lease. The row has the number of this turn, which is the order of undoing: last first. A row that the
    visit or item has already is replaced, with its turn. `child_execution_id` is set if the visit or item has no
    `compensate`: the rows of this completed child are undone. An open row without an index replaces those of the items
    and children of its visit: they become `superseded`, if they are open.
    """

    step: str
    visit: int
    item_index: int | None = None
    status: str = "open"
    child_execution_id: int | None = None


class UndoChange(NamedTuple):
    """The new status of a row of `noetl.undo`: running, done, failed (with its error), or unknown.

    The three last ones end it.
    """

    step: str
    visit: int
    item_index: int | None
    status: str
    error: JSON = None


class Items(NamedTuple):
    """The items of an iterator, chosen when its visit begins."""

    step: str
    visit: int
    values: list[JSON]


class Adoption(NamedTuple):
    """A child execution that a worker started: the visit waits for it. `item_index` is its index in the results."""

    step: str
    visit: int
    item_index: int
    child_execution_id: int


class ItemEnd(NamedTuple):
    """An item of an iterator ended: status COMPLETED or FAILED. The event of this turn has its result.

    `error` is what `{{ it.failed }}` lists, shortened. `result_at`: the emitted event at this position has the result
    in place of the failure that a `catch` handled.
    """

    step: str
    visit: int
    item_index: int
    status: str
    error: JSON = None
    result_at: int | None = None


class ItemRetry(NamedTuple):
    """An item failed and is tried again: how often it failed, and its last failed attempt.

    `unsure`: an attempt of an item with a `compensate` may have happened though it failed. `error` is that of the
    failure; None when a child is started again after its delay. The failed attempt of a child
    that runs again is the number of failures.
    """

    step: str
    visit: int
    item_index: int
    failures: int
    failed_attempt: int
    unsure: bool = False
    error: JSON = None


class SelfEvent(NamedTuple):
    """An event that the execution sends itself: `iteration_due`, or `iterator_completed` with the gathered results."""

    type: str
    step: str
    visit: int


class Wait(NamedTuple):
    """A wait that began: a row that keeps the visit's `request` (its inputs), and says what ends it.

    kind: timer, signal or approval. `names` and `key` are what a signal must have; `since` is how many seconds before
    the start of the execution the oldest signal that counts may be sent. `details` is what an approval shows.
    """

    step: str
    visit: int
    kind: str
    request: dict[str, JSON]
    names: tuple[str, ...] = ()
    key: str | None = None
    since: float = 0.0
    details: dict[str, JSON] | None = None


class WaitEnd(NamedTuple):
    """A wait is over: status done, timed_out, or cancelled."""

    step: str
    visit: int
    status: str


class SentSignal(NamedTuple):
    """A signal that a step sends; `own`: it is about the execution itself, and is kept until that ends."""

    step: str
    visit: int
    name: str
    key: str
    payload: JSON
    hops: int
    own: bool = False


class Timer(NamedTuple):
    """A moment at which the execution gets an event about a visit; purpose: wait, timeout or signals.

    `is_moment`: the playbook gives the moment itself, not how long to wait.
    """

    step: str
    visit: int
    purpose: str
    due: datetime
    is_moment: bool = False


class JobChange(NamedTuple):
    """The new status of a job: `retry` after `delay` seconds, `delegated`, `dead`, or `done`.

    For an undo job (`undo`), `dead` also tells its worker to stop; `dead` and `delegated` cancel the child that runs.
    """

    step: str
    visit: int
    status: str
    delay: float = 0.0
    item_index: int | None = None  # of an item of an iterator, from 0
    undo: bool = False  # the job that undoes the visit or item
    attempt: int = 0  # the last that failed; the next lease is a later one, also if nobody had leased this one


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


class ExecutionBegin(NamedTuple):
    """What the start of an execution writes; `deadline` in seconds from now."""

    workload: dict[str, JSON]
    deadline: float | None


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


class ExecutionStatus(NamedTuple):
    """The new status of an execution that goes on living: PAUSED, QUEUED, RUNNING or COMPENSATING.

    `admitted`: it was queued, and its `deadline` (seconds; None: none) begins. `waits`: it is queued for a place.
    """

    status: str
    admitted: bool = False
    deadline: float | None = None
    waits: bool = False


class Place(NamedTuple):
    """A place that an execution wants, waits for or holds: `limit` executions of one path and key hold one at once.

    `on_limit`: what becomes of the execution if none is free. `number`: its place in the line; 0: not asked for yet.
    `label`: the name of the value that the key is, if it has one.
    """

    path: str
    key: str
    limit: int = 1
    on_limit: str = "queue"
    number: int = 0
    label: str = ""


class PlaceChange(NamedTuple):
    """What becomes of the places of an execution: held, waiting, returned (it is paused), or freed (it has ended)."""

    what: str
    places: tuple[Place, ...]


class Decision(NamedTuple):
    """Everything that one turn writes.

    `outcome` is "decided", or why the event changed nothing. `withdraw` cancels the jobs that no worker holds, and all
    children; `abandoned` cancels the items and children of these visits. `closed` are the visits that ended without a
    result: as `abandoned`, and their own jobs are cancelled. `failed` is the position of the step_failed that carries
    the result of the visit which this event ended. `completed` is that of the step_completed that does, of a wait.
    `reopened` are the waits to which the event came and that did not take its signal. `signal_errors` counts the `when`
    of waits that failed. `dropped` are items whose children are cancelled, and that go on.

    `undos` and `undo_changes` are rows of `noetl.undo`, written in this order. `awaited` are visits that are over, but
    whose late success is to be undone; they may be in `closed` or `abandoned`, or the turn may have `withdraw`. A
    worker that has leased the job of such a visit or item is not told to stop. A lost lease is final at once:
    `action_failed` with error.type `lost_lease`. One that no worker has is withdrawn, and an `action_failed` with
    error.type `withdrawn` is sent in the same transaction. Its open children are cancelled by an event, and answer when
    they have ended; for a child that the batch drops before it starts, `withdrawn` is sent too. A `delegated` job of a
    visit sends nothing itself. So each awaited visit of an action or a child sends one event, and each started item.
    `withdraw`, `closed` and `abandoned` leave undo jobs and their children alone. `unwanted_child` completed when its
    visit was given up: an execution of its own undoes it, unless a row of `noetl.undo` names it.
    """

    outcome: str
    note: str | None = None
    events: tuple[Emitted, ...] = ()
    jobs: tuple[Job, ...] = ()
    rows: tuple[StepRow, ...] = ()
    ended: ExecutionEnd | None = None
    changes: tuple[JobChange, ...] = ()  # from here on: what few turns write
    begun: ExecutionBegin | None = None
    withdraw: bool = False
    children: tuple[Child, ...] = ()
    abandoned: tuple[tuple[str, int], ...] = ()
    items: tuple[Items, ...] = ()
    item_ends: tuple[ItemEnd, ...] = ()
    posts: tuple[SelfEvent, ...] = ()
    adoptions: tuple[Adoption, ...] = ()
    waits: tuple[Wait, ...] = ()
    wait_ends: tuple[WaitEnd, ...] = ()
    timers: tuple[Timer, ...] = ()
    failed: int | None = None
    closed: tuple[tuple[str, int], ...] = ()
    completed: int | None = None
    status: ExecutionStatus | None = None
    reopened: tuple[tuple[str, int], ...] = ()
    sent: tuple[SentSignal, ...] = ()
    signal_errors: int = 0
    undos: tuple[Undo, ...] = ()
    undo_changes: tuple[UndoChange, ...] = ()
    awaited: tuple[tuple[str, int], ...] = ()
    place_change: PlaceChange | None = None
    facts: dict[str, JSON] | None = None  # what the turn was told beside its event, for a replay
    item_retries: tuple[ItemRetry, ...] = ()
    dropped: tuple[tuple[str, int, int], ...] = ()
    unwanted_child: int | None = None

    @property
    def has_rare(self) -> bool:
        """Whether the turn writes more than events, jobs, tracking rows and the end: one check instead of many."""
        return self[_RARE_FROM:] != NOTHING_RARE

    @property
    def carrier(self) -> int | None:
        """The position of the emitted event with the result of the ended visit; None: the read event has it."""
        return self.completed if self.failed is None else self.failed

    def abandons_visit(self, step: str, visit: int) -> bool:
        """Whether the turn cancels the jobs and children of this visit, also those that it starts."""
        return self.withdraw or (step, visit) in self.abandoned or (step, visit) in self.closed

    def gives_up(self, step: str, visit: int, index: int | None) -> bool:
        """Whether the turn cancels the child of this visit, or of this item."""
        return self.abandons_visit(step, visit) or (step, visit, index) in self.dropped


_RARE_FROM = Decision._fields.index("changes")
NOTHING_RARE = Decision("")[_RARE_FROM:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that decisions depend on. They are stored when an execution starts and stay as they are.

    A limit that is None does not apply: the execution started before the limit existed. If a rule changes, it gets a
    field here: the default is the new meaning, `BEFORE` has the old one.
    """

    max_visits: int = 10_000
    max_open_jobs: int = 10_000
    max_nesting: int = 32
    default_max_attempts: int = 1
    undefined_when: str = "error"
    retry_owner: str = "broker"  # or "worker": an error that a worker reports beside the job decides nothing
    template_max_output_chars: int = MAX_OUTPUT_CHARS
    template_max_steps: int = MAX_STEPS
    max_turns: int | None = None
    max_fan_out: int | None = None
    max_payload_keys: int | None = None
    max_signals: int = MAX_SIGNALS  # kept by one execution
    spent_fails: bool = False  # whether a failed visit fails the execution even if its token is spent
    failed_items: bool = True  # whether an iterator lists its failed items, and fails if all of them failed
    beside_noetl: bool = False  # inputs and event statuses as NoETL reads them

    def pinned(self) -> dict[str, JSON]:
        """The rules as they are stored with an execution; two only if they differ from the default."""
        kept = asdict(self)
        if self.max_signals == MAX_SIGNALS:
            del kept["max_signals"]
        if not self.beside_noetl:
            del kept["beside_noetl"]
        return kept


BEFORE = {"spent_fails": True, "failed_items": False}  # the rules of executions that do not store them


def stored_rules(document: Mapping[str, JSON]) -> Rules:
    """The rules that are stored with an execution; a missing one has its old meaning."""
    return Rules(**{**BEFORE, **document})
