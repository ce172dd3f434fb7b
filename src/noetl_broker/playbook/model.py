"""The compiled playbook: frozen types that the core reads.

`compile_playbook` makes one `Playbook` for each catalog version. All executions of the version share it, so it never
changes (the graph caches answers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from noetl_broker.playbook.diagnostics import Place
from noetl_broker.playbook.fields import Fields
from noetl_broker.playbook.graph import Graph
from noetl_broker.playbook.kinds import TRAITS, StepKind, WaitsFor
from noetl_broker.template import Path, Template, Tree

EntryKind = Literal["plain", "when", "else"]
Branch = Literal["plain", "then", "else", "catch"]
Join = Literal["all", "any", "each"]
Losers = Literal["run", "cancel"]
OnError = Literal["fail", "continue"]
Raw = dict[str, Any]  # a mapping as the author wrote it: JSON with string keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs of one level (an action, a step, a transition), their aliases merged.

    Rendered in this order, later over earlier, key by key: `base`, `whole`, `keys`. `whole` is one template that must
    give a mapping. `base` holds the inputs under a `whole`: the inputs of a workbook action, or of a weaker alias.
    `aliases` lists the keys under each of the author's words (None: all). The job keeps these words beside `args`.
    """

    base: Inputs | None = None
    whole: Tree | None = None
    keys: Mapping[str, Tree] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to render."""
        return not self.keys and self.whole is None and self.base is None


NO_INPUTS = Inputs(keys=MappingProxyType({}), aliases=MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One arc of the workflow as its source step sees it; `arc` is its ordinal in `Playbook.arcs`, from 0."""

    arc: int
    step: str
    inputs: Inputs = NO_INPUTS  # the target's own inputs, merged over its entry's inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a `next` or `catch` list: unconditional ("plain"), conditional ("when"), or only `else`.

    `then` are its targets, empty for kind "else"; `otherwise` are the targets under `else`.
    """

    kind: EntryKind
    condition: Template | None = None
    then: tuple[Target, ...] = ()
    otherwise: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When the broker tries a failed action again; delays in seconds."""

    max_attempts: int = 3
    initial_delay: float = 1.0
    backoff_multiplier: float = 2.0
    max_delay: float = 60.0
    jitter: bool = True
    retry_when: Template | None = None
    stop_when: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCall:
    """The playbook that a `type: playbook` step, or an iterator's `playbook` task, starts.

    `version` renders to an int or null (the latest), `return_step` names the step whose data is the answer. `block` is
    the path of the block that is called in place of `path`, in the version of its playbook.
    """

    path: Tree
    block: str | None = None
    version: Tree | None = None
    return_step: Tree | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitSpec:
    """The condition of a `wait` step: a duration, a moment, or a signal. Exactly one of the first three is set.

    `signals` renders to a name or a list of names, `key` to what the signal is about (None: the execution). `since` and
    `timeout` are durations.
    """

    duration: Tree | None = None
    until: Tree | None = None
    signals: Tree | None = None
    key: Tree | None = None
    when: Template | None = None
    since: Tree | None = None
    timeout: Tree | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalSpec:
    """The texts, the form and the time limit of an `approval` step; each part is rendered when the visit begins.

    `form` renders to a mapping of field names to JSON Schema. `approvers` renders to names and roles, `timeout` to a
    duration.
    """

    title: Tree | None = None
    details: Tree | None = None
    form: Tree | None = None
    approvers: Tree | None = None
    timeout: Tree | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """A throttle of jobs: at most `concurrency` of a key are leased at a time, at most `rate` a second begin.

    The playbook gives these numbers; the row of `noetl.limit` wins. `key` renders to a text, a number or a
    boolean (None: the empty text). `burst` None: what 100 ms allow, at least 1.
    """

    name: str
    key: Tree | None = None
    concurrency: int | None = None
    rate: float | None = None
    burst: int | None = None
    per_bucket: bool = False  # counts in each bucket by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSpec:
    """The signal that a `signal` step sends; without a `key` it is about the execution itself."""

    name: Tree
    key: Tree | None = None
    payload: Tree | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailSpec:
    """The error of a `fail` step: each part is rendered when the visit begins."""

    type: Tree | None = None
    message: Tree | None = None
    status_code: Tree | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnSignal:
    """The signals that start executions of a playbook: they have this name, and `when` is true for them."""

    signal: str
    when: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnFailure:
    """The playbook that starts when an execution has failed or is late; its payload has `args` and what happened."""

    path: str
    args: Mapping[str, Tree]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How many items of an iterator may fail: a count, or a percentage of all items."""

    count: int = 0
    percent: float | None = None

    def allows(self, failed: int, total: int) -> bool:
        """Whether the iterator goes on after so many failures."""
        return failed <= self.count if self.percent is None else failed * 100 <= self.percent * total

    @property
    def allows_all(self) -> bool:
        """Whether an iterator completes all of whose items failed."""
        return self.percent is not None and self.percent >= 100  # noqa: PLR2004 - all of them

    def __str__(self) -> str:
        """Give it as an author writes it."""
        return str(self.count) if self.percent is None else f"{self.percent:g}%"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCatch:
    """An entry of `catch` in the task of an iterator: an item that failed counts as done with `result`."""

    when: Template | None  # None: always
    result: Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """How a step repeats its task over a collection.

    `expanded`: the broker makes one child or job per item (a `playbook` task, or `distribute: true`). Otherwise one job
    goes to a worker, which iterates. `task` is the task as a step of its own (kind "playbook" with a `call`, or
    "action"), without a `next`.
    """

    collection: Tree  # renders to a list, or a mapping
    element: str
    task: Step
    expanded: bool
    distribute: bool = False
    mode: Literal["sequential", "async"] = "sequential"
    concurrency: int = 1  # open items at a time: 1 where sequential
    where: Template | None = None
    order_by: Template | None = None
    limit: Tree | None = None
    chunk: Tree | None = None
    enumerate: bool = False
    on_error: OnError = "fail"
    tolerate: Tolerance | None = None  # in place of `on_error`
    catch: tuple[ItemCatch, ...] = ()

    @property
    def keeps_calls(self) -> bool:
        """Whether a child of an item has a job that keeps its call and its time limit."""
        task = self.task
        return task.call is not None and bool(self.catch or task.retry is not None or task.timeout is not None)

    @property
    def reads_failed_inputs(self) -> bool:
        """Whether a template about a failed item is evaluated, which may read the inputs of the item."""
        retry = self.task.retry
        return bool(self.catch) or (retry is not None and not (retry.retry_when is None and retry.stop_when is None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, its workbook action merged under it.

    `kind` says who runs it: "action" a worker; "playbook", "iterator", "wait", "approval", "signal" and "fail" the
    broker; the others nobody. An iterator that one worker runs is an "action"; `start` and `end` with an action have
    the kind of that action. `type` is resolved: a workbook step has its action's; without one it is "start", "end" or
    "route". `join` is the effective one. It is None for a step without a join if that is `end` or has at most one
    incoming arc. A step that joins "any" runs at arrival `need`; `losers` says what becomes of the other tokens.
    `fields` are the task's keys to be rendered, `plain` those kept as written (`code`, and what only the broker reads).
    The job's action is the rendered `fields` with `plain` merged over them, at every level.
    """

    name: str
    index: int  # index in the workflow, from 0
    type: str
    kind: StepKind
    description: str | None = None
    next: tuple[Entry, ...] = ()
    catch: tuple[Entry, ...] = ()  # read when a visit failed for good; the first that is true is taken
    exclusive: bool = False
    join: Join | None = None
    need: int = 1
    losers: Losers = "run"
    inputs: Inputs = NO_INPUTS
    reads_inputs: bool = False  # a template after its action may name an input (see `inputs.reads_inputs`)
    fields: Fields
    plain: Raw = field(default_factory=dict)
    on_error: OnError = "fail"
    timeout: float | Tree | None = None  # seconds from the first lease of an attempt, or what gives a duration
    start_timeout: float | Tree | None = None  # in which a worker must lease the job
    late_after: float | Tree | None = None  # seconds from the beginning of a visit until an event says that it is late
    priority: int | None = None
    pool: str | Tree | None = None  # of workers; None: the playbook's
    retry: Retry | None = None  # None: the setting default_max_attempts
    result: Tree | None = None  # `result` of `end`
    save_data: Tree | None = None  # `save.data` of an `end` without an action
    output: Tree | None = None  # what is kept in place of the result of its action
    task_name: str | None = None  # the workbook action that it calls
    call: ChildCall | None = None  # kind "playbook"
    wait: WaitSpec | None = None  # kind "wait"
    approval: ApprovalSpec | None = None  # kind "approval"
    signal: SignalSpec | None = None  # kind "signal"
    throttle: Throttle | None = None  # of its jobs
    compensate: Step | None = None  # what undoes a visit, or an item if this is a task; kind "action" or "playbook"
    fail: FailSpec | None = None  # kind "fail"
    iteration: Iteration | None = None  # kind "iterator", or "action" where one worker iterates
    raw: Raw = field(default_factory=dict)  # the step as written

    @property
    def targets(self) -> Iterator[Target]:
        """The targets of its transitions and of its `catch`, by arc."""
        for entry in (*self.next, *self.catch):
            yield from entry.then
            yield from entry.otherwise

    @property
    def result_template(self) -> Tree | None:
        """The template that gives the execution's result where `end` was reached; None if none does."""
        return self.save_data if self.result is None else self.result

    @property
    def has_compensate(self) -> bool:
        """Whether the step, or each of its items, has an undo."""
        return self.compensate is not None or (
            self.iteration is not None and self.iteration.task.compensate is not None
        )

    @property
    def has_action(self) -> bool:
        """Whether a visit does something: false for routers, and for `start` and `end` without an action."""
        return TRAITS[self.kind].has_action

    @property
    def waits_for(self) -> WaitsFor:
        """The source of an open visit's end: a worker, a child execution, items or an event."""
        return TRAITS[self.kind].waits_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Arc:
    """One arc from a step to the next, for the transition table and for diagrams; parallel arcs are separate."""

    ordinal: int  # over all arcs in document order, from 0
    source: str
    target: str
    entry: int  # index of its entry in the source's `next` or `catch`, from 0
    branch: Branch  # "then" and "else" have a condition; of an only-`else` entry "else" without one; "catch"
    condition: str | None = None  # the `when` of its entry as written
    inputs: Raw = field(default_factory=dict)  # as written, aliases merged; one template for all is under "args"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One named action of the workbook, as written."""

    name: str
    type: str
    raw: Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """How many executions of one key run at once. Without `key` the limit counts all executions of the playbook."""

    key: Tree | None
    label: str  # the name of the value that `key` reads, or nothing
    limit: int
    on_limit: str  # queue, skip, cancel_running or fail
    per_bucket: bool = False  # counts in each bucket by itself


