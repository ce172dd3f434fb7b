"""Effects: what a turn writes beside its events, jobs and tracking rows. Each kind is one named tuple.

A rule adds an effect to the draft, `draft.add(WaitOpened(…))`. `EFFECTS` in the store says how each kind is written.
Few turns have any. A position is the index of an event that the turn emits, from 0.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple, TypeAlias, TypeVar

from noetl_broker.broker.model.values import JSON

OWN_VERSION: Final = 0  # of a child: the version of its parent. The child is a block of the same playbook


# The execution


class OnFailureStart(NamedTuple):
    """An execution that starts because one failed or is late: a playbook's latest version. It is no child."""

    path: str
    payload: dict[str, JSON]


class ExecutionBegun(NamedTuple):
    """The execution begins with this workload, or is refused.

    Its `deadline` and its `late_after` begin too: in seconds from now. `tags`: all that it has, where its playbook
    gives it any.
    """

    workload: dict[str, JSON]
    deadline: float | None = None
    tags: dict[str, str] | None = None
    late_after: float | None = None


class StatusChanged(NamedTuple):
    """The execution goes on living with a new status: PAUSED, QUEUED, RUNNING or COMPENSATING.

    `admitted`: it was queued. Its `deadline` and its `late_after` begin (seconds; None: none).
    `waits`: it is queued for a slot (true), or for its moment (false); None: for neither. `until`: that moment.
    """

    status: str
    admitted: bool = False
    deadline: float | None = None
    waits: bool | None = None
    until: datetime | None = None
    late_after: float | None = None


class Slot(NamedTuple):
    """A slot that an execution wants, waits for or holds: `limit` executions of one path and key hold one at once.

    `on_limit`: what becomes of the execution if none is free. `number`: its number in the line; 0: not asked for yet.
    `label`: the name of the value that the key is, if it has one.
    """

    path: str
    key: str
    limit: int = 1
    on_limit: str = "queue"
    number: int = 0
    label: str = ""


class SlotsChanged(NamedTuple):
    """The slots of the execution are held, waiting, returned (it is paused), or freed (it has ended)."""

    what: str
    slots: tuple[Slot, ...]


class FactsUsed(NamedTuple):
    """The turn was told these facts beside its event. They are stored with it, for a replay."""

    facts: dict[str, JSON]


class EventPosted(NamedTuple):
    """The execution sends itself an event: `iteration_due`, or `iterator_completed` with the gathered results."""

    type: str
    step: str
    visit: int


# Work that is over


class WorkCancelled(NamedTuple):
    """The execution ends, or compensates from now on: jobs that no worker holds, and all children, are cancelled.

    Undo jobs and their children go on, unless the execution ends.
    """


class VisitCancelled(NamedTuple):
    """A visit ended without a result: its jobs, its wait, and its items and children are cancelled."""

    step: str
    visit: int


class ItemsCancelled(NamedTuple):
    """The items and children of a visit are cancelled. Undo jobs and their children go on."""

    step: str
    visit: int


class VisitDrained(NamedTuple):
    """A visit is over, but its late success is to be undone: it, or each started item of it, sends one event more.

    The visit, its items or all work is cancelled too. A worker that has leased its job is not told to stop, and
    a lost lease is final at once: `action_failed` with error.type `lost_lease`. A job that no worker has is cancelled,
    and `action_failed` with error.type `cancelled` is sent in the same transaction; for a child that the batch cancels
    before it starts, too. Its open children are cancelled by an event, and answer when they have ended. A `delegated`
    job of a visit sends nothing itself.
    """

    step: str
    visit: int


# Jobs


class JobChanged(NamedTuple):
    """A job has a new status: `retry` after `delay` seconds, `delegated`, `dead`, or `done`.

    For an undo job (`undo`), `dead` also tells its worker to stop; `dead` and `delegated` cancel the child that runs.
    """

    step: str
    visit: int
    status: str
    delay: float = 0.0
    item_index: int | None = None  # of an item of an iterator, from 0
    undo: bool = False  # the job that undoes the visit or item
    attempt: int = 0  # the last that failed; the next lease is a later one, also if nobody had leased this one


# Children


