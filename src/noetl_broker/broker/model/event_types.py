"""Event types: their names, their aliases, and which of them ask for a decision.

To add one, name it here. In `dispatcher.py`, add its reaction to `REACTIONS`, and its outcomes to a table:
`STATUS_TABLE` if it is about an execution (then name it in `OF_EXECUTION` too), else `VISIT_TABLE` and
`DRAINING_TABLE`. Aliases are also in `noetl.kind_of` (migrations/0002_shared_functions.sql). What users insert and
asks for no decision is also in `noetl.is_mail`, in the same file. A test compares the lists.
"""

from __future__ import annotations

EXECUTION_SIGNAL = "execution_signal"
EXECUTION_START = "execution_start"
EXECUTION_CANCEL = "execution_cancel"
EXECUTION_DEADLINE = "execution_deadline"
EXECUTION_PAUSE = "execution_pause"
EXECUTION_RESUME = "execution_resume"
EXECUTION_ABANDON = "execution_abandon"
EXECUTION_UNDO = "execution_undo"
UNDO_SETTLED = "undo_settled"
PLACE_FREE = "place_free"
HOLDS_DUE = "holds_due"
ACTION_COMPLETED = "action_completed"
ACTION_FAILED = "action_failed"
APPROVAL_DECIDED = "approval_decided"
CHILD_DUE = "child_due"
ITEM_COMPLETED = "execution_complete"
ITEM_FAILED = "execution_failed"
ITERATION_DUE = "iteration_due"
ITERATION_STARTED = "iteration_started"
ITERATOR_COMPLETED = "iterator_completed"
STEP_COMPLETED = "step_completed"
STEP_FAILED = "step_failed"
STEP_RESULT = "step_result"
TIMER_DUE = "timer_due"

# The event types to which a rule reacts, with the other names that producers and workers may use for them.
EVENT_TYPES = {
    EXECUTION_START: ("execution_started", "playbook_started"),
    EXECUTION_CANCEL: (),
    EXECUTION_DEADLINE: (),
    EXECUTION_PAUSE: (),
    EXECUTION_RESUME: (),
    EXECUTION_ABANDON: (),
    EXECUTION_UNDO: (),
    UNDO_SETTLED: (),
    PLACE_FREE: (),
    HOLDS_DUE: (),
    ACTION_COMPLETED: (),
    ACTION_FAILED: ("action_error",),
    ITEM_COMPLETED: ("execution_completed", "playbook_completed"),
    ITEM_FAILED: (),
    ITERATION_DUE: (),
    ITERATOR_COMPLETED: (),
    ITERATION_STARTED: (),
    CHILD_DUE: (),
    TIMER_DUE: (),
    APPROVAL_DECIDED: (),
    EXECUTION_SIGNAL: (),
}
# The event types that only readers of the log need.
RECORDED = frozenset({
    "action_started", STEP_RESULT, "step_started", STEP_COMPLETED, STEP_FAILED, "step_cancelled", "action_retry",
    "iterator_started", "iteration_completed", "iteration_failed",
    "execution_compensating", "compensation_started", "compensation_completed", "compensation_failed",
    "execution_undone", "execution_undo_failed", "execution_late", "step_late",
    "execution_cancelled", "execution_queued", "execution_admitted", "execution_paused", "execution_resumed",
    "error",  # a NoETL server's note beside an `action_error`
})  # fmt: skip
ALIASES = {name: event_type for event_type, names in EVENT_TYPES.items() for name in (event_type, *names)}


def canonical_event_type(event_type: str) -> str:
    """The name that the core uses for an event type: the sender may use an alias, in any case.

    `noetl.kind_of` is the same in SQL.
    """
    kind = ALIASES.get(event_type)
    if kind is None:
        lowered = event_type.lower()
        kind = ALIASES.get(lowered, lowered)
    return kind
