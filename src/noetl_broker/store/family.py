"""What executions that start executions tell each other, as rows: a child's start, and the answer of one that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.children import error_of_child
from noetl_broker.broker.model import Child, Ended
from noetl_broker.broker.state import ExecutionState
from noetl_broker.store.codec import dump_json
from noetl_broker.store.rows import Execution, ParentVisit, node_id, parse_node

if TYPE_CHECKING:
    from noetl_broker.broker.model import JSON


def json_or_null(value: JSON) -> str | None:
    """The JSON text of a value; SQL null for none."""
    return None if value is None else dump_json(value)


def child_row(execution: Execution, child: Child) -> tuple[object, ...]:
    """A child to be started, with what its execution_start says of its parent."""
    node = node_id(execution.execution_id, child.step, child.visit)
    meta = {**child.meta, "parent_execution_id": execution.execution_id, "parent_step": child.step}
    return (
        execution.execution_id, node, child.place, child.path, child.version, dump_json(child.payload), dump_json(meta),
    )  # fmt: skip


def _letter_type(parent: ParentVisit, *, completed: bool) -> str:
    """A step's only child answers as its action; one of many, as itself."""
    if parent.place is None:
        return "action_completed" if completed else "action_failed"
    return "execution_complete" if completed else "execution_failed"


def _name_of(parent: ParentVisit) -> str | None:
    """The step; of an item `step[index]`: what one of many gave must not be read as the step's result."""
    step = parse_node(parent.node_id, None).step
    return step if parent.place is None else f"{step}[{parent.place}]"


def letter(execution: Execution, state: ExecutionState, ended: Ended) -> tuple[object, ...]:
    """The answer of a child: its end as the end of the action that its parent's step is waiting for."""
    parent = execution.parent
    if parent is None:
        raise ValueError(f"execution {execution.execution_id} has no parent")
    completed = ended.status == "COMPLETED"
    error = None if completed else error_of_child(execution.execution_id, ended)
    meta: dict[str, JSON] = {
        "child_execution_id": execution.execution_id,
        "attempt": state.parent.attempt if state.parent is not None else 1,
        # a child that somebody cancelled is not wanted; one that failed may do better next time
        "retryable": ended.status != "CANCELLED",
    }
    if parent.place is not None:
        meta["index"] = parent.place
    return (
        parent.execution_id, parent.event_id, _letter_type(parent, completed=completed), parent.node_id,
        _name_of(parent), "COMPLETED" if completed else "FAILED", json_or_null(ended.answer),
        json_or_null(error), dump_json(meta),
    )  # fmt: skip
