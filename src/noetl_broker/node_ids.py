"""The names of visits, items and undos: as the database has them, and as people write them.

| what | node id in the database | as people write it |
|---|---|---|
| the first visit of a step | `7:fetch` | `fetch` |
| its second visit | `7:fetch#2` | `fetch#2` |
| item 3 of the first visit | `7:fetch#1.3` | `fetch[3]` |
| item 3 of the second visit | `7:fetch#2.3` | `fetch#2[3]` |
| the undo of the second visit | `7:fetch#2!undo` | `fetch#2!undo` |
| the undo of an item of the first visit | `7:fetch#1.3!undo` | `fetch[3]!undo` |

The name of a step has no `#` and no `:`, and does not end in `!undo`. The same rules are in
`migrations/0002_shared_functions.sql`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from noetl_broker.errors import OperatorFault

MARK = "#"  # between a step and the number of its visit
UNDO_SUFFIX = "!undo"  # of the node and the name of an undo job
FORBIDDEN_IN_STEPS = frozenset(f"{MARK}:")
_NODE = re.compile(
    r"(?P<step>[^#]*?)(?:#(?P<visit>[1-9][0-9]{0,8}))?(?:\[(?P<index>[0-9]{1,9})\])?(?P<undo>!undo)?", re.DOTALL
)


class Node(NamedTuple):
    """What a node id names: a visit of a step, or an item of it."""

    step: str | None
    visit: int | None
    item_index: int | None = None


NOWHERE = Node(None, None)


class ItemName(NamedTuple):
    """An item of an iterator; `visit` is None for the latest."""

    step: str
    visit: int | None
    item_index: int


def node_id(execution_id: int, step: str, visit: int, index: int | None = None, *, undo: bool = False) -> str:
    """The id of a visit, of an item, or of the job that undoes it. Only the id of a visit leaves `#1` out."""
    if visit == 1 and index is None and not undo:
        return f"{execution_id}:{step}"
    return f"{execution_id}:{step}#{visit}{'' if index is None else f'.{index}'}{UNDO_SUFFIX if undo else ''}"


def item_node_id(visit_node_id: str, index: int) -> str:
    """The id of an item of a visit."""
    return f"{_numbered(visit_node_id)}.{index}"


def items_prefix(visit_node_id: str) -> str:
    """How the ids of the items of a visit and of their undos begin."""
    return f"{_numbered(visit_node_id)}."


def _numbered(visit_node_id: str) -> str:
    return visit_node_id if MARK in visit_node_id else f"{visit_node_id}#1"


def job_node_id(execution_id: int, step: str, visit: int, index: int | None = None) -> str:
    """The id of a job's node, where the step of an undo job has `!undo` at its end. The inverse of `node_of_job`."""
    undo = step.endswith(UNDO_SUFFIX)
    return node_id(execution_id, step.removesuffix(UNDO_SUFFIX), visit, index, undo=undo)


def node_of_job(node: str) -> tuple[str, int, int | None]:
    """The step, visit and index in the node id of a job; an invalid id counts as a step's name.

    The step of an undo job has `!undo` at its end.
    """
    undone = undone_node(node)
    step, visit, index = parse_node(undone or node, node)
    return (step or node) + ("" if undone is None else UNDO_SUFFIX), visit or 1, index


def undone_node(node: str | None) -> str | None:
    """The node that a job undoes; None if it undoes nothing. A step may be called `x!undo`, but its name has no `#`."""
    if node is None or not node.endswith(UNDO_SUFFIX):
        return None
    undone = node.removesuffix(UNDO_SUFFIX)
    parsed = parse_node(undone, None)
    return undone if MARK in undone and parsed.visit is not None else None


def parse_node(node: str | None, name: str | None, owner: int | None = None) -> Node:
    """Parse a node id; without one, the node is the first visit of the step `name`.

    NOWHERE for an invalid id, and for a node of another execution than `owner`.
    """
    if not node:
        return Node(name, 1 if name else None)
    execution, _, rest = node.partition(":")
    if not rest or (owner is not None and execution != str(owner)):
        return NOWHERE
    step, mark, rest = rest.partition(MARK)
    if not mark:
        return Node(step, 1)
    if not step:
        return NOWHERE
    visit, dot, index = rest.partition(".")
    if not _is_number(visit) or int(visit) < 1 or (dot and not _is_number(index)):
        return NOWHERE
    return Node(step, int(visit), int(index) if dot else None)


def _is_number(text: str) -> bool:
    """Whether it is a natural number that fits into an int4."""
    return text.isascii() and text.isdigit() and len(text) < 10  # noqa: PLR2004 - longer is no int4


def visit_name(step: str, visit: int, index: int | None = None, *, undo: bool = False) -> str:
    """A visit, an item or an undo as people write it. A step with `!undo` at its end names the undo, too."""
    bare = step.removesuffix(UNDO_SUFFIX)
    name = bare if visit == 1 else numbered_visit(bare, visit)
    return name + ("" if index is None else f"[{index}]") + (UNDO_SUFFIX if undo or bare != step else "")


def numbered_visit(step: str, visit: int) -> str:
    """A visit with its number, also the first one: `load` alone may mean any visit, or the latest."""
    return f"{step}{MARK}{visit}"


def name_of_node(node: str) -> str:
    """The visit, item or undo of a node id as people write it."""
    return visit_name(*node_of_job(node))


def name_of_row(row: Mapping[str, Any]) -> str:
    """The step of an event or a job, by its row: `fetch`, `fetch#2` for its second visit, `fetch[3]` for an item."""
    name = str(row.get("node_name") or row.get("step") or "")
    node = str(row.get("node_id") or "")
    return name_of_node(node) if MARK in node else name


def read_node(text: str) -> tuple[str, int | None, int | None]:
    """The step, visit and index of `load`, `load#2`, `load[7]` or `load#2[7]`; None for a visit or index not named.

    The step of `load#2!undo` is `load!undo`. Raises OperatorFault if the number of the visit is none.
    """
    found = _NODE.fullmatch(text)
    if found is None:
        raise _no_visit_fault(text)
    visit, index = (None if found[name] is None else int(found[name]) for name in ("visit", "index"))
    return found["step"] + (found["undo"] or ""), visit, index


def read_visit(text: str) -> tuple[str, int | None]:
    """The step and visit of `load` or `load#2`; raises OperatorFault if the number of the visit is none."""
    step, visit, index = read_node(text)
    if index is not None and visit is not None:
        raise _no_visit_fault(text)
    return step if index is None else text, visit


def _no_visit_fault(text: str) -> OperatorFault:
    return OperatorFault(f"{text} names no visit: write for example {text.partition(MARK)[0]}#2 for the second")


def read_item_name(text: str) -> ItemName | None:
    """The item that `fetch[3]` or `fetch#2[3]` names; None for a visit. Raises OperatorFault as `read_node`."""
    step, visit, index = read_node(text)
    return None if index is None else ItemName(step, visit, index)
