"""Decisions as rows: the arguments of the statements that write a batch of turns.

Rows that every turn writes are sent as JSON, one document a kind: turns with states, events with jobs, tracking rows. A
row is a list (`row_layout.py`), because objects take Postgres 1.5 times as long. Arrays of columns cost the driver more
than they save the server. Numbers and times in JSON are slow to parse. So the ids and times of the turns are sent once,
as arrays. A row has the position of its turn in them and an offset in microseconds. Rows that few turns write are sent
as arrays of columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from noetl_broker.broker.event_types import EXECUTION_PAUSE, EXECUTION_RESUME, HOLDS_DUE
from noetl_broker.broker.events import node_name_of
from noetl_broker.broker.model import Decision, Emitted, ExecutionBegin, ExecutionEnd, Job, PlaceChange, StepRow, Turn
from noetl_broker.broker.state import COMPENSATING, COMPLETED, PAUSED, QUEUED, RUNNING, ExecutionState, encode
from noetl_broker.errors import OversizeFault
from noetl_broker.nodes import node_id, node_of_job, undone_node
from noetl_broker.playbook.durations import after
from noetl_broker.playbook.model import Playbook
from noetl_broker.store import step_rows
from noetl_broker.store.child_rows import child_answer, child_meta, child_row, json_or_null
from noetl_broker.store.claimed_rows import MICROSECOND, Case, DecidedTurn, Execution, Mail, Outcome
from noetl_broker.store.item_rows import ItemRows
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.places import facts_of
from noetl_broker.store.playbook_shape import shape_of
from noetl_broker.store.row_layout import EVENT, columns_of
from noetl_broker.store.undo_rows import UndoColumns

Document = list[Any]  # one row
# In one statement. Postgres closes the connection at a gigabyte, and a character may take four bytes. A jsonb may be
# too large with fewer characters; then the server says so, see `turn_store.write`.
MOST_CHARS = 200_000_000
MOST_HELD = 1_000  # jobs that one turn parks or releases
# Positions in the rows of events. Columns that few events have are one object, the last column.
NODE, JOB, JOB_STATUS, RARE = map(EVENT.index, ("node_id", "job_action", "job_status", "rare"))
EVENT_TYPE = EVENT.index("event_type")
WITH_RESULTS = frozenset({"step_completed", "iteration_completed"})  # events that carry a result only if they have one
NO_JOB = [None] * (RARE - JOB)
FOR_CHILDREN = {PAUSED: EXECUTION_PAUSE, RUNNING: EXECUTION_RESUME}  # what the children of such an execution get
NOT_HELD = frozenset({"queued", "retry", "delegated"})  # statuses of jobs that no worker holds


class Columns:
    """The rows of one batch, added execution by execution."""

    def __init__(self) -> None:
        """No rows."""
        self.begun: dict[int, tuple[Any, ...]] = {}  # executions that begin: execution, workload, rules, catalog id
        self.shapes: dict[int, tuple[str, str, str]] = {}
        # Of each turn: execution, catalog id, event, time, mail. Rows have its position, from 1.
        self.sources: list[tuple[Any, ...]] = []
        self.turns: list[Document] = []  # the last one of each execution has its state
        self.executions = 0
        self.events: list[Document] = []  # with the job that an event queues
        self.changes: dict[tuple[int, str], list[object]] = {}  # by node; later turns replace
        self.withdrawn: list[int] = []
        self.rows: dict[tuple[int, str], Document] = {}
        self.ended: list[tuple[object, ...]] = []
        self.children: list[tuple[object, ...]] = []
        self.child_answers: list[tuple[object, ...]] = []
        self.failures: list[tuple[object, ...]] = []  # what starts because an execution failed
        self.abandoned: list[tuple[object, ...]] = []  # with whether the visit is closed
        self.items: list[tuple[object, ...]] = []
        self.item_rows = ItemRows()
        self.posts: list[tuple[object, ...]] = []
        self.adoptions: list[tuple[object, ...]] = []
        self.statuses: list[tuple[object, ...]] = []
        self.holds: dict[int, str | None] = {}  # executions whose jobs are parked or released, each after a node
        self.waits: list[tuple[object, ...]] = []
        self.wait_ends: list[tuple[object, ...]] = []
        self.timers: list[tuple[object, ...]] = []
        self.settled: list[int] = []  # executions that ended and may have waits or timers
        self.timer_seconds: list[float] = []  # until each is due
        self.reopened: list[tuple[object, ...]] = []
        self.sent: list[tuple[object, ...]] = []
        self.undo = UndoColumns()
        self.places: dict[int, PlaceChange] = {}
        self.admits = False  # whether writing the places admitted other executions
        self.limits: list[tuple[object, ...]] = []  # of new jobs
        self._placed: dict[tuple[int, str], Document] = {}  # the events that queue jobs, by the job's node

    def add(self, case: Case, outcome: Outcome) -> None:
        """Add everything that the turns of one execution decided."""
        execution, playbook, taken, state = case.execution, case.playbook, outcome.taken, outcome.state
        ends = False
        for mail, turn, decision in taken:
            first = len(self.events)
            carrier = None if decision.carrier is None else first + decision.carrier + 1
            self.sources.append((turn.execution_id, execution.catalog_id, mail.event_id, turn.at, mail.mail_id))
            facts = facts_of(mail, decision)
            self.turns.append([turn.number, decision.outcome, decision.note, facts, carrier])
            if decision.begun is not None:
                self._add_begun(case, decision.begun)
            self._add_events(execution, turn, decision)
            for row in decision.rows:
                result_at = carrier if row.result_at is None else self._carry(first + row.result_at + 1)
                self._add_row(execution.execution_id, row, result_at)
            if decision.completed is not None:
                self._carry(first + decision.completed + 1)
            if decision.has_rare:
                self._add_rare(case, mail, turn, decision, first)
            if decision.ended is not None:
                ends = True
                at = turn.at + (len(decision.events) - 1) * MICROSECOND
                self._add_end(execution, decision.ended, at, state)
        if not ends:
            self._add_status(execution.execution_id, taken, state)
        last = max(len(taken[-1].decision.events) - 1, 0)
        self.turns[-1] += [execution.turn, last, dump_json(encode(state))]
        self.executions += 1
        withdrawn = execution.execution_id in self.withdrawn or state.compensation is not None
        if ends and _may_have_timers(playbook, withdrawn=withdrawn):
            self.settled.append(execution.execution_id)

    def _carry(self, ordinal: int) -> int:
        """Say that an emitted event carries a result, which may be null; returns its ordinal."""
        if self.events[ordinal - 1][EVENT_TYPE] in WITH_RESULTS:
            _rare(self.events[ordinal - 1]).setdefault("result", None)
        return ordinal

    def _add_rare(self, case: Case, mail: Mail, turn: Turn, decision: Decision, first: int) -> None:
        """Add what few turns write; `first` is the ordinal before the turn's first event."""
        execution = case.execution
        begins = decision.begun or decision.status
        if begins is not None and begins.deadline is not None and decision.ended is None:
            self._add_timer(turn, (None, None, "deadline", after(turn.at, begins.deadline), False))
        owner = execution.execution_id
        for end in decision.item_ends:
            if end.result_at is not None:
                self._carry(first + end.result_at + 1)
        if decision.undos or decision.undo_changes or decision.awaited or decision.unwanted_child is not None:
            self.undo.add(owner, turn, decision)
            self.undo.await_visits(owner, decision.awaited)
        self._add_job_changes(execution, turn, decision)
        self._add_family(execution, mail, decision, first)
        if decision.waits or decision.timers or decision.wait_ends or decision.closed:
            self._add_waits(execution.execution_id, turn, decision)
        if decision.place_change is not None:
            self.places[turn.execution_id] = decision.place_change  # the last one counts
        if decision.reopened or decision.sent:
            self._add_signals(execution.execution_id, decision)

    def _add_begun(self, case: Case, begun: ExecutionBegin) -> None:
        """Add what is written once per execution."""
        owner, catalog_id = case.execution.execution_id, case.execution.catalog_id
        if not isinstance(case.playbook, str) and catalog_id is not None:
            self.shapes.setdefault(catalog_id, shape_of(case.playbook))
            self.begun[owner] = (owner, dump_json(begun.workload), dump_json(case.rules.pinned()), catalog_id)

    def _add_timer(self, turn: Turn, timer: tuple[str | None, str | None, str, datetime, bool]) -> None:
        """Add a timer: node, step, purpose, moment, and whether the moment was given."""
        self.timers.append((turn.execution_id, *timer))
        self.timer_seconds.append((timer[3] - turn.at).total_seconds())

    def _add_events(self, execution: Execution, turn: Turn, decision: Decision) -> None:
        """Add the events of a turn, with the jobs that they queue."""
        first, source = len(self.events), len(self.sources)
        for ordinal, event in enumerate(decision.events):
            self.events.append(_event_row(execution, source, ordinal, event))
        for job in decision.jobs:
            self._add_job(execution, first, job)
            if job.limit is not None:
                node = node_id(execution.execution_id, job.step, job.visit, job.item_index, undo=job.undo)
                self.limits.append((execution.execution_id, node, *job.limit))
            if job.start_timeout is not None:
                node = node_id(execution.execution_id, job.step, job.visit, job.item_index, undo=job.undo)
                due = after(turn.at, job.start_timeout)
                self._add_timer(turn, (node, job.step, "start_timeout", due, False))

    def _add_job_changes(self, execution: Execution, turn: Turn, decision: Decision) -> None:
        for step, visit, status, delay, index, undo, attempt in decision.changes:
            node = node_id(execution.execution_id, step, visit, index, undo=undo)
            placed = self._placed.get((execution.execution_id, node))
            if placed is None:
                self.changes[execution.execution_id, node] = [execution.execution_id, node, status, delay, attempt]
            else:
                placed[JOB_STATUS] = status
                _rare(placed).update(delay=delay, attempts=attempt)
            if status == "delegated":
                self._add_timer(turn, (node, step, "child", after(turn.at, delay), False))
        if decision.withdraw:
            self._withdraw(execution.execution_id, drains=bool(decision.awaited), ends=decision.ended is not None)

    def _add_end(self, execution: Execution, ended: ExecutionEnd, at: datetime, state: ExecutionState) -> None:
        """Add the end of an execution, and the answer to its parent."""
        self.ended.append((
            execution.execution_id, ended.status, json_or_null(ended.result), json_or_null(ended.error), at,
            execution.parent.node_id if execution.parent is not None else None,
        ))  # fmt: skip
        if ended.on_failure is not None:
            self.failures.append((execution.execution_id, ended.on_failure.path, dump_json(ended.on_failure.payload)))
        if ended.status != COMPLETED and (state.undo or state.unknown):
            self.undo.left.append(execution.execution_id)
        if execution.parent is not None:
            self.child_answers.append(child_answer(execution, state, ended))

    def _add_status(self, execution_id: int, taken: list[DecidedTurn], state: ExecutionState) -> None:
        """Add the new status of a live execution, the events for its children, and the jobs to be held."""
        changes = [(mail, turn, decision.status) for mail, turn, decision in taken if decision.status is not None]
        if changes:
            mail, turn, status = changes[-1]
            admitted = any(change.admitted for _, _, change in changes)
            for_children = None if status.admitted else FOR_CHILDREN.get(status.status)
            context = mail.event.context if isinstance(mail.event.context, dict) else {}
            self.statuses.append((
                execution_id, status.status, admitted, for_children, turn.number, context.get("reason"), status.waits,
            ))  # fmt: skip
        elif state.status == PAUSED and any(decision.adoptions for _, _, decision in taken):
            self.statuses.append((execution_id, None, False, EXECUTION_PAUSE, taken[-1].turn.number, None, False))
        if changes:
            last = changes[-1][2]
            # an execution that was just queued or admitted has no jobs; the jobs of one that undoes are not held
            if not (last.admitted or last.status == QUEUED or state.status == COMPENSATING):
                self.holds[execution_id] = None
        else:
            for mail, _, _ in taken:
                if mail.event.kind == HOLDS_DUE:
                    after = mail.event.meta.get("after") if isinstance(mail.event.meta, dict) else None
                    self.holds[execution_id] = after if isinstance(after, str) else None
        if state.status == PAUSED:  # no worker leases a job that is retried now
            for (owner, _), change in self.changes.items():
                if owner == execution_id and change[2] == "retry":
                    change[2] = "held"

    def _withdraw(self, execution_id: int, *, drains: bool, ends: bool) -> None:
        """Cancel jobs that no worker holds: in the table, and from earlier turns of the batch.

        With `drains`, the execution awaits visits: `drain_jobs` cancels its jobs after they are written. Unless it
        `ends`, it undoes from now on.
        """
        if drains:
            self.undo.draining.append(execution_id)
            return
        self.undo.drop(execution_id)
        self.withdrawn.append(execution_id)
        for (owner, node), placed in self._placed.items():
            if owner == execution_id and placed[JOB_STATUS] in NOT_HELD and (ends or undone_node(node) is None):
                placed[JOB_STATUS] = "cancelled"
        for (owner, _), change in self.changes.items():
            if owner == execution_id and change[2] in NOT_HELD:
                change[2] = "cancelled"

    def _add_family(self, execution: Execution, mail: Mail, decision: Decision, first: int) -> None:
        """Add children and items; an end in this batch drops those of earlier turns."""
        owner = execution.execution_id
        for child in decision.children:
            ordinal = None if child.ordinal is None else first + child.ordinal + 1
            if ordinal is not None:
                _rare(self.events[ordinal - 1])["starts_child"] = True
            if child.undo_of is None:
                self.children.append((*child_row(execution, child), ordinal))
            else:
                node = node_id(owner, child.step, child.visit, child.item_index, undo=True)
                self.undo.add_child(owner, node, child, child_meta(owner, child))
        for step, visit, values in decision.items:
            self.items.append((owner, node_id(owner, step, visit), dump_json(values)))
        for step, visit, index, child_id in decision.adoptions:
            self.adoptions.append((owner, node_id(owner, step, visit), index, child_id))
        self.item_rows.add(owner, decision, mail.event_id, first)
        for event_type, step, visit in decision.posts:
            self.posts.append((owner, node_id(owner, step, visit), event_type))
        closed = {(owner, node_id(owner, step, visit)) for step, visit in decision.closed}
        abandoned = closed | {(owner, node_id(owner, step, visit)) for step, visit in decision.abandoned}
        self.abandoned.extend((*node, node in closed) for node in abandoned)
        if decision.withdraw or abandoned:
            self._drop_children(owner, None if decision.withdraw else abandoned, ends=decision.ended is not None)

    def _add_waits(self, owner: int, turn: Turn, decision: Decision) -> None:
        for wait in decision.waits:
            details = json_or_null(wait.details)
            self.waits.append((
                owner, node_id(owner, wait.step, wait.visit), wait.step, wait.kind, dump_json(wait.request),
                None if wait.kind == "timer" else dump_json(list(wait.names)), wait.key, wait.since, details,
            ))  # fmt: skip
        for step, visit, status in decision.wait_ends:
            self.wait_ends.append((owner, node_id(owner, step, visit), status))
        self.wait_ends += [(owner, node_id(owner, step, visit), "cancelled") for step, visit in decision.closed]
        for timer in decision.timers:
            node = node_id(owner, timer.step, timer.visit)
            self._add_timer(turn, (node, timer.step, timer.purpose, timer.due, timer.is_moment))

    def _add_signals(self, owner: int, decision: Decision) -> None:
        for step, visit in decision.reopened:
            self.reopened.append((owner, node_id(owner, step, visit)))
        for sent in decision.sent:
            self.sent.append((
                owner, node_id(owner, sent.step, sent.visit), sent.name, sent.key, json_or_null(sent.payload),
                sent.hops, sent.own,
            ))  # fmt: skip

    def _drop_children(self, owner: int, nodes: set[tuple[int, str]] | None, *, ends: bool) -> None:
        """Drop abandoned children (`nodes`; None: all of the execution) that this batch would start.

        Unless it `ends`, it undoes from now on, and a child that undoes something is started.
        """
        kept: list[tuple[object, ...]] = []
        for row in self.children:
            dropped = row[0] == owner if nodes is None else row[:2] in nodes
            dropped = dropped and (ends or undone_node(str(row[1])) is None)
            if not dropped:
                kept.append(row)
                continue
            awaited = self.undo.drop_child(row[:3])
            if isinstance(ordinal := row[-1], int):  # of an item: its iteration_started event names no child then
                del _rare(self.events[ordinal - 1])["starts_child"]
                self._drop_item(owner, str(row[1]), int(str(row[2])), "RUNNING" if awaited else "CANCELLED")
        self.children = kept

    def _drop_item(self, owner: int, visit: str, index: int, status: str) -> None:
        """Give up an item that this batch would have started, with the job that keeps its call."""
        self.item_rows.change((owner, visit, index), status)
        step, number, _ = node_of_job(visit)
        placed = self._placed.get((owner, node_id(owner, step, number, index)))
        if placed is not None and placed[JOB_STATUS] in NOT_HELD:
            placed[JOB_STATUS] = "cancelled"

    @property
    def has_family(self) -> bool:
        """Whether there are events for other executions."""
        ends = self.withdrawn or self.undo.draining
        return bool(self.children or self.child_answers or self.abandoned or ends)

    def family_arguments(self, child_ids: dict[int, int]) -> list[list[Any]]:
        """The arguments of `write_family`; `child_ids` by the ordinal of the iteration_started event."""
        *children, ordinals = columns_of(self.children, 8)
        ids = [None if ordinal is None else child_ids[int(str(ordinal))] for ordinal in ordinals]
        ended = [*self.withdrawn, *self.undo.draining]
        return [
            *children, *columns_of(self.child_answers, 9), ended, *columns_of(self.abandoned, 3)[:2], ids,
            *self.undo.awaited_arguments(),
        ]  # fmt: skip

    def closing_arguments(self) -> list[list[Any]]:
        """The arguments of `close_visits`. The jobs of awaited visits are left to `drain_jobs`."""
        return columns_of([row for row in self.abandoned if row[:2] not in self.undo.awaited], 3)

    def item_arguments(self) -> list[list[Any]]:
        """The arguments of `write_items`."""
        return columns_of(self.items, 3)

    def adoption_arguments(self) -> Iterator[list[list[Any]]]:
        """The arguments of `adopt_children`, by execution: each call sees the adoptions of the calls before."""
        for _, of_one in groupby(self.adoptions, itemgetter(0)):
            yield columns_of(list(of_one), 4)

    def wait_arguments(self) -> list[list[Any]]:
        """The arguments of `write_waits`."""
        return [*columns_of(self.waits, 9), *columns_of(self.timers, 6)]

    def wait_end_arguments(self) -> list[list[Any]]:
        """The arguments of `end_waits`."""
        return columns_of(self.wait_ends, 3)

    def settle_arguments(self) -> list[list[Any]]:
        """The arguments of `settle_executions`."""
        return [self.settled]

    def reopen_arguments(self) -> list[list[Any]]:
        """The arguments of `reopen_waits`."""
        return columns_of(self.reopened, 2)

    def signal_arguments(self) -> list[list[Any]]:
        """The arguments of `send_signals`."""
        return columns_of(self.sent, 7)

    def failure_arguments(self) -> list[list[Any]]:
        """The arguments of `start_on_failure`."""
        return columns_of(self.failures, 3)

    def post_arguments(self) -> list[list[Any]]:
        """The arguments of `write_posts`."""
        return columns_of(self.posts, 3)

    def _add_job(self, execution: Execution, first: int, job: Job) -> None:
        owner = execution.execution_id
        row = self.events[first + job.ordinal]
        is_visit = job.item_index is None and not job.undo
        node = row[NODE] if is_visit else node_id(owner, job.step, job.visit, job.item_index, undo=job.undo)
        context = {
            **job.context, "path": execution.path, "version": execution.version, "catalog_id": execution.catalog_id,
            "execution_id": owner,
        }  # fmt: skip
        if execution.workload is not None:
            context["workload"] = execution.workload
        else:  # of an execution that begins, its place among them
            _rare(row)["lacks_workload"] = len(self.begun) if owner in self.begun else 0
        row[JOB:RARE] = [
            dump_json(job.action), context, "delegated" if job.delegated else "queued", job.priority, job.max_attempts,
            job.node_type,
        ]  # fmt: skip
        if job.timeout is not None:
            _rare(row)["timeout"] = job.timeout
        if not is_visit:
            _rare(row)["node_id"] = node
        if job.undo:
            self.undo.jobs.append((owner, node))
        elif job.item_index is not None:
            self.item_rows.change((owner, node_id(owner, job.step, job.visit), job.item_index), "RUNNING")
        self._placed[owner, node] = row

    def _add_row(self, execution_id: int, row: StepRow, carrier: int | None) -> None:
        """Add one row a step, also where several turns changed it, because an update sees each row once.

        `carrier`: the ordinal in the batch of the emitted event with the result; None: the event that was read.
        """
        source = len(self.sources)
        own = row.result_visit is not None and not row.taken
        document: Document = [
            source, row.step, row.status, row.visits, row.ended, None if row.started is None else source, row.started,
            row.result_visit, source if own else None, carrier if own else None,
        ]  # fmt: skip
        before = self.rows.get((execution_id, row.step))
        if before is not None:
            step_rows.merge(before, document)
        self.rows[execution_id, row.step] = document

    def status_arguments(self) -> list[list[Any]]:
        """The arguments of `set_statuses`."""
        return columns_of(self.statuses, 7)

    def limit_arguments(self) -> list[list[Any]]:
        """The arguments of `limit_jobs`."""
        return columns_of(self.limits, 7)

    def hold_arguments(self) -> list[list[Any] | int]:
        """The arguments of `hold_jobs`."""
        return [[*self.holds], [*self.holds.values()], MOST_HELD]

    def write_arguments(self) -> list[object]:
        """The arguments of `write_turns`, or of `write_first_turns` if executions begin.

        Raises OversizeFault where they are too large for the server.
        """
        begun: list[list[Any]] = [[], [], []]
        if self.begun:
            begun = step_rows.begin_arguments(self.begun, self.shapes, self.rows, self.sources)
        texts = [dump_json(rows) for rows in (self.turns, self.events, [*self.rows.values()])]
        chars = sum(map(len, texts))
        if chars > MOST_CHARS:
            message = f"{chars:,} characters of {len(self.turns)} turn(s) would be written at once"
            raise OversizeFault(f"{message}, more than {MOST_CHARS:,}: start fewer jobs in one turn, or give each less")
        return [*texts, *columns_of(self.sources, 5), *columns_of(self.ended, 6), *begun]

    def job_change_arguments(self) -> list[list[Any]]:
        """The arguments of `change_jobs`."""
        return columns_of([*self.changes.values()], 5)

    def withdrawal_arguments(self) -> list[list[Any]]:
        """The arguments of `withdraw_jobs`."""
        return [self.withdrawn, *columns_of([*self.changes], 2)]


def _may_have_timers(playbook: Playbook | str, *, withdrawn: bool) -> bool:
    """Whether an execution that ended may have waits or timers left; `withdrawn`: visits were open."""
    if isinstance(playbook, str):
        return True
    return playbook.leaves_timers or (withdrawn and playbook.keeps_timers)


def _rare(event: Document) -> dict[str, Any]:
    """The last column of an event's row: an object with what few events or jobs have."""
    if len(event) == RARE:
        event.append({})
    rare: dict[str, Any] = event[RARE]
    return rare


def _event_row(execution: Execution, source: int, ordinal: int, event: Emitted) -> Document:
    if event.step is None:
        node, name = str(execution.execution_id), execution.name
    else:
        node, name = node_id(execution.execution_id, event.step, event.visit), node_name_of(event) or event.step
    row: Document = [
        source, ordinal, event.type, node, name, event.node_type, event.status, event.meta, *NO_JOB,
    ]  # fmt: skip
    if event.result is not None:
        _rare(row)["result"] = event.result
    if event.error is not None:
        _rare(row)["error"] = event.error
    if event.context is not None:
        _rare(row)["context"] = event.context
    return row
