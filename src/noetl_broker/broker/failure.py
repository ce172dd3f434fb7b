"""Failure: an action that failed is tried again or fails its step, and a step that failed ends its execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.events import emit_execution_end
from noetl_broker.broker.model import JSON, Ended
from noetl_broker.broker.state import CANCELLED, FAILED
from noetl_broker.broker.workflow import track_cancelled

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.playbook.model import Step
    from noetl_broker.template import TemplateError


def template_error(step: Step, fault: TemplateError) -> dict[str, JSON]:
    """The error of an execution that a template ended."""
    return {"step": step.name, "message": fault.message, "template": fault.template, "at": fault.at}


def fail_execution(draft: Draft, error: dict[str, JSON]) -> None:
    """The execution ends here: its jobs that no worker holds are withdrawn, its live visits are cancelled."""
    _end(draft, "execution_failed", FAILED, error)


def cancel_execution(draft: Draft) -> None:
    """Somebody asked for the end; the reason they gave is the error."""
    context = draft.event.context
    reason = context.get("reason") if isinstance(context, dict) else None
    _end(draft, "execution_cancelled", CANCELLED, {"message": str(reason) if reason else "cancelled"})


def pass_deadline(draft: Draft) -> None:
    """The time that `metadata.deadline` gives the whole execution is over."""
    seconds = draft.playbook.deadline
    fail_execution(draft, {"message": f"the deadline of {seconds:g} s passed", "type": "deadline"})


def _end(draft: Draft, event_type: str, status: str, error: dict[str, JSON]) -> None:
    ordinal = emit_execution_end(draft, event_type, status, None, error)
    track_cancelled(draft, ordinal)
    draft.tokens.clear()
    draft.waiting.clear()
    draft.arrivals.clear()
    draft.status = status
    draft.ended = Ended(status, None, error)
    draft.withdraw = True