class ChildStarted(NamedTuple):
    """A child execution starts for a visit, or for an item of an iterator (`item_index`, from 0).

    `version`: None is the latest, OWN_VERSION the parent's. `ordinal` is the position of its iteration_started.
    `meta` goes into its execution_start: {parent: {depth, return_step, attempt}}. `undo`: it undoes the visit
    or item, and `parent` has `undoes`, so that no pause of its path holds it. Its answer is an `action_completed` or
    `action_failed`, also that of an item, with the node_id of the undo job.
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


class ChildAdopted(NamedTuple):
    """A worker started a child execution, and the visit waits for it. `item_index` is its index in the results."""

    step: str
    visit: int
    item_index: int
    child_execution_id: int


class ChildUndone(NamedTuple):
    """A child that has ended is sent an `execution_undo` with this context: it undoes what it did.

    With `answer` in the context, the execution waits for an answer of this number. Without, nobody waits: the child
    completed after its visit was cancelled. Then it is sent nothing if a row of `noetl.undo` names it.
    """

    child_execution_id: int
    context: dict[str, JSON]


class ChildUndoAbandoned(NamedTuple):
    """A child that was sent an `execution_undo` is sent an `execution_abandon`."""

    child_execution_id: int


# Items of iterators


class ItemsChosen(NamedTuple):
    """The items of an iterator, chosen when its visit begins."""

    step: str
    visit: int
    values: list[JSON]


class ItemEnded(NamedTuple):
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


class ItemRetried(NamedTuple):
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


class ItemChildCancelled(NamedTuple):
    """The child of an item is cancelled, and the item goes on or has ended: the child timed out and may still run."""

    step: str
    visit: int
    item_index: int


# Waits


class WaitOpened(NamedTuple):
    """A wait began: a row keeps the visit's `request` (its inputs), and says what ends it.

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


class WaitEnded(NamedTuple):
    """A wait is over: status done, timed_out, or cancelled."""

    step: str
    visit: int
    status: str


class WaitReopened(NamedTuple):
    """A wait did not take the signal that came to it, and waits on."""

    step: str
    visit: int


class TimerSet(NamedTuple):
    """The execution gets an event about a visit at this moment; purpose: wait, timeout, signals or late.

    `is_moment`: the playbook gives the moment itself, not how long to wait.
    """

    step: str
    visit: int
    purpose: str
    due: datetime
    is_moment: bool = False


class ReportedLate(NamedTuple):
    """The execution, or a visit of this step, is late. `starts`: what `metadata.on_late` starts."""

    step: str | None
    visit: int
    starts: OnFailureStart | None = None


class LateTimerEnded(NamedTuple):
    """A visit with a `late_after` is over: its timer is deleted."""

    step: str
    visit: int


class SignalSent(NamedTuple):
    """A step sends a signal; `own`: it is about the execution itself, and is kept until that ends."""

    step: str
    visit: int
    name: str
    key: str
    payload: JSON
    hops: int
    own: bool = False


class SignalConditionFailed(NamedTuple):
    """The `when` of a wait could not be evaluated for a signal. A metric counts these."""

    step: str
    visit: int


# Undo


class UndoNoted(NamedTuple):
    """A visit, or an item (`item_index`), is to be undone: a new row of `noetl.undo`.

    status `open`: its action or child reported success in this turn. `unknown`: it never did, but an attempt timed out
    or lost its lease. The row has the number of this turn, which is the order of undoing: last first. A row that the
    visit or item has already is replaced, with its turn. A visit or item without a `compensate` has `children`, which
    undo what they did: one for each start that left something, the last one last. An open row without an index replaces
    rows of the items and children of its visit: they become `superseded`, if they are open.
    """

    step: str
    visit: int
    item_index: int | None = None
    status: str = "open"
    children: tuple[int, ...] = ()


class UndoChanged(NamedTuple):
    """A row of `noetl.undo` has a new status: running, done, failed (with its error), unknown, or settled by hand.

    If a later undo may read it, it has the other fields of the row.
    """

    step: str
    visit: int
    item_index: int | None
    status: str
    error: JSON = None
    turn: int = 0
    children: tuple[int, ...] = ()
    unsure: bool = False


class UndoBegun(NamedTuple):
    """An execution that has ended undoes what it did: failed rows are open again, with `unknown` also unknown ones."""

    unknown: bool


class UndoStatusChanged(NamedTuple):
    """How the undo of an execution stands that has ended: undoing, undone, or left."""

    status: str


class UndoEnded(NamedTuple):
    """The undo of an execution that had ended before is over; `error` is None if nothing failed.

    `answer`: the parent waits for the end of the undo with this number; 0: it does not. `on_failure` starts because the
    undo failed.
    """

    answer: int
    error: dict[str, JSON] | None = None
    on_failure: OnFailureStart | None = None


Effect: TypeAlias = (
    ExecutionBegun
    | StatusChanged
    | SlotsChanged
    | FactsUsed
    | EventPosted
    | WorkCancelled
    | VisitCancelled
    | ItemsCancelled
    | VisitDrained
    | JobChanged
    | ChildStarted
    | ChildAdopted
    | ChildUndone
    | ChildUndoAbandoned
    | ItemsChosen
    | ItemEnded
    | ItemRetried
    | ItemChildCancelled
    | WaitOpened
    | WaitEnded
    | WaitReopened
    | TimerSet
    | ReportedLate
    | LateTimerEnded
    | SignalSent
    | SignalConditionFailed
    | UndoNoted
    | UndoChanged
    | UndoBegun
    | UndoStatusChanged
    | UndoEnded
)
Kind = TypeVar("Kind", bound=Effect)
