"""What a batch of turns writes about undoing: rows of `noetl.undo`, awaited visits, executions that undo children.

Few turns write any of it. The jobs of awaited visits are withdrawn after `write_turns`, because a turn of the same
batch may have queued them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.nodes import item_node_id, node_id
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.row_layout import columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from noetl_broker.broker.model import JSON, Child, Decision, Turn

Key = tuple[int, str]  # an execution and a node
ROW_WIDTH, STATUS, ERROR = 9, 6, 8  # of a row, and positions in it


class UndoColumns:
    """The rows of one batch that have to do with undoing."""

    def __init__(self) -> None:
        """No rows."""
        self.rows: dict[Key, list[Any]] = {}
        self.changes: dict[Key, tuple[object, ...]] = {}  # of rows that are in the table
        self.superseded: dict[tuple[int, str, int], None] = {}  # visits
        self.jobs: list[Key] = []  # of undos
        self.children: list[tuple[object, ...]] = []  # executions that undo a child
        self.draining: list[int] = []  # executions that undo once their awaited visits have ended
        self.awaited: dict[Key, None] = {}  # visits
        self.left: list[int] = []  # executions that ended and leave rows
        self.unwanted: list[tuple[int, int]] = []  # children that completed in vain, each after its parent
        self.unstarted: list[Key] = []  # awaited visits, or items, whose child was not started

    def add(self, owner: int, turn: Turn, decision: Decision) -> None:
        """Add the rows that one turn writes or changes; a later turn of the batch replaces."""
        if decision.unwanted_child is not None:
            self.unwanted.append((owner, decision.unwanted_child))
        for step, visit, index, status, child_id in decision.undos:
            key = owner, node_id(owner, step, visit, index)
            self.changes.pop(key, None)
            self.rows[key] = [*key, step, visit, index, turn.number, status, child_id, None]
            if index is None and status == "open":
                self._supersede(owner, step, visit)
        for step, visit, index, status, error in decision.undo_changes:
            key = owner, node_id(owner, step, visit, index)
            error_json = None if error is None else dump_json(error)
            row = self.rows.get(key)
            if row is None:
                self.changes[key] = (*key, status, error_json)
            else:
                row[STATUS], row[ERROR] = status, error_json

    def _supersede(self, owner: int, step: str, visit: int) -> None:
        self.superseded[owner, step, visit] = None
        for row in self.rows.values():
            if row[0] == owner and row[2:4] == [step, visit] and row[4] is not None and row[STATUS] == "open":
                row[STATUS] = "superseded"

    def add_child(self, owner: int, node: str, child: Child, meta: dict[str, JSON]) -> None:
        """Add an execution that undoes a child."""
        self.children.append((owner, node, child.undo_of, dump_json(meta)))

    def await_visits(self, owner: int, visits: Iterable[tuple[str, int]]) -> None:
        """Add visits that are over, but whose late success is to be undone."""
        self.awaited.update(dict.fromkeys((owner, node_id(owner, step, visit)) for step, visit in visits))

    def drop_child(self, row: tuple[object, ...]) -> bool:
        """Note that a child (its parent, node and index) is not started; gives whether its visit is awaited."""
        owner, node, index = row
        is_awaited = (owner, node) in self.awaited
        if is_awaited and isinstance(owner, int) and isinstance(node, str):
            self.unstarted.append((owner, item_node_id(node, index) if isinstance(index, int) else node))
        return is_awaited

    def drop(self, owner: int) -> None:
        """Drop the rows of an execution that ends in this batch: it awaits and undoes nothing any more."""
        self.draining = [execution_id for execution_id in self.draining if execution_id != owner]
        self.awaited = {key: None for key in self.awaited if key[0] != owner}
        self.unstarted = [key for key in self.unstarted if key[0] != owner]
        self.children = [row for row in self.children if row[0] != owner]

    @property
    def drains(self) -> bool:
        """Whether jobs are withdrawn that may be awaited."""
        return bool(self.draining or self.awaited or self.unstarted)

    @property
    def has_rows(self) -> bool:
        """Whether rows of `noetl.undo` change, or an undo is queued."""
        return bool(self.rows or self.changes or self.jobs)

    def row_arguments(self) -> list[list[Any]]:
        """The arguments of `write_undos`."""
        return [
            *columns_of([*self.rows.values()], ROW_WIDTH), *columns_of([*self.changes.values()], 4),
            *columns_of([*self.superseded], 3), *columns_of(self.jobs, 2),
        ]  # fmt: skip

    def left_arguments(self) -> list[list[Any]]:
        """The arguments of `leave_undos`."""
        return [self.left]

    def child_arguments(self) -> list[list[Any]]:
        """The arguments of `start_undos`."""
        return columns_of(self.children, 4)

    def unwanted_arguments(self) -> list[list[Any]]:
        """The arguments of `undo_unwanted_children`."""
        return columns_of(self.unwanted, 2)

    def drain_arguments(self) -> list[list[Any]]:
        """The arguments of `drain_jobs`."""
        return [self.draining, *columns_of([*self.awaited], 2), *columns_of(self.unstarted, 2)]

    def awaited_arguments(self) -> list[list[Any]]:
        """The awaited visits, for `write_family`."""
        return columns_of([*self.awaited], 2)
