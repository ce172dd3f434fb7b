"""The start of a compensation: from now on the execution undoes what its actions did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.effects import StatusChanged, VisitDrained, WaitEnded, WorkCancelled
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.compensation import Compensation
from noetl_broker.broker.state.state import COMPENSATING
from noetl_broker.broker.undo.draining import begun_visits, keep_draining
from noetl_broker.broker.undo.open_visits import has_open_child, may_report
from noetl_broker.broker.undo.rows import report_unknown
from noetl_broker.broker.writing.events import emit_compensating
from noetl_broker.broker.writing.workflow import track_cancelled

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft


def begin_compensation(draft: Draft, status: str, error: dict[str, JSON]) -> bool:
    """Let the execution undo what its actions did before it ends with this status; false if there is nothing.

    Visits that may still report a success, and all that wait for children, drain first.
    """
    keep_draining(draft)
    begun, own, draining = begun_visits(draft), False, []
    for visit, token in draft.state.tokens.items():
        step = draft.playbook.steps[token.step]
        if visit not in begun and may_report(draft.playbook, step, token):
            own = True
            draining.append(token)
        elif token.draining or (visit not in begun and has_open_child(step, token)):
            draining.append(token)
        else:
            report_unknown(draft, token)
    if not own and not draft.state.undo:
        return False
    ordinal = emit_compensating(draft, error)
    track_cancelled(draft, ordinal)
    draft.stopped_state = draft.freeze()
    for visit in draft.state.tokens:
        if draft.playbook.steps[visit[0]].waits_for == "event":
            draft.add(WaitEnded(*visit, "cancelled"))
    draft.state.tokens = {(token.step, token.visit): token._replace(draining=True) for token in draining}
    draft.state.waiting.clear()
    draft.arrivals.clear()
    draft.state.signals.clear()
    draft.state.hold = None
    draft.state.status = COMPENSATING
    draft.state.compensation = Compensation(status, error)
    draft.add(WorkCancelled())
    draft.add(StatusChanged(COMPENSATING))
    known = {(one.step, one.visit) for one in draft.writes.added(VisitDrained)}
    for visit in draft.state.tokens:
        if visit not in known:
            draft.add(VisitDrained(*visit))
    return True
