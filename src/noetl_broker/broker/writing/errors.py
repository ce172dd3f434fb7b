"""Errors: the documents that events, rows and templates have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import ACTION_FAILED, ITEM_FAILED
from noetl_broker.broker.model.limits import result_size_error, shorten_error
from noetl_broker.broker.model.values import JSON
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.playbook.model import Step
    from noetl_broker.template import Tree

FAILURES = frozenset({ACTION_FAILED, ITEM_FAILED})
SHOWN_CHARACTERS = 80  # of a wrong value in an error
RESPONSE_CHARACTERS = 1_000  # of an HTTP response in an error


def error_of(event: Event) -> JSON:
    """The error that an event reports, or the reason why its result is refused."""
    if event.kind in FAILURES:
        if event.error is not None:
            return event.error
    elif event.broken:
        return {"message": "the result of the event is no JSON", "type": "bad_result"}
    if event.bytes_over:
        return result_size_error(event)
    return shorten_error(_error_in(result_of_failure(event)))


def _error_in(result: JSON) -> JSON:
    """The error in the result of a NoETL worker; its http tool puts the response there."""
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


def result_of_failure(event: Event) -> JSON:
    """The result beside a failure; None if the event has no failure or the result was refused."""
    return event.result if event.kind in FAILURES and not event.bytes_over else None


def complete_error(error: dict[str, JSON], attempt: int) -> dict[str, JSON]:
    """The error as a `catch` reads it: with a type, and the attempt (from 1) that failed."""
    kind = error.get("type")
    if kind in (None, ""):
        kind = "template" if "template" in error else ACTION_FAILED
    return {**error, "type": kind, "attempt": attempt}


def error_of_execution(error: JSON, status: str) -> JSON:
    """The error of an execution that ends, as templates read it.

    Missing fields are null. A missing type is filled in.
    """
    if not isinstance(error, dict):
        return error
    kind = error.get("type") or ("template" if "template" in error else "")
    return {
        "step": None,
        "attempt": None,
        **error,
        "type": kind or (ACTION_FAILED if "step" in error else status.lower()),
    }


def template_error(step: Step, fault: TemplateError) -> dict[str, JSON]:
    """The error of a step whose template failed."""
    return {"step": step.name, **template_fault(fault)}


def template_fault(fault: TemplateError) -> dict[str, JSON]:
    """The error of a template that failed."""
    return {"message": fault.message, "template": fault.template, "at": fault.at}


def cycle_error(draft: Draft, step: Step) -> dict[str, JSON]:
    """The error of a cycle that a token goes round within one turn."""
    cycle = draft.playbook.graph.cycle(step.name)
    steps = draft.playbook.steps
    only_routers = all(not steps[name].has_action or steps[name].need > 1 for name in cycle)
    what = "a cycle of routers that no step leaves" if only_routers else "a cycle of steps that fail in one turn"
    message = f"{what}: {' → '.join(cycle)}"
    return {"step": step.name, "message": message, "type": "router_cycle" if only_routers else "failure_cycle"}


def wrong_value(tree: Tree, wanted: str, value: JSON) -> TemplateError:
    """The error of a template whose value has the wrong type."""
    shown = json.dumps(value, ensure_ascii=False)[:SHOWN_CHARACTERS]
    return TemplateError(f"{wanted}, it is {shown}", tree.source, tree.at)


def describe_error(step: Step, error: JSON) -> dict[str, JSON]:
    """The error as a mapping with at least the failed step and a message, which is text.

    Another `step` of the sender becomes `reported_step`; a message that is not text becomes its JSON.
    """
    given = error if isinstance(error, dict) else {"message": error}
    described: dict[str, JSON] = {"step": step.name, **{key: value for key, value in given.items() if key != "step"}}
    if given.get("step") not in (None, step.name):
        described.setdefault("reported_step", given["step"])
    message = given.get("message")
    if message is None or message == "":
        message = "the action failed"
    described["message"] = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    return described
