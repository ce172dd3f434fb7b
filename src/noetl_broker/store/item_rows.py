"""Rows of iterator items that change: started, tried again, ended, given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.nodes import node_id
from noetl_broker.store.json_codec import dump_json

if TYPE_CHECKING:
    from noetl_broker.broker.model import JSON, Decision

Item = tuple[int, str, int]  # the execution, the node of the visit, the index


class ItemRows:
    """The changes of one batch, by item: a later turn replaces an earlier one."""

    def __init__(self) -> None:
        """No changes."""
        self.changes: dict[Item, list[object]] = {}
        self.dropped: dict[Item, None] = {}  # items whose child is cancelled, and that go on

    def add(self, owner: int, decision: Decision, event_id: int, first: int) -> None:
        """Add what a turn decided; it read the event `event_id`, and `first` is the ordinal before its first event."""
        for step, visit, index, failures, failed_attempt, unsure, error in decision.item_retries:
            item = (owner, node_id(owner, step, visit), index)
            self.change(item, "RUNNING", error=error, counted=[failures, failed_attempt, unsure])
        for step, visit, index, status, error, result_at in decision.item_ends:
            item = (owner, node_id(owner, step, visit), index)
            carrier = None if result_at is None else first + result_at + 1
            self.change(item, status, event_id, carrier, error=error)
        for step, visit, index in decision.dropped:
            self.dropped[owner, node_id(owner, step, visit), index] = None

    def change(
        self,
        item: Item,
        status: str,
        event_id: int | None = None,
        carrier: int | None = None,
        *,
        error: JSON = None,
        counted: list[object] | None = None,
    ) -> None:
        """Set the row of an item. `carrier`: the ordinal of the emitted event with its result, in place of `event_id`.

        `counted`: its failures, its last failed attempt, and whether one may have happened; None: those of an earlier
        turn of the batch, or the row's.
        """
        before = self.changes.get(item)
        kept = [None, None, None] if before is None else before[4:]
        document = None if error is None else dump_json(error)
        self.changes[item] = [status, event_id, carrier, document, *(kept if counted is None else counted)]

    def change_arguments(self, item_results: dict[str, int] | None) -> list[list[object]]:
        """The arguments of `change_items`; `item_results`: by their ordinals, the events with results of a `catch`."""
        rows = [
            (*item, status, event_id if carrier is None else (item_results or {})[str(carrier)], *rest)
            for item, (status, event_id, carrier, *rest) in self.changes.items()
        ]
        return [list(column) for column in zip(*rows, strict=True)]

    def dropped_arguments(self) -> list[list[object]]:
        """The arguments of `cancel_children_of_items`."""
        return [list(column) for column in zip(*self.dropped, strict=True)]
