"""What must hold of undos whatever the reference says: read from the decisions alone.

What reported success and has a `compensate` is undone once, or it is listed as failed, unknown or left, over all undos
of its execution. Of the successes that an execution has read, the last one is undone first. Nothing else is undone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from noetl_broker.broker.model.effects import ChildUndone, UndoBegun
from tests.simulation.life import Life, TakenTurn
from tests.simulation.plans import Compensate
from tests.simulation.reference_model import LIVE
from tests.simulation.world import World

OPEN = frozenset({"open", "running"})
LISTED = frozenset({"failed", "unknown", "settled"})
SUCCESSES = frozenset({"action_completed", "iterator_completed"})
OF_CHILDREN = frozenset({"execution_complete", "iteration_completed"})


class _Node(NamedTuple):
    """A visit or an item of an execution."""

    number: int
    step: str
    visit: int
    item_index: int | None

    @property
    def whole(self) -> _Node:
        return self._replace(item_index=None)


def broken_undos(world: World) -> Iterator[str]:
    """Yield each rule of undos that is broken."""
    if any(life.undo_rows() for life in world.lives.values()):
        checks = _Checks(world)
        yield from checks.of_executions()
        yield from checks.of_successes()
        yield from checks.of_undos()


class _Checks:
    def __init__(self, world: World) -> None:
        self.lives = world.lives
        self.successes = dict(self._successes())
        self.done = Counter(
            node for life in self.lives.values() for _, node in _undos_of(life, "compensation_completed")
        )
        self.jobs_done = Counter(
            _Node(life.number, job.step, job.visit, job.index)
            for life in self.lives.values()
            for job in life.jobs.values()
            if job.undo and job.status == "done"
        )
        # Children that completed after their visit had cancelled them, and of which their parent has no row.
        self.late = {
            late.child_execution_id
            for life in self.lives.values()
            for one in life.turns
            for late in one.decision.of(ChildUndone)
            if not any(late.child_execution_id in row.children for row, _ in life.undo_rows().values())
        }
        self.asked = {life.number: [*_undos_asked(life)] for life in self.lives.values()}
        # An operator may undo what may have been undone.
        self.doubtful = {
            number for number, asked in self.asked.items() if any(one.event.context.get("unknown") for one in asked)
        }

    def _successes(self) -> Iterator[tuple[_Node, int]]:
        """Yield what reported success to an execution that read it, with the turn."""
        for life in self.lives.values():
            for one in life.turns:
                if _is_success(one):
                    event = one.event
                    node = _Node(life.number, event.step or "", event.visit or 1, event.item_index)
                    yield node, one.turn.number

    def _own(self, node: _Node) -> Compensate | None:
        step = next(step for step in self.lives[node.number].plan.steps if step.name == node.step)
        if node.item_index is None:
            return step.compensate
        return step.iterate.compensate if step.iterate else None

    def _row(self, node: _Node) -> str | None:
        """Return the status of the row of a node."""
        rows = self.lives[node.number].undo_rows()
        return rows[node[1:]][1] if node[1:] in rows else None

    def _must_be_undone(self, life: Life) -> bool:
        """Tell whether what an execution did is to be undone, by itself or by an execution above it."""
        if life.status in {"FAILED", "CANCELLED"} or life.number in self.late or self.asked[life.number]:
            return True
        parent = life.parent
        if parent is None or parent.undo or life.status in LIVE:
            return False
        above = parent.life
        node = _Node(above.number, parent.step, parent.visit, parent.item_index)
        if self._own(node) is not None or (self._own(node.whole) is not None and node.whole in self.successes):
            return False  # its parent undoes the whole
        return self._must_be_undone(above)

    def _is_listed(self, life: Life, status: str | None) -> bool:
        """Tell whether a row that is not done is undone later, or is shown as left.

        A completed child has open rows. They count if an execution above it has a row for the child.
        """
        if status != "open" or life.status != "COMPLETED" or self.asked[life.number]:
            return status in LISTED | OPEN
        rows = [
            (above, own)
            for above in self.lives.values()
            for row, own in above.undo_rows().values()
            if life.number in row.children
        ]
        return any(own != "superseded" and self._is_listed(above, own) for above, own in rows)

    # The rules.

    def of_executions(self) -> Iterator[str]:
        """Yield executions that did not end with what they had to undo, or undid in another order."""
        for number, life in self.lives.items():
            statuses = [status for _, status in life.undo_rows().values()]
            if "open" in statuses and (life.status == "CANCELLED" or life.undo_status == "undone"):
                yield f"undo: execution {number} is {life.status} and {life.undo_status}, and rows of it are open"
            if "running" in statuses and not life.undoes:
                yield f"undo: execution {number} has ended, and an undo of it runs"
            begun = [(turn, self.successes.get(node, 0)) for turn, node in _undos_of(life, "compensation_started")]
            undos = [one.turn.number for one in self.asked[number]]
            known = [(bisect_right(undos, turn), turn, success) for turn, success in begun if success]
            if any(
                undo == other and before < after <= turn
                for (undo, turn, before), (other, _, after) in combinations(known, 2)
            ):
                successes = [success for *_, success in known]
                yield f"undo: execution {number} undid the successes of turns {successes} in this order"

    def of_successes(self) -> Iterator[str]:
        """Yield what succeeded and was neither undone nor listed, or undone although it stands."""
        for node in self.successes:
            if self._own(node) is None:
                continue
            if node.item_index is not None and self._own(node.whole) is not None and node.whole in self.successes:
                continue  # its iterator undoes the whole
            row, times = self._row(node), self.done[node]
            if not self._must_be_undone(self.lives[node.number]):
                if times or self.jobs_done[node]:
                    yield f"undo: {node} was undone, but its execution was not"
            elif times > 1 or (self.jobs_done[node] > 1 and node.number not in self.doubtful):
                yield f"undo: {node} was undone {times} times, by {self.jobs_done[node]} jobs"
            elif times == 0 and not self._is_listed(self.lives[node.number], row):
                yield f"undo: {node} was not undone, its row is {row}"
            elif times == 1 and row != "done":
                yield f"undo: {node} was undone, and its row is {row}"

    def of_undos(self) -> Iterator[str]:
        """Yield what was undone and had not succeeded; what is listed as unknown may be undone."""
        for node in self.done:
            if node not in self.successes and node[1:] not in self.lives[node.number].undo_rows():
                yield f"undo: {node} was undone, but never succeeded"


def _undos_asked(life: Life) -> Iterator[TakenTurn]:
    """Yield the turns in which an execution that had ended began to undo."""
    for one in life.turns:
        if one.event.kind == "execution_undo" and one.decision.of(UndoBegun):
            yield one


def _is_success(one: TakenTurn) -> bool:
    event = one.event
    kinds = SUCCESSES | OF_CHILDREN if event.item_index is not None else SUCCESSES
    kind = event.type.lower()
    return kind in kinds and one.decision.outcome in {"decided", "late"} and not event.undo and event.step is not None


def _undos_of(life: Life, event_type: str) -> Iterator[tuple[int, _Node]]:
    """Yield the turns of an execution that began or ended an undo, with what it undoes."""
    for one in life.turns:
        for event in one.decision.events:
            if event.type == event_type:
                index = (event.context or {}).get("index")
                yield one.turn.number, _Node(life.number, event.step or "", event.visit, index)
