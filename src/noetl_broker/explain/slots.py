"""The slots that an execution holds or waits for: who holds them, and how many wait before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.explain.facts import SlotFact
from noetl_broker.explain.reason import Reason
from noetl_broker.text import join_names, slot_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.explain.facts import Facts

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
MOST_HOLDERS = 3  # that a sentence names


def slot_of_row(row: Mapping[str, Any]) -> SlotFact:
    """The fact of a row of `noetl.slots_of`."""
    return SlotFact(**{name: row[name] for name in SlotFact._fields})


def slot_text(slot: SlotFact) -> str:
    """How an execution uses a slot: it holds the slot, or waits behind others."""
    name = slot_name(slot.path, slot.key, slot.label)
    if slot.held_at is not None:
        count = f", {slot.waiting:,} {'waits' if slot.waiting == 1 else 'wait'} for it" if slot.waiting else ""
        return f"holds a slot: {name}{count}"
    return f"waits for a slot: {name}, {rank_text(slot.before, slot.waiting)}, {_holders(slot)}"


def explain_slots(facts: Facts) -> list[Reason]:
    """A reason for each slot; none of a slot that is held and that nobody waits for."""
    return [
        Reason(
            "slot",
            f"it {slot_text(slot)}",
            {
                "key": slot.key,
                "since": slot.since,
                "number": slot.number,
                "waiting": slot.waiting,
                "holders": [*slot.holders],
            },
        )
        for slot in facts.slots
        if slot.waiting
    ]


def rank_text(before: int | None, waiting: int) -> str:
    """The position of an execution among all that wait: `second of 3`."""
    before = before or 0
    rank = ORDINALS[before] if before < len(ORDINALS) else f"number {before + 1:,}"
    return f"{rank} of {waiting:,}"


def _holders(slot: SlotFact) -> str:
    named = [str(holder) for holder in slot.holders[:MOST_HOLDERS]]
    more = len(slot.holders) - len(named)
    if not named:
        return "nobody holds it"
    if more:
        named.append(f"{more} more")
    return f"held by {'execution' if len(slot.holders) == 1 else 'executions'} {join_names(named)}"
