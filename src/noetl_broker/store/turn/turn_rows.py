"""Decisions as rows: adds the turns of an execution to the columns of a batch."""

from __future__ import annotations

from datetime import datetime

from noetl_broker.broker.flow.on_failure import KEY as ON_FAILURE
from noetl_broker.broker.model.decision import Decision, ExecutionEnd, JobRow, StepRow
from noetl_broker.broker.model.effects import ExecutionBegun, UndoStatusChanged
from noetl_broker.broker.model.event import Emitted, Turn
from noetl_broker.broker.model.event_types import EXECUTION_PAUSE, EXECUTION_RESUME, HOLDS_DUE
from noetl_broker.broker.model.stops import Stops, stops_of
from noetl_broker.broker.state.state import COMPENSATING, PAUSED, QUEUED, RUNNING, ExecutionState, encode
from noetl_broker.broker.writing.events import node_name_of
from noetl_broker.node_ids import node_id
from noetl_broker.playbook.model import Playbook
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.turn import step_rows
from noetl_broker.store.turn.child_rows import ChildStart, child_answer, json_or_null
from noetl_broker.store.turn.claimed_rows import MICROSECOND, Case, DecidedTurn, Execution, Outcome
from noetl_broker.store.turn.columns import EXTRA, JOB, JOB_STATUS, NODE, Columns, Document, extra
from noetl_broker.store.turn.effects import EFFECTS, Origin, add_alarm, add_timer
from noetl_broker.store.turn.playbook_shape import shape_of
from noetl_broker.store.turn.slots import facts_of
from noetl_broker.template.durations import after

NO_JOB = [None] * (EXTRA - JOB)
FOR_CHILDREN = {PAUSED: EXECUTION_PAUSE, RUNNING: EXECUTION_RESUME}  # what the children of such an execution get
NOT_HELD = frozenset({"queued", "retry", "delegated"})  # statuses of jobs that no worker holds


def add_turns(columns: Columns, case: Case, outcome: Outcome) -> None:
    """Add everything that the turns of one execution decided."""
    execution, playbook, taken, state = case.execution, case.playbook, outcome.taken, outcome.state
    ends = False
    for mail, turn, decision in taken:
        first = len(columns.events)
        carrier = None if decision.carrier is None else first + decision.carrier + 1
        columns.sources.append((turn.execution_id, execution.catalog_id, mail.event_id, turn.at, mail.mail_id))
        facts = facts_of(mail, decision)
        columns.turns.append([turn.number, decision.outcome, decision.note, facts, carrier])
        begun = decision.last(ExecutionBegun) if decision.effects else None
        if begun is not None:
            _add_begun(columns, case, begun)
        _add_events(columns, execution, turn, decision)
        for row in decision.rows:
            result_at = carrier if row.result_at is None else columns.carry(first + row.result_at + 1)
            _add_row(columns, execution.execution_id, row, result_at)
        if carrier is not None:
            columns.carry(carrier)
        if decision.effects:
            _add_effects(columns, Origin(execution, mail, turn, decision, first))
        if decision.ended is not None:
            ends = True
            at = turn.at + (len(decision.events) - 1) * MICROSECOND
            _add_end(columns, execution, decision.ended, at, state)
    if not ends:
        _add_status(columns, execution.execution_id, taken, state)
    last = max(len(taken[-1].decision.events) - 1, 0)
    columns.turns[-1] += [execution.turn, last, dump_json(encode(state))]
    columns.executions += 1
    undid = ends and any(decision.last(UndoStatusChanged) is not None for _, _, decision in taken)
    cancelled = execution.execution_id in columns.cancelled or undid
    hold = case.state.hold
    delayed = (hold is not None and hold.delayed) or execution.execution_id in columns.changed
    if ends and (delayed or _may_have_timers(playbook, cancelled=cancelled)):
        columns.settled.append(execution.execution_id)


def _add_effects(columns: Columns, of: Origin) -> None:
    """Add what few turns write, and then drop what the turn stops."""
    for effect in of.decision.effects:
        EFFECTS[type(effect)].add(columns, of, effect)
    stops = stops_of(of.decision)
    if stops.all_work or stops.visits:
        _stop_work(columns, of.owner, stops)
        _stop_children(columns, of.owner, stops)
    for item in stops.undos:
        columns.rows["cancel_late_children"].append((of.owner, node_id(of.owner, *item, undo=True), None))


