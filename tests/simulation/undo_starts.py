"""Executions that undo what another one left, in a world: `noetl.undo_execution` and `start_undos` in few words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from noetl_broker.broker.draft.known import Known, UndoRow
from noetl_broker.broker.draft.wants import UNDO_ROWS
from noetl_broker.testing.undo import rows_to_take_over
from tests.simulation.life import Life, Parent

if TYPE_CHECKING:
    from tests.simulation.world import World

LEFT = frozenset({"open", "failed"})
DOUBTFUL = frozenset({"unknown", "running"})
Key = tuple[str, int, int | None]


def undo_execution(world: World, life: Life, *, unknown: bool) -> Life | None:
    """Start an execution that undoes what is left of an ended one; None if that is refused."""
    if life.status == "COMPLETED" or life.is_live:
        return None  # a completed one may be undone, too, but nobody does it here
    above = life
    while above.parent is not None:
        above = above.parent.life
        if above.is_live:
            return None
    beside = _undone_beside(world, life.origin or life)
    if any(one.is_live for one in beside) or not [*_left(life, unknown=unknown)]:
        return None
    return start_undo(world, life, unknown=unknown)


def _family_of(life: Life) -> list[Life]:
    """Return an execution and those that took over its rows."""
    found = [life]
    for one in found:
        found += [taker for taker in one.takers if taker not in found]
    return found


def _undone_beside(world: World, origin: Life) -> Iterator[Life]:
    """Yield the executions that undo what an execution, one above it, or one of its children did."""
    above = [origin]
    for one in above:
        parent = None if one.parent is None else one.parent.life
        if parent is not None and any(row.child_execution_id == one.number for row, _ in parent.undo_rows().values()):
            above.append(parent)
        yield from _family_of(one)
    below = [origin]
    for one in below:
        named = [world.lives[row.child_execution_id] for row, _ in one.undo_rows().values() if row.child_execution_id]
        below += [other for other in (*one.takers, *named) if other not in below]
    yield from below


def _left(life: Life, *, unknown: bool) -> Iterator[tuple[Life, Key, str]]:
    statuses = LEFT | DOUBTFUL if unknown else LEFT
    for owner in _family_of(life):
        if not owner.is_live:
            yield from ((owner, key, status) for key, (_, status) in owner.undo_rows().items() if status in statuses)


def start_undo(
    world: World, life: Life, *, unknown: bool = False, meta: dict[str, Any] | None = None, parent: Parent | None = None
) -> Life:
    """Start an execution that takes over what is left to undo."""
    left, origin = [*_left(life, unknown=unknown)], life.origin or life
    copied = [(_copy(owner, key), origin.undo_rows()[key][0].turn) for owner, key, _ in left]
    copied.sort(key=lambda entry: (entry[1], entry[0].item_index is not None, entry[0].item_index or 0, entry[0].step))
    rows = [row._replace(turn=number) for number, (row, _) in enumerate(copied, 1)]
    family = f"{life.family}!{len(life.takers)}"
    own = world.begin(life.plan, family, parent=parent, origin=origin, undone=rows)
    for owner, key, _ in left:
        owner.undo_rows()[key] = owner.undo_rows()[key][0], "taken"
        if own not in owner.takers:
            owner.takers.append(own)
    doubtful = sum(status in DOUBTFUL for _, _, status in left)
    given = meta or {}
    undo = {
        "execution_id": life.number, "origin": origin.number, "rows": len(rows), "unknown": doubtful,
        "error": life.undo_error or life.error or {"message": "it is undone after it completed", "type": "undo"},
        **given.get("undo", {}),
    }  # fmt: skip
    context = {"path": life.plan.path, "version": 1, "workload": life.archive.answers.get(("workload",)) or {}}
    above = None if parent is None else parent.life.number
    meta = {**given, "forked_from": life.number, "undo": undo}
    world.send(own, "execution_start", str(own.number), context=context, meta=meta, parent_execution_id=above)
    return own


def _copy(owner: Life, key: Key) -> UndoRow:
    """Return a row as an undo execution takes it over."""
    row, _ = owner.undo_rows()[key]
    [copied] = rows_to_take_over(
        Known(answers={**owner.archive.answers, UNDO_ROWS: {key: (row, "open")}}, complete=True)
    )
    return copied
