"""How values, visits and lists of names are told to people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from noetl_broker.broker.model import JSON

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_VALUE = 160  # characters of a value that is told


def shown(value: JSON, *, longest: int = LONGEST_VALUE) -> str:
    """Give a value as JSON on one line, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def cut(value: JSON) -> JSON:
    """Give a value for a program: itself where it is small, else the beginning of its JSON."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= LONGEST_CUT else text[: LONGEST_CUT - 1] + "…"


LONGEST_CUT = 4000  # characters of a value that is handed on to a program


def visit_name(step: str, visit: int, place: int | None = None) -> str:
    """Give a visit by its step, with its number from the second on, and the place of an item."""
    return (step if visit == 1 else f"{step}#{visit}") + ("" if place is None else f"[{place}]")


def listed(names: Iterable[str], *, most: int = 12) -> str:
    """Give names with commas between and `and` before the last; no more than `most`."""
    told = list(names)
    if len(told) > most:
        told = [*told[:most], f"{len(told) - most} more"]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}" if told else ""
