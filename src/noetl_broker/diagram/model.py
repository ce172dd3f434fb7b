"""The content of a diagram: nodes for steps and edges for transitions, with their state in an execution."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from noetl_broker.history.path import ExecutionPath, Outcomes, StepStatus
from noetl_broker.playbook.kinds import StepKind
from noetl_broker.playbook.model import Join

Shape = StepKind  # each kind of step has a shape
# "unless" is the `else` of a condition's own entry; "else" and "otherwise" fire if no condition was true. "catch" is
# taken when the step failed.
Manner = Literal["plain", "when", "unless", "else", "otherwise", "catch"]
# "unreached" is "pending" after the end of the execution; "went_on" failed and its token continued.
State = Literal[
    "pending",
    "unreached",
    "waiting",
    "queued",
    "held",
    "asking",
    "due_later",
    "running",
    "retrying",
    "completed",
    "failed",
    "went_on",
    "cancelled",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """A step in an execution: its state in the diagram, and what the state is derived from.

    `seconds` are of the latest visit, so far while it is running. `again_at` is when a failed action is retried.
    """

    state: State
    step: StepStatus
    seconds: float | None = None
    retries: int = 0
    again_at: datetime | None = None
    worker: str | None = None
    message: str | None = None  # of the last error
    undo: str = ""  # how far its undo is


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagramNode:
    """A step; `id` is n0, n1, … and not the step's name."""

    id: str
    step: str
    shape: Shape
    type: str
    task: str = ""  # what it calls: a workbook action or a playbook
    each: str = ""  # of an iterator: its element and its concurrency
    description: str | None = None
    join: Join | None = None
    need: int = 1  # of a join `any`
    cancels: bool = False  # a join `any` that cancels its losers
    exclusive: bool = False
    continues: bool = False  # on_error: continue
    attempts: int | None = None  # where there are several
    undo: str = ""  # what undoes it, or each of its items
    progress: StepProgress | None = None  # None in the diagram of a playbook


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A transition; `source` and `target` are ids of nodes.

    `order` is its place from 1 among exclusive conditions. `taken` counts; it is None in the diagram of a playbook and
    where the count is `unknown`. `outcomes` count how often the condition was true and false.
    """

    ordinal: int
    source: str
    target: str
    manner: Manner
    condition: str | None = None
    order: int | None = None
    taken: int | None = None
    unknown: bool = False
    outcomes: Outcomes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The diagram of a playbook, or of an execution of it (`execution`); `blocks` are the diagrams of its blocks."""

    path: str
    version: int | None
    nodes: tuple[DiagramNode, ...]
    edges: tuple[Edge, ...]
    execution: ExecutionPath | None = None
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The diagram of a block, and the node of the step that has it."""

    node: DiagramNode
    picture: Picture


def has_catch(picture: Picture) -> bool:
    """Whether a step of the diagram or of its blocks has a `catch`."""
    own = any(edge.manner == "catch" for edge in picture.edges)
    return own or any(has_catch(block.picture) for block in picture.blocks)


def as_document(picture: Picture) -> dict[str, Any]:
    """The diagram as one JSON object; times remain datetimes."""
    steps = {node.id: node.step for node in picture.nodes}
    document: dict[str, Any] = {"path": picture.path, "version": picture.version}
    if picture.execution is not None:
        document.update(_execution(picture.execution))
    document["nodes"] = [_node(node) for node in picture.nodes]
    document["arcs"] = [_edge(edge, steps) for edge in picture.edges]
    if picture.blocks:
        document["blocks"] = {block.node.step: as_document(block.picture) for block in picture.blocks}
    return document


def _execution(path: ExecutionPath) -> dict[str, Any]:
    return {
        "execution_id": path.execution_id,
        "status": path.status,
        "started_at": path.started_at,
        "ended_at": path.ended_at,
        "read_at": path.read_at,
        "seconds": path.seconds,
        "parent_execution_id": path.parent_execution_id,
        "failed_step": path.failed_step,
        "message": path.message,
    }


def _node(node: DiagramNode) -> dict[str, Any]:
    document: dict[str, Any] = {
        "step": node.step,
        "shape": node.shape,
        "type": node.type,
        "task": node.task or None,
        "each": node.each or None,
        "description": node.description,
        "join": node.join,
        "need": node.need if node.join == "any" else None,
        "losers": None if node.join != "any" else "cancel" if node.cancels else "run",
        "next_mode": "exclusive" if node.exclusive else "inclusive",
        "on_error": "continue" if node.continues else "fail",
        "max_attempts": node.attempts,
    }
    if node.undo:
        document["compensate"] = node.undo
    progress = node.progress
    if progress is not None and progress.undo:
        document["undo"] = progress.undo
    if progress is not None:
        step = progress.step
        document |= {
            "state": progress.state,
            "status": step.status,
            "visits": step.visits,
            "started_at": step.started_at,
            "ended_at": step.ended_at,
            "seconds": progress.seconds,
            "retries": progress.retries,
            "arrived": step.arrived,
            "again_at": progress.again_at,
            "worker": progress.worker,
            "children": step.children,
            "message": progress.message,
            "items": None if step.items is None else step.items._asdict(),
        }
    return document


def _edge(edge: Edge, steps: dict[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "ordinal": edge.ordinal,
        "from": steps[edge.source],
        "to": steps[edge.target],
        "manner": edge.manner,
        "condition": edge.condition,
    }
    if edge.taken is not None or edge.unknown:
        document["taken"] = edge.taken
        document["outcomes"] = None if edge.outcomes is None else edge.outcomes._asdict()
    return document
