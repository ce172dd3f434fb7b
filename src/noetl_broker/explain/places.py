"""The places that an execution holds or waits for: who holds them, and how many wait before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.explain.facts import PlaceFact
from noetl_broker.explain.reason import Reason
from noetl_broker.text import join_names, place_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.explain.facts import Facts

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
MOST_HOLDERS = 3  # that a sentence names


def place_of_row(row: Mapping[str, Any]) -> PlaceFact:
    """The fact of a row of `noetl.places_of`."""
    return PlaceFact(**{name: row[name] for name in PlaceFact._fields})


def place_text(place: PlaceFact) -> str:
    """How an execution uses a place: it holds the place, or waits behind others."""
    name = place_name(place.path, place.key, place.label)
    if place.held_at is not None:
        count = f", {place.waiting:,} {'waits' if place.waiting == 1 else 'wait'} for it" if place.waiting else ""
        return f"holds a place: {name}{count}"
    return f"waits for a place: {name}, {rank_text(place.before, place.waiting)}, {_holders(place)}"


def explain_places(facts: Facts) -> list[Reason]:
    """A reason for each place; none of a place that is held and that nobody waits for."""
    return [
        Reason(
            "place",
            f"it {place_text(place)}",
            {
                "key": place.key,
                "since": place.since,
                "number": place.number,
                "waiting": place.waiting,
                "holders": [*place.holders],
            },
        )
        for place in facts.places
        if place.waiting
    ]


def rank_text(before: int | None, waiting: int) -> str:
    """The position of an execution among all that wait: `second of 3`."""
    before = before or 0
    rank = ORDINALS[before] if before < len(ORDINALS) else f"number {before + 1:,}"
    return f"{rank} of {waiting:,}"


def _holders(place: PlaceFact) -> str:
    named = [str(holder) for holder in place.holders[:MOST_HOLDERS]]
    more = len(place.holders) - len(named)
    if not named:
        return "nobody holds it"
    if more:
        named.append(f"{more} more")
    return f"held by {'execution' if len(place.holders) == 1 else 'executions'} {join_names(named)}"
