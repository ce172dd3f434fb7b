"""The tracking rows of a batch: one for each step that it changes.

A step that changes in the first turn of its execution is inserted as it then is. An update after the insert would leave
a dead row. A step with a result is updated nevertheless: the event with the result may get its number later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from noetl_broker.store.row_layout import STEP

Document = list[Any]  # one row, in the order of STEP
Sources = Sequence[tuple[Any, ...]]  # of each turn: execution, catalog id, event, time, mail
SOURCE, STATUS, VISITS, ENDED, STARTED_SOURCE, STARTED, RESULT_VISIT = map(
    STEP.index, ("source", "status", "visits", "ended", "started_source", "started", "result_visit")
)
TIME = 3  # its position in a source


def merge(before: Document, row: Document) -> None:
    """Keep from an earlier row of the step the start and the result that this row does not replace."""
    if row[STARTED_SOURCE] is None:
        row[STARTED_SOURCE:RESULT_VISIT] = before[STARTED_SOURCE:RESULT_VISIT]
    if (before[RESULT_VISIT] or 0) > (row[RESULT_VISIT] or 0):
        row[RESULT_VISIT:] = before[RESULT_VISIT:]


def take_inserted(
    rows: dict[tuple[int, str], Document], sources: Sources, begun: Mapping[int, object]
) -> dict[int, dict[str, list[object]]]:
    """Take out of `rows` what the insert of the executions in `begun` can write; gives it by execution and step.

    Each is [status, visits, moment of the start, moment of the end].
    """
    inserted: dict[int, dict[str, list[object]]] = {}
    for key in [key for key, row in rows.items() if key[0] in begun and row[RESULT_VISIT] is None]:
        row = rows.pop(key)
        inserted.setdefault(key[0], {})[key[1]] = [
            row[STATUS], row[VISITS], _moment(sources, row[STARTED_SOURCE], row[STARTED]),
            _moment(sources, row[SOURCE], row[ENDED]),
        ]  # fmt: skip
    return inserted


def _moment(sources: Sources, source: int | None, microseconds: int | None) -> str | None:
    if source is None or microseconds is None:
        return None
    at: datetime = sources[source - 1][TIME]
    return (at + timedelta(microseconds=microseconds)).isoformat()
