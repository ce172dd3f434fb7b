"""What flows through the core: the event that comes in, and the decision that goes out.

The nouns of the hot path are named tuples: a frozen dataclass of ten fields costs five times as much to make, and a
turn makes a dozen. The core knows no database ids: a visit is a step and a number, an event of the past is the number
of the turn that read it, and a time is the place of an event within its turn.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.template import MAX_OUTPUT_CHARS, MAX_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

JSON = Any  # None | bool | int | float | str | list | dict, checked where it enters


def as_stored(value: JSON) -> JSON:
    """The value with the keys of its mappings in the order in which jsonb keeps them: shorter first, then by bytes.

    What a template sees must not depend on whether it comes from the database or was decided a moment ago.
    """
    if isinstance(value, dict):
        return {key: as_stored(value[key]) for key in sorted(value, key=_rank_of_key)}
    return [as_stored(item) for item in value] if isinstance(value, list) else value


def _rank_of_key(key: str) -> tuple[int, bytes]:
    encoded = key.encode()
    return len(encoded), encoded


EXECUTION_START = "execution_start"
EXECUTION_CANCEL = "execution_cancel"
EXECUTION_DEADLINE = "execution_deadline"
ACTION_COMPLETED = "action_completed"
ACTION_FAILED = "action_failed"
CHILD_DUE = "child_due"
ITEM_COMPLETED = "execution_complete"
ITEM_FAILED = "execution_failed"
ITERATION_DUE = "iteration_due"
ITERATION_STARTED = "iteration_started"
ITERATOR_COMPLETED = "iterator_completed"
STEP_RESULT = "step_result"

# Every name that a producer or a worker may use for an event, and the one name that the core uses.
ALIASES = {
    "execution_start": EXECUTION_START,
    "execution_started": EXECUTION_START,
    "playbook_started": EXECUTION_START,
    "execution_cancel": EXECUTION_CANCEL,
    "execution_deadline": EXECUTION_DEADLINE,
    "action_completed": ACTION_COMPLETED,
    "action_failed": ACTION_FAILED,
    "action_error": ACTION_FAILED,
    "child_due": CHILD_DUE,
    "execution_complete": ITEM_COMPLETED,
    "execution_completed": ITEM_COMPLETED,
    "playbook_completed": ITEM_COMPLETED,
    "execution_failed": ITEM_FAILED,
}


def kind_of(event_type: str) -> str:
    """The one name that the core uses for a type of event, as its sender wrote it: any alias, in any case."""
    kind = ALIASES.get(event_type)  # as nearly all write it
    if kind is None:
        lowered = event_type.lower()
        kind = ALIASES.get(lowered, lowered)
    return kind


MAX_PAYLOAD_BYTES = 16 << 20  # of an event's context as JSON text, and of its meta; also in the SQL that reads them
MAX_PATH_CHARS = 1024  # of a playbook's path; also in the SQL that looks for it
MAX_RESULT_BYTES = 2 << 20  # of a result as JSON text; also in the SQL through which it comes in


class Turn(NamedTuple):
    """The only time and the only source of ids that a decision may use; `number` counts from 1 in an execution."""

    execution_id: int
    number: int
    at: datetime


class Event(NamedTuple):
    """A fact that the broker reads.

    `type` is as written by its sender. `result` is NOT_LOADED where the shell left it in the database for now.
    `attempt` is the lease that it speaks of (0: not said); `settled`: its sender has already changed the job's row;
    `broken`: its context or result was no JSON.
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
    place: int | None = None  # of an item of an iterator, from 0
    stale: bool = False  # it speaks of another lease than the job's, and its sender did not go through the job
    bytes_over: int = 0  # the bytes of its result, where they are more than MAX_RESULT_BYTES
    oversize: str = ""  # what of it was not read because it is too large, and its bytes: `context 50000012`

    @property
    def kind(self) -> str:
        """The event's type under the one name that the core uses for it."""
        return kind_of(self.type)


class Emitted(NamedTuple):
    """An event that the broker writes; `step` is None for one that speaks of the whole execution."""

    type: str
    status: str
    step: str | None = None
    visit: int = 0
    node_type: str = "playbook"
    meta: dict[str, JSON] | None = None
    result: JSON = None
    error: JSON = None
    context: dict[str, JSON] | None = None


class Job(NamedTuple):
    """One job for a worker; `ordinal` is the place of its step_started in the turn, `timeout` in seconds."""

    step: str
    visit: int
    node_type: str
    ordinal: int
    action: dict[str, JSON]
    context: dict[str, JSON]
    priority: int
    max_attempts: int
    timeout: float | None
    delegated: bool = False  # no worker is given it: the broker runs the step
    place: int | None = None  # of an item of an iterator, from 0


class Child(NamedTuple):
    """Another execution to be started for a visit; `place` is its place in an iterator, from 0, None without one.

    `ordinal` is the place of its iteration_started in the turn.
    `meta` goes into its execution_start: {parent: {depth, return_step, attempt}}.
    """

    step: str
    visit: int
    place: int | None
    path: str
    version: int | None
    payload: dict[str, JSON]
    meta: dict[str, JSON]
    ordinal: int | None = None