class CallAt(NamedTuple):
    """A playbook that a step or `on_failure` starts by a literal path, and where; version None: the latest."""

    path: str
    version: int | None
    place: Place


class BucketNeeds(NamedTuple):
    """What an installation with buckets asks of a playbook, and what else it must know.

    `home` is the place of metadata.bucket. `limits` has each `concurrency` and `throttle` that is not `per_bucket`.
    """

    home: Place
    limits: tuple[tuple[str, Place], ...]
    calls: tuple[CallAt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Playbook:
    """One version of a playbook, ready to run."""

    path: str
    name: str
    workload: Mapping[str, Tree]  # the defaults, in the order they are rendered
    deferred: Mapping[Path, str] = field(default_factory=dict)  # the defaults that a worker renders, and their text
    workload_schema: Raw | None = None  # that the merged workload of a start fits (`value_schema`)
    steps: Mapping[str, Step]  # in document order
    start: Step
    end: Step | None
    graph: Graph
    arcs: tuple[Arc, ...]
    workbook: tuple[Action, ...] = ()
    max_visits: int | None = None
    deadline: float | Tree | None = None  # seconds, or a template of a duration that reads the workload
    late_after: float | Tree | None = None  # likewise; an event then says that the execution is late
    late_steps: bool = False  # a step has a `late_after`
    keeps_timers: bool = False  # an open visit may have a timer or a wait
    leaves_timers: bool = False  # a timer may be left when all visits have ended
    priority: int | None = None
    pool: str | Tree | None = None  # of the workers that run its jobs; None: DEFAULT_POOL
    on_signal: tuple[OnSignal, ...] = ()
    on_failure: OnFailure | None = None
    on_late: OnFailure | None = None
    blocks: Mapping[str, Playbook] = field(default_factory=dict)  # by the step that has it; each is `path#step`
    concurrency: Concurrency | None = None
    tags: Mapping[str, Tree] = field(default_factory=dict)  # templates that read the workload
    bucket: str | None = None  # all executions of playbooks with this text live in one bucket
    needs: BucketNeeds | None = None  # None: of a block, whose playbook has them
    undoes: bool = False  # a step, or a step of a block, has a `compensate`
    document: Raw = field(default_factory=dict)

    @property
    def names_pools(self) -> bool:
        """Whether the playbook, a step or a block says which pool of workers runs jobs."""
        steps = [*self.steps.values()]
        tasks = [step.iteration.task for step in steps if step.iteration is not None]
        every = [*steps, *tasks, *(one.compensate for one in (*steps, *tasks) if one.compensate is not None)]
        return (
            self.pool is not None
            or any(step.pool is not None for step in every)
            or any(block.names_pools for block in self.blocks.values())
        )
