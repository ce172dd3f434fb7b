"""Cuts the answers of tools: an agent pays for each character."""

from __future__ import annotations

from typing import Any, Final

TEXT: Final = 600  # characters of a text
BEGIN: Final = 400  # of these from its beginning; the rest is its end, where a traceback names the error
LISTED: Final = 30  # of an inner list
TOP: Final = "items"  # the rows of a page, whose number the request chooses
FACTS: Final = "facts"  # of an explanation: what its sentence says, for programs
MORE: Final = "… {:,} more; whole = true shows all"


def shorten(answer: Any) -> Any:
    """The answer with long texts and inner lists cut, which say how much is left out; explanations without facts."""
    if isinstance(answer, dict) and TOP in answer:
        return {key: [_cut(row) for row in one] if key == TOP else _cut(one) for key, one in answer.items()}
    return _cut(answer)


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        left_out = len(value) - TEXT
        return f"{value[:BEGIN]} {MORE.format(left_out)} … {value[BEGIN - TEXT :]}" if left_out > 0 else value
    if isinstance(value, dict):
        is_reason = "says" in value
        fields = [(key, _cut(one)) for key, one in value.items() if not (is_reason and key == FACTS)]
        left_out = len(fields) - LISTED * 2
        return dict(fields[: LISTED * 2]) | ({"…": MORE.format(left_out)} if left_out > 0 else {})
    if isinstance(value, list):
        left_out = len(value) - LISTED
        return [*map(_cut, value[:LISTED]), *([MORE.format(left_out)] if left_out > 0 else [])]
    return value
