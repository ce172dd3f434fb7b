"""The compiled playbook: the frozen types that the core reads, and nothing that needs YAML or a database.

A `Playbook` is made once per catalog version by `compile.compile_playbook` and shared by every execution of that
version, so nothing in it changes after it was made (the graph remembers answers, which is not a change).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.playbook.fields import Fields
    from noetl_broker.playbook.graph import Graph
    from noetl_broker.template import Path, Template, Tree

StepKind = Literal["action", "control", "playbook", "iterator"]
EntryKind = Literal["plain", "when", "else"]
Branch = Literal["plain", "then", "else"]
Join = Literal["all", "any", "each"]
OnError = Literal["fail", "continue"]
Raw = dict[str, Any]  # a mapping as the author wrote it: JSON with string keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs of one level (an action, a step, a transition), their aliases merged.

    Rendered in this order, later over earlier, key by key: `base`, `whole`, `keys`. `base` is None nearly always: it
    holds what stands under a `whole` (a workbook action's inputs under a step's that are one template, or a weaker
    alias of the same level). `whole` is one template that must give a mapping. `aliases` says which keys the author
    gave under which word (None: the whole), so that the job can keep that word beside `args`.
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
    inputs: Inputs = NO_INPUTS  # the entry's inputs as defaults under the target's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a `next` list: unconditional ("plain"), conditional ("when", with its `else`), or only `else`.

    `then` is empty for kind "else"; `otherwise` is what stands under `else`.
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

    `version` renders to an int or null (the latest), `return_step` names the step whose data is the answer.
    """

    path: Tree
    version: Tree | None = None
    return_step: Tree | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """How a step repeats its task over a collection.

    `expanded` is true where the broker makes one child or job per item (a `playbook` task, or `distribute: true`),
    false where one job goes to a worker, which iterates: its job is `Step.fields` and `Step.plain` as for any action.
    `task` is the task as a step of its own (kind "playbook" with a `call`, or "action"), without a `next`.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, its workbook action merged under it.

    `kind` says who runs it: "control" nobody, "action" a worker, "playbook" and "iterator" the broker (or, for an
    iterator that is not `expanded`, one worker). `type` is resolved: a workbook step has its action's; without one it
    is "start", "end" or "route". `join` is the effective one: None where at most one arc comes in and none was asked
    for, and for `end` without one of its own. `fields` are the task's keys to be rendered, `plain` those handed on as
    written (`code`, and what only the broker reads): the job's action is `fields` rendered, `plain` merged deeply over.
    """

    name: str
    index: int  # place in the workflow, from 0
    type: str
    kind: StepKind
    description: str | None = None
    next: tuple[Entry, ...] = ()
    exclusive: bool = False
    join: Join | None = None
    inputs: Inputs = NO_INPUTS
    reads_inputs: bool = False  # what is evaluated after its action may name an input of the visit (see needs.py)
    fields: Fields
    plain: Raw = field(default_factory=dict)
    on_error: OnError = "fail"
    timeout: float | None = None  # seconds, from the first lease of an attempt
    priority: int | None = None
    retry: Retry | None = None  # None: the setting default_max_attempts
    result: Tree | None = None  # `result` of `end`
    save_data: Tree | None = None  # `save.data` of `end`
    task_name: str | None = None  # the workbook action that it calls
    call: ChildCall | None = None  # kind "playbook"
    iteration: Iteration | None = None  # kind "iterator"
    raw: Raw = field(default_factory=dict)  # the step as written


@dataclass(frozen=True, slots=True, kw_only=True)
class Arc:
    """One arc from a step to the next, for the transition table and for pictures; parallel arcs all stand."""

    ordinal: int  # over all arcs in document order, from 0
    source: str
    target: str
    entry: int  # place of its entry in the source's `next`, from 0
    branch: Branch  # "then" and "else" stand beside a condition; an only-`else` entry is "else" without one
    condition: str | None = None  # the `when` of its entry as written
    inputs: Raw = field(default_factory=dict)  # the inputs as written, aliases merged, a whole template under "args"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One named action of the workbook, as written."""

    name: str
    type: str
    raw: Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Playbook:
    """One version of a playbook, ready to run."""

    path: str
    name: str
    workload: Mapping[str, Tree]  # the defaults, in the order they are rendered
    unfinished: Mapping[Path, str] = field(default_factory=dict)  # those that only a worker can finish, and their text
    steps: Mapping[str, Step]  # in document order
    start: Step
    end: Step | None
    graph: Graph
    arcs: tuple[Arc, ...]
    workbook: tuple[Action, ...] = ()
    max_visits: int | None = None
    deadline: float | None = None  # seconds
    priority: int | None = None
    document: Raw = field(default_factory=dict)