def _add_begun(columns: Columns, case: Case, begun: ExecutionBegun) -> None:
    """Add what is written once per execution."""
    owner, catalog_id = case.execution.execution_id, case.execution.catalog_id
    if not isinstance(case.playbook, str) and catalog_id is not None:
        columns.shapes.setdefault(catalog_id, shape_of(case.playbook))
        tags = json_or_null(begun.tags)
        columns.begun[owner] = (owner, dump_json(begun.workload), dump_json(case.rules.pinned()), catalog_id, tags)


def _add_events(columns: Columns, execution: Execution, turn: Turn, decision: Decision) -> None:
    """Add the events of a turn, with the jobs that they queue."""
    first, source = len(columns.events), len(columns.sources)
    for ordinal, event in enumerate(decision.events):
        columns.events.append(_event_row(execution, source, ordinal, event))
    for job in decision.jobs:
        _add_job(columns, execution, first, job)
        if job.throttle is not None:
            node = node_id(execution.execution_id, job.step, job.visit, job.item_index, undo=job.undo)
            columns.rows["throttle_jobs"].append((execution.execution_id, node, *job.throttle))
        if job.start_timeout is not None:
            node = node_id(execution.execution_id, job.step, job.visit, job.item_index, undo=job.undo)
            due = after(turn.at, job.start_timeout)
            add_timer(columns, turn, (node, job.step, "start_timeout", due, False))


def _add_end(columns: Columns, execution: Execution, ended: ExecutionEnd, at: datetime, state: ExecutionState) -> None:
    """Add the end of an execution, and the answer to its parent."""
    columns.ended.append((
        execution.execution_id, ended.status, json_or_null(ended.result), json_or_null(ended.error), at,
        execution.parent.node_id if execution.parent is not None else None,
    ))  # fmt: skip
    if ended.on_failure is not None:
        add_alarm(columns, execution.execution_id, ended.on_failure, ON_FAILURE)
    if execution.parent is not None:
        columns.child_answers.append(child_answer(execution, state, ended))


def _add_status(columns: Columns, execution_id: int, taken: list[DecidedTurn], state: ExecutionState) -> None:
    """Add the new status of a live execution, the events for its children, and the jobs to be held."""
    changes = columns.changed.get(execution_id, [])
    if changes:
        mail, turn, status = changes[-1]
        admitted = any(change.admitted for _, _, change in changes)
        for_children = None if status.admitted else FOR_CHILDREN.get(status.status)
        context = mail.event.context if isinstance(mail.event.context, dict) else {}
        columns.rows["set_statuses"].append((
            execution_id, status.status, admitted, for_children, turn.number, context.get("reason"), status.waits,
        ))  # fmt: skip
    elif state.status == PAUSED and execution_id in columns.adoptions:
        columns.rows["set_statuses"].append(
            (execution_id, None, False, EXECUTION_PAUSE, taken[-1].turn.number, None, None)
        )
    if changes:
        last = changes[-1][2]
        # an execution that was just queued or admitted has no jobs; a compensating execution keeps its jobs
        if not (last.admitted or last.status == QUEUED or state.status == COMPENSATING):
            columns.holds[execution_id] = None
    else:
        for mail, _, _ in taken:
            if mail.event.kind == HOLDS_DUE:
                after = mail.event.meta.get("after") if isinstance(mail.event.meta, dict) else None
                columns.holds[execution_id] = after if isinstance(after, str) else None
    if state.status == PAUSED:  # no worker leases a job that is retried now
        for (owner, _), change in columns.changes.items():
            if owner == execution_id and change[2] == "retry":
                change[2] = "held"


def _stop_work(columns: Columns, owner: int, stops: Stops) -> None:
    """Cancel jobs that no worker holds: in the tables, and those that the batch queues or changes.

    `cancel_visits` finds the jobs of visits, also those of this batch. `drain_jobs` finds all jobs of an execution that
    drains visits.
    """
    nodes = {visit: (owner, node_id(owner, *visit)) for visit in sorted(stops.visits)}
    columns.stopped += [(*node, visit in stops.cancelled) for visit, node in nodes.items()]
    columns.rows["end_waits"] += [(*node, "cancelled") for visit, node in nodes.items() if visit in stops.cancelled]
    if not stops.all_work:
        return
    if stops.draining:
        columns.undo.compensating.append(owner)
        return
    columns.undo.drop(owner)
    columns.cancelled.append(owner)
    for (of_owner, _), (job, row) in columns.placed.items():
        if of_owner == owner and stops.job(job.step, job.visit, job.item_index, undo=job.undo):
            _cancel_job(row)
    for (of_owner, _), change in columns.changes.items():
        if of_owner == owner and change[2] in NOT_HELD:
            change[2] = "cancelled"


