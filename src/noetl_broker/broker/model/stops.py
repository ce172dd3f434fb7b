"""What a decision stops: jobs, timers, waits and children.

The store and simulations ask here. SQL is told whose jobs and children stop, and looks them up: `cancel_jobs`,
`cancel_visits`, `drain_jobs` and `write_family`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model.effects import (
    ItemChildCancelled,
    ItemsCancelled,
    JobChanged,
    UndoEnded,
    VisitCancelled,
    VisitDrained,
    WaitEnded,
    WorkCancelled,
)

if TYPE_CHECKING:
    from noetl_broker.broker.model.decision import Decision
    from noetl_broker.broker.model.values import Visit

Item = tuple[str, int, int | None]  # a visit (None), or an item of it
KINDS = frozenset(
    {ItemChildCancelled, JobChanged, ItemsCancelled, VisitDrained, VisitCancelled, WaitEnded, WorkCancelled}
)  # the effects that stop something


class Stops(NamedTuple):
    """The work that a turn stops. What undoes something goes on, unless the execution or its undo ends.

    `draining` visits are over, and still report a success. `waits` have ended; `undos` are tried again or given up.
    """

    all_work: bool = False
    execution: bool = False
    visits: frozenset[Visit] = frozenset()
    cancelled: frozenset[Visit] = frozenset()
    draining: frozenset[Visit] = frozenset()
    waits: frozenset[Visit] = frozenset()
    item_children: frozenset[Item] = frozenset()
    undos: frozenset[Item] = frozenset()
    dead_undos: frozenset[Item] = frozenset()

    def visit(self, step: str, visit: int) -> bool:
        """Whether a visit stops: its children and its jobs that no worker holds, also those of this turn."""
        return self.all_work or (step, visit) in self.visits

    def job(self, step: str, visit: int, index: int | None, *, undo: bool) -> bool:
        """Whether the job of a visit or an item stops, or its undo job."""
        if undo:
            return self.execution or (step, visit, index) in self.dead_undos
        return self.all_work or (step, visit) in (self.cancelled if index is None else self.visits)

    def child(self, step: str, visit: int, index: int | None, *, undo: bool) -> bool:
        """Whether a child of a visit or an item stops, or the child that undoes it."""
        if undo:
            return self.execution or (step, visit, index) in self.undos
        return self.visit(step, visit) or (step, visit, index) in self.item_children

    def timer(self, step: str, visit: int) -> bool:
        """Whether the timers of a visit stop, if the execution goes on."""
        return (step, visit) in (self.visits | self.waits) - self.draining


def stops_of(decision: Decision) -> Stops:
    """What a turn stops."""
    if KINDS.isdisjoint(map(type, decision.effects)):  # as in most turns
        return Stops(execution=decision.ended is not None)
    ends = decision.ended is not None or decision.last(UndoEnded) is not None
    cancelled = frozenset((one.step, one.visit) for one in decision.of(VisitCancelled))
    of_undos = [change for change in decision.of(JobChanged) if change.undo]
    undos = [
        (change.step, change.visit, change.item_index) for change in of_undos if change.status in {"dead", "delegated"}
    ]
    dead = [(change.step, change.visit, change.item_index) for change in of_undos if change.status == "dead"]
    return Stops(
        all_work=decision.last(WorkCancelled) is not None,
        execution=ends,
        visits=cancelled | {(one.step, one.visit) for one in decision.of(ItemsCancelled)},
        cancelled=cancelled,
        draining=frozenset((one.step, one.visit) for one in decision.of(VisitDrained)),
        waits=cancelled | {(one.step, one.visit) for one in decision.of(WaitEnded)},
        item_children=frozenset((one.step, one.visit, one.item_index) for one in decision.of(ItemChildCancelled)),
        undos=frozenset(undos),
        dead_undos=frozenset(dead),
    )
