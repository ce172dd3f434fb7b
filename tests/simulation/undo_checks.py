"""What must hold of undos whatever the reference says: read from the decisions alone.

What reported success and has a `compensate` is undone once, or it is listed as failed, unknown or left, over all
executions that go on with the undo. Of the successes that an execution has read, the last one is undone first. Nothing
else is undone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from noetl_broker.broker.model.effects import LateChildUndone
from tests.simulation.life import Life, TakenTurn
from tests.simulation.plans import Compensate
from tests.simulation.reference_model import LIVE
from tests.simulation.world import World

OPEN = frozenset({"open", "running"})
LISTED = frozenset({"failed", "unknown"})
SUCCESSES = frozenset({"action_completed", "iterator_completed"})
OF_CHILDREN = frozenset({"execution_complete", "iteration_completed"})


class _Node(NamedTuple):
    """A visit or an item of an execution; an undo execution has the nodes of the one whose actions it undoes."""

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
            _Node(_origin(life).number, job.step, job.visit, job.index)
            for life in self.lives.values()
            for job in life.jobs.values()
            if job.undo and job.status == "done"
        )
        # Children that completed after their visit had cancelled them, and of which their parent has no row.
        self.late = {
            late.child_execution_id
            for life in self.lives.values()
            for one in life.turns
            for late in one.decision.of(LateChildUndone)
            if late.child_execution_id not in [row.child_execution_id for row, _ in life.undo_rows().values()]
        }
        # An operator may undo what may have been undone.
        self.doubtful = {
            life.origin.number
            for life in self.lives.values()
            for one in life.turns
            if life.origin is not None and one.event.kind == "execution_start" and one.event.meta["undo"].get("unknown")
        }

    def _successes(self) -> Iterator[tuple[_Node, int]]:
        """Yield what reported success to an execution that read it, with the turn."""
        for life in self.lives.values():
            for one in life.turns:
                if _is_success(one):
                    event = one.event
                    node = _Node(_origin(life).number, event.step or "", event.visit or 1, event.item_index)
                    yield node, one.turn.number

    def _own(self, node: _Node) -> Compensate | None:
        step = next(step for step in self.lives[node.number].plan.steps if step.name == node.step)
        if node.item_index is None:
            return step.compensate
        return step.iterate.compensate if step.iterate else None

    def _row(self, node: _Node) -> tuple[Life, str] | None:
        """Return the status of the last row of a node, and the execution that has it."""
        life = self.lives[node.number]
        while node[1:] in life.undo_rows():
            status = life.undo_rows()[node[1:]][1]
            if status != "taken":
                return life, status
            life = next(taker for taker in reversed(life.takers) if node[1:] in taker.undo_rows())
        return None

    def _must_be_undone(self, life: Life) -> bool:
        """Tell whether what an execution did is to be undone, by itself or by an execution above it."""
        if life.status in {"FAILED", "CANCELLED"} or life.number in self.late:
            return True
        parent = life.parent
        if parent is None or parent.undo or life.status in LIVE:
            return False
        above = _origin(parent.life)
        node = _Node(above.number, parent.step, parent.visit, parent.item_index)
        if self._own(node) is not None or (self._own(node.whole) is not None and node.whole in self.successes):
            return False  # its parent undoes the whole
        return self._must_be_undone(above)

    def _is_listed(self, life: Life, status: str) -> bool:
        """Tell whether a row that is not done is undone later, or is shown as left.

        A completed child has open rows. They count if an execution above it has a row for the child.
        """
        if status not in LISTED | OPEN or life.status != "COMPLETED" or status in LISTED:
            return status in LISTED | OPEN
        rows = [
            (above, own)
            for above in self.lives.values()
            for row, own in above.undo_rows().values()
            if row.child_execution_id == life.number
        ]
        return any(own not in {"superseded", "taken"} and self._is_listed(above, own) for above, own in rows)

    # The rules.

    def of_executions(self) -> Iterator[str]:
        """Yield executions that did not end with what they had to undo, or undid in another order."""
        for number, life in self.lives.items():
            statuses = [status for _, status in life.undo_rows().values()]
            if life.status == "CANCELLED" and "open" in statuses:
                yield f"undo: execution {number} was cancelled, and rows of it are open"
            if "running" in statuses and life.status not in LIVE:
                yield f"undo: execution {number} has ended, and an undo of it runs"
            begun = [(turn, self.successes.get(node, 0)) for turn, node in _undos_of(life, "compensation_started")]
            known = [(turn, success) for turn, success in begun if success]
            # What an undo execution undoes had succeeded before it started.
            if any(
                before < after and (life.origin is not None or after <= turn)
                for (turn, before), (_, after) in combinations(known, 2)
            ):
                successes = [success for _, success in known]
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
            elif times == 0 and not (row and self._is_listed(*row)):
                yield f"undo: {node} was not undone, its row is {row and row[1]}"
            elif times == 1 and (row is None or row[1] != "done"):
                yield f"undo: {node} was undone, and its row is {row and row[1]}"

    def of_undos(self) -> Iterator[str]:
        """Yield what was undone and had not succeeded; what is listed as unknown may be undone."""
        for node in self.done:
            if node not in self.successes and node[1:] not in self.lives[node.number].undo_rows():
                yield f"undo: {node} was undone, but never succeeded"


def _origin(life: Life) -> Life:
    return life.origin or life


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
                yield one.turn.number, _Node(_origin(life).number, event.step or "", event.visit, index)
