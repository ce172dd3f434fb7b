"""Rows of iterator items that change: started, tried again, ended, given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.store.json_codec import dump_json

if TYPE_CHECKING:
    from noetl_broker.broker.model.values import JSON

Item = tuple[int, str, int]  # the execution, the node of the visit, the index


class ItemRows:
    """The changes of one batch, by item: a later turn replaces an earlier one."""

    def __init__(self) -> None:
        """No changes."""
        self.changes: dict[Item, list[object]] = {}

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

    def change_arguments(self, item_results: dict[str, int] | None) -> list[list[object]] | None:
        """The arguments of `change_items`; `item_results`: by their ordinals, the events with results of a `catch`."""
        if not self.changes:
            return None
        rows = [
            (*item, status, event_id if carrier is None else (item_results or {})[str(carrier)], *rest)
            for item, (status, event_id, carrier, *rest) in self.changes.items()
        ]
        return [list(column) for column in zip(*rows, strict=True)]
