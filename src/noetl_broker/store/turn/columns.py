"""The rows of a batch of turns, and the arguments of the statements that write them.

Rows that every turn writes are sent as JSON, one document a kind: turns with states, events with jobs, tracking rows. A
row is a list (`row_layout.py`), because objects take Postgres 1.5 times as long. Arrays of columns cost the driver more
than they save the server. Numbers and times in JSON are slow to parse. So the ids and times of the turns are sent once,
as arrays. A row has the position of its turn in them and an offset in microseconds. Rows that few turns write are sent
as arrays of columns.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from noetl_broker.broker.model.decision import JobRow
from noetl_broker.broker.model.effects import JobChanged, SlotsChanged, StatusChanged
from noetl_broker.broker.model.event import Turn
from noetl_broker.errors import OversizeFault
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.row_layout import EVENT, columns_of
from noetl_broker.store.turn import step_rows
from noetl_broker.store.turn.child_rows import ChildStart, child_row
from noetl_broker.store.turn.claimed_rows import Mail
from noetl_broker.store.turn.item_rows import ItemRows
from noetl_broker.store.turn.undo_rows import UndoColumns

Document = list[Any]  # one row
# In one statement. Postgres closes the connection at a gigabyte, and a character may take four bytes. A jsonb may be
# too large with fewer characters; then the server says so, see `write.py`.
MOST_CHARS = 200_000_000
# Positions in the rows of events. Columns that few events have are one object, the last column.
NODE, JOB, JOB_STATUS, EXTRA = map(EVENT.index, ("node_id", "job_action", "job_status", "extra"))
EVENT_TYPE = EVENT.index("event_type")
WITH_RESULTS = frozenset({"step_completed", "iteration_completed"})  # events that carry a result only if they have one


class Columns:
    """The rows of one batch. `turn_rows.add_turns` adds the turns of an execution, `EFFECTS` what few turns write."""

    def __init__(self) -> None:
        """No rows."""
        self.begun: dict[int, tuple[Any, ...]] = {}  # that begin: execution, workload, rules, catalog id, tags
        self.shapes: dict[int, tuple[str, str, str]] = {}
        # Of each turn: execution, catalog id, event, time, mail. Rows have its position, from 1.
        self.sources: list[tuple[Any, ...]] = []
        self.turns: list[Document] = []  # the last one of each execution has its state
        self.executions = 0
        self.events: list[Document] = []  # with the job that an event queues
        self.steps: dict[tuple[int, str], Document] = {}  # tracking rows
        self.ended: list[tuple[object, ...]] = []
        # What few turns write: rows by statement, and what has a form of its own.
        self.rows: dict[str, list[tuple[object, ...]]] = defaultdict(list)
        self.changes: dict[tuple[int, str], list[object]] = {}  # of jobs, by node; later turns replace
        self.cancelled: list[int] = []
        self.children: list[ChildStart] = []
        self.child_answers: list[tuple[object, ...]] = []
        self.adoptions: dict[int, list[tuple[object, ...]]] = {}  # by execution
        # Visits whose children stop, each with whether its own job is cancelled, too.
        self.stopped: list[tuple[object, ...]] = []
        self.item_rows: ItemRows = ItemRows()
        self.changed: dict[int, list[tuple[Mail, Turn, StatusChanged]]] = {}  # statuses of executions
        self.holds: dict[int, str | None] = {}  # executions whose jobs are parked or released, each after a node
        self.timers: list[tuple[object, ...]] = []
        self.timer_seconds: list[float] = []  # until each is due
        self.settled: list[int] = []  # executions that ended and may have waits or timers
        self.undo: UndoColumns = UndoColumns()
        self.undo_statuses: dict[int, str] = {}  # of executions that have ended
        self.slots: dict[int, SlotsChanged] = {}
        self.admits = False  # whether writing the slots admitted other executions
        self.placed: dict[tuple[int, str], tuple[JobRow, Document]] = {}  # jobs by node, and the events that queue them

    def carry(self, ordinal: int) -> int:
        """Say that an emitted event carries a result, which may be null; returns its ordinal."""
        if self.events[ordinal - 1][EVENT_TYPE] in WITH_RESULTS:
            extra(self.events[ordinal - 1]).setdefault("result", None)
        return ordinal

    def change_job(self, owner: int, node: str, change: JobChanged) -> None:
        """Change a job: in its row, or in the event of this batch that queues it."""
        placed = self.placed.get((owner, node))
        if placed is None:
            self.changes[owner, node] = [owner, node, change.status, change.delay, change.attempt]
        else:
            _, row = placed
            row[JOB_STATUS] = change.status
            extra(row).update(delay=change.delay, attempts=change.attempt)

    def start_child_of(self, ordinal: int) -> None:
        """Say that the event with this ordinal starts the child of an item."""
        extra(self.events[ordinal - 1])["starts_child"] = True

    @property
    def has_family(self) -> bool:
        """Whether there are events for other executions."""
        ends = self.cancelled or self.undo.compensating
        return bool(self.children or self.child_answers or self.stopped or ends)

    def family_arguments(self, row: Any) -> list[list[Any]] | None:
        """The arguments of `write_family`; the row of `write_turns` has the ids of children of items, by ordinals."""
        if not self.has_family:
            return None
        child_ids = dict(zip(row["child_ordinals"] or (), row["child_ids"] or (), strict=True))
        children = columns_of([child_row(start) for start in self.children], 7)
        ids = [None if start.ordinal is None else child_ids[start.ordinal] for start in self.children]
        cancelled = dict.fromkeys((*self.cancelled, *self.undo.compensating))
        visits = {row[:2]: None for row in self.stopped if row[0] not in cancelled}
        return [
            *children, ids, *columns_of(self.child_answers, 9), [*cancelled], *columns_of(visits, 2),
            *columns_of(self.undo.draining, 2),
        ]  # fmt: skip

    def cancelled_arguments(self) -> list[list[Any]] | None:
        """The arguments of `cancel_visits`. The jobs of draining visits are left to `drain_jobs`."""
        if not self.stopped:
            return None
        return columns_of([row for row in self.stopped if row[:2] not in self.undo.draining], 3)

    def write_arguments(self) -> list[object]:
        """The arguments of `write_turns`, or of `write_first_turns` if executions begin.

        Raises OversizeFault where they are too large for the server.
        """
        begun: list[list[Any]] = [[], [], []]
        if self.begun:
            begun = step_rows.begin_arguments(self.begun, self.shapes, self.steps, self.sources)
        texts = [dump_json(rows) for rows in (self.turns, self.events, [*self.steps.values()])]
        chars = sum(map(len, texts))
        if chars > MOST_CHARS:
            message = f"{chars:,} characters of {len(self.turns)} turn(s) would be written at once"
            raise OversizeFault(f"{message}, more than {MOST_CHARS:,}: start fewer jobs in one turn, or give each less")
        return [*texts, *columns_of(self.sources, 5), *columns_of(self.ended, 6), *begun]


def extra(event: Document) -> dict[str, Any]:
    """The last column of an event's row: an object with what few events or jobs have."""
    if len(event) == EXTRA:
        event.append({})
    few: dict[str, Any] = event[EXTRA]
    return few
