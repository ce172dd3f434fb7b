"""The undo of an execution that has ended: its begin, and what is counted after it.

The status, the result and the error of the execution stay. `undo_status` tells how the undo stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.wants import want_undone
from noetl_broker.broker.model.decision import Refused
from noetl_broker.broker.model.effects import UndoBegun, UndoChanged, UndoStatusChanged
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import ACTION_COMPLETED
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.compensation import Compensation
from noetl_broker.broker.state.state import ExecutionState, is_live
from noetl_broker.broker.undo.rows import LATE, set_undo_status
from noetl_broker.broker.writing.events import emit_compensation

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft

NOTHING = "nothing_left"  # the outcome of an `execution_undo` for an execution with nothing to undo
LEFT = frozenset({"open", "failed"})


def answer_of(event: Event) -> int:
    """The number of the answer that a parent waits for; 0: the undo was asked for by somebody else."""
    answer = _context(event).get("answer")
    return answer if type(answer) is int and answer > 0 else 0


def version_of(event: Event) -> int | None:
    """The version whose `compensate` an `execution_undo` asks for; None: that of the execution."""
    version = _context(event).get("version")
    return version if type(version) is int else None


def has_nothing(state: ExecutionState, event: Event) -> bool:
    """Whether an execution has nothing that an `execution_undo` asks for; while it undoes, it has."""
    rows = state.undo + (state.unknown if _context(event).get("unknown") is True else 0)
    return state.compensation is None and not rows


def begin_undo(draft: Draft) -> None:
    """`execution_undo`: an execution that has ended undoes what it did, or what it left.

    If it does so already, the event is a duplicate; but a parent is answered when it is done.
    """
    state, context, answer = draft.state, _context(draft.event), answer_of(draft.event)
    if state.compensation is not None:
        if not answer:
            raise Refused("duplicate")
        state.compensation = state.compensation._replace(answer=answer)
        return
    unknown, error = context.get("unknown") is True, context.get("error")
    if unknown:
        state.undo, state.unknown = state.undo + state.unknown, 0
    state.compensation = Compensation(
        state.status,
        error if isinstance(error, dict) else {"message": "it is undone after its end", "type": "undo"},
        answer=answer,
        version=version_of(draft.event),
    )
    draft.add(UndoBegun(unknown))
    draft.add(UndoStatusChanged("undoing"))


def is_late_undo(state: ExecutionState, event: Event) -> bool:
    """Whether the event is the success of an undo job that was abandoned: its worker had not stopped yet."""
    by_child = isinstance(event.meta, dict) and "child_execution_id" in event.meta
    return event.kind == ACTION_COMPLETED and not by_child and state.unknown > 0 and not is_live(state.status)


def complete_late_undo(draft: Draft) -> None:
    """An undo that was abandoned succeeded after all."""
    step, visit, index = draft.event.step or "", draft.event.visit or 1, draft.event.item_index
    if _status_of(draft) != "unknown":
        raise Refused("not_open")
    draft.writes.outcome = LATE
    draft.state.unknown -= 1
    draft.add(UndoChanged(step, visit, index, "done"))
    emit_compensation(draft, "completed", step, visit, index)
    set_undo_status(draft)


def settle_undo(draft: Draft) -> None:
    """`undo_settled`: somebody has undone a visit or an item by hand, or knows that it never happened."""
    step, visit, index = draft.event.step or "", draft.event.visit or 1, draft.event.item_index
    status = _status_of(draft)
    if draft.state.compensation is not None or (status != "unknown" and status not in LEFT):
        raise Refused("not_open")
    if status == "unknown":
        draft.state.unknown -= 1
    else:
        draft.state.undo -= 1
    draft.add(UndoChanged(step, visit, index, "settled"))
    set_undo_status(draft)


def _status_of(draft: Draft) -> str | None:
    """The status of the row that the event is about."""
    found = draft.known.ask(want_undone(draft.event.step or "", draft.event.visit or 1, draft.event.item_index))
    return None if found is None else str(found[1])


def _context(event: Event) -> dict[str, JSON]:
    return event.context if isinstance(event.context, dict) else {}
