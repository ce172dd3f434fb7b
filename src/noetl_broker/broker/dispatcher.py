"""Which rule reacts to an event, or why the event changes nothing.

`REACTIONS` names the rule of each event. The outcome is read from two tables: `BY_STATUS`, by the status of the
execution, and `BY_VISIT`, by what the visit of the event waits for. The page Architecture explains both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from noetl_broker.broker.arrivals.steps import KINDS, Kind
from noetl_broker.broker.compensation import abandon_execution, complete_undo, fail_undo, start_undo_again
from noetl_broker.broker.flow.failures import cancel_execution, pass_deadline
from noetl_broker.broker.flow.late import LATE, is_late_event, may_be_late, report_late
from noetl_broker.broker.holds.pauses import is_admitted, pause_execution, row_of_pause
from noetl_broker.broker.holds.slots import receive_slot, resume_queued
from noetl_broker.broker.initial import dispatch_first_step
from noetl_broker.broker.model.decision import Refused
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import (
    ACTION_COMPLETED,
    ACTION_FAILED,
    APPROVAL_DECIDED,
    CHILD_DUE,
    EXECUTION_ABANDON,
    EXECUTION_CANCEL,
    EXECUTION_DEADLINE,
    EXECUTION_PAUSE,
    EXECUTION_RESUME,
    EXECUTION_SIGNAL,
    EXECUTION_START,
    EXECUTION_UNDO,
    HOLDS_DUE,
    ITEM_COMPLETED,
    ITEM_FAILED,
    ITERATION_DUE,
    ITERATION_STARTED,
    ITERATOR_COMPLETED,
    PLACE_FREE,
    RECORDED,
    TIMER_DUE,
    UNDO_SETTLED,
)
from noetl_broker.broker.state.state import COMPENSATING, NEW, PAUSED, QUEUED, RUNNING, ExecutionState, Token, is_live
from noetl_broker.broker.undo.draining import drain
from noetl_broker.broker.undo.later import (
    begin_undo,
    complete_late_undo,
    has_nothing,
    is_late_undo,
    settle_undo,
)
from noetl_broker.broker.undo.open_visits import WAITING
from noetl_broker.broker.undo.rows import is_late_child, report_late_child, report_left, report_success
from noetl_broker.broker.waits.approval import is_decision
from noetl_broker.broker.waits.signals import SIGNALS, TIMEOUT, continue_signals, receive_signal, signal_of
from noetl_broker.broker.waits.wait import is_timer_of, purpose_of
from noetl_broker.broker.work.children import start_child_again
from noetl_broker.broker.work.items import restart_item
from noetl_broker.broker.work.iterators import continue_iterator
from noetl_broker.broker.work.worker_children import adopt_child, child_of
from noetl_broker.broker.writing.errors import error_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.rules import Rules
    from noetl_broker.playbook.model import Playbook

STATUS_TABLE = """\
                                 not started        queued        running       paused        compensating  ended
