"""What an operator asks for in a world: `noetl.undo_execution` and `noetl.settle_undo` in few words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulation.life import Life

if TYPE_CHECKING:
    from tests.simulation.world import World

LEFT = frozenset({"open", "failed"})


def undo_execution(world: World, life: Life, *, unknown: bool) -> bool:
    """Ask an ended execution to undo what it did; False if that is refused, or nothing is left."""
    wanted = LEFT | {"unknown"} if unknown else LEFT
    statuses = {status for _, status in life.undo_rows().values()}
    if not _may_be_undone(life) or not wanted & statuses:
        return False
    error = life.undo_error or life.error or {"message": "it is undone after it completed", "type": "undo"}
    context = {"error": error, **({"unknown": True} if unknown else {})}
    world.send(life, "execution_undo", str(life.number), context=context)
    return True


def settle_undo(world: World, life: Life) -> bool:
    """Settle one step of an ended execution; False if that is refused, or nothing is left."""
    left = [key for key, (_, status) in life.undo_rows().items() if status in LEFT | {"unknown"}]
    if not _may_be_undone(life) or life.undoes or not left:
        return False
    world.send(life, "undo_settled", life.node(*world.random.choice(left), undo=True), context={"reason": "by hand"})
    return True


def _may_be_undone(life: Life) -> bool:
    """Tell whether an execution has ended, and those above it, and nobody else undoes it."""
    asked = any(mail.row["event_type"] == "execution_undo" for mail in life.mail)
    if life.is_live or asked or any(one.is_live for one in _above(life)):
        return False
    parent = life.parent
    if parent is None or life.status != "COMPLETED":
        return True
    keys = ((parent.step, parent.visit, None), (parent.step, parent.visit, parent.item_index))
    rows = [parent.life.undo_rows()[key] for key in keys if key in parent.life.undo_rows()]
    return not any(not row.children and status not in {"superseded", "unknown"} for row, status in rows)


def _above(life: Life) -> Iterator[Life]:
    """Yield the executions above this one."""
    while life.parent is not None:
        life = life.parent.life
        yield life
