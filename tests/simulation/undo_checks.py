"""What must hold of undos whatever the reference says: read from the tables alone.

What reported success and has a `compensate` is undone once, or it is listed as failed, unknown or left, over all
executions that go on with the undo. Within each execution the last success is undone first. Nothing else is undone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.simulation.plans import Compensate, Plan, Step
from tests.simulation.tables import LIVE, Row, Tables

UNDO = "!undo"
OPEN = frozenset({"open", "running"})
LISTED = frozenset({"failed", "unknown"})
OVER = frozenset({"FAILED", "CANCELLED"})


class _Node(NamedTuple):
    """A visit or an item of an execution; an undo execution has the nodes of the one whose actions it undoes."""

    execution_id: int
    text: str  # such as `a#2` or `a#1.3`

    @property
    def step(self) -> str:
        return self.text.partition("#")[0].partition(".")[0]

    @property
    def item_index(self) -> int | None:
        index = self.text.partition(".")[2]
        return int(index) if index else None

    @property
    def visit(self) -> str:
        return self.text.partition(".")[0].removesuffix("#1")


def broken_undos(tables: Tables, plans: Mapping[str, Plan]) -> Iterator[str]:
    """Yield each rule of undos that is broken."""
    if not tables.undos and not any(event["event_type"].startswith("compensation") for event in tables.events.values()):
        return
    checks = _Checks(tables, plans)
    yield from checks.of_executions()
    yield from checks.of_successes()
    yield from checks.of_undos()
    yield from checks.of_order()


class _Checks:
    def __init__(self, tables: Tables, plans: Mapping[str, Plan]) -> None:
        self.tables, self.plans = tables, plans
        starts = [event for event in tables.events.values() if "undo" in (event["meta"] or {})]
        starts = [event for event in starts if event["event_type"] == "execution_start"]
        self.origins: dict[int, int] = {event["execution_id"]: event["meta"]["undo"]["origin"] for event in starts}
        # An operator may undo what may have been undone.
        self.doubtful = Counter(event["meta"]["undo"]["origin"] for event in starts if event["meta"]["undo"]["unknown"])
        self.successes = dict(self._successes())
        self.done = Counter(self._nodes_of("compensation_completed"))
        jobs = [job for key, job in tables.queue.items() if key[1].endswith(UNDO) and job["status"] == "done"]
        self.jobs_done = Counter(self._node(job["execution_id"], job["node_id"]) for job in jobs)

    def _node(self, execution_id: int, node_id: str, item_index: int | None = None) -> _Node:
        text = node_id.partition(":")[2].removesuffix(UNDO)
        visit, _, own = text.partition(".")
        index = item_index if item_index is not None else int(own) if own else None
        visit = visit.removesuffix("#1")
        text = visit if index is None else f"{visit}.{index}"
        return _Node(self.origins.get(execution_id, execution_id), text)

    def _nodes_of(self, event_type: str, owner: int | None = None) -> Iterator[_Node]:
        for event in self.tables.events.values() if owner is None else self.tables.events_of[owner]:
            if event["event_type"] == event_type:
                yield self._node(event["execution_id"], event["node_id"], (event["context"] or {}).get("index"))

    def _successes(self) -> Iterator[tuple[_Node, int]]:
        """Yield what reported success to an execution that read it, with the turn."""
        for (owner, number), turn in sorted(self.tables.turns.items()):
            event = self.tables.events[turn["event_id"]]
            kind, index = event["event_type"].lower(), (event["meta"] or {}).get("index")
            of_child = index is not None and kind in {"execution_complete", "iteration_completed"}
            is_success = kind in {"action_completed", "iterator_completed"} or of_child
            if is_success and turn["outcome"] in {"decided", "late"} and not event["node_id"].endswith(UNDO):
                yield self._node(owner, event["node_id"], index), number

    def _step(self, node: _Node) -> Step:
        plan = self.plans[self.tables.executions[node.execution_id]["path"]]
        return next(step for step in plan.steps if step.name == node.step)

    def _own(self, node: _Node) -> Compensate | None:
        step = self._step(node)
        if node.item_index is None:
            return step.compensate
        return step.iterate.compensate if step.iterate else None

    def _own_row(self, node: _Node, owner: int) -> Row | None:
        """Return the row of a node in one execution."""
        text = node.text
        if node.item_index is not None and "#" not in text:
            text = f"{node.visit}#1.{node.item_index}"
        return self.tables.undos.get((owner, f"{owner}:{text}"))

    def _row(self, node: _Node) -> Row | None:
        """Return the last row of a node: of the execution that took it over, if one did."""
        owner = node.execution_id
        for _ in range(100):
            row = self._own_row(node, owner)
            if row is None or row["status"] != "taken":
                return row
            owner = row["taken_by"]
        return None

    def _must_be_undone(self, execution_id: int) -> bool:
        """Tell whether what an execution did is to be undone, by itself or by an execution above it."""
        execution = self.tables.executions[execution_id]
        if execution["status"] in OVER:
            return True
        if execution["parent_execution_id"] is None or execution["status"] in LIVE:
            return False
        parent = self._node(execution["parent_execution_id"], execution["parent_node_id"], execution["parent_index"])
        if execution["parent_node_id"].endswith(UNDO):
            return False  # it undid something, and succeeded
        whole = _Node(parent.execution_id, parent.visit)
        if self._own(parent) is not None or (self._own(whole) is not None and whole in self.successes):
            return False  # its parent undoes the whole
        return self._must_be_undone(parent.execution_id)

    def _is_listed(self, row: Row) -> bool:
        """Tell whether a row that is not done is undone later, or is shown as left.

        A completed child has open rows. They count if an execution above it has a row for the child.
        """
        execution = self.tables.executions[row["execution_id"]]
        if row["status"] not in LISTED | OPEN or execution["status"] != "COMPLETED" or row["status"] in LISTED:
            return row["status"] in LISTED | OPEN
        rows = [one for one in self.tables.undos.values() if one["child_execution_id"] == row["execution_id"]]
        return any(one["status"] not in {"superseded", "taken"} and self._is_listed(one) for one in rows)

    # The rules.

    def of_executions(self) -> Iterator[str]:
        """Yield executions that did not end with what they had to undo."""
        for owner, execution in self.tables.executions.items():
            rows = [row["status"] for key, row in self.tables.undos.items() if key[0] == owner]
            if execution["status"] == "CANCELLED" and "open" in rows:
                yield f"undo: execution {owner} was cancelled, and rows of it are open"
            if "running" in rows and execution["status"] not in LIVE:
                yield f"undo: execution {owner} has ended, and an undo of it runs"

    def of_successes(self) -> Iterator[str]:
        """Yield what succeeded and was neither undone nor listed, or undone although it stands."""
        for node in self.successes:
            if self._own(node) is None:
                continue
            whole = _Node(node.execution_id, node.visit)
            if node.item_index is not None and self._own(whole) is not None and whole in self.successes:
                continue  # its iterator undoes the whole
            row, times = self._row(node), self.done[node]
            status = row["status"] if row else None
            if not self._must_be_undone(node.execution_id):
                if times or self.jobs_done[node]:
                    yield f"undo: {node} was undone, but its execution was not"
            elif times > 1 or (self.jobs_done[node] > 1 and not self.doubtful[node.execution_id]):
                yield f"undo: {node} was undone {times} times, by {self.jobs_done[node]} jobs"
            elif times == 0 and not (row and self._is_listed(row)):
                yield f"undo: {node} was not undone, its row is {status}"
            elif times == 1 and status != "done":
                yield f"undo: {node} was undone, and its row is {status}"

    def of_undos(self) -> Iterator[str]:
        """Yield what was undone and had not succeeded."""
        for node in self.done:
            if node in self.successes:
                continue
            if self._own_row(node, node.execution_id) is None:  # one of unknown outcome may be undone
                yield f"undo: {node} was undone, but never succeeded"

    def of_order(self) -> Iterator[str]:
        """Yield undos that did not come in the order of the successes, the last one first."""
        for owner in self.tables.executions:
            turns: list[Any] = [self.successes.get(node) for node in self._nodes_of("compensation_started", owner)]
            known = [turn for turn in turns if turn is not None]
            if known != sorted(known, reverse=True):
                yield f"undo: execution {owner} undid the successes of turns {known} in this order"