class Items(NamedTuple):
    """The items of an iterator, chosen once, when its visit begins."""

    step: str
    visit: int
    values: list[JSON]


class Adoption(NamedTuple):
    """A child that a worker started for a visit, which from now on waits for it; `place` in the results, from 0."""

    step: str
    visit: int
    place: int
    child_execution_id: int


class ItemEnd(NamedTuple):
    """An item of an iterator ended; the event of this turn carries its result. Status COMPLETED or FAILED.

    `error` is what `{{ it.failed }}` tells of one that failed, cut where it is long.
    """

    step: str
    visit: int
    place: int
    status: str
    error: JSON = None


class Post(NamedTuple):
    """A letter of the execution to itself: `iteration_due`, or `iterator_completed` with the gathered results."""

    type: str
    step: str
    visit: int


class JobChange(NamedTuple):
    """What becomes of a job: `retry` after `delay` seconds, `dead`, or `done` where its sender left that to us."""

    step: str
    visit: int
    status: str
    delay: float = 0.0
    place: int | None = None  # of an item of an iterator, from 0


class Row(NamedTuple):
    """The tracking row of one step after the turn; `started` and `ended` are places among the turn's events.

    `result_visit`: this visit has just got a result, which the event of this turn carries, or its `failed` one; or
    (`taken`) which a fork brought along, and the row names already.
    """

    step: str
    status: str
    visits: int
    started: int | None = None
    ended: int | None = None
    result_visit: int | None = None
    taken: bool = False


class Begun(NamedTuple):
    """What is written once, at the start of an execution; `deadline` in seconds from now."""

    workload: dict[str, JSON]
    deadline: float | None


class Ended(NamedTuple):
    """How an execution ended: status COMPLETED, FAILED or CANCELLED, with its result or its error."""

    status: str
    result: JSON = None
    error: dict[str, JSON] | None = None
    answer: JSON = None  # what a parent is told: the result, or the data of its `return_step`, as an action tells it


class Decision(NamedTuple):
    """Everything that one turn writes.

    `outcome` is "decided", or why the event changed nothing; `withdraw`: the jobs that no worker holds are taken back,
    and all children are cancelled; `abandoned`: the children of these visits are. `failed`: where what the event ended
    failed for good, the place of its step_failed, which then carries the result of the visit: no data, and the error.
    """

    outcome: str
    note: str | None = None
    events: tuple[Emitted, ...] = ()
    jobs: tuple[Job, ...] = ()
    changes: tuple[JobChange, ...] = ()
    rows: tuple[Row, ...] = ()
    begun: Begun | None = None
    ended: Ended | None = None
    withdraw: bool = False
    children: tuple[Child, ...] = ()
    abandoned: tuple[tuple[str, int], ...] = ()
    items: tuple[Items, ...] = ()
    item_ends: tuple[ItemEnd, ...] = ()
    posts: tuple[Post, ...] = ()
    adoptions: tuple[Adoption, ...] = ()
    failed: int | None = None

    def gives_up(self, step: str, visit: int) -> bool:
        """Whether nobody waits any more for jobs and children of this visit, those of this very turn too."""
        return self.withdraw or (step, visit) in self.abandoned


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that decide: pinned when an execution starts, so that a later change of them changes no history.

    A bound that is None holds nobody: that is how an execution stands which started before there was this bound.
    A rule that changed its meaning has a field here: its default is the new meaning, `BEFORE` has the old one.
    """

    max_visits: int = 10_000
    max_open_jobs: int = 10_000
    max_nesting: int = 32
    default_max_attempts: int = 1
    undefined_when: str = "error"
    retry_owner: str = "broker"  # or "worker": an error that it reports by itself decides nothing
    template_max_output_chars: int = MAX_OUTPUT_CHARS
    template_max_steps: int = MAX_STEPS
    max_turns: int | None = None
    max_fan_out: int | None = None
    max_payload_keys: int | None = None
    spent_fails: bool = False  # whether the failure of a spent token fails its execution
    failed_items: bool = True  # whether an iterator tells its failed items, and fails where all of them failed
    beside_noetl: bool = False  # inputs where a NoETL worker looks, statuses of events as a NoETL API reads them

    def pinned(self) -> dict[str, JSON]:
        """What is kept with an execution: `beside_noetl` only where it is so, as nothing of old executions says it."""
        kept = asdict(self)
        if not self.beside_noetl:
            del kept["beside_noetl"]
        return kept


BEFORE = {"spent_fails": True, "failed_items": False}  # what an execution decides by whose rules do not name it


def stored_rules(document: Mapping[str, JSON]) -> Rules:
    """The rules that were pinned with an execution; one that they do not name decides as before there was it."""
    return Rules(**{**BEFORE, **document})
