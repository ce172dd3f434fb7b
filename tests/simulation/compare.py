"""Compares a decided turn with the reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from noetl_broker.broker.model.decision import Decision
from tests.simulation.effects import effects_of
from tests.simulation.reference import Reference
from tests.simulation.reference_model import Effect, ReferenceEvent

if TYPE_CHECKING:
    from tests.simulation.life import Life, TakenTurn


class Different(Exception):
    """The core does not do what the reference does."""

    def __init__(self, message: str, life: Life | None = None) -> None:
        super().__init__(message)
        self.life = life


def compare_turn(life: Life, one: TakenTurn) -> None:
    """Let the reference read the event of a turn; raises Different if its effects are others."""
    known, row = one.known, one.mail.row
    if known is not None:
        known = known._replace(number=one.turn.number)
    found = difference(life.reference, known, one.decision)
    if found is not None:
        life.turns.append(one)  # the story ends with it
        raise Different(f"turn {one.turn.number} on {row['event_type']} {row['node_id']}:{found}", life)


def difference(reference: Reference, known: ReferenceEvent | None, decision: Decision) -> str | None:
    """Return how the effects of a turn differ; `known` is None for an event that needs no decision."""
    expected = [] if known is None else reference.apply(known)
    decided = [*effects_of(decision)]
    if _sorted(expected) == _sorted(decided):
        return None
    return f"\n    reference: {_text(expected)}\n    core:      {_text(decided)}  ({decision.outcome})"


def _sorted(effects: Iterable[Effect]) -> list[bytes]:
    return sorted(plain([*effect]) for effect in effects)


def plain(value: Any) -> bytes:
    """Return a value as JSON: 1 and true differ."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _text(effects: Iterable[Effect]) -> str:
    return (
        "; ".join(f"{what} {node} {'' if detail is None else detail}".strip() for what, node, detail in effects)
        or "nothing"
    )
