"""What a picture shows, before it is known how: steps and the arcs between them, with what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from noetl_broker.broker.course import Items, Outcomes
from noetl_broker.playbook.model import Join

Shape = Literal["start", "end", "router", "action", "playbook", "iterator"]
# "unless" is what stands under the `else` of a condition's own entry; "else" and "otherwise" fire if no condition held.
Manner = Literal["plain", "when", "unless", "else", "otherwise"]
# "unreached" is what "pending" is called once the execution is over; "went_on" failed and let its token go on.
State = Literal[
    "pending",
    "unreached",
    "waiting",
    "queued",
    "running",
    "retrying",
    "completed",
    "failed",
    "went_on",
    "cancelled",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """What became of a step in an execution; times and `seconds` are of its latest visit.

    `arrived`: tokens that wait before the join. `again_at`: when a failed action is tried again.
    """

    state: State
    status: str  # as in noetl.workflow
    visits: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: float | None = None  # so far, where it still runs
    retries: int = 0
    arrived: int = 0
    again_at: datetime | None = None
    worker: str | None = None
    items: Items | None = None
    children: tuple[int, ...] = ()
    message: str | None = None  # of the last error


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One step; `id` is ours (n0, n1, …), whatever the step is called."""

    id: str
    step: str
    shape: Shape
    type: str
    task: str = ""  # what it calls: an action of the workbook, or a playbook
    each: str = ""  # of an iterator: for what it does its task, and for how many at a time
    description: str | None = None
    join: Join | None = None
    exclusive: bool = False
    continues: bool = False  # on_error: continue
    attempts: int | None = None  # where it may be tried again
    stay: Stay | None = None  # None in the picture of a playbook


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One arc; `source` and `target` are ids of nodes.

    `order`: its place among conditions of which only the first that holds counts, from 1. `taken` is None in the
    picture of a playbook, and where nothing tells (`unsure`). `outcomes`: how often the condition held, and did not.
    """

    ordinal: int
    source: str
    target: str
    manner: Manner
    condition: str | None = None
    order: int | None = None
    taken: int | None = None
    unsure: bool = False
    outcomes: Outcomes | None = None


class Run(NamedTuple):
    """The execution of a picture, as it was at `read_at`; `seconds` so far, where it still runs."""

    execution_id: int
    status: str
    started_at: datetime
    ended_at: datetime | None
    read_at: datetime
    seconds: float
    parent_execution_id: int | None
    failed_step: str | None
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A playbook, or an execution of it (`run`), ready to be drawn."""

    path: str
    version: int | None
    nodes: tuple[Node, ...]
    lines: tuple[Line, ...]
    run: Run | None = None


def as_document(picture: Picture) -> dict[str, Any]:
    """Give the picture as one JSON object; moments stay what they are."""
    steps = {node.id: node.step for node in picture.nodes}
    document: dict[str, Any] = {"path": picture.path, "version": picture.version}
    if picture.run is not None:
        document.update(picture.run._asdict())
    document["nodes"] = [_node(node) for node in picture.nodes]
    document["arcs"] = [_arc(line, steps) for line in picture.lines]
    return document


def _node(node: Node) -> dict[str, Any]:
    document: dict[str, Any] = {
        "step": node.step,
        "shape": node.shape,
        "type": node.type,
        "task": node.task or None,
        "each": node.each or None,
        "description": node.description,
        "join": node.join,
        "next_mode": "exclusive" if node.exclusive else "inclusive",
        "on_error": "continue" if node.continues else "fail",
        "max_attempts": node.attempts,
    }
    stay = node.stay
    if stay is not None:
        names = (
            *("state", "status", "visits", "started_at", "ended_at", "seconds", "retries", "arrived", "again_at"),
            *("worker", "children", "message"),
        )
        document.update({name: getattr(stay, name) for name in names})
        document["items"] = None if stay.items is None else stay.items._asdict()
    return document


def _arc(line: Line, steps: dict[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "ordinal": line.ordinal,
        "from": steps[line.source],
        "to": steps[line.target],
        "manner": line.manner,
        "condition": line.condition,
    }
    if line.taken is not None or line.unsure:
        document["taken"] = line.taken
        document["outcomes"] = None if line.outcomes is None else line.outcomes._asdict()
    return document
