"""Children that are started, and the answers of children that end, as rows of `write_family`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model.decision import ExecutionEnd
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.work.children import error_of_child
from noetl_broker.node_ids import UNDO_SUFFIX, node_id, parse_node, undone_node
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.turn.claimed_rows import ParentVisit
from noetl_broker.template import wrap

if TYPE_CHECKING:
    from asyncpg import Record

    from noetl_broker.broker.model.effects import ChildStarted, UndoEnded
    from noetl_broker.broker.state.state import ExecutionState
    from noetl_broker.store.turn.claimed_rows import Execution


class ChildStart(NamedTuple):
    """A child that a batch starts; `ordinal` is the one in the batch of its iteration_started."""

    execution: Execution  # its parent
    child: ChildStarted
    ordinal: int | None


TAKEN = "it is not to be had: another execution waits for it"


def json_or_null(value: JSON) -> str | None:
    """The JSON text of a value; SQL null for none."""
    return None if value is None else dump_json(value)


def child_row(start: ChildStart) -> tuple[object, ...]:
    """A child to be started, with what its execution_start says of its parent.

    A child that undoes an item answers for the undo job, so it has no index.
    """
    owner, child = start.execution.execution_id, start.child
    node = node_id(owner, child.step, child.visit, child.item_index if child.undo else None, undo=child.undo)
    index = None if child.undo else child.item_index
    return owner, node, index, child.path, child.version, dump_json(child.payload), dump_json(child_meta(owner, child))


def child_meta(owner: int, child: ChildStarted) -> dict[str, JSON]:
    """The meta of the execution_start of a child of `owner`."""
    return {**child.meta, "parent_execution_id": owner, "parent_step": child.step}


def _answer_type(parent: ParentVisit, *, completed: bool) -> str:
    """`action_...` for the only child of a step; `execution_...` for one of several children."""
    if parent.item_index is None:
        return "action_completed" if completed else "action_failed"
    return "execution_complete" if completed else "execution_failed"


def _name_of(parent: ParentVisit) -> str | None:
    """The step; for an item `step[index]`. The result of one item or undo must not become the result of the step."""
    undone = undone_node(parent.node_id)
    step = parse_node(undone or parent.node_id, None).step
    if undone is not None:
        return f"{step}{UNDO_SUFFIX}"
    return step if parent.item_index is None else f"{step}[{parent.item_index}]"


def child_answer(execution: Execution, state: ExecutionState, ended: ExecutionEnd) -> tuple[object, ...]:
    """The answer of a child that ends in this turn."""
    if execution.parent is None:
        raise ValueError(f"execution {execution.execution_id} has no parent")
    attempt = state.parent.attempt if state.parent is not None else 1
    return _answer(execution.parent, execution.execution_id, ended, attempt)


def undo_answer(execution: Execution, ended: UndoEnded) -> tuple[object, ...]:
    """The answer of a child that its parent has asked to undo what it did: about the undo job of its visit or item."""
    if execution.parent is None:
        raise ValueError(f"execution {execution.execution_id} has no parent")
    owner, _, node, index = execution.parent
    step, visit, _ = parse_node(node, None)
    parent = execution.parent._replace(
        node_id=node_id(owner, step or "", visit or 1, index, undo=True), item_index=None
    )
    end = ExecutionEnd("COMPLETED" if ended.error is None else "FAILED", error=ended.error)
    return _answer(parent, execution.execution_id, end, ended.answer)


def child_answer_of_adopted(row: Record) -> tuple[object, ...]:
    """The answer of a child that a worker started and that had ended before its parent heard of it."""
    error = row["error"]
    if row["status"] == "FAILED" and error is None:
        error = {"message": TAKEN}
    ended = ExecutionEnd(row["status"], row["result"], error, wrap(row["result"]), row["undo"])
    return _answer(
        ParentVisit(row["execution_id"], row["cause"], row["node_id"], row["index"]), row["child_id"], ended, 1
    )


def _answer(parent: ParentVisit, child_id: int, ended: ExecutionEnd, attempt: int) -> tuple[object, ...]:
    """The row for `write_family`: the child's end, reported as `action_completed` or `action_failed`."""
    completed = ended.status == "COMPLETED"
    error = None if completed else error_of_child(child_id, ended)
    meta: dict[str, JSON] = {
        "child_execution_id": child_id,
        "attempt": attempt,
        "retryable": ended.status != "CANCELLED",  # a cancelled child is not wanted
    }
    if parent.item_index is not None:
        meta["index"] = parent.item_index
    if ended.undo:
        meta["undo"] = True
    return (
        parent.execution_id, parent.event_id, _answer_type(parent, completed=completed), parent.node_id,
        _name_of(parent), "COMPLETED" if completed else "FAILED", json_or_null(ended.answer),
        json_or_null(error), dump_json(meta),
    )  # fmt: skip
