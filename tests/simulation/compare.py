"""Compares a decided turn with the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from noetl_broker.broker.model.decision import Decision
from tests.simulation.effects import effects_of
from tests.simulation.reference import Reference
from tests.simulation.reference_model import LIVE, Effect, ReferenceEvent, Row
from tests.simulation.reference_state import ReferenceState
from tests.simulation.reference_undo import UndoRow

if TYPE_CHECKING:
    from tests.simulation.life import Life, TakenTurn


class Different(Exception):
    """The core does not do what the reference does."""

    def __init__(self, message: str, life: Life | None = None) -> None:
        super().__init__(message)
        self.life = life


def compare_turn(life: Life, one: TakenTurn, lives: Mapping[int, Life]) -> None:
    """Let the reference read the event of a turn; raises Different if its effects are others."""
    known, row = one.known, one.mail.row
    if known is not None and undoes_another(known, row, life.reference):
        references = {number: other.reference for number, other in lives.items()}
        known = known._replace(undone=taken_over(row, life.reference, references))
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


def undoes_another(known: ReferenceEvent, row: Row, reference: Reference) -> bool:
    """Tell whether an event starts an undo of another execution; it may come twice."""
    return known.kind == "start" and "undo" in (row["meta"] or {}) and not reference.undo.is_own


def taken_over(row: Row, reference: Reference, references: Mapping[int, Reference]) -> tuple[UndoRow, ...]:
    """Return the rows that an undo execution takes over from another one, with the error of that one."""
    undo, parent = row["meta"]["undo"], row["parent_execution_id"]
    source = references[undo["execution_id"]]
    reference.error = references[undo["execution_id"] if parent is None else parent].undo_error
    statuses = {"open", "failed", "unknown"} if undo.get("unknown") else {"open", "failed"}
    sources: list[ReferenceState] = [source]
    for one in sources:
        sources += [taker for taker in one.takers if taker not in sources]
    ended = [one for one in sources if one.status not in LIVE]
    for one in ended:
        one.takers.append(reference)
    return tuple(row for one in ended for row in one.undo.rows if row.status in statuses)


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
