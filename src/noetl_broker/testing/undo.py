"""Undos in a simulation: their nodes, and jobs that are cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.decision import JobRow
from noetl_broker.broker.model.effects import JobChanged
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import ACTION_FAILED
from noetl_broker.broker.model.values import JSON
from noetl_broker.node_ids import UNDO_SUFFIX

if TYPE_CHECKING:
    from noetl_broker.broker.draft.known import Known
    from noetl_broker.broker.model.stops import Stops
    from noetl_broker.history.record import Node


def node_of(job: JobRow) -> Node:
    """The node of a job; an undo job has its own."""
    return (job.step + UNDO_SUFFIX if job.undo else job.step, job.visit, job.item_index)


def node_of_change(change: JobChanged) -> Node:
    """The node of a job that changes."""
    return (change.step + UNDO_SUFFIX if change.undo else change.step, change.visit, change.item_index)


def undone_step(name: str) -> tuple[str, bool]:
    """The step of a job by its name, and whether the job undoes it."""
    return name.removesuffix(UNDO_SUFFIX), name.endswith(UNDO_SUFFIX)


def is_stopped(stops: Stops, node: Node) -> bool:
    """Whether a turn stops the job of this node."""
    step, undoes = undone_step(node[0])
    return stops.job(step, node[1], node[2], undo=undoes)


def cancelled_event(node: Node) -> Event:
    """What the store sends for a job of a draining visit that no worker had."""
    step, visit, index = node
    error: dict[str, JSON] = {"message": "the job was cancelled", "type": "cancelled"}
    return Event(ACTION_FAILED, step, visit, error=error, retryable=False, item_index=index)


def is_named(known: Known, child: int) -> bool:
    """Whether a row of `noetl.undo` names a child."""
    return any(child in row.children for row, _ in known.undo_rows().values())
