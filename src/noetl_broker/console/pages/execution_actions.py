"""The actions of an operator on one execution, with their forms; `comebacks` has the actions with a preview."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.pages.screen import Posted, Screen, SentForm, Shown
from noetl_broker.console.problem import Refusal
from noetl_broker.errors import BrokerError, NotFoundFault, OperatorFault
from noetl_broker.node_ids import visit_name
from noetl_broker.service import execution_actions as service
from noetl_broker.service import executions, views, waits
from noetl_broker.service.action import ServiceAction
from noetl_broker.service.field_errors import FieldFault
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.values import ExecutionId
from noetl_broker.service.typed_json import read_short_json

router = APIRouter()

LONGEST_EDITED: Final = 262_144  # characters of a value that a form shows
# The forms, with their titles and fields.
FORMS: Final = {
    "cancel": ("Cancel", ("reason",)),
    "signal": ("Send a signal", ("name", "key", "payload")),
    "fork": ("Fork from a step", ("step", "of", "value", "version")),
    "again": ("Start again", ("payload",)),
}
Text = Annotated[str, Query(max_length=LONGEST_TEXT)]


@router.get("/executions/{execution_id:int}/{action}")
async def ask(
    screen: Shown, execution_id: ExecutionId, action: str, *, step: Text = "", of: Text = "", name: Text = ""
) -> Response:
    """The form of an action, with what it will do. A viewer gets none."""
    if action not in FORMS:
        raise Refusal(HTTPStatus.NOT_FOUND, f"the console has no page {screen.request.url.path}")
    if not screen.may_act:
        raise Refusal(HTTPStatus.FORBIDDEN, "only an operator can act on an execution")
    return await _form(screen, execution_id, action, {"step": step, "of": of, "name": name})


async def _form(
    screen: Screen, execution_id: int, action: str, fields: dict[str, str], fault: BrokerError | None = None
) -> Response:
    one = {"execution_id": execution_id}
    details = await screen.ask(executions.show_execution, **one)
    begun = await screen.ask(views.preview_cancel, **one) if action == "cancel" else []
    replaced: dict[str, Any] = {"result": None, "following": None}
    if fields.get("of"):
        replaced = await screen.ask(views.preview_fork, **one, of=fields["of"])
        fields = {"value": _edited(replaced["result"]), **fields}
    if action == "again" and fault is None:
        fields["payload"] = _edited((await screen.ask(views.show_origin, **one))["workload"])
    error = details["error"] if isinstance(details["error"], dict) else {}
    title, names = FORMS[action]
    return screen.form(
        "execution_act.html",
        title,
        {**dict.fromkeys(names, ""), **fields},
        fault,
        action=action,
        details=details,
        from_step=fields.get("step") or replaced["following"] or error.get("step"),
        begun=begun,
        visit_name=visit_name,
        names=sorted({name for wait in details["waits"] if wait["kind"] == "signal" for name in wait["names"] or ()}),
    )


def _edited(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= LONGEST_EDITED else "null"


async def request(form: SentForm, action: ServiceAction[Any, Any], execution_id: int, said: str) -> Response:
    """Ask the broker for something, with a reason if the form has one, and go on to the execution."""
    url = f"/executions/{execution_id}"
    if not (await form.ask(action, execution_id=execution_id))["requested"]:
        return form.done(url, "It had ended before.", kind="info")
    return form.done(url, said)


@router.post("/executions/{execution_id:int}/cancel")
async def cancel(form: Posted, execution_id: ExecutionId) -> Response:
    """Cancel an execution and its children."""
    return await request(form, service.cancel_execution, execution_id, "The broker cancels it and its children.")


@router.post("/executions/{execution_id:int}/pause")
async def pause(form: Posted, execution_id: ExecutionId) -> Response:
    """Pause an execution and its children."""
    return await request(form, service.pause_execution, execution_id, "The broker pauses it. Leased jobs go on.")


@router.post("/executions/{execution_id:int}/resume")
async def resume(form: Posted, execution_id: ExecutionId) -> Response:
    """Resume a paused execution and its children."""
    return await request(form, service.resume_execution, execution_id, "The broker resumes it.")


@router.post("/executions/{execution_id:int}/signal")
async def send_signal(form: Posted, execution_id: ExecutionId) -> Response:
    """Send a signal to the execution, or with a key to whoever waits for it."""
    url, fields = f"/executions/{execution_id}", form.texts("name", "key", "payload")
    name, key = fields["name"], fields["key"]
    try:
        if key:
            await form.ask(waits.send_signal)
            return form.done(url, f"The signal {name} was sent to the key {key}.")
        given = {"name": name, "payload": fields["payload"]}
        sent = await form.screen.ask(service.signal_execution, execution_id=execution_id, **given)
    except (OperatorFault, NotFoundFault) as fault:
        return await _form(form.screen, execution_id, "signal", fields, fault)
    if sent["other_keys"]:
        keys = " or ".join(sent["other_keys"])
        said = f"The signal {name} was sent, but a wait of this execution expects the key {keys}."
        return form.done(url, said, kind="warn")
    return form.done(url, f"The signal {name} was sent to this execution.")


@router.post("/executions/{execution_id:int}/fork")
async def fork(form: Posted, execution_id: ExecutionId) -> Response:
    """Start an execution from a step of this one, perhaps with another result of a step."""
    fields = form.texts("step", "of", "value", "version")
    step, of = fields["step"], fields["of"]
    try:
        values = {of: _result(fields["value"])} if of else {}
        made = await form.ask(service.fork_execution, execution_id=execution_id, from_step=step, values=values)
    except BrokerError as fault:
        return await _form(form.screen, execution_id, "fork", fields, fault)
    results = f"the results of {', '.join(made['taken'])}" if made["taken"] else "no results"
    if values:
        results = f"{results}, and that of {of} is the one you gave"
    said = f"This execution starts from {step} of {execution_id}; it has {results}."
    return form.done(f"/executions/{made['execution_id']}", said)


def _result(text: str) -> Any:
    try:
        return read_short_json(text)
    except ValueError as error:
        raise FieldFault({"value": f'{error}; write text in double quotes: "text"'}) from error


@router.post("/executions/{execution_id:int}/again")
async def start_again(form: Posted, execution_id: ExecutionId) -> Response:
    """Start the same version of the playbook with another workload."""
    fields = form.texts("payload")
    of = await form.screen.ask(executions.show_execution, execution_id=execution_id)
    given = {"path": of["path"], "version": of["version"], "payload": fields["payload"] or "null"}
    try:
        made = await form.screen.ask(executions.start_execution, **given)
    except BrokerError as fault:
        return await _form(form.screen, execution_id, "again", fields, fault)
    return form.done(f"/executions/{made['execution_id']}", f"It started as {execution_id} did, with this workload.")
