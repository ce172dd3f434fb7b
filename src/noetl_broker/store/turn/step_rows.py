"""The tracking rows of a batch: one for each step that it changes.

A step that changes in the first turns of its execution is inserted as it then is. An update after the insert would
leave a dead row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.row_layout import STEP, columns_of

Document = list[Any]  # one row, in the order of STEP
Sources = Sequence[tuple[Any, ...]]  # of each turn: execution, catalog id, event, time, mail
SOURCE, STATUS, VISITS, ENDED, STARTED_SOURCE, STARTED, RESULT_VISIT, RESULT_SOURCE, CARRIER = map(
    STEP.index,
    ("source", "status", "visits", "ended", "started_source", "started", "result_visit", "result_source", "carrier"),
)
EVENT, TIME = 2, 3  # their positions in a source


def merge(before: Document, row: Document) -> None:
    """Keep from an earlier row of the step the start and the result that this row does not replace."""
    if row[STARTED_SOURCE] is None:
        row[STARTED_SOURCE:RESULT_VISIT] = before[STARTED_SOURCE:RESULT_VISIT]
    if (before[RESULT_VISIT] or 0) > (row[RESULT_VISIT] or 0):
        row[RESULT_VISIT:] = before[RESULT_VISIT:]


def begin_arguments(
    begun: Mapping[int, Sequence[Any]],
    shapes: Mapping[int, tuple[str, str, str]],
    rows: dict[tuple[int, str], Document],
    sources: Sources,
) -> list[list[Any]]:
    """The arguments of `write_first_turns` from the first one about executions that begin.

    `begun` has execution, workload, rules, catalog id and tags; `shapes` the playbooks. Takes the steps that are
    inserted out of `rows`.
    """
    inserted = _take_inserted(rows, sources, begun)
    changed: list[Any] = [dump_json(inserted.get(execution_id, {})) for execution_id in begun]
    shape_rows = [(catalog_id, *shape) for catalog_id, shape in shapes.items()]
    *first, tags = columns_of([*begun.values()], 5)
    return [*first, changed, *columns_of(shape_rows, 4), tags]


def _take_inserted(
    rows: dict[tuple[int, str], Document], sources: Sources, begun: Mapping[int, object]
) -> dict[int, dict[str, list[object]]]:
    """Take the steps of the executions in `begun`, which are inserted, out of `rows`; gives them by execution and step.

    Each is [status, visits, moment of the start, moment of the end]. A step with a result has three more: its visit,
    its event, and the ordinal of the emitted event that has it.
    """
    inserted: dict[int, dict[str, list[object]]] = {}
    for key in [key for key in rows if key[0] in begun]:
        row = rows.pop(key)
        inserted.setdefault(key[0], {})[key[1]] = step = [
            row[STATUS], row[VISITS], _moment(sources, row[STARTED_SOURCE], row[STARTED]),
            _moment(sources, row[SOURCE], row[ENDED]),
        ]  # fmt: skip
        if row[RESULT_VISIT] is not None:
            source = row[RESULT_SOURCE]
            step += [row[RESULT_VISIT], None if source is None else sources[source - 1][EVENT], row[CARRIER]]
    return inserted


def _moment(sources: Sources, source: int | None, microseconds: int | None) -> str | None:
    if source is None or microseconds is None:
        return None
    at: datetime = sources[source - 1][TIME]
    return (at + timedelta(microseconds=microseconds)).isoformat()