def _cancel_job(row: Document) -> None:
    """Cancel a job that this batch queues, unless it has ended."""
    if row[JOB_STATUS] in NOT_HELD:
        row[JOB_STATUS] = "cancelled"


def _stop_children(columns: Columns, owner: int, stops: Stops) -> None:
    """Drop the children that this batch would start. `write_family` cancels those that run."""

    def is_stopped(start: ChildStart) -> bool:
        of, child = start.execution.execution_id, start.child
        return of == owner and stops.child(child.step, child.visit, child.item_index, undo=child.undo)

    cancelled = [start for start in columns.children if is_stopped(start)]
    columns.children = [start for start in columns.children if not is_stopped(start)]
    for _, (step, visit, index, *_), ordinal in cancelled:
        draining, node = (step, visit) in stops.draining, node_id(owner, step, visit, index)
        if draining:
            columns.undo.not_started.append((owner, node))
        if ordinal is not None and index is not None:  # its iteration_started event names no child then
            del extra(columns.events[ordinal - 1])["starts_child"]
            columns.item_rows.change(
                (owner, node_id(owner, step, visit), index), "RUNNING" if draining else "CANCELLED"
            )
            _, row = columns.placed.get((owner, node), (None, None))
            if row is not None:  # the job that keeps its call
                _cancel_job(row)


def _add_job(columns: Columns, execution: Execution, first: int, job: JobRow) -> None:
    owner = execution.execution_id
    row = columns.events[first + job.ordinal]
    is_visit = job.item_index is None and not job.undo
    node = row[NODE] if is_visit else node_id(owner, job.step, job.visit, job.item_index, undo=job.undo)
    context = {
        **job.context, "path": execution.path, "version": execution.version, "catalog_id": execution.catalog_id,
        "execution_id": owner,
    }  # fmt: skip
    if execution.workload is not None:
        context["workload"] = execution.workload
    else:  # of an execution that begins, its place among them
        extra(row)["lacks_workload"] = len(columns.begun) if owner in columns.begun else 0
    if job.again:  # the queue has a row of it
        row = [*row]
    row[JOB:EXTRA] = [
        dump_json(job.action), context, "delegated" if job.delegated else "queued", job.priority, job.max_attempts,
        job.node_type,
    ]  # fmt: skip
    if job.timeout is not None:
        extra(row)["timeout"] = job.timeout
    if job.pool is not None:
        extra(row)["pool"] = job.pool
    if not is_visit:
        extra(row)["node_id"] = node
    if job.again:
        columns.undo.again.append((owner, node, node_id(owner, job.step, job.visit), row))
    elif job.undo:
        columns.undo.jobs.append((owner, node))
    elif job.item_index is not None:
        columns.item_rows.change((owner, node_id(owner, job.step, job.visit), job.item_index), "RUNNING")
    columns.placed[owner, node] = job, row


def _add_row(columns: Columns, execution_id: int, row: StepRow, carrier: int | None) -> None:
    """Add one row a step, also where several turns changed it, because an update sees each row once.

    `carrier`: the ordinal in the batch of the emitted event with the result; None: the event that was read.
    """
    source = len(columns.sources)
    own = row.result_visit is not None and not row.taken
    document: Document = [
        source, row.step, row.status, row.visits, row.ended, None if row.started is None else source, row.started,
        row.result_visit, source if own else None, carrier if own else None,
    ]  # fmt: skip
    before = columns.steps.get((execution_id, row.step))
    if before is not None:
        step_rows.merge(before, document)
    columns.steps[execution_id, row.step] = document


def _may_have_timers(playbook: Playbook | str, *, cancelled: bool) -> bool:
    """Whether an execution that ended may have waits or timers left; `cancelled`: visits were open."""
    if isinstance(playbook, str):
        return True
    return playbook.leaves_timers or (cancelled and playbook.keeps_timers)


def _event_row(execution: Execution, source: int, ordinal: int, event: Emitted) -> Document:
    if event.step is None:
        node, name = str(execution.execution_id), execution.name
    else:
        node, name = node_id(execution.execution_id, event.step, event.visit), node_name_of(event) or event.step
    row: Document = [
        source, ordinal, event.type, node, name, event.node_type, event.status, event.meta, *NO_JOB,
    ]  # fmt: skip
    if event.result is not None:
        extra(row)["result"] = event.result
    if event.error is not None:
        extra(row)["error"] = event.error
    if event.context is not None:
        extra(row)["context"] = event.context
    return row