execution_start                  reacts             duplicate     duplicate     duplicate     duplicate     duplicate
execution_cancel                 unknown_execution  reacts        reacts        reacts        recorded      after_end
execution_abandon                unknown_execution  recorded      recorded      recorded      reacts        after_end
execution_abandon, undoing       unknown_execution  recorded      recorded      recorded      reacts        reacts
execution_undo                   unknown_execution  recorded      recorded      recorded      recorded      reacts
execution_undo, of nothing       unknown_execution  recorded      recorded      recorded      recorded      nothing_left
undo_settled                     unknown_execution  recorded      recorded      recorded      recorded      reacts
execution_deadline               unknown_execution  recorded      reacts        reacts        recorded      after_end
execution_deadline, none is set  unknown_execution  recorded      recorded      recorded      recorded      after_end
execution_pause                  unknown_execution  reacts        reacts        reacts        recorded      after_end
execution_pause, late            unknown_execution  recorded      recorded      recorded      recorded      after_end
execution_resume                 unknown_execution  reacts        reacts        reacts        recorded      after_end
execution_resume, late           unknown_execution  recorded      recorded      recorded      recorded      after_end
execution_signal                 unknown_execution  reacts        reacts        reacts        recorded      after_end
execution_signal, doubled        unknown_execution  duplicate     duplicate     duplicate     duplicate     after_end
timer_due, late                  unknown_execution  recorded      reacts        reacts        recorded      after_end
timer_due, late, none is set     unknown_execution  recorded      recorded      recorded      recorded      after_end
place_free                       unknown_execution  reacts        recorded      reacts        recorded      after_end
holds_due                        unknown_execution  reacts        reacts        reacts        reacts        after_end
event about a visit              unknown_execution  by visit      by visit      by visit      by visit      after_end
event about an undo              unknown_execution  by undo       by undo       by undo       by undo       by undo
type that is only recorded       recorded           recorded      recorded      recorded      recorded      recorded
any other type                   unknown_type       unknown_type  unknown_type  unknown_type  unknown_type  unknown_type
"""

# Columns. worker: a worker has the job. adopting: it has started children too. children: it is done, its children run.
# items: the broker runs items. child: a child runs. restarted: a child runs that was started again. delay: a failed
# child is started again after a delay. wait: a moment is waited for.
VISIT_TABLE = """\
                                  worker     adopting   children   items      child      restarted  delay      wait
action_completed                  reacts     reacts     duplicate  recorded   reacts     reacts     reacts     recorded
action_completed, stale           stale      stale      stale      recorded   stale      stale      stale      recorded
action_completed, failed before   reacts     reacts     duplicate  recorded   duplicate  duplicate  duplicate  recorded
action_failed                     reacts     reacts     reacts     reacts     reacts     reacts     duplicate  recorded
action_failed, stale              stale      stale      stale      stale      stale      stale      stale      recorded
action_failed, failed before      duplicate  duplicate  duplicate  duplicate  duplicate  duplicate  duplicate  recorded
action_failed, beside its job     reacts     reacts     duplicate  reacts     reacts     reacts     duplicate  recorded
action_failed, worker retries     recorded   recorded   duplicate  recorded   reacts     reacts     duplicate  recorded
item or iterator                  recorded   reacts     reacts     reacts     recorded   recorded   recorded   recorded
item or iterator, stale           recorded   stale      stale      stale      recorded   recorded   recorded   recorded
item or iterator, worker retries  recorded   recorded   recorded   recorded   recorded   recorded   recorded   recorded
item or iterator, malformed       recorded   recorded   recorded   recorded   recorded   recorded   recorded   recorded
iteration_started                 reacts     reacts     reacts     recorded   recorded   recorded   recorded   recorded
child_due                         not_open   not_open   not_open   not_open   not_open   duplicate  reacts     not_open
child_due, another attempt        not_open   not_open   not_open   not_open   not_open   duplicate  duplicate  not_open
timer_due                         not_open   not_open   not_open   not_open   not_open   not_open   not_open   reacts
timer_due, late                   reacts     reacts     reacts     reacts     reacts     reacts     reacts     reacts
timer_due, of nothing             not_open   not_open   not_open   not_open   not_open   not_open   not_open   recorded
approval_decided                  not_open   not_open   not_open   not_open   not_open   not_open   not_open   reacts
approval_decided, malformed       not_open   not_open   not_open   not_open   not_open   not_open   not_open   recorded
"""

# A visit that is over, but whose late success is to be undone. Any other event about it: not_open.
# Columns. child: an attempt has the number of its start. other: a worker or items.
DRAINING_TABLE = """\
                                  other      child
