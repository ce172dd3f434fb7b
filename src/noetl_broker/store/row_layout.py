"""The columns of the rows that `write_turns` reads as JSON lists, by position: one list for Python and SQL.

In SQL text `{event.status}` stands for the position of that column. `queries.py` replaces it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

TURN: Final = ("turn", "outcome", "note", "facts", "carrier", "expected", "last", "tokens")
EVENT: Final = (
    "source", "ordinal", "event_type", "node_id", "node_name", "node_type", "status", "meta",
    "job_action", "job_context", "job_status", "job_priority", "job_max_attempts", "job_type", "extra",
)  # fmt: skip
STEP: Final = (
    "source", "step", "status", "visits", "ended", "started_source", "started",
    "result_visit", "result_source", "carrier",
)  # fmt: skip

_LAYOUTS: Final = {"turn": TURN, "event": EVENT, "step": STEP}
_COLUMN: Final = re.compile(r"\{(turn|event|step)[.](\w+)\}")


def with_positions(text: str) -> str:
    """SQL text with the position of each column in place of its name; raises ValueError for an unknown column."""
    return _COLUMN.sub(lambda found: str(_LAYOUTS[found[1]].index(found[2])), text)


def columns_of(rows: Collection[Any], width: int) -> list[list[object]]:
    """Rows of this width as one list for each column: the array parameters of a statement."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
