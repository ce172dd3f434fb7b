"""Draining: a visit that is over drains while its action, items or children may still report success.

Such a success is late: it completes no step, but it is to be undone. A draining visit is a token that no join waits
for, and that holds the end of the execution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.known import OPEN_ITEMS
from noetl_broker.broker.draft.wants import want_item_status
from noetl_broker.broker.model.effects import ChildStarted, ItemEnded, VisitDrained
from noetl_broker.broker.model.event_types import ITERATOR_COMPLETED
from noetl_broker.broker.undo.open_visits import NO_ITEMS, has_open_child, has_open_items, may_report
from noetl_broker.broker.undo.rows import (
    LATE,
    SUCCESSES,
    note_failure,
    report_item,
    report_left,
    report_success,
    report_unknown,
    report_unknown_item,
)

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.draft.known import ItemState
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import Token
    from noetl_broker.playbook.model import Step


def drain_visit(draft: Draft, step: Step, token: Token) -> None:
    """Await a visit that is over while its execution goes on, if its late success must be undone.

    In an execution that may undo something, children drain too: nobody knows if they have something.
    """
    if not (draft.state.undo or draft.playbook.undoes):
        return
    visit = token.step, token.visit
    drains = may_report(draft.playbook, step, token) or has_open_child(step, token)
    if drains and visit not in begun_visits(draft):
        draft.draining.append(token._replace(draining=True))
        draft.add(VisitDrained(*visit))


def drain_items(draft: Draft, step: Step, token: Token) -> None:
    """Await the open items of an iterator that failed, if they may still report a success to be undone."""
    if step.waits_for == "items" and has_open_items(token):
        drain_visit(draft, step, token)


def keep_draining(draft: Draft) -> None:
    """Keep draining visits that were cancelled in this turn among the open ones."""
    for token in draft.draining:
        draft.state.tokens[token.step, token.visit] = token
    draft.draining.clear()


def begun_visits(draft: Draft) -> set[Visit]:
    """The visits whose job or child is made in this turn: it is cancelled before anybody has it."""
    children = draft.writes.added(ChildStarted)
    jobs = {(job.step, job.visit) for job in draft.writes.jobs if job.item_index is None}
    return jobs | {(child.step, child.visit) for child in children if child.item_index is None}


def drain(draft: Draft, token: Token) -> None:
    """React to an event about a draining visit: a success is late, and the last event of the visit ends it.

    A success of an iterator that it did not report itself is none.
    """
    if draft.event.item_index is not None:
        _drain_item(draft, token)
        return
    step, event, counts = draft.playbook.steps[token.step], draft.event, token.items or NO_ITEMS
    succeeded, of_items = event.kind in SUCCESSES, step.waits_for == "items"
    if succeeded:
        if of_items and (event.kind != ITERATOR_COMPLETED or counts.ended < counts.total):
            draft.writes.outcome = "recorded"
            return
        before = token
        token = report_success(draft, step, token)
        if token is not before:
            draft.writes.outcome = LATE
    else:
        token = report_left(draft, step, note_failure(draft, step, token, event.error))
    _end_when_drained(draft, step, token._replace(answered=succeeded or not of_items))


def _drain_item(draft: Draft, token: Token) -> None:
    step, event = draft.playbook.steps[token.step], draft.event
    index, counts = event.item_index or 0, token.items or NO_ITEMS
    stands: ItemState | None = draft.known.ask(want_item_status(step.name, token.visit, index))
    if stands is None or stands.status not in OPEN_ITEMS:
        draft.writes.outcome = "not_open" if stands is None or stands.status == "WAITING" else "duplicate"
        return
    succeeded = event.kind in SUCCESSES
    draft.add(ItemEnded(step.name, token.visit, index, "COMPLETED" if succeeded else "FAILED"))
    if succeeded:
        noted = draft.state.undo
        token = report_item(draft, step, token, index)
        if draft.state.undo > noted:
            draft.writes.outcome = LATE
    else:
        report_unknown_item(draft, step, token.visit, index, stands)
        token = report_left(draft, step, token)
    counts = counts._replace(ended=counts.ended + 1, failed=counts.failed + (not succeeded))
    _end_when_drained(draft, step, token._replace(items=counts))


def _end_when_drained(draft: Draft, step: Step, token: Token) -> None:
    """End a draining visit when nothing of it can report a success any more."""
    visit = token.step, token.visit
    waits_for_worker = step.waits_for == "worker" and step.compensate is not None and not token.answered
    if waits_for_worker or has_open_items(token):
        draft.state.tokens[visit] = token
        return
    del draft.state.tokens[visit]
    report_unknown(draft, token)
