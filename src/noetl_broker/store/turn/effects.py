"""How effects are written: `EFFECTS` has a row a kind, `BEFORE` and `AFTER` have the statements in their order.

The columns of most kinds are rows of their own, `Columns.rows` by statement. Others change what the batch has already:
a job that is queued and ends in one batch is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.flow.late import LATE
from noetl_broker.broker.flow.on_failure import KEY as ON_FAILURE
from noetl_broker.broker.flow.on_failure import LATE_KEY as ON_LATE
from noetl_broker.broker.model.effects import (
    ChildAdopted,
    ChildStarted,
    ChildUndoAbandoned,
    ChildUndone,
    Effect,
    EventPosted,
    ExecutionBegun,
    FactsUsed,
    ItemChildCancelled,
    ItemEnded,
    ItemRetried,
    ItemsCancelled,
    ItemsChosen,
    JobChanged,
    LateTimerEnded,
    OnFailureStart,
    ReportedLate,
    SignalConditionFailed,
    SignalSent,
    SlotsChanged,
    StatusChanged,
    TimerSet,
    UndoBegun,
    UndoChanged,
    UndoEnded,
    UndoNoted,
    UndoStatusChanged,
    VisitCancelled,
    VisitDrained,
    WaitEnded,
    WaitOpened,
    WaitReopened,
    WorkCancelled,
)
from noetl_broker.broker.model.event_types import EXECUTION_ABANDON, EXECUTION_UNDO
from noetl_broker.node_ids import node_id, visit_name
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.row_layout import columns_of
from noetl_broker.store.turn.child_rows import ChildStart, json_or_null, undo_answer
from noetl_broker.template.durations import after

if TYPE_CHECKING:
    from noetl_broker.broker.model.decision import Decision
    from noetl_broker.broker.model.event import Turn
    from noetl_broker.store.turn.claimed_rows import Execution, Mail
    from noetl_broker.store.turn.columns import Columns

MOST_HELD = 1_000  # jobs that one turn parks or releases


class Origin(NamedTuple):
    """The turn that an effect is of; `first` is the ordinal in the batch before its first event."""

    execution: Execution
    mail: Mail
    turn: Turn
    decision: Decision
    first: int

    @property
    def owner(self) -> int:
        """The execution."""
        return self.execution.execution_id

    def visit(self, effect: Any) -> str:
        """The node of the visit that an effect is about."""
        return node_id(self.owner, effect.step, effect.visit)


class Written(NamedTuple):
    """How a kind is written: the statement, and what adds one effect to the columns of the batch."""

    statement: str
    add: Callable[[Columns, Origin, Any], None]


class Statement(NamedTuple):
    """A statement of a batch, and its arguments; None: there is nothing to write.

    They are made of the columns of the batch, and of the row that `write_turns` returned.
    """

    name: str
    arguments: Callable[[Columns, Any], Sequence[object] | None]


def add_timer(columns: Columns, turn: Turn, timer: tuple[str | None, str | None, str, datetime, bool]) -> None:
    """Add a timer: node, step, purpose, moment, and whether the moment was given."""
    columns.timers.append((turn.execution_id, *timer))
    columns.timer_seconds.append((timer[3] - turn.at).total_seconds())


def _rows(statement: str, row_of: Callable[[Origin, Any], tuple[object, ...]]) -> Written:
    """A kind of which each effect is a row of its own."""

    def add(columns: Columns, of: Origin, effect: Any) -> None:
        columns.rows[statement].append(row_of(of, effect))

    return Written(statement, add)


def add_alarm(columns: Columns, owner: int, starts: OnFailureStart, word: str, rest: object = None) -> None:
    """Add what starts because of an execution: `word` and `rest` make its idempotency key."""
    rest = None if rest is None else str(rest)
    columns.rows["start_on_failure"].append((owner, starts.path, dump_json(starts.payload), rest, word))


def _add_limits(columns: Columns, of: Origin, begins: ExecutionBegun | StatusChanged) -> None:
    if of.decision.ended is not None:
        return
    if begins.deadline is not None:
        add_timer(columns, of.turn, (None, None, "deadline", after(of.turn.at, begins.deadline), False))
    if begins.late_after is not None:
        add_timer(columns, of.turn, (None, None, LATE, after(of.turn.at, begins.late_after), False))


def _add_status(columns: Columns, of: Origin, status: StatusChanged) -> None:
    _add_limits(columns, of, status)
    if status.until is not None:
        add_timer(columns, of.turn, (None, None, "start", status.until, True))
    columns.changed.setdefault(of.owner, []).append((of.mail, of.turn, status))


def _add_undo_status(columns: Columns, of: Origin, status: UndoStatusChanged) -> None:
    columns.undo_statuses[of.owner] = status.status  # the last one counts


def _add_slots(columns: Columns, of: Origin, change: SlotsChanged) -> None:
    columns.slots[of.owner] = change  # the last one counts


def _add_job_change(columns: Columns, of: Origin, change: JobChanged) -> None:
    node = node_id(of.owner, change.step, change.visit, change.item_index, undo=change.undo)
    columns.change_job(of.owner, node, change)
    if change.status == "delegated":
        add_timer(columns, of.turn, (node, change.step, "child", after(of.turn.at, change.delay), False))


def _add_child(columns: Columns, of: Origin, child: ChildStarted) -> None:
    ordinal = None if child.ordinal is None else of.first + child.ordinal + 1
    if ordinal is not None:
        columns.start_child_of(ordinal)
    columns.children.append(ChildStart(of.execution, child, ordinal))


def _add_adoption(columns: Columns, of: Origin, adopted: ChildAdopted) -> None:
    row = of.owner, of.visit(adopted), adopted.item_index, adopted.child_execution_id
    columns.adoptions.setdefault(of.owner, []).append(row)


def _add_item_end(columns: Columns, of: Origin, end: ItemEnded) -> None:
    carrier = None if end.result_at is None else columns.carry(of.first + end.result_at + 1)
    item = of.owner, of.visit(end), end.item_index
    columns.item_rows.change(item, end.status, of.mail.event_id, carrier, error=end.error)


def _add_item_retry(columns: Columns, of: Origin, again: ItemRetried) -> None:
    counted: list[object] = [again.failures, again.failed_attempt, again.unsure]
    columns.item_rows.change(
        (of.owner, of.visit(again), again.item_index), "RUNNING", error=again.error, counted=counted
    )


def _add_timer(columns: Columns, of: Origin, timer: TimerSet) -> None:
    add_timer(columns, of.turn, (of.visit(timer), timer.step, timer.purpose, timer.due, timer.is_moment))


def _wait_row(of: Origin, wait: WaitOpened) -> tuple[object, ...]:
    names = None if wait.kind == "timer" else dump_json(list(wait.names))
    return (
        of.owner, of.visit(wait), wait.step, wait.kind, dump_json(wait.request), names, wait.key, wait.since,
        json_or_null(wait.details),
    )  # fmt: skip


def _signal_row(of: Origin, sent: SignalSent) -> tuple[object, ...]:
    return of.owner, of.visit(sent), sent.name, sent.key, json_or_null(sent.payload), sent.hops, sent.own


def _add_undo_end(columns: Columns, of: Origin, ended: UndoEnded) -> None:
    """Answer the parent that waits for an undo, and start what its failure starts."""
    if ended.answer and of.execution.parent is not None:
        columns.child_answers.append(undo_answer(of.execution, ended))
    if ended.on_failure is not None:
        add_alarm(columns, of.owner, ended.on_failure, ON_FAILURE, of.turn.number)


def _add_late(columns: Columns, of: Origin, late: ReportedLate) -> None:
    columns.rows["mark_late"].append((of.owner, of.turn.at))
    if late.starts is not None:
        rest = None if late.step is None else visit_name(late.step, late.visit)
        add_alarm(columns, of.owner, late.starts, ON_LATE, rest)


def _nothing(_columns: Columns, _of: Origin, _effect: Effect) -> None:
    """Written with the turn, or with all that the turn ends."""


EFFECTS: Mapping[type[Any], Written] = MappingProxyType({
    ExecutionBegun: Written("write_first_turns", _add_limits),
    FactsUsed: Written("write_turns", _nothing),
    SignalConditionFailed: Written("write_turns", _nothing),  # its metric is counted after the commit
    StatusChanged: Written("set_statuses", _add_status),
    SlotsChanged: Written("write_slots", _add_slots),
    EventPosted: _rows("write_posts", lambda of, post: (of.owner, of.visit(post), post.type)),
    JobChanged: Written("change_jobs", _add_job_change),
    WorkCancelled: Written("cancel_jobs", _nothing),  # as both kinds below: `stops_of`, after all others
    VisitCancelled: Written("cancel_visits", _nothing),
    ItemsCancelled: Written("cancel_visits", _nothing),
    VisitDrained: Written(
        "drain_jobs", lambda columns, of, visit: columns.undo.drain_visit(of.owner, of.visit(visit))
    ),
    ChildStarted: Written("write_family", _add_child),
    ChildAdopted: Written("adopt_children", _add_adoption),
    ChildUndone: _rows(
        "send_to_children",
        lambda of, child: (of.owner, child.child_execution_id, EXECUTION_UNDO, dump_json(child.context)),
    ),
    ChildUndoAbandoned: _rows(
        "send_to_children", lambda of, child: (of.owner, child.child_execution_id, EXECUTION_ABANDON, "{}")
    ),
    ItemsChosen: _rows("write_items", lambda of, items: (of.owner, of.visit(items), dump_json(items.values))),
    ItemEnded: Written("change_items", _add_item_end),
    ItemRetried: Written("change_items", _add_item_retry),
    ItemChildCancelled: _rows("cancel_late_children", lambda of, item: (of.owner, of.visit(item), item.item_index)),
    WaitOpened: _rows("write_waits", _wait_row),
    WaitEnded: _rows("end_waits", lambda of, wait: (of.owner, of.visit(wait), wait.status)),
    WaitReopened: _rows("reopen_waits", lambda of, wait: (of.owner, of.visit(wait))),
    TimerSet: Written("write_waits", _add_timer),
    ReportedLate: Written("mark_late", _add_late),
    LateTimerEnded: _rows("end_late_timers", lambda of, visit: (of.owner, of.visit(visit))),
    SignalSent: _rows("send_signals", _signal_row),
    UndoNoted: Written("write_undos", lambda columns, of, undo: columns.undo.note(of.owner, of.turn, undo)),
    UndoChanged: Written("write_undos", lambda columns, of, change: columns.undo.change(of.owner, change)),
    UndoBegun: Written("write_undos", lambda columns, of, begun: columns.undo.begin(of.owner, begun)),
    UndoStatusChanged: Written("set_undo_statuses", _add_undo_status),
    UndoEnded: Written("write_family", _add_undo_end),
})  # fmt: skip


def _of(name: str) -> Statement:
    """A statement whose arguments are the columns of its rows."""

    def arguments(columns: Columns, _: object) -> list[list[object]] | None:
        rows = columns.rows.get(name)
        return columns_of(rows, 0) if rows else None

    return Statement(name, arguments)


def _waits(columns: Columns, _: object) -> list[list[object]] | None:
    waits = columns.rows.get("write_waits", ())
    return [*columns_of(waits, 9), *columns_of(columns.timers, 6)] if waits or columns.timers else None


def _cancels(columns: Columns, _: object) -> list[list[Any]] | None:
    return [columns.cancelled, *columns_of([*columns.changes], 2)] if columns.cancelled else None


def _undo_statuses(columns: Columns, _: object) -> list[list[object]] | None:
    return columns_of(columns.undo_statuses.items(), 2) if columns.undo_statuses else None


def _holds(columns: Columns, _: object) -> list[object] | None:
    return [[*columns.holds], [*columns.holds.values()], MOST_HELD] if columns.holds else None


# In the order in which they are written.
BEFORE = (
    Statement("change_jobs", lambda columns, _: columns_of(columns.changes.values(), 5) if columns.changes else None),
    Statement("cancel_jobs", _cancels),
)  # fmt: skip
AFTER = (
    Statement("queue_again", lambda columns, _: columns.undo.again_arguments()),
    _of("write_items"),
    Statement("change_items", lambda columns, row: columns.item_rows.change_arguments(row["item_results"])),
    Statement("cancel_visits", lambda columns, _: columns.cancelled_arguments()),
    Statement("write_waits", _waits),
    _of("end_waits"),
    _of("end_late_timers"),
    _of("mark_late"),
    Statement("settle_executions", lambda columns, _: [columns.settled] if columns.settled else None),
    _of("reopen_waits"),
    _of("send_signals"),
    _of("throttle_jobs"),
    Statement("write_undos", lambda columns, _: columns.undo.row_arguments()),
    Statement("drain_jobs", lambda columns, _: columns.undo.drain_arguments()),
    _of("start_on_failure"),
    Statement("write_family", lambda columns, row: columns.family_arguments(row)),
    _of("cancel_late_children"),
    _of("send_to_children"),
    Statement("set_undo_statuses", _undo_statuses),
    _of("set_statuses"),
    Statement("hold_jobs", _holds),
)  # fmt: skip
