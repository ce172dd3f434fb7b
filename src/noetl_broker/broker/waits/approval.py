"""Approvals: steps that wait until a person approves or rejects.

An approval is a wait. Its row keeps the inputs of its visit and what people see. If it has a timeout, it has a timer.
`approval_decided` completes it. `noetl.decide_approval` checks the form before it writes that event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.flow.transitions import complete_with
from noetl_broker.broker.model.effects import TimerSet, WaitEnded, WaitOpened
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.waits.due import due_of_fork
from noetl_broker.broker.waits.signals import TIMEOUT
from noetl_broker.broker.waits.wait import time_out
from noetl_broker.broker.writing.errors import wrong_value
from noetl_broker.broker.writing.inputs import inputs_as_request, inputs_of_visit
from noetl_broker.playbook.approval import APPROVERS, APPROVERS_FORMS, TITLE_FORMS, approvers_of, faults_of_form
from noetl_broker.template import TemplateError
from noetl_broker.template.durations import DURATION_FORMS, after, moment_text, parse_duration

if TYPE_CHECKING:
    from datetime import datetime

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.event import Event
    from noetl_broker.broker.state.state import Arrival, RenderedInputs, Token
    from noetl_broker.playbook.model import ApprovalSpec, Step
    from noetl_broker.template import Tree
    from noetl_broker.template.scope import Scope


def begin_approval(
    draft: Draft, step: Step, visit: int, _ordinal: int, given: RenderedInputs, arrival: Arrival
) -> None:
    """Begin the approval of a visit. Raises TemplateError if a part cannot be rendered or has a wrong value."""
    approval = step.approval
    if approval is None:
        raise TemplateError("the step asks for no approval", template="", at=step.name)
    scope = draft.templates.scope(given.values, arrival.result)
    form = _form(draft, approval.form, scope)
    details: dict[str, JSON] = {
        "title": _title(draft, step, approval.title, scope),
        "details": None if approval.details is None else draft.templates.render(approval.details, scope),
        "form": form,
        "approvers": _approvers(draft, approval.approvers, scope),
    }
    if len(form) > 1:
        details["fields"] = [*form]  # in their order: the table keeps none of keys
    due = due_of_fork(arrival) or _due(draft, approval, scope)
    if due is not None:
        details["times_out_at"] = moment_text(due)
        draft.add(TimerSet(step.name, visit, TIMEOUT, due))
    draft.add(WaitOpened(step.name, visit, "approval", inputs_as_request(given), details=details))


def _title(draft: Draft, step: Step, tree: Tree | None, scope: Scope) -> str:
    """The question as one text; by default the name of the step."""
    title = None if tree is None else draft.templates.render(tree, scope)
    if tree is None or title is None:
        return step.name
    if isinstance(title, dict | list):
        raise wrong_value(tree, f"`title` must be {TITLE_FORMS}", title)
    return title if isinstance(title, str) else str(title)


def _form(draft: Draft, tree: Tree | None, scope: Scope) -> dict[str, JSON]:
    """The fields of the form, each with its JSON Schema."""
    form = {} if tree is None else draft.templates.render(tree, scope)
    if tree is None or form is None:
        return {}
    for fault in faults_of_form(form):
        raise TemplateError(f"`form` is no form: {fault.message} ({fault.hint})", template=tree.source, at=tree.at)
    assert isinstance(form, dict)  # noqa: S101 - else it has a fault
    return form


def _approvers(draft: Draft, tree: Tree | None, scope: Scope) -> list[str]:
    """Who alone may decide; empty: whoever may decide at all. Who names them names somebody."""
    if tree is None:
        return []
    value = draft.templates.render(tree, scope)
    approvers = approvers_of(value)
    if approvers is None:
        raise wrong_value(tree, f"`{APPROVERS}` must be {APPROVERS_FORMS}", value)
    return approvers


def _due(draft: Draft, approval: ApprovalSpec, scope: Scope) -> datetime | None:
    """The moment at which the approval times out; None: never."""
    tree = approval.timeout
    value = None if tree is None else draft.templates.render(tree, scope)
    if tree is None or value is None:
        return None
    try:
        return after(draft.turn.at, parse_duration(value))
    except ValueError:
        raise wrong_value(tree, f"`timeout` must be {DURATION_FORMS}", value) from None


def is_decision(event: Event) -> bool:
    """Whether the context of an `approval_decided` says what was decided."""
    context = event.context
    return isinstance(context, dict) and isinstance(context.get("approved"), bool)


def decide_approval(draft: Draft, token: Token) -> None:
    """`approval_decided`: the visit completes with the decision and the fields of the form."""
    step = draft.playbook.steps[token.step]
    draft.add(WaitEnded(token.step, token.visit, "done"))
    given = inputs_of_visit(draft, step, token.visit)
    complete_with(draft, step, token, _result_of(draft), given)


def fail_approval(draft: Draft, token: Token, error: JSON) -> None:
    """Fail an approval for good, because nobody decided in time; `on_error` decides what follows."""
    time_out(draft, token, {"message": "nobody decided in time", **error})


def _result_of(draft: Draft) -> dict[str, JSON]:
    context: dict[str, JSON] = draft.event.context
    form = context.get("form")
    decision = {"approved": context["approved"], "by": context.get("by"), "at": context.get("at")}
    return {"comment": None, **(form if isinstance(form, dict) else {}), **decision}
