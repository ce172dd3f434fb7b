"""Failure: an action that failed is tried again or fails its step, and a step that failed ends its execution."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from noetl_broker.broker.events import emit_execution_end, emit_step_failed
from noetl_broker.broker.lengths import MOST_MESSAGE_CHARS, shortened, too_large
from noetl_broker.broker.model import (
    ACTION_FAILED,
    ITEM_FAILED,
    JSON,
    Decision,
    Emitted,
    Ended,
    Event,
    Row,
    Turn,
    as_stored,
)
from noetl_broker.broker.state import CANCELLED, FAILED, ExecutionState
from noetl_broker.broker.trail import Dropped, Lost
from noetl_broker.broker.workflow import track_cancelled, track_ended
from noetl_broker.template import StepResult, TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.state import Token
    from noetl_broker.playbook.model import Step
    from noetl_broker.template import Tree

FAILURES = frozenset({ACTION_FAILED, ITEM_FAILED})
SHOWN_CHARACTERS = 80  # of a value that is complained about
RESPONSE_CHARACTERS = 1_000  # of the answer of a server that is told in an error


def error_of(event: Event) -> JSON:
    """What an event says of the failure that it tells of, or why it is one, where what it carries is refused."""
    if event.kind in FAILURES:
        if event.error is not None:
            return event.error
    elif event.broken:
        return {"message": "the result of the event is no JSON", "type": "bad_result"}
    if event.bytes_over:
        return too_large(event)
    return shortened(_error_in(result_beside(event)))


def _error_in(result: JSON) -> JSON:
    """What a NoETL worker says of an error in its result; its http tool gives the answer there, and no error."""
    if not isinstance(result, dict):
        return result
    if result.get("error"):
        return result["error"]
    answer = result.get("data")
    status = answer.get("status_code") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or type(status) is not int or result.get("message"):
        return result
    body = answer.get("data")
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    message = f"the server answered with status {status}"
    return {"message": message, "type": "http", "status_code": status, "response": text[:RESPONSE_CHARACTERS]}


def result_beside(event: Event) -> JSON:
    """The result that came beside a failure; one that was refused is none, whoever reads the event again."""
    return event.result if event.kind in FAILURES and not event.bytes_over else None


def template_error(step: Step, fault: TemplateError) -> dict[str, JSON]:
    """The error of an execution that a template ended."""
    return {"step": step.name, "message": fault.message, "template": fault.template, "at": fault.at}


def wrong_value(tree: Tree, wanted: str, value: JSON) -> TemplateError:
    """What a template gave is not what it must be."""
    shown = json.dumps(value, ensure_ascii=False)[:SHOWN_CHARACTERS]
    return TemplateError(f"{wanted}, it is {shown}", tree.source, tree.at)


def fail_step(draft: Draft, step: Step, token: Token, error: dict[str, JSON]) -> None:
    """What a visit waited for failed for good, and the execution with it; a spent token's failure is only recorded."""
    lost = lost_races(draft, step, token.spent)
    draft.failed = emit_step_failed(draft, step, token.visit, error, spent=lost)
    track_ended(draft, step, "FAILED", draft.failed, token.visit)
    if not lost:
        fail_execution(draft, error)
        return
    draft.leave((step.name, token.visit), StepResult(None, "FAILED", as_stored(error)))
    draft.trail.append(Dropped(step.name, token.visit, lost))


def fail_entry(draft: Draft, step: Step, visit: int, error: dict[str, JSON], spent: frozenset[str]) -> None:
    """A token that is `spent` for these joins cannot enter or pass a step: as `fail_step`, but there is no result."""
    lost = lost_races(draft, step, spent)
    ordinal = emit_step_failed(draft, step, visit, error, spent=lost)
    track_ended(draft, step, "FAILED", ordinal)
    if lost:
        draft.trail.append(Dropped(step.name, visit, lost))
    else:
        fail_execution(draft, error)


def lost_races(draft: Draft, step: Step, spent: frozenset[str]) -> list[str]:
    """The joins that a token at this step was spent for and may still lead to: then its failure fails nothing.

    Behind a join that it can come to no more it is a token like any other, as for the result of the execution.
    """
    if not spent or draft.known.rules.spent_fails:
        return []
    return sorted(join for join in spent if draft.playbook.graph.can_reach(step.name, join))


def fail_execution(draft: Draft, error: dict[str, JSON]) -> None:
    """The execution ends here: its jobs that no worker holds are withdrawn, its live visits are cancelled."""
    _end(draft, "execution_failed", FAILED, error)


def cancel_execution(draft: Draft) -> None:
    """Somebody asked for the end; the reason they gave is the error."""
    _end(draft, "execution_cancelled", CANCELLED, _why_cancelled(draft.event))


def cancel_without_playbook(state: ExecutionState, event: Event, turn: Turn) -> tuple[ExecutionState, Decision]:
    """As `cancel_execution`, where the playbook of a running execution is gone: ending it needs none."""
    error = _why_cancelled(event)
    meta: dict[str, JSON] = {"turn": turn.number}
    emitted = Emitted("execution_cancelled", CANCELLED, meta=meta, error=error)
    steps = dict.fromkeys(step for step, _ in state.tokens)
    rows = tuple(Row(step, CANCELLED, state.repeats.get(step, 1), ended=0) for step in steps)
    ended = state._replace(status=CANCELLED, tokens={}, waiting={})
    return ended, Decision("decided", events=(emitted,), rows=rows, ended=Ended(CANCELLED, None, error), withdraw=True)


def _why_cancelled(event: Event) -> dict[str, JSON]:
    reason = event.context.get("reason") if isinstance(event.context, dict) else None
    return {"message": str(reason)[:MOST_MESSAGE_CHARS] if reason else "cancelled"}


def pass_deadline(draft: Draft) -> None:
    """The time that `metadata.deadline` gives the whole execution is over."""
    seconds = draft.playbook.deadline
    fail_execution(draft, {"message": f"the deadline of {seconds:g} s passed", "type": "deadline"})


def _end(draft: Draft, event_type: str, status: str, error: dict[str, JSON]) -> None:
    ordinal = emit_execution_end(draft, event_type, status, None, error)
    track_cancelled(draft, ordinal)
    draft.lost = Lost(dict(draft.tokens), dict(draft.waiting), tuple(draft.arrivals))
    draft.tokens.clear()
    draft.waiting.clear()
    draft.arrivals.clear()
    draft.status = status
    draft.ended = Ended(status, None, error)
    draft.withdraw = True
