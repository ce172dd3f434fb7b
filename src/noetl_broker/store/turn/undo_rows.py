"""What a batch of turns writes about undoing: rows of `noetl.undo`, draining visits, jobs that are queued again.

Few turns write any of it. The jobs of draining visits are cancelled after `write_turns`, because a turn of the same
batch may have queued them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.broker.draft.known import OPEN_AGAIN
from noetl_broker.broker.model.effects import UndoBegun, UndoChanged, UndoNoted
from noetl_broker.node_ids import node_id
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.row_layout import EVENT, columns_of

if TYPE_CHECKING:
    from noetl_broker.broker.model.event import Turn

Key = tuple[int, str]  # an execution and a node
ROW_WIDTH, STATUS, ERROR = 10, 6, 9  # of a row, and positions in it
AGAIN = ("job_status", "job_action", "job_context", "job_priority", "job_max_attempts")  # columns of `queue_again`


class UndoColumns:
    """The rows of one batch that have to do with undoing."""

    def __init__(self) -> None:
        """No rows."""
        self.rows: dict[Key, list[Any]] = {}
        self.changes: dict[Key, tuple[object, ...]] = {}  # of rows that are in the table
        self.begun: dict[int, bool] = {}  # executions that undo after their end, and whether also what is unknown
        self.superseded: dict[tuple[int, str, int], None] = {}  # visits
        self.jobs: list[Key] = []  # of undos
        self.again: list[tuple[int, str, str, list[Any]]] = []  # jobs: execution, node, visit, the row of an event
        self.compensating: list[int] = []  # executions that undo once their draining visits have ended
        self.draining: dict[Key, None] = {}  # visits
        self.not_started: list[Key] = []  # draining visits, or items, whose child was not started

    def note(self, owner: int, turn: Turn, undo: UndoNoted) -> None:
        """Add a row; a later turn of the batch replaces."""
        step, visit, index, status, children = undo
        key = owner, node_id(owner, step, visit, index)
        self.changes.pop(key, None)
        ids = f"{{{','.join(map(str, children))}}}" if children else None
        self.rows[key] = [*key, step, visit, index, turn.number, status, status == "unknown", ids, None]
        if index is None and status == "open":
            self._supersede(owner, step, visit)

    def begin(self, owner: int, begun: UndoBegun) -> None:
        """Open the failed rows of an execution again; with `unknown` also the unknown ones."""
        again = OPEN_AGAIN["unknown" if begun.unknown else "failed"]
        for row in self.rows.values():
            if row[0] == owner and row[STATUS] in again:
                row[STATUS], row[ERROR] = "open", None
        for key, change in self.changes.items():
            if key[0] == owner and change[2] in again:
                self.changes[key] = (*key, "open", None)
        self.begun[owner] = begun.unknown

    def change(self, owner: int, change: UndoChanged) -> None:
        """Change a row: one of this batch, or one in the table."""
        key = owner, node_id(owner, change.step, change.visit, change.item_index)
        error = None if change.error is None else dump_json(change.error)
        row = self.rows.get(key)
        if row is None:
            self.changes[key] = (*key, change.status, error)
        else:
            row[STATUS], row[ERROR] = change.status, error

    def _supersede(self, owner: int, step: str, visit: int) -> None:
        self.superseded[owner, step, visit] = None
        for row in self.rows.values():
            if row[0] == owner and row[2:4] == [step, visit] and row[4] is not None and row[STATUS] == "open":
                row[STATUS] = "superseded"

    def drain_visit(self, owner: int, node: str) -> None:
        """Add a visit that is over, but whose late success is to be undone."""
        self.draining[owner, node] = None

    def drop(self, owner: int) -> None:
        """Drop the rows of an execution that ends in this batch: it drains nothing any more."""
        self.compensating = [execution_id for execution_id in self.compensating if execution_id != owner]
        self.draining = {key: None for key in self.draining if key[0] != owner}
        self.not_started = [key for key in self.not_started if key[0] != owner]

    def row_arguments(self) -> list[list[Any]] | None:
        """The arguments of `write_undos`; None: no row of `noetl.undo` changes, and no undo is queued."""
        if not (self.rows or self.changes or self.jobs or self.begun):
            return None
        return [
            *columns_of(self.rows.values(), ROW_WIDTH), *columns_of(self.changes.values(), 4),
            *columns_of(self.superseded, 3), *columns_of(self.jobs, 2), *columns_of(self.begun.items(), 2),
        ]  # fmt: skip

    def again_arguments(self) -> list[list[Any]] | None:
        """The arguments of `queue_again`; None: no undo is queued again."""
        if not self.again:
            return None
        positions = [*map(EVENT.index, AGAIN)]
        rows = []
        for owner, node, visit_node, row in self.again:
            status, action, context, *rest = (row[position] for position in positions)
            few = row[-1] if isinstance(row[-1], dict) else {}
            limits = *rest, few.get("timeout"), few.get("pool")
            rows.append((owner, node, visit_node, status, action, dump_json(context), *limits))
        return columns_of(rows, 10)

    def drain_arguments(self) -> list[list[Any]] | None:
        """The arguments of `drain_jobs`; None: no job is cancelled that may be draining."""
        if not (self.compensating or self.draining or self.not_started):
            return None
        return [self.compensating, *columns_of(self.draining, 2), *columns_of(self.not_started, 2)]
