"""The answers that a turn adds for later turns, and those that a later turn cannot ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.known import (
    NOT_LOADED,
    OPEN_AGAIN,
    Found,
    ItemState,
    Known,
    UndoRow,
    failed_item,
    result_of,
)
from noetl_broker.broker.draft.wants import (
    UNDO_ROWS,
    WORKLOAD,
    want_action,
    want_child,
    want_failing,
    want_item_action,
    want_item_status,
    want_signal,
    want_step,
    want_turn,
    want_undo_action,
)
from noetl_broker.broker.model.decision import Decision, StepRow
from noetl_broker.broker.model.effects import (
    ChildAdopted,
    ExecutionBegun,
    ItemEnded,
    ItemRetried,
    ItemsChosen,
    UndoBegun,
    UndoChanged,
    UndoNoted,
    WaitOpened,
)
from noetl_broker.broker.model.event import Event, Turn
from noetl_broker.broker.model.event_types import EXECUTION_SIGNAL, ITERATION_STARTED, STEP_COMPLETED
from noetl_broker.broker.model.values import as_stored
from noetl_broker.template import StepResult
from noetl_broker.template.scope import unwrap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.draft.known import UndoRows
    from noetl_broker.broker.state.state import ExecutionState

FIRST_FORGET = 256  # answers before the first call of `forget`
OF_RESULTS = frozenset({"failed", "failing"})  # wants about the result of a visit
FOR_UNDO = frozenset({"action", "item action", "undo action", "all items"})  # answers that an undo reads
TO_UNDO = frozenset({"open", "running", "failed", "unknown"})  # a later undo may come at any time
LASTING = frozenset({"workload", "step", *UNDO_ROWS})  # wants that any later turn may ask for
RUNNING_ITEM = ItemState("RUNNING")


def remember(known: Known, event: Event, turn: Turn, decision: Decision) -> None:
    """Add what a turn wrote, for later turns: no table has it yet.

    A result that was left in the database must be loaded under its turn before. Raises NotLoaded, as a turn does.
    """
    ended = [row for row in decision.rows if row.result_visit is not None and not row.taken]
    latest = [row for row in ended if _is_latest(known, row)]  # first: it may raise, and then nothing is added
    answers = known.answers
    for job in decision.jobs:
        item = job.step, job.visit, job.item_index
        if job.undo or job.item_index is None:  # the inputs of an item's visit are in the job of its iterator
            answers[want_undo_action(*item) if job.undo else want_action(*item[:2])] = job.action
    for emitted in decision.events:
        if emitted.type == ITERATION_STARTED and emitted.context is not None:
            answers[want_item_status(emitted.step or "", emitted.visit, emitted.context["index"])] = RUNNING_ITEM
    if decision.effects:
        _remember_effects(known, event, turn, decision)
    if event.context is not None and event.kind == EXECUTION_SIGNAL and decision.outcome == "decided":
        answers[want_signal(turn.number)] = event.context
    if not ended:
        return
    result = None
    if decision.carrier is not None or [row for row in ended if row.result_at is None]:
        result = answers[want_turn(turn.number)] = _result_of_turn(answers, event, turn, decision)
    for row in latest:
        own = result if row.result_at is None else _result_in(decision, row.result_at)
        answers[want_step(row.step)] = Found(row.result_visit or 1, own)  # type: ignore[arg-type] # set if a row needs it


def _is_latest(known: Known, row: StepRow) -> bool:
    """Whether no higher visit has ended before. If this is not the highest visit, the store knows."""
    visit = row.result_visit or 1
    if visit == row.visits:
        return True
    before = known.ask(want_step(row.step))
    return not isinstance(before, Found) or before.visit < visit


def _remember_undos(known: Known, event: Event, turn: Turn, decision: Decision) -> None:
    """Add the rows of `noetl.undo` that a turn wrote or changed, and the result that an undo may read."""
    rows = known.undo_rows()
    noted = decision.of(UndoNoted)
    for undo in noted:
        _note_undo(rows, undo, turn.number)
    for begun in decision.of(UndoBegun):
        again = OPEN_AGAIN["unknown" if begun.unknown else "failed"]
        rows.update({key: (row, "open") for key, (row, status) in rows.items() if status in again})
    for change in decision.of(UndoChanged):
        key = change.step, change.visit, change.item_index
        row = UndoRow(*key, change.turn, change.children, change.unsure)
        rows[key] = rows[key][0] if key in rows else row, change.status
    if noted and decision.carrier is None and event.result is not NOT_LOADED:
        known.answers[want_turn(turn.number)] = result_of(event.type, event.result, event.error)


def _note_undo(rows: UndoRows, undo: UndoNoted, turn: int) -> None:
    """Add a row of `noetl.undo`; an open row of a visit replaces those of its items."""
    key = undo.step, undo.visit, undo.item_index
    rows[key] = UndoRow(*key, turn, undo.children, undo.status == "unknown"), undo.status
    if undo.item_index is None and undo.status == "open":
        for other, (row, status) in rows.items():
            if other[:2] == key[:2] and other != key and status == "open":
                rows[other] = row, "superseded"


def _remember_effects(known: Known, event: Event, turn: Turn, decision: Decision) -> None:
    """Add the effects that later turns ask for."""
    answers = known.answers
    if any(isinstance(effect, UndoNoted | UndoChanged | UndoBegun) for effect in decision.effects):
        _remember_undos(known, event, turn, decision)
    for effect in decision.effects:
        match effect:
            case ExecutionBegun():
                answers[WORKLOAD] = effect.workload
            case WaitOpened():
                answers[want_action(effect.step, effect.visit)] = effect.request
            case ItemsChosen():
                known.set_items(effect.step, effect.visit, effect.values)
            case ChildAdopted():
                answers[want_item_status(effect.step, effect.visit, effect.item_index)] = RUNNING_ITEM
                answers[want_child(effect.step, effect.visit, effect.child_execution_id)] = True
            case ItemRetried():
                stands = ItemState("RUNNING", effect.failures, effect.failed_attempt, effect.unsure)
                answers[want_item_status(effect.step, effect.visit, effect.item_index)] = stands
            case ItemEnded():
                _remember_item_end(known, effect)


def _remember_item_end(known: Known, end: ItemEnded) -> None:
    answers, item = known.answers, (end.step, end.visit, end.item_index)
    answers[want_item_status(*item)] = ItemState(end.status)
    if item not in known.undo_rows():  # an undo reads it
        answers.pop(want_item_action(*item), None)
    if end.error is not None and end.status == "FAILED":
        failing = answers.setdefault(want_failing(end.step, end.visit), [])
        if isinstance(failing, list):
            failing.append(failed_item(end))


def _result_in(decision: Decision, index: int) -> StepResult:
    """The result that an emitted event carries: a step_completed, or a step_failed."""
    emitted = decision.events[index]
    if emitted.type == STEP_COMPLETED:
        return StepResult(as_stored(unwrap(emitted.result)))
    return StepResult(as_stored(unwrap(emitted.result)), "FAILED", emitted.error)


def _result_of_turn(
    answers: Mapping[tuple[object, ...], object], event: Event, turn: Turn, decision: Decision
) -> StepResult:
    if decision.carrier is not None:
        return _result_in(decision, decision.carrier)
    if event.result is NOT_LOADED:
        answer = answers[want_turn(turn.number)]
        if not isinstance(answer, StepResult):
            raise TypeError(f"the result of turn {turn.number} was not loaded")
        return answer
    return result_of(event.type, event.result, event.error)


def forget(known: Known, state: ExecutionState) -> int:
    """Drop answers that no later turn can ask for; returns the number of answers at which to call it again.

    Keeps the workload, the latest results of steps, the answers of open visits, and the results of waiting tokens.
    """
    carried: list[object] = [arrival.result for arrivals in state.waiting.values() for arrival in arrivals]
    if state.hold is not None:
        carried += [arrival.result for arrival in state.hold.kept]
    if state.end is not None:
        carried.append(state.end.result)
    for (step, visit), token in state.tokens.items():
        action = known.answers.get(want_action(step, visit)) if token.items or token.awaited else None
        if isinstance(action, dict):
            carried.append(action.get("result_turn"))  # items that are not started yet, or a wait, will read it
    named = {result for result in carried if isinstance(result, int)}
    undoable = {key[:2] for key, (_, status) in known.undo_rows().items() if status in TO_UNDO}
    named |= {row.turn for row, status in known.undo_rows().values() if status in TO_UNDO}
    signals = {kept.turn for kept in state.signals}
    known.answers = {
        want: answer
        for want, answer in known.answers.items()
        if want[0] in LASTING
        or (want[1] in named if want[0] == "turn" else False)
        or (want[1] in signals if want[0] == "signal" else _is_needed(known, state, want))
        or (want[0] in FOR_UNDO and want[1:3] in undoable)
    }
    return FIRST_FORGET + 2 * len(known.answers)


def _is_needed(known: Known, state: ExecutionState, want: tuple[object, ...]) -> bool:
    """Whether a turn may ask about this visit: it is open, or has the latest result (asks for failed items)."""
    if want[1:3] in state.tokens:
        return True
    latest = known.answers.get(want_step(str(want[1]))) if want[0] in OF_RESULTS else None
    return isinstance(latest, Found) and latest.visit == want[2]
