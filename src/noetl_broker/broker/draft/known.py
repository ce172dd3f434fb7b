"""The answers that the turns of one execution have: what was loaded, and what earlier turns of the batch added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from noetl_broker.broker.draft.wants import UNDO_ROWS, want_all_items, want_item_status, want_undo
from noetl_broker.broker.model.effects import ItemEnded
from noetl_broker.broker.model.event_types import (
    ACTION_COMPLETED,
    ITEM_COMPLETED,
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
    from collections.abc import Mapping


NOT_LOADED = object()
COMPLETIONS = frozenset({ACTION_COMPLETED, ITEM_COMPLETED, ITERATOR_COMPLETED, STEP_COMPLETED})
WITH_DATA = frozenset({STEP_FAILED, STEP_RESULT})
OF_UNDO = frozenset({"undo", "undone"})  # wants about rows of `noetl.undo`
# Statuses of rows of `noetl.undo` that are open in a turn, by what the turn opens again.
OPEN_AGAIN = {"": {"open"}, "failed": {"open", "failed"}, "unknown": {"open", "failed", "unknown"}}
OPEN_ITEMS = frozenset({"RUNNING", "CANCELLED"})  # an open item of a visit that is over may be marked as cancelled


class UndoRow(NamedTuple):
    """An open row of `noetl.undo`: the visit or item, and the turn that read its success.

    `children` undo what they did, if the visit or item has no `compensate`. `unsure`: no success was reported.
    """

    step: str
    visit: int
    item_index: int | None
    turn: int
    children: tuple[int, ...] = ()
    unsure: bool = False

    @property
    def place(self) -> tuple[int, int, str, int]:
        """Its place in the order of undoing: the highest is undone first. Only rows of no success share a turn."""
        return self.turn, -1 if self.item_index is None else self.item_index, self.step, self.visit


UndoRows: TypeAlias = dict[tuple[str, int, int | None], tuple[UndoRow, str]]


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
            if self.complete and want[0] in {"step", "item", "child", "failed", "undone", "slots", "slot_locks"}:
                return None
            if self.complete and want[0] == "undo action":
                return {}
            raise NotLoaded(frozenset((want,)))
        return answer

    def set_items(self, step: str, visit: int, values: list[JSON]) -> None:
        """Remember all items of an iterator, which its first turn chose."""
        self.answers[want_all_items(step, visit)] = values

    def undo_rows(self) -> UndoRows:
        """What the turns so far wrote in `noetl.undo`: each row with its status."""
        rows: UndoRows
        rows = self.answers.setdefault(UNDO_ROWS, {})  # type: ignore[assignment]
        return rows

    def _undo_row(self, want: tuple[Any, ...], stored: Any) -> object:
        """The answer to a want about `noetl.undo`: what is stored, with what the turns so far wrote over it."""
        rows = self.undo_rows()
        if want[0] == "undone":
            return rows.get(want[1:], stored)
        if stored is NOT_LOADED and not self.complete:
            return NOT_LOADED
        is_open = OPEN_AGAIN[want[2]]
        below = [row for row, status in rows.values() if status in is_open and (want[1] is None or row.place < want[1])]
        if isinstance(stored, UndoRow):
            _, status = rows.get((stored.step, stored.visit, stored.item_index), (stored, "open"))
            _, of_visit = rows.get((stored.step, stored.visit, None), (None, "unknown"))
            superseded = stored.item_index is not None and of_visit != "unknown"
            over = status not in is_open or superseded
            lower: UndoRow | None = self.ask(want_undo(stored.place, want[2])) if over else stored
            below += [] if lower is None else [lower]
        return max(below, key=lambda row: row.place, default=None)

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
