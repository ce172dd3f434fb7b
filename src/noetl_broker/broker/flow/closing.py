"""Closes tokens: they end without a result, because nobody waits for them any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.effects import VisitClosed
from noetl_broker.broker.state.trail import ClosedArrival, ClosedVisit
from noetl_broker.broker.undo.draining import drain_visit
from noetl_broker.broker.writing.events import emit_step_cancelled
from noetl_broker.broker.writing.workflow import track_ended

if TYPE_CHECKING:
    from collections.abc import Iterable

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import Arrival


def close_visit(draft: Draft, visit: Visit, joins: list[str]) -> None:
    """Close an open visit whose token is spent for these joins: `step_cancelled`.

    The store cancels its job, its items and its children, and tells a worker that has the job to stop. A late answer
    finds no open visit and changes nothing. A visit whose action may have to be undone is awaited instead.
    """
    token = draft.state.tokens.pop(visit)
    step, number = draft.playbook.steps[visit[0]], visit[1]
    drain_visit(draft, step, token)
    ordinal = emit_step_cancelled(draft, step, number, joins)
    track_ended(draft, step, "CANCELLED", ordinal)
    draft.add(VisitClosed(*visit))
    draft.trail.append(ClosedVisit(step.name, number, joins))


def close_arrivals(draft: Draft, arrivals: Iterable[Arrival], join: str) -> None:
    """Note that tokens on arcs, or at a join, end because they are spent for `join`; the caller has removed them."""
    draft.trail.extend(ClosedArrival(arrival, join) for arrival in arrivals)
