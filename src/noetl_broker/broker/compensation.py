"""Compensation: an execution undoes what its actions did, the last success first.

It does so before its end, when it fails or is cancelled (COMPENSATING). Then it enters no step, and ignores signals,
deadlines, pauses and cancels. `draining.py` first drains actions and children that may still report success. It also
does so after its end, when it is sent `execution_undo` (`later.py`). Then its status, result and error stay. One undo
runs at a time. One that fails for good ends the compensation. Its row and the other open rows are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.known import UndoRow
from noetl_broker.broker.draft.wants import want_action, want_item_action, want_items, want_undo, want_undo_action
from noetl_broker.broker.flow.failures import end_execution
from noetl_broker.broker.flow.on_failure import start_on_failure
from noetl_broker.broker.model.decision import JobRow
from noetl_broker.broker.model.effects import (
    ChildStarted,
    ChildUndoAbandoned,
    ChildUndone,
    JobChanged,
    UndoBegun,
    UndoChanged,
    UndoEnded,
    UndoNoted,
    WorkCancelled,
)
from noetl_broker.broker.model.limits import ERROR, shorten_error
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.compensation import Compensation, Undoing
from noetl_broker.broker.state.state import (
    CANCELLED,
    COMPENSATING,
    FAILED,
    NO_INPUTS,
    InlineResult,
    ResultRef,
)
from noetl_broker.broker.undo.rows import report_draining, set_undo_status, undo_action
from noetl_broker.broker.work.children import render_call
from noetl_broker.broker.work.retries import retry_delay, wants_retry
from noetl_broker.broker.writing.errors import (
    describe_error,
    error_of,
    error_of_execution,
    template_error,
    template_fault,
)
from noetl_broker.broker.writing.events import emit_compensation, emit_undo_end
from noetl_broker.broker.writing.inputs import condition_scope, inputs_of_job, render_inputs
from noetl_broker.broker.writing.queue import enqueue_job, priority_of, timeout_of
from noetl_broker.node_ids import UNDO_SUFFIX
from noetl_broker.playbook.keywords import words_of_item
from noetl_broker.playbook.model import Retry
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import RenderedInputs
    from noetl_broker.playbook.model import Step

COMPENSATION = "compensation"  # the type of the error of an execution that could not undo all
END_EVENTS = {FAILED: "execution_failed", CANCELLED: "execution_cancelled"}


def go_on_compensating(draft: Draft) -> None:
    """Start the next undo if none runs and nothing is draining; without one, the compensation ends."""
    while (
        (compensation := draft.state.compensation) is not None and not draft.state.tokens and not compensation.current
    ):
        row = _next_row(draft)
        if row is None:
            _end(draft, compensation)
        else:
            _start_undo(draft, compensation, row)


def _next_row(draft: Draft) -> UndoRow | None:
    """The open row of the last success."""
    for undo in reversed(draft.writes.added(UndoNoted)):
        if undo.status == "open":
            return UndoRow(undo.step, undo.visit, undo.item_index, draft.turn.number, undo.children)
    begun = draft.writes.added(UndoBegun)
    again = "" if not begun else "unknown" if begun[0].unknown else "failed"
    row: UndoRow | None = draft.known.ask(want_undo(again=again))
    return row


def _undo_step(draft: Draft, current: Undoing | UndoRow) -> Step | None:
    """The action that undoes a row; None if this version has none."""
    step = draft.playbook.steps.get(current.step)
    return None if step is None else undo_action(step, current.item_index)


def _start_undo(draft: Draft, compensation: Compensation, row: UndoRow) -> None:
    """Start the undo of a row. If a template fails, the undo fails."""
    step, undo = draft.playbook.steps.get(row.step), _undo_step(draft, row)
    draft.state.undo -= 1
    child = bool(row.children) or (undo is not None and undo.call is not None)
    first = 1 if draft.state.status == COMPENSATING else draft.turn.number
    current = Undoing(*row[:4], child, first=first, children=row.children, unsure=row.unsure)
    draft.state.compensation = compensation._replace(current=current)
    ordinal = emit_compensation(draft, "started", row.step, row.visit, row.item_index)
    draft.add(UndoChanged(row.step, row.visit, row.item_index, "running"))
    if step is None or (undo is None and not row.children):
        _fail_for_good(draft, current, _nothing_undoes(row, step))
        return
    seen, draft.state.seen = draft.state.seen, 0  # an undo reads no results of steps
    try:
        if row.children:
            _delegate(draft, step, row, ordinal, {"undo_of": [*row.children]}, None)
            _ask_child(draft, step, current)
        elif undo is not None:
            _start_action(draft, undo, row, ordinal)
    except TemplateError as fault:
        _fail_for_good(draft, current, _unrendered(row, step, fault))
    finally:
        draft.state.seen = seen


def _unrendered(row: UndoRow, step: Step, fault: TemplateError) -> dict[str, JSON]:
    """The error of an undo whose template failed. An action of unknown outcome has no result."""
    error = template_error(step, fault)
    if row.unsure and "result" in str(fault.template):
        error["message"] = f"{fault.message}; `result` is null here: give it a `default`"
    return error


def _nothing_undoes(row: UndoRow, step: Step | None) -> dict[str, JSON]:
    """The error of a row that this version cannot undo. A command that starts an undo checks this before."""
    lacks = "this version has no such step" if step is None else "this version of the step has no `compensate`"
    if step is not None and row.item_index is not None:
        lacks = "this version has no `compensate` in the `task` of the step"
    return {"step": row.step, "message": f"{lacks}; undo it with a version that has one"}


def _ask_child(draft: Draft, step: Step, current: Undoing) -> None:
    """Send `execution_undo` to the last of the children that are not asked yet."""
    compensation, _ = _running(draft)
    context: dict[str, JSON] = {"answer": current.first + current.failures, "error": _error(draft)}
    call = step.call if current.item_index is None or step.iteration is None else step.iteration.task.call
    if compensation.version is not None and call is not None and call.block is not None:
        context["version"] = compensation.version
    draft.add(ChildUndone(_asked(current), context))


def _asked(current: Undoing) -> int:
    """The child that undoes what it did now."""
    return current.children[-1 - current.answered]


def _start_action(draft: Draft, undo: Step, row: UndoRow, ordinal: int) -> None:
    """Queue the job that undoes a visit or an item, or start the playbook that does. Raises TemplateError."""
    given, words, result, pool = _read(draft, row)
    own = render_inputs(draft, undo.inputs, draft.templates.scope(given.values, result, words))
    seen = {**given.values, **words}
    if not own.values:
        seen["args"] = given.values
    if undo.call is None:
        enqueue_job(draft, undo, row.visit, ordinal, own, result, (row.item_index, seen))
        job, name = draft.writes.jobs.pop(), f"{undo.name}{UNDO_SUFFIX}"
        action, context = {**job.action, "name": name}, {**job.context, "step_name": name}
        if undo.pool is None and pool is not None:
            action["pool"] = pool
            job = job._replace(pool=pool)
        again = _is_again(draft, row)
        draft.writes.jobs.append(job._replace(action=action, context=context, undo=True, again=again))
        return
    request = render_call(draft, undo.call, own, result, seen)
    _delegate(draft, undo, row, ordinal, request, timeout_of(draft, undo, own.values, result, seen))
    _start_call(draft, _running(draft)[1], request)


def _is_again(draft: Draft, row: UndoRow) -> bool:
    """Whether an earlier undo has queued the job of this one."""
    if draft.state.status == COMPENSATING:
        return False
    return bool(draft.known.ask(want_undo_action(row.step, row.visit, row.item_index)))


def _read(draft: Draft, row: UndoRow) -> tuple[RenderedInputs, dict[str, JSON], ResultRef, str | None]:
    """What the templates of an undo see: the inputs of the visit or item, further words, and its result.

    And the pool of the job that it undoes; None: it had none of its own.
    """
    compensation, _ = _running(draft)
    # an error without a type comes from a cancel
    error = error_of_execution(compensation.error, FAILED if compensation.status == FAILED else CANCELLED)
    words: dict[str, JSON] = {"error": error, "execution_id": draft.turn.execution_id}
    task = draft.playbook.steps[row.step].iteration
    if row.item_index is None:
        action = draft.known.ask(want_action(row.step, row.visit))
    else:
        action, item, total = _item(draft, row, row.item_index)
        if task is not None:
            words |= words_of_item(task.element, item, row.item_index, total)
    known = action if isinstance(action, dict) else {}
    given, pool = inputs_of_job(known), known.get("pool")
    if row.unsure:
        return given, words, InlineResult(None), pool
    if row.turn == draft.turn.number and draft.templates.ended_visit != (row.step, row.visit):
        draft.templates.end_visit((row.step, row.visit), None)
    return given, words, row.turn, pool


def _item(draft: Draft, row: UndoRow, index: int) -> tuple[JSON, JSON, int]:
    """The action in the job of an item, the item itself, and how many there were."""
    action = draft.known.ask(want_item_action(row.step, row.visit, index))
    [item] = draft.known.ask(want_items(row.step, row.visit, index, 1)) or [None]
    return action, item, draft.known.ask(want_action(row.step, row.visit))["total"]


def _error(draft: Draft) -> JSON:
    return None if draft.state.compensation is None else draft.state.compensation.error


def _delegate(
    draft: Draft, step: Step, row: UndoRow, ordinal: int, request: dict[str, JSON], timeout: float | None
) -> None:
    """Add the job of an undo that a child execution does: no worker leases it."""
    action = {"name": step.name, "type": "playbook", **request}
    context = {"step_name": step.name, "visit": row.visit}
    job = JobRow(
        row.step, row.visit, "playbook", ordinal, action, context, priority_of(draft, step), 1, timeout,
        delegated=True, item_index=row.item_index, undo=True, again=_is_again(draft, row),
    )  # fmt: skip
    draft.writes.jobs.append(job)


def _start_call(draft: Draft, row: Undoing, request: dict[str, JSON]) -> None:
    """Start the playbook that undoes a visit or an item."""
    parent = {
        "depth": draft.state.depth + 1,
        "return_step": request.get("return_step"),
        "attempt": row.first + row.failures,
        "undoes": True,
    }
    payload = request.get("args") or {}
    child = ChildStarted(
        row.step, row.visit, row.item_index, request["path"], request["version"], payload, {"parent": parent}, undo=True
    )
    draft.add(child)


# Events about the undo that runs


def complete_undo(draft: Draft) -> None:
    """Complete the running undo. Its result belongs to no step, so it is never refused."""
    compensation, current = _running(draft)
    if current.answered + 1 < len(current.children):
        current = current._replace(answered=current.answered + 1, first=draft.turn.number)
        draft.state.compensation = compensation._replace(current=current)
        _ask_child(draft, draft.playbook.steps[current.step], current)
        return
    draft.state.compensation = compensation._replace(current=None, done=compensation.done + 1)
    if current.child or not draft.event.settled:
        _change_job(draft, current, "done")
    draft.add(UndoChanged(*current[:3], "done"))
    emit_compensation(draft, "completed", current.step, current.visit, current.item_index)


def fail_undo(draft: Draft) -> None:
    """An attempt of the undo failed: another one after a delay, or the undo fails for good."""
    compensation, current = _running(draft)
    undo = _undo_step(draft, current)
    event, failures = draft.event, current.failures + 1
    step = draft.playbook.steps[current.step]
    described = describe_error(step, shorten_error(error_of(event)))
    current = current._replace(failures=failures)
    if not current.child:
        current = current._replace(failed_attempt=max(event.attempt, current.failed_attempt))
    retry = (undo.retry if undo is not None else None) or Retry(max_attempts=draft.known.rules.default_max_attempts)
    try:
        again = event.retryable and undo is not None and failures < retry.max_attempts
        again = again and wants_retry(
            draft, retry, failures, described, lambda words: condition_scope(draft, NO_INPUTS, None, words)
        )
    except TemplateError as fault:
        described["retry_error"] = template_fault(fault)
        again = False
    if not again:
        _change_job(draft, current, "dead")
        _fail_for_good(draft, current, described)
        return
    draft.state.compensation = compensation._replace(current=current)
    _change_job(draft, current, "delegated" if current.child else "retry", retry_delay(draft, retry, failures))


def start_undo_again(draft: Draft) -> None:
    """`child_due`: start the playbook that undoes a visit or an item again."""
    compensation, current = _running(draft)
    request = draft.known.ask(want_undo_action(*current[:3]))
    current = current._replace(failed_attempt=current.failures)
    draft.state.compensation = compensation._replace(current=current)
    _start_call(draft, current, request)


def _running(draft: Draft) -> tuple[Compensation, Undoing]:
    compensation = draft.state.compensation
    if compensation is None or compensation.current is None:
        raise TypeError("no undo runs")
    return compensation, compensation.current


def _change_job(draft: Draft, current: Undoing, status: str, delay: float = 0.0) -> None:
    change = JobChanged(
        current.step, current.visit, status, delay, current.item_index, undo=True, attempt=current.failed_attempt
    )
    draft.add(change)


def _fail_for_good(draft: Draft, current: Undoing, error: dict[str, JSON]) -> None:
    """An undo failed for good: the compensation ends. Its row and the open rows are left."""
    _leave(draft, current, "failed", error)
    emit_compensation(draft, "failed", current.step, current.visit, current.item_index, error)
    compensation, _ = _running(draft)
    draft.state.compensation = compensation = compensation._replace(current=None, failed=compensation.failed + 1)
    draft.state.undo += 1
    remedy = "; mend its `compensate`, register it, then undo with --version latest" if "template" in error else ""
    message = f"the undo of {current.step} failed: {error['message']}{remedy}"
    _end(draft, compensation, {"step": current.step, "message": message, "type": COMPENSATION})


def _leave(draft: Draft, current: Undoing, status: str, error: dict[str, JSON]) -> None:
    """Change the row of the undo that runs: a later undo may read it."""
    draft.add(UndoChanged(*current[:3], status, error, current.turn, current.children, current.unsure))


def abandon_execution(draft: Draft) -> None:
    """`execution_abandon`: the compensation ends as failed, and lists what is left undone.

    The undo that runs, and what is still draining, are listed as unknown. The worker of the undo that runs is told to
    stop; its late success counts.
    """
    compensation = draft.state.compensation
    if compensation is None:
        return
    current = compensation.current
    if current is not None:
        _leave(draft, current, "unknown", {"message": "it was abandoned"})
        draft.state.unknown += 1
        if current.children:
            draft.add(ChildUndoAbandoned(_asked(current)))
    for token in draft.state.tokens.values():
        report_draining(draft, token)
    draft.state.tokens.clear()
    draft.state.compensation = compensation = compensation._replace(current=None)
    draft.add(WorkCancelled())
    context = draft.event.context if isinstance(draft.event.context, dict) else {}
    reason = str(context.get("reason") or "")[: ERROR.message_chars]
    message = f"the undo was abandoned: {reason}" if reason else "the undo was abandoned"
    _end(draft, compensation, {"message": message, "type": COMPENSATION})


def _end(draft: Draft, compensation: Compensation, error: dict[str, JSON] | None = None) -> None:
    """End a compensation; `error`: it has not undone everything. A failed execution keeps its error.

    An execution that had ended before stays as it is.
    """
    if draft.state.status != COMPENSATING:
        emit_undo_end(draft, error)
        starts = None if error is None else start_on_failure(draft, error)
        draft.add(UndoEnded(compensation.answer, error, starts))
    elif error is None:
        end_execution(draft, END_EVENTS[compensation.status], compensation.status, compensation.error)
    else:
        kept = compensation.error if compensation.status == FAILED else None
        end_execution(draft, END_EVENTS[FAILED], FAILED, kept or error)
    draft.state.compensation = None
    set_undo_status(draft)
