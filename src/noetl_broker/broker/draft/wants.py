"""The names of the answers that a turn may ask for beside its event and state.

The core loads nothing. It asks `Known`, and a missing answer raises `NotLoaded` with its name (a "want"). The store
loads the answers for a whole batch, and the turn runs again on the same state. So only results that a template names
are read.
"""

from __future__ import annotations

WORKLOAD = ("workload",)
UNDO_ROWS = ("undo rows",)  # what the turns so far wrote in `noetl.undo`: each row with its status, by visit and index


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


def want_slots(slots: tuple[tuple[object, ...], ...]) -> tuple[str, tuple[tuple[object, ...], ...]]:
    """Whether these slots (path, key, limit) are free, under their locks: a list of {free, number, …}."""
    return ("slots", slots)


def want_slot_locks(slots: tuple[tuple[object, ...], ...]) -> tuple[str, tuple[tuple[object, ...], ...]]:
    """The locks of these slots (path, key), and of the other slots that the next execution waits for: True."""
    return ("slot_locks", slots)


def want_failed(step: str, visit: int) -> tuple[str, str, int]:
    """The failed items of an iterator that are in the tables: a list of {index, error}, or None."""
    return ("failed", step, visit)


def want_failing(step: str, visit: int) -> tuple[str, str, int]:
    """The items that failed in turns that are not written yet. It is never loaded."""
    return ("failing", step, visit)


def want_undo(
    below: tuple[int, int, str, int] | None = None, again: str = ""
) -> tuple[str, tuple[int, int, str, int] | None, str]:
    """The next open row of `noetl.undo` in the order of undoing, after the place `below`: an `UndoRow`, or None.

    `again`: the turn opens rows again, `failed` ones, or also `unknown` ones.
    """
    return ("undo", below, again)


def want_item_action(step: str, visit: int, index: int) -> tuple[str, str, int, int]:
    """The action in the job of an item: a mapping. Of an item that a child runs: {args: the payload of the child}."""
    return ("item action", step, visit, index)


def want_undone(step: str, visit: int, index: int | None) -> tuple[str, str, int, int | None]:
    """The row in `noetl.undo` of a visit or item, and its status: a pair; None if it has none."""
    return ("undone", step, visit, index)


def want_undo_action(step: str, visit: int, index: int | None) -> tuple[str, str, int, int | None]:
    """The action in the undo job of a visit or item: a mapping; empty if it never had one."""
    return ("undo action", step, visit, index)
