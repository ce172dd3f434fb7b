"""The answers that a turn may read beside its event and state. A turn adds answers for later turns.

The core loads nothing. It asks `Known`, and a missing answer raises `NotLoaded` with its name (a "want"). The store
loads the answers for a whole batch, and the turn runs again on the same state. So only results that a template names
are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.model.decision import Decision, StepRow
from noetl_broker.broker.model.effects import (
    ChildAdopted,
    ExecutionBegun,
    ItemEnded,
    ItemRetried,
    ItemsChosen,
    UndoChanged,
    UndoNoted,
    WaitOpened,
)
from noetl_broker.broker.model.event import Event, Turn
from noetl_broker.broker.model.event_types import (
    ACTION_COMPLETED,
    EXECUTION_SIGNAL,
    ITEM_COMPLETED,
    ITERATION_STARTED,
    ITERATOR_COMPLETED,
    STEP_COMPLETED,
    STEP_FAILED,
    STEP_RESULT,
    canonical_event_type,
)
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.state.state import indexes_of
from noetl_broker.template import StepResult
from noetl_broker.template.scope import NotLoaded, unwrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from noetl_broker.broker.state.state import ExecutionState

NOT_LOADED = object()
WORKLOAD = ("workload",)
COMPLETIONS = frozenset({ACTION_COMPLETED, ITEM_COMPLETED, ITERATOR_COMPLETED, STEP_COMPLETED})
WITH_DATA = frozenset({STEP_FAILED, STEP_RESULT})
FIRST_FORGET = 256  # answers before the first call of `forget`
OF_RESULTS = frozenset({"failed", "failing"})  # wants about the result of a visit
OF_UNDO = frozenset({"undo", "undone"})  # wants about rows of `noetl.undo`
FOR_UNDO = frozenset({"action", "item action", "undo action", "all items"})  # answers that an undo reads
TO_UNDO = frozenset({"open", "running"})
OPEN_ITEMS = frozenset({"RUNNING", "CANCELLED"})  # an open item of a visit that is over may be marked as cancelled
UNDO_ROWS = ("undo rows",)  # what the turns so far wrote in `noetl.undo`: each row with its status, by visit and index
LASTING = frozenset({"workload", "step", *UNDO_ROWS})  # wants that any later turn may ask for


def want_step(name: str) -> tuple[str, str]:
    """The latest result of a step: a `Found`, or None if it has none."""
    return ("step", name)


def want_turn(number: int) -> tuple[str, int]:
    """The result that the event of a turn carries: a `StepResult`.

    A negative number is the id of an event whose result a fork took over.
    """
    return ("turn", number)


def want_action(step: str, visit: int) -> tuple[str, str, int]:
    """The action in the job of a visit: a mapping."""
    return ("action", step, visit)


def want_items(step: str, visit: int, start: int, count: int) -> tuple[str, str, int, int, int]:
    """Items of an iterator, `count` from index `start`: a list."""
    return ("items", step, visit, start, count)


def want_all_items(step: str, visit: int) -> tuple[str, str, int]:
    """All items of an iterator: a list. It is never loaded."""
    return ("all items", step, visit)


def want_item_status(step: str, visit: int, index: int) -> tuple[str, str, int, int]:
    """One item of an iterator: an `ItemState`, or None."""
    return ("item", step, visit, index)


def want_open_items(step: str, visit: int) -> tuple[str, str, int]:
    """The items of an iterator that have started and not ended: a list of their indexes, in order."""
    return ("open items", step, visit)


def want_child(step: str, visit: int, child_execution_id: int) -> tuple[str, str, int, int]:
    """Whether a visit waits, or has waited, for this child execution: True or None."""
    return ("child", step, visit, child_execution_id)


def want_signal(turn: int) -> tuple[str, int]:
    """The context of the `execution_signal` that a turn read: a mapping.

    A negative number is the id of an event that a fork copied.
    """
    return ("signal", turn)


def want_places(places: tuple[tuple[object, ...], ...]) -> tuple[str, tuple[tuple[object, ...], ...]]:
    """Whether these places (path, key, limit) are free, under their locks: a list of {free, number, …}."""
    return ("places", places)


def want_place_locks(places: tuple[tuple[object, ...], ...]) -> tuple[str, tuple[tuple[object, ...], ...]]:
    """The locks of these places (path, key), and of the other places that the next execution waits for: True."""
    return ("place_locks", places)


def want_failed(step: str, visit: int) -> tuple[str, str, int]:
    """The failed items of an iterator that are in the tables: a list of {index, error}, or None."""
    return ("failed", step, visit)


def want_failing(step: str, visit: int) -> tuple[str, str, int]:
    """The items that failed in turns that are not written yet. It is never loaded."""
    return ("failing", step, visit)


def want_undo(turn: int | None) -> tuple[str, int | None]:
    """The open row of `noetl.undo` with the highest turn below `turn` (None: of all): an `UndoRow`, or None."""
    return ("undo", turn)


def want_item_action(step: str, visit: int, index: int) -> tuple[str, str, int, int]:
    """The action in the job of an item: a mapping. Of an item that a child runs: {args: the payload of the child}."""
    return ("item action", step, visit, index)


def want_undone(step: str, visit: int, index: int | None) -> tuple[str, str, int, int | None]:
    """The status of the row in `noetl.undo` of a visit or item; None if it has none."""
    return ("undone", step, visit, index)


def want_undo_action(step: str, visit: int, index: int | None) -> tuple[str, str, int, int | None]:
    """The action in the undo job of a visit or item: a mapping."""
    return ("undo action", step, visit, index)


class UndoRow(NamedTuple):
    """An open row of `noetl.undo`.

    `inputs` is None for a row of this execution: the core asks for the action, the items and the result of the turn.
    For a row that an undo execution took over, it is {action, item, total}: the action in the job of the visit or item
    (of a child {args: its payload}), the value of the item, and how many items there were. Then `result` is the data.
    """

    step: str
    visit: int
    item_index: int | None
    turn: int
    child_execution_id: int | None = None
    inputs: dict[str, JSON] | None = None
    result: JSON = None


def taken_over(rows: Iterable[UndoRow]) -> dict[tuple[object, ...], object]:
    """The answers of an undo execution that took over these rows, for a `Known` that is complete."""
    return {UNDO_ROWS: {(row.step, row.visit, row.item_index): (row, "open") for row in rows}}


def failed_item(end: ItemEnded) -> dict[str, JSON]:
    """A failed item as `{{ it.failed }}` lists it."""
    item: dict[str, JSON] = as_stored({"index": end.item_index, "error": end.error})
    return item


class ItemState(NamedTuple):
    """An item: its status (WAITING, RUNNING, COMPLETED, FAILED, CANCELLED), its failures, its last failed attempt.

    `unsure` as in `ItemRetry`.
    """

    status: str
    failures: int = 0
    failed_attempt: int = 0
    unsure: bool = False


RUNNING_ITEM = ItemState("RUNNING")


def taken_items(step: str, visit: int, items: list[JSON], again: str) -> dict[tuple[object, ...], object]:
    """The answers about items that a fork took over; `again` as in `TakenItems`."""
    answers: dict[tuple[object, ...], object] = {want_all_items(step, visit): items}
    indexes = indexes_of(again)
    for index in set(range(len(items))).difference(indexes):
        answers[want_item_status(step, visit, index)] = ItemState("COMPLETED")
    return answers


class Found(NamedTuple):
    """The latest result of a step, and its visit."""

    visit: int
    result: StepResult


def result_of(event_type: str, result: JSON, error: JSON) -> StepResult:
    """The result that an event gives its step: data, status and error. An envelope is unwrapped once.

    A failed step has data if its action completed: then a later template failed.
    """
    kind = canonical_event_type(event_type)
    if kind not in COMPLETIONS and (kind != STEP_RESULT or error is not None):
        return StepResult(unwrap(result) if kind in WITH_DATA else None, "FAILED", error)
    data = unwrap(result)
    if data is result:
        return StepResult(data, "COMPLETED", None)
    meta = result.get("meta")
    failed = meta.get("failed") if isinstance(meta, dict) else None  # from a worker that iterates
    failed_items = failed if isinstance(failed, list) else None
    status = str(result.get("status") or "COMPLETED")
    unwrapped = len(result) > 1 and failed_items is None
    return StepResult(data, status, result.get("error"), failed_items, unwrapped)


class Known:
    """The answers that are loaded for one execution; asking for anything else raises `NotLoaded`.

    `complete`: everything is loaded, as in a story or a replay. Then a missing answer means that there is none.
    """

    __slots__ = ("answers", "complete", "rules", "written")

    def __init__(
        self,
        rules: Rules | None = None,
        answers: Mapping[tuple[object, ...], object] | None = None,
        *,
        complete: bool = False,
    ) -> None:
        """`answers` maps wants (`want_step` and the others) to their answers."""
        self.rules = rules or Rules()
        self.answers: dict[tuple[object, ...], object] = dict(answers or {})
        if UNDO_ROWS in self.answers:
            self.answers[UNDO_ROWS] = dict(self.undo_rows())  # turns change it
        self.complete = complete
        self.written = 0  # about how many characters of template output the turns so far write

    def ask(self, want: tuple[object, ...]) -> Any:
        """The answer to a want; raises `NotLoaded`."""
        answer = self.answers.get(want, NOT_LOADED)
        if answer is NOT_LOADED and want[0] == "items":
            answer = self._part_of_items(*want[1:])
        if want[0] in OF_UNDO:
            answer = self._undo_row(want, answer)
        if want[0] == "open items" and (self.complete or answer is not NOT_LOADED):
            answer = self._open_items(want, () if answer is NOT_LOADED else answer)
        if answer is NOT_LOADED:
            if self.complete and want[0] in {"step", "item", "child", "failed", "undone", "places", "place_locks"}:
                return None
            raise NotLoaded(frozenset((want,)))
        return answer

    def set_items(self, step: str, visit: int, values: list[JSON]) -> None:
        """Remember all items of an iterator, which its first turn chose."""
        self.answers[want_all_items(step, visit)] = values

    def undo_rows(self) -> dict[tuple[str, int, int | None], tuple[UndoRow, str]]:
        """What the turns so far wrote in `noetl.undo`: each row with its status."""
        rows: dict[tuple[str, int, int | None], tuple[UndoRow, str]]
        rows = self.answers.setdefault(UNDO_ROWS, {})  # type: ignore[assignment]
        return rows

    def _undo_row(self, want: tuple[Any, ...], stored: Any) -> object:
        """The answer to a want about `noetl.undo`: what is stored, with what the turns so far wrote over it."""
        rows = self.undo_rows()
        if want[0] == "undone":
            written = rows.get(want[1:])
            return stored if written is None else written[1]
        if stored is NOT_LOADED and not self.complete:
            return NOT_LOADED
        below = [row for row, status in rows.values() if status == "open" and (want[1] is None or row.turn < want[1])]
        if isinstance(stored, UndoRow):
            _, status = rows.get((stored.step, stored.visit, stored.item_index), (None, "open"))
            _, of_visit = rows.get((stored.step, stored.visit, None), (None, "unknown"))
            superseded = stored.item_index is not None and of_visit != "unknown"
            lower: UndoRow | None = self.ask(want_undo(stored.turn)) if status != "open" or superseded else stored
            below += [] if lower is None else [lower]
        return max(below, key=lambda row: row.turn, default=None)

    def _open_items(self, want: tuple[Any, ...], stored: Any) -> list[int]:
        """The open items that are stored, with what the turns so far changed."""
        open_items = set(stored)
        for key, item in self.answers.items():
            if key[0] == "item" and key[1:3] == want[1:] and isinstance(item, ItemState):
                (open_items.add if item.status in OPEN_ITEMS else open_items.discard)(key[3])
        return sorted(open_items)

    def _part_of_items(self, step: Any, visit: Any, start: Any, count: Any) -> object:
        values = self.answers.get(want_all_items(step, visit))
        return values[start : start + count] if isinstance(values, list) else NOT_LOADED


def remember(known: Known, event: Event, turn: Turn, decision: Decision) -> None:
    """Add what a turn wrote, for later turns: no table has it yet.

    A result that was left in the database must be loaded under its turn before. Raises NotLoaded, as a turn does.
    """
    ended = [row for row in decision.rows if row.result_visit is not None and not row.taken]
    latest = [row for row in ended if _is_latest(known, row)]  # first: it may raise, and then nothing is added
    answers = known.answers
    for job in decision.jobs:
        if job.item_index is None and not job.undo:  # the inputs of an item's visit are in the job of its iterator
            answers[want_action(job.step, job.visit)] = job.action
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
        key = undo.step, undo.visit, undo.item_index
        rows[key] = UndoRow(*key, turn.number, undo.child_execution_id), undo.status
        if undo.item_index is None and undo.status == "open":
            for other, (row, status) in rows.items():
                if other[:2] == key[:2] and other != key and status == "open":
                    rows[other] = row, "superseded"
    for change in decision.of(UndoChanged):
        key = change.step, change.visit, change.item_index
        rows[key] = rows[key][0] if key in rows else UndoRow(*key, 0), change.status
    for job in decision.jobs:
        if job.undo:
            known.answers[want_undo_action(job.step, job.visit, job.item_index)] = job.action
    if noted and decision.carrier is None and event.result is not NOT_LOADED:
        known.answers[want_turn(turn.number)] = result_of(event.type, event.result, event.error)


def _remember_effects(known: Known, event: Event, turn: Turn, decision: Decision) -> None:
    """Add the effects that later turns ask for."""
    answers = known.answers
    if any(isinstance(effect, UndoNoted | UndoChanged) for effect in decision.effects):
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
