"""The actions of an operator on one execution, with their forms; `comebacks` has the actions with a preview."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Query, Response

from noetl_broker.broker.state.state import COMPLETED, FAILED, is_live
from noetl_broker.console.pages.model_form import fields_of
from noetl_broker.console.pages.screen import Posted, Screen, Shown
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
LEFT: Final = ("open", "failed", "unknown")  # statuses of undos that are left


class PageAction(NamedTuple):
    """An action on one execution: its button, with a kind and a picture, and the title of its page.

    One that names no `action` of the service has routes of its own. Else a click does it, or (`asks`) a form with the
    fields of the request; the form says what it `does`. The page says `done` afterwards.
    """

    word: str
    picture: str
    title: str = ""
    kind: str = "plain"
    action: ServiceAction[Any, Any] | None = None
    done: str = ""
    asks: bool = True
    does: str = ""


# In the order of their buttons.
ACTIONS: Final[Mapping[str, PageAction]] = {
    "resume": PageAction(
        "Resume", "resume", kind="primary", action=service.resume_execution, done="The broker resumes it.", asks=False
    ),
    "pause": PageAction(
        "Pause", "pause", action=service.pause_execution, done="The broker pauses it. Leased jobs go on.", asks=False
    ),
    "signal": PageAction("Signal", "signal", "Send a signal"),
    "retry": PageAction("Retry", "retry", kind="primary"),
    "undo": PageAction("Undo", "undo"),
    "fork": PageAction("Fork", "fork", "Fork from a step"),
    "again": PageAction("Start again", "start", "Start again"),
    "abandon": PageAction(
        "Abandon", "cancel", "Abandon the undo", "danger",
        service.abandon_execution, "The broker ends the undo. This page then lists what is left.",
    ),
    "cancel": PageAction(
        "Cancel", "cancel", "Cancel the execution", "danger",
        service.cancel_execution, "The broker cancels it and its children.",
    ),
}  # fmt: skip
# The fields of the forms that have routes of their own.
FIELDS: Final = {
    "signal": ("name", "key", "payload"),
    "fork": ("step", "of", "value", "version"),
    "again": ("payload",),
}
Text = Annotated[str, Query(max_length=LONGEST_TEXT)]


def buttons_of(details: Mapping[str, Any]) -> Iterator[tuple[str, PageAction]]:
    """The buttons of an execution's page."""
    status = details["status"]
    counts = details["undo"]["counts"] if details["undo"] is not None else {}
    is_left = not is_live(status) and any(counts.get(each) for each in LEFT)
    for name, one in ACTIONS.items():
        if name == "retry" and (status == FAILED or details["dead_letters"]):
            yield name, one._replace(kind="plain" if is_left else one.kind)
        elif name == "undo" and is_left:
            yield name, one._replace(kind="plain" if status == COMPLETED else "primary")
        elif status in service.STATUSES_OF.get(name, ()):
            yield name, one


@router.get("/executions/{execution_id:int}/{action}")
async def ask(
    screen: Shown, execution_id: ExecutionId, action: str, *, step: Text = "", of: Text = "", name: Text = ""
) -> Response:
    """The form of an action, with what it will do. A viewer gets none."""
    if action not in ACTIONS or not ACTIONS[action].asks:
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
    of_action = ACTIONS[action]
    asked = [] if of_action.action is None else fields_of(of_action.action.request, but=frozenset({"execution_id"}))
    names = FIELDS.get(action, tuple(one.name for one in asked))
    return screen.form(
        "execution_act.html",
        of_action.title,
        {**dict.fromkeys(names, ""), **fields},
        fault,
        action=action,
        of_action=of_action,
        asked=asked,
        details=details,
        from_step=fields.get("step") or replaced["following"] or error.get("step"),
        begun=begun,
        visit_name=visit_name,
        names=sorted({name for wait in details["waits"] if wait["kind"] == "signal" for name in wait["names"] or ()}),
    )


def _edited(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= LONGEST_EDITED else "null"


def _add_route(name: str, of_action: PageAction, action: ServiceAction[Any, Any]) -> None:
    """The route of an action that the service does with the fields of its form."""

    async def act(form: Posted, execution_id: ExecutionId) -> Response:
        url = f"/executions/{execution_id}"
        try:
            answer = await form.ask(action, execution_id=execution_id)
        except FieldFault as fault:
            if not of_action.asks:
                raise
            fields = form.texts(*(one.name for one in fields_of(action.request, but=frozenset({"execution_id"}))))
            return await _form(form.screen, execution_id, name, fields, fault)
        if not answer.get("requested", True):
            return form.done(url, "It had ended before.", kind="info")
        return form.done(url, of_action.done)

    router.add_api_route(f"/executions/{{execution_id:int}}/{name}", act, methods=["POST"])


for _name, _of_action in ACTIONS.items():
    if _of_action.action is not None:
        _add_route(_name, _of_action, _of_action.action)


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
