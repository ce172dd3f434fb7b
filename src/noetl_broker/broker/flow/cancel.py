"""Cancels tokens: they end without a result, because nobody waits for them any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.effects import VisitCancelled
from noetl_broker.broker.state.trail import CancelledArrival, CancelledVisit
from noetl_broker.broker.undo.draining import drain_visit
from noetl_broker.broker.writing.events import emit_step_cancelled
from noetl_broker.broker.writing.workflow import track_ended

if TYPE_CHECKING:
    from collections.abc import Iterable

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import Arrival


def cancel_visit(draft: Draft, visit: Visit, joins: list[str]) -> None:
    """Cancel an open visit whose token is spent for these joins: `step_cancelled`.

    The store cancels its job, its items and its children, and tells a worker that has the job to stop. A late answer
    finds no open visit and changes nothing. A visit whose action may have to be undone drains instead.
    """
    token = draft.state.tokens.pop(visit)
    step, number = draft.playbook.steps[visit[0]], visit[1]
    drain_visit(draft, step, token)
    ordinal = emit_step_cancelled(draft, step, number, joins)
    track_ended(draft, step, "CANCELLED", ordinal)
    draft.add(VisitCancelled(*visit))
    draft.trail.append(CancelledVisit(step.name, number, joins))


def cancel_arrivals(draft: Draft, arrivals: Iterable[Arrival], join: str) -> None:
    """Note that tokens on arcs, or at a join, end because they are spent for `join`; the caller has removed them."""
    draft.trail.extend(CancelledArrival(arrival, join) for arrival in arrivals)