action_completed                  reacts     reacts
action_completed, stale           stale      stale
action_completed, failed before   reacts     duplicate
action_failed                     reacts     reacts
action_failed, stale              stale      stale
action_failed, failed before      duplicate  duplicate
action_failed, beside its job     reacts     reacts
action_failed, worker retries     recorded   recorded
item or iterator                  reacts     reacts
item or iterator, stale           reacts     reacts
item or iterator, worker retries  recorded   recorded
item or iterator, malformed       recorded   recorded
iteration_started                 recorded   recorded
"""


def _parse(table: str) -> dict[str, dict[str, str]]:
    """The outcomes by row and column."""
    head, *lines = table.splitlines()
    columns = re.split(" {2,}", head.strip())
    rows = [re.split(" {2,}", line) for line in lines]
    return {name: dict(zip(columns, outcomes, strict=True)) for name, *outcomes in rows}


BY_STATUS, BY_VISIT, DRAINING = _parse(STATUS_TABLE), _parse(VISIT_TABLE), _parse(DRAINING_TABLE)
STATUSES = {
    NEW: "not started", QUEUED: "queued", RUNNING: "running", PAUSED: "paused", COMPENSATING: "compensating",
}  # fmt: skip  # all others have ended
OF_ITERATOR = frozenset({ITERATION_DUE, ITERATOR_COMPLETED})
OF_ITEMS = OF_ITERATOR | {ITEM_COMPLETED, ITEM_FAILED}


def _token(draft: Draft) -> Token:
    return draft.state.tokens[draft.event.step or "", draft.event.visit or 1]


def _is_late(draft: Draft) -> bool:
    """React to an event about a visit that is over; false if it is open."""
    token = draft.state.tokens.get((draft.event.step or "", draft.event.visit or 1))
    if token is None:
        if not report_late_child(draft):
            raise Refused("duplicate")
        return True
    if token.draining:
        drain(draft, token)
    return token.draining


def _kind(draft: Draft, token: Token) -> Kind:
    return KINDS[draft.playbook.steps[token.step].kind]


def _end_item(draft: Draft) -> None:
    if not _is_late(draft):
        token = _token(draft)
        _kind(draft, token).end_item(draft, token)


def _complete(draft: Draft) -> None:
    if _is_late(draft):
        return
    event, token = draft.event, _token(draft)
    if event.item_index is not None:
        _kind(draft, token).end_item(draft, token)
        return
    step = draft.playbook.steps[token.step]
    if step.compensate is not None or step.call is not None:
        token = report_success(draft, step, token)
    if event.broken or event.bytes_over:
        _kind(draft, token).fail(draft, token, error_of(event))
    else:
        _kind(draft, token).complete(draft, token)


def _gather(draft: Draft) -> None:
    if not _is_late(draft):
        token = _token(draft)
        _kind(draft, token).gather(draft, token)


def _fail(draft: Draft) -> None:
    if _is_late(draft):
        return
    event, token = draft.event, _token(draft)
    if event.item_index is not None:
        _kind(draft, token).end_item(draft, token)
    else:
        token = report_left(draft, draft.playbook.steps[token.step], token)
        _kind(draft, token).fail(draft, token, error_of(event))


def _pass_moment(draft: Draft) -> None:
    purpose = purpose_of(draft.event)
    if purpose == LATE:
        report_late(draft)
        return
    token = _token(draft)
    if purpose == SIGNALS:
        continue_signals(draft)
    elif purpose == TIMEOUT:
        _kind(draft, token).fail(draft, token, {"type": "timeout"})
    else:
        _kind(draft, token).complete(draft, token)


def _decide(draft: Draft) -> None:
    token = _token(draft)
    _kind(draft, token).complete(draft, token)


def _start_again(draft: Draft) -> None:
    token = _token(draft)
    if draft.event.item_index is None:
        start_child_again(draft, token)
    else:
        restart_item(draft, draft.playbook.steps[token.step], token)


REACTIONS: dict[str, Callable[[Draft], None]] = {
    EXECUTION_START: dispatch_first_step,
    EXECUTION_CANCEL: cancel_execution,
    EXECUTION_ABANDON: abandon_execution,
    EXECUTION_UNDO: begin_undo,
    UNDO_SETTLED: settle_undo,
    EXECUTION_DEADLINE: pass_deadline,
    EXECUTION_PAUSE: pause_execution,
    EXECUTION_RESUME: resume_queued,
    PLACE_FREE: receive_slot,
    HOLDS_DUE: lambda _draft: None,  # the store parks or releases further jobs
    ACTION_COMPLETED: _complete,
    ACTION_FAILED: _fail,
    ITEM_COMPLETED: _end_item,
    ITEM_FAILED: _end_item,
    ITERATION_DUE: lambda draft: continue_iterator(draft, _token(draft)),
    ITERATOR_COMPLETED: _gather,
    ITERATION_STARTED: lambda draft: adopt_child(draft, _token(draft)),
    CHILD_DUE: _start_again,
    TIMER_DUE: _pass_moment,
    APPROVAL_DECIDED: _decide,
    EXECUTION_SIGNAL: receive_signal,
}
UNDO_REACTIONS: dict[str, Callable[[Draft], None]] = {
    ACTION_COMPLETED: complete_undo,
    ACTION_FAILED: fail_undo,
    CHILD_DUE: start_undo_again,
}
OF_PAUSE = frozenset({EXECUTION_PAUSE, EXECUTION_RESUME})
OF_EXECUTION = OF_PAUSE | {
    EXECUTION_START,
    EXECUTION_CANCEL,
    EXECUTION_ABANDON,
    EXECUTION_UNDO,
    UNDO_SETTLED,
    EXECUTION_DEADLINE,
    EXECUTION_SIGNAL,
    PLACE_FREE,
    HOLDS_DUE,
}
OF_MOMENTS = frozenset({EXECUTION_DEADLINE, TIMER_DUE})
STATUS_ROWS = {
    **dict.fromkeys(REACTIONS, "event about a visit"),
    **{event_type: event_type for event_type in OF_EXECUTION},
    **dict.fromkeys(RECORDED, "type that is only recorded"),
}


def route_event(draft: Draft) -> None:
    """Let the rule for this event write its decision."""
    kind, undoes = draft.event.kind, draft.event.undo and draft.event.kind not in OF_EXECUTION
    if undoes and draft.state.compensation is None:
        complete_late_undo(draft)
        return
    (UNDO_REACTIONS if undoes else REACTIONS)[kind](draft)


def refusal(playbook: Playbook, state: ExecutionState, event: Event, rules: Rules) -> str | None:
    """Why the event changes nothing: the outcome of its turn. None when a rule reacts."""
    kind = event.kind
    row = STATUS_ROWS.get(kind, "any other type")
    if kind in OF_MOMENTS:
        row = _row_of_moment(playbook, state, event, row)
    elif kind in OF_PAUSE:
        row = row_of_pause(state, event)
    elif kind == EXECUTION_ABANDON and state.compensation is not None:
        row = "execution_abandon, undoing"
    elif kind == EXECUTION_UNDO and has_nothing(state, event):
        row = "execution_undo, of nothing"
    elif kind == EXECUTION_SIGNAL and event.stale:
        row = "execution_signal, doubled"
    elif (kind == ITERATION_STARTED and child_of(event) is None) or (
        kind == EXECUTION_SIGNAL and signal_of(event) is None
    ):
        row = "type that is only recorded"
    elif event.undo and row == "event about a visit":
        row = "event about an undo"
    outcome = BY_STATUS[row][STATUSES.get(state.status, "ended")]
    if outcome == "by visit":
        outcome = _by_visit(playbook, state, event, kind, rules)
    elif outcome == "by undo":
        outcome = _by_undo(state, event, kind, rules)
    return None if outcome == "reacts" else outcome


def _row_of_moment(playbook: Playbook, state: ExecutionState, event: Event, row: str) -> str:
    """The row of a deadline, or of a timer: one without a step is about the execution."""
    is_set = playbook.deadline is not None and is_admitted(state)
    if event.kind == TIMER_DUE:
        if event.step is not None or not is_late_event(event):
            return row
        row, is_set = "timer_due, late", may_be_late(playbook, state)
    if not is_set:
        row += ", none is set"
    return row


def _by_visit(playbook: Playbook, state: ExecutionState, event: Event, kind: str, rules: Rules) -> str:
    step = playbook.steps.get(event.step or "")
    if step is None:
        return "recorded" if kind in OF_ITEMS else "unknown_step"
    visit = event.visit or 1
    token = state.tokens.get((step.name, visit))
    if token is None:
        visits = state.repeats.get(step.name, 1) if state.seen >> step.index & 1 else 0
        if visit <= visits and is_late_child(event):
            return "reacts"
        return "duplicate" if visit <= visits else "not_open"
    waiting = WAITING[step.waits_for]
    if kind == TIMER_DUE:
        if is_late_event(event):
            row = f"{kind}, late" if step.late_after is not None and not token.late else f"{kind}, of nothing"
        else:
            row = kind if is_timer_of(step, event) else f"{kind}, of nothing"
    elif kind == APPROVAL_DECIDED:
        row = kind if step.approval is not None and is_decision(event) else f"{kind}, malformed"
    else:
        failed = token.failures if waiting.counts_starts else token.failed_attempt
        row = _row(event, kind, failed, rules)
    if token.draining:
        column = "child" if waiting.counts_starts else "other"
        return DRAINING[row][column] if row in DRAINING else "not_open"
    return BY_VISIT[row][waiting.column(token)]


def _by_undo(state: ExecutionState, event: Event, kind: str, rules: Rules) -> str:
    """The outcome of an event about an undo. Only the running undo reacts, as the visit of an action or a child."""
    if state.compensation is None:
        if is_late_undo(state, event):
            return "reacts"
        return "not_open" if is_live(state.status) else "after_end"
    if kind not in UNDO_REACTIONS:
        return "recorded"
    current = state.compensation.current
    if current is None or (event.step, event.visit or 1, event.item_index) != current[:3]:
        return "duplicate"
    waits = "worker"
    if current.child:
        waits = "delay" if current.failures > current.failed_attempt else "restarted" if current.failures else "child"
    failed = current.first - 1 + current.failures if current.child else current.failed_attempt
    return BY_VISIT[_row(event._replace(item_index=None), kind, failed, rules)][waits]


def _row(event: Event, kind: str, failed: int, rules: Rules) -> str:
    """The row of `BY_VISIT`: the kind of event, and what is special about it; `failed` is the last failed attempt."""
    special = ""
    if kind == ITERATION_STARTED:
        return kind
    if event.item_index is not None or kind in OF_ITEMS:
        malformed = (kind in OF_ITERATOR) == (event.item_index is not None)
        if malformed or (event.stale and kind != CHILD_DUE):
            special = "malformed" if malformed else "stale"
        elif _worker_retries(event, kind, rules):
            special = "worker retries"
        kind = "item or iterator"
    elif kind == CHILD_DUE:
        special = "" if event.attempt in {0, failed + 1} else "another attempt"
    elif event.stale:
        special = "stale"
    elif 0 < event.attempt <= failed:
        special = "failed before"
    elif kind == ACTION_FAILED and not event.settled:
        special = "worker retries" if _worker_retries(event, kind, rules) else "beside its job"
    return f"{kind}, {special}" if special else kind


def _worker_retries(event: Event, kind: str, rules: Rules) -> bool:
    """Whether the worker, which reported an error beside the job, decides by the job's row if it tries again."""
    if kind != ACTION_FAILED or event.settled or rules.retry_owner != "worker":
        return False
    return not (isinstance(event.meta, dict) and "child_execution_id" in event.meta)
