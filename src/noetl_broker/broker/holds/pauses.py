"""Pause and resume: a paused execution keeps its arrivals, and the items and children that are due.

A paused execution reads events as usual: actions end, retries and failures are decided. But no step is entered, no join
is released, no item or child is started, and nothing completes the execution. A queued execution is a paused one that
was never admitted.

Pause and resume have numbers, because a later one may be read first. A pause or a resume is late if its number is not
above the last number of its cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.arrivals.steps import KINDS
from noetl_broker.broker.flow.failures import deadline_of, fail_execution, late_after_of
from noetl_broker.broker.model.decision import Refused
from noetl_broker.broker.model.effects import StatusChanged
from noetl_broker.broker.model.limits import ERROR
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import PAUSED, QUEUED, RUNNING, Hold
from noetl_broker.broker.writing.errors import template_fault
from noetl_broker.broker.writing.events import emit_status
from noetl_broker.template import TemplateError
from noetl_broker.template.durations import moment_text

if TYPE_CHECKING:
    from datetime import datetime

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.event import Event
    from noetl_broker.broker.state.state import Arrival, ExecutionState

NO_HOLD = Hold()
OPERATOR, PARENT = "operator", "parent"  # who paused the execution


def row_of_pause(state: ExecutionState, event: Event) -> str:
    """The row of `dispatcher.STATUS_TABLE` for a pause or a resume."""
    number = number_of(event)
    late = number is not None and number <= (state.hold or NO_HOLD).numbers.get(cause_of(event), 0)
    return f"{event.kind}, late" if late else event.kind


def is_admitted(state: ExecutionState) -> bool:
    """Whether the execution runs or has run: its deadline counts from its admission."""
    return state.hold is None or state.hold.admitted


def cause_of(event: Event) -> str:
    """Who sent a pause or a resume: `parent` for an event of the parent, else `operator`."""
    return PARENT if isinstance(event.context, dict) and "parent_execution_id" in event.context else OPERATOR


def number_of(event: Event) -> int | None:
    """The number of a pause or a resume; None if the event was inserted by hand."""
    number = event.meta.get("number") if isinstance(event.meta, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def pause_execution(draft: Draft) -> None:
    """`execution_pause`: the execution pauses. Its children are paused by events.

    A paused execution remembers a further cause, and the number. Raises Refused if there is nothing to remember.
    """
    hold, cause = _counted(draft), cause_of(draft.event)
    if cause not in hold.causes:
        hold = hold._replace(causes=(*hold.causes, cause))
    _remember(draft, hold)
    if draft.state.status == PAUSED:
        return
    draft.state.status = PAUSED
    context: dict[str, JSON] = {}
    given = draft.event.context if isinstance(draft.event.context, dict) else {}
    if given.get("reason"):
        context["reason"] = str(given["reason"])[: ERROR.message_chars]
    if cause == PARENT:
        context["parent_execution_id"] = given["parent_execution_id"]
    emit_status(draft, "execution_paused", context)
    draft.add(StatusChanged(PAUSED))


def resume_execution(draft: Draft) -> None:
    """`execution_resume`: the kept tokens are delivered in their order; due items and children are started.

    An event of the parent ends only the pause of the parent. Any other resume ends all pauses. An execution that was
    never admitted is queued again. An execution that is not paused remembers the number, which makes an earlier pause
    late. Raises Refused if there is nothing to remember.
    """
    hold, cause = _counted(draft), cause_of(draft.event)
    hold = hold._replace(causes=tuple(one for one in hold.causes if cause == PARENT and one != PARENT))
    _remember(draft, hold)
    if draft.state.status != PAUSED or hold.causes:
        return
    emit_status(draft, "execution_resumed")
    if hold.admitted:
        _run_on(draft)
        draft.add(StatusChanged(RUNNING))
    else:
        draft.state.status = QUEUED
        draft.add(StatusChanged(QUEUED, waits=False if hold.delayed else None))


def queue_execution(draft: Draft, reason: str, *, waits: bool | None = None, until: datetime | None = None) -> None:
    """Keep an execution from running until it is admitted; `waits`: as in StatusChanged. `until`: its moment."""
    draft.state.status = QUEUED
    draft.state.hold = (draft.state.hold or NO_HOLD)._replace(admitted=False, delayed=until is not None)
    emit_status(draft, "execution_queued", {"reason": reason})
    draft.add(StatusChanged(QUEUED, waits=waits, until=until))


def delay_execution(draft: Draft, moment: datetime) -> None:
    """Queue an execution until its moment. Until then it is in no line, and nothing else admits it."""
    queue_execution(draft, f"starts at {moment_text(moment)}", waits=False, until=moment)


def join_line(draft: Draft) -> bool:
    """The first `place_free` of a delayed execution: its moment has come. Returns false for any other.

    The store admits it at once if its playbook is not paused.
    """
    hold = draft.state.hold or NO_HOLD
    if not hold.delayed:
        return False
    draft.state.hold = hold._replace(delayed=False)
    if draft.state.status == QUEUED:
        draft.add(StatusChanged(QUEUED))
    return True


def admit_execution(draft: Draft) -> None:
    """`place_free`: a queued execution runs. Its deadline and its `late_after` count from here."""
    try:
        deadline, late_after = deadline_of(draft), late_after_of(draft)
    except TemplateError as fault:  # it was right at the start, but may read the clock
        fail_execution(draft, template_fault(fault))
        return
    emit_status(draft, "execution_admitted")
    draft.state.hold = (draft.state.hold or NO_HOLD)._replace(admitted=True)
    _run_on(draft)
    draft.add(StatusChanged(RUNNING, admitted=True, deadline=deadline, late_after=late_after))


def keep_arrival(draft: Draft, arrival: Arrival) -> None:
    """Keep a token on its arc until the execution is resumed or admitted."""
    hold = draft.state.hold or NO_HOLD
    draft.state.hold = hold._replace(kept=(*hold.kept, arrival._replace(passed=frozenset())))


def _counted(draft: Draft) -> Hold:
    """What holds the execution, with the number of this event."""
    hold, number = draft.state.hold or NO_HOLD, number_of(draft.event)
    return hold if number is None else hold._replace(numbers={**hold.numbers, cause_of(draft.event): number})


def _remember(draft: Draft, hold: Hold) -> None:
    if hold == (draft.state.hold or NO_HOLD):
        raise Refused("recorded")
    draft.state.hold = hold


def _run_on(draft: Draft) -> None:
    """Put the kept tokens back on their arcs, and start the items and children that are due."""
    hold = draft.state.hold or NO_HOLD
    draft.state.status = RUNNING
    draft.arrivals.extend(hold.kept)
    draft.resumed = sum(arrival.arc >= 0 for arrival in hold.kept)
    draft.state.hold = hold._replace(kept=())
    for visit, waiting in [*draft.state.tokens.items()]:
        if (
            waiting.due and visit in draft.state.tokens and draft.state.status == RUNNING
        ):  # else the start of another one has ended the execution
            token = draft.state.tokens[visit] = waiting._replace(due=False)
            KINDS[draft.playbook.steps[token.step].kind].resume(draft, token)
