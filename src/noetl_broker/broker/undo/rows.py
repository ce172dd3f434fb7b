"""The rows of `noetl.undo`: one for each visit and item that reported success, or may have succeeded.

Such a row exists only for a visit of a step with `compensate`, or for a completed child with rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.wants import want_open_items, want_undone
from noetl_broker.broker.model.effects import UndoNoted, UndoStatusChanged
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import ACTION_COMPLETED, ITEM_COMPLETED, ITERATOR_COMPLETED
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import COMPLETED

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.draft.known import ItemState
    from noetl_broker.broker.state.state import Token
    from noetl_broker.playbook.model import Playbook, Step

LATE = "late"  # the outcome of a turn that reads the success of a visit that is over
LOST = frozenset({"timeout", "lost_lease"})  # types of errors after which an action may have happened
SUCCESSES = frozenset({ACTION_COMPLETED, ITEM_COMPLETED, ITERATOR_COMPLETED})


def child_with_undo(event: Event) -> int | None:
    """The child execution that answers, if it has something to be undone: it completed, or could not undo all."""
    meta = event.meta
    if not isinstance(meta, dict) or meta.get("undo") is not True:
        return None
    child = meta.get("child_execution_id")
    return child if type(child) is int else None


def report_success(draft: Draft, step: Step, token: Token) -> Token:
    """Note that the action or the child of a visit reported success, also if its result is refused.

    The row of the visit replaces the rows of its items and children. Returns the token, which counts it.
    """
    child = None if step.compensate is not None else child_with_undo(draft.event)
    if step.compensate is None and child is None:
        return token
    before = _children_of(draft, step, token.visit, None) if child is not None and token.undos else ()
    draft.add(UndoNoted(step.name, token.visit, None, "open", _joined(before, child)))
    draft.state.undo += 1 - token.undos
    return token._replace(undos=1)


def _children_of(draft: Draft, step: Step, visit: int, index: int | None) -> tuple[int, ...] | None:
    """The children of the open row of a visit or an item; None: there is no open row."""
    found = draft.known.ask(want_undone(step.name, visit, index))
    return None if found is None or found[1] != "open" else found[0].children


def _joined(before: tuple[int, ...] | None, child: int | None) -> tuple[int, ...]:
    """The children with one more."""
    return (*(before or ()), *(() if child is None else (child,)))


def report_item(draft: Draft, step: Step, token: Token, index: int) -> Token:
    """Note that an item reported success, also if its result is refused; returns the token, which counts it."""
    own = step.iteration is not None and step.iteration.expanded and step.iteration.task.compensate is not None
    child = None if own else child_with_undo(draft.event)
    if not own and child is None:
        return token
    if token.answered and step.compensate is not None:
        return token  # the row of the visit stands for its children
    before = None if own else _children_of(draft, step, token.visit, index)
    draft.add(UndoNoted(step.name, token.visit, index, "open", _joined(before, child)))
    if before is not None:  # of a child that ran before this one
        return token
    draft.state.undo += 1
    return token if step.compensate is None else token._replace(undos=token.undos + 1)


def report_left(draft: Draft, step: Step, token: Token) -> Token:
    """Note a child that failed and could not undo all that it did; returns the token, which counts it.

    If the step or its task has a `compensate`, nobody else undoes what its children left.
    """
    index = draft.event.item_index
    if child_with_undo(draft.event) is None or undo_action(step, index) is not None:
        return token
    return report_success(draft, step, token) if index is None else report_item(draft, step, token, index)


def note_failure(draft: Draft, step: Step, token: Token, error: JSON) -> Token:
    """The token of a visit with a `compensate` after a failed attempt: `unsure` if an action may have happened.

    A skipped lease number means that a lease was lost. If the items of an iterator have a `compensate`, only their rows
    count: an undo of the whole iterator would undo the items twice.
    """
    items_tell = step.iteration is not None and step.iteration.task.compensate is not None
    if step.compensate is None or items_tell or token.unsure:
        return token
    lost = step.waits_for == "worker" and draft.event.attempt > token.failed_attempt + 1
    return token._replace(unsure=True) if lost or _is_lost(error) else token


def _is_lost(error: JSON) -> bool:
    """Whether an attempt timed out or lost its lease. The error of a child has the type of its cause, not of this."""
    return isinstance(error, dict) and error.get("type") in LOST and "child_execution_id" not in error


def report_unknown(draft: Draft, token: Token) -> None:
    """List a visit as `unknown` that ended without success, if an action of it may have happened."""
    if token.unsure and not token.undos:
        draft.add(UndoNoted(token.step, token.visit, None, "unknown"))
        draft.state.unknown += 1


def item_is_unsure(draft: Draft, step: Step, stands: ItemState) -> bool:
    """Whether the attempt of an item that failed may have happened: it timed out, or a lease was lost before it."""
    if step.iteration is None or step.iteration.task.compensate is None:
        return False
    lost = step.iteration.task.call is None and draft.event.attempt > stands.failed_attempt + 1
    return lost or _is_lost(draft.event.error)


def report_unknown_item(draft: Draft, step: Step, visit: int, index: int, stands: ItemState) -> None:
    """List an item as `unknown` that failed for good, if an action of it may have happened."""
    if stands.unsure or item_is_unsure(draft, step, stands):
        draft.add(UndoNoted(step.name, visit, index, "unknown"))
        draft.state.unknown += 1


def report_draining(draft: Draft, token: Token) -> None:
    """List as `unknown` what an abandoned undo still drains of a visit: each open item, or the visit.

    An iterator with open items has not succeeded, so its own `compensate` does not count. Children without a
    `compensate` that complete nevertheless are asked to undo what they did.
    """
    step, counts = draft.playbook.steps[token.step], token.items
    indexes: list[int | None] = []
    if counts is not None and counts.started > counts.ended:
        if step.iteration is not None and step.iteration.task.compensate is not None:
            indexes = draft.known.ask(want_open_items(step.name, token.visit))
    elif step.compensate is not None and not token.undos:
        indexes = [None]
    for index in indexes:
        draft.add(UndoNoted(step.name, token.visit, index, "unknown"))
    draft.state.unknown += len(indexes)


def is_late_child(event: Event) -> bool:
    """Whether the event is the success of a child with something to be undone, for a visit that is over."""
    return event.kind in SUCCESSES and child_with_undo(event) is not None


def report_late_child(draft: Draft) -> bool:
    """Note a child that completed after its visit was over; false if that is noted already."""
    event, step = draft.event, draft.playbook.steps[draft.event.step or ""]
    visit, index = event.visit or 1, event.item_index
    child = None if undo_action(step, index) is not None else child_with_undo(event)
    before = _children_of(draft, step, visit, index) if child is not None else None
    noted = draft.known.ask(want_undone(step.name, visit, index)) is not None
    if noted and (before is None or child in before):
        return False
    draft.add(UndoNoted(step.name, visit, index, "open", _joined(before, child)))
    draft.writes.outcome = LATE
    draft.state.undo += before is None
    return True


def late_child_to_undo(playbook: Playbook, ended: str, event: Event) -> int | None:
    """Give the child that an event reports as completed, if nobody wants its success and it must be undone.

    `ended`: the status of the execution. It refuses the event, because it has ended or has cancelled that child. A
    cancel of the child would come too late. So the actions of the child are undone, unless the step or its task undoes
    the child.
    """
    child = child_with_undo(event) if event.kind in SUCCESSES and not event.undo else None
    step = playbook.steps.get(event.step or "")
    if child is None or step is None or ended == COMPLETED or undo_action(step, event.item_index) is not None:
        return None
    return child


def set_undo_status(draft: Draft) -> None:
    """An execution that has ended and undid something: say whether all is undone that is known of."""
    left = draft.state.undo or draft.state.unknown
    draft.add(UndoStatusChanged("left" if left else "undone"))


def undo_action(step: Step, index: int | None) -> Step | None:
    """The action that undoes a visit of a step, or one of its items."""
    if index is None:
        return step.compensate
    return None if step.iteration is None else step.iteration.task.compensate
