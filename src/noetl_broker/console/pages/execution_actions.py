"""The actions of an operator on one execution, with their forms; `comebacks` has the actions with a preview."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.form_values import version_in
from noetl_broker.console.pages.opened_playbook import compiled
from noetl_broker.console.pages.screen import Posted, Screen, SentForm, Shown
from noetl_broker.console.problem import Refusal
from noetl_broker.console.services import Pooled, Rules, ShortWork
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.node_ids import read_visit, visit_name
from noetl_broker.playbook import PlaybookRules
from noetl_broker.service import execution_actions as service
from noetl_broker.service import recoveries
from noetl_broker.service.action import ServiceAction
from noetl_broker.service.models.values import ExecutionId
from noetl_broker.service.payload_check import payload_check
from noetl_broker.service.typed_json import MANY_VALUES, has_many_values, json_text
from noetl_broker.store.admin import approvals, catalog, executions, signals, visit_spans
from noetl_broker.store.connect.connection import Connection
from noetl_broker.template import read_integer, read_real

router = APIRouter()

LONGEST: Final = 1_000  # characters of a reason or a name
LONGEST_EDITED: Final = 262_144  # characters of a value that a form shows
ASKED: Final = {
    "cancel": "Cancel",
    "signal": "Send a signal",
    "fork": "Fork from a step",
    "again": "Start again",
}
Name = Annotated[str, Query(max_length=LONGEST)]


@router.get("/executions/{execution_id:int}/{action}")
async def ask(
    screen: Shown,
    connections: Pooled,
    rules: Rules,
    execution_id: ExecutionId,
    action: str,
    *,
    step: Name = "",
    of: Name = "",
    name: Name = "",
) -> Response:
    """The form of an action, with what it will do. A viewer gets none."""
    if action not in ASKED:
        raise Refusal(HTTPStatus.NOT_FOUND, f"the console has no page {screen.request.url.path}")
    if not screen.may_act:
        raise Refusal(HTTPStatus.FORBIDDEN, "only an operator can act on an execution")
    return await _form(screen, connections, execution_id, action, {"step": step, "of": of, "name": name}, rules=rules)


async def _form(
    screen: Screen,
    connections: Any,
    execution_id: int,
    action: str,
    fields: dict[str, str],
    *,
    rules: PlaybookRules | None = None,
    fault: str | None = None,
) -> Response:
    begun: list[str] = []
    async with connections.borrow() as connection:
        details = await executions.load_execution_details(connection, execution_id)
        origin = await visit_spans.load_origin(connection, execution_id)
        if action == "fork" and fields.get("of") and "value" not in fields:
            fields["value"] = await _result_of(connection, details, fields["of"])
        following = None
        if action == "cancel" and rules is not None:
            begun = await _draining_if_cancelled(connection, details, rules)
        if action == "fork" and fields.get("of") and not fields.get("step"):
            following = await visit_spans.find_following(connection, execution_id, fields["of"])
    if action == "again" and "payload" not in fields:
        fields["payload"] = _edited(origin["workload"])
    error = details["error"] if isinstance(details["error"], dict) else {}
    return screen.render(
        "execution_act.html",
        title=ASKED[action],
        status=HTTPStatus.OK if fault is None else HTTPStatus.BAD_REQUEST,
        action=action,
        details=details,
        origin=origin,
        failed_step=error.get("step"),
        following=following,
        begun=begun,
        visit_name=visit_name,
        fields=fields,
        fault=fault,
        names=sorted({name for wait in details["waits"] if wait["kind"] == "signal" for name in wait["names"] or ()}),
    )


async def _draining_if_cancelled(connection: Connection, details: dict[str, Any], rules: PlaybookRules) -> list[str]:
    """The running steps with a `compensate`: their jobs are draining if a worker has them."""
    running = [row["step"] for row in details["steps"] if row["status"] == "RUNNING"]
    if not running or details["path"] is None:
        return []
    version = await catalog.find_readable(connection, details["path"], details["version"])
    playbook = None if version is None else (await compiled(version, rules))[0]
    return [] if playbook is None else [name for name in running if playbook.steps[name].has_compensate]


async def _result_of(connection: Connection, details: dict[str, Any], step: str) -> str:
    """The latest result of a step, to be edited."""
    visits = {row["step"]: row["visits"] or 0 for row in details["steps"]}
    if not visits.get(step):
        return "null"
    visit = await visit_spans.load_visit(connection, details["execution_id"], step, visits[step])
    return _edited(visit.result)


def _edited(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= LONGEST_EDITED else "null"


def _url(execution_id: int) -> str:
    return f"/executions/{execution_id}"


async def _request(form: SentForm, action: ServiceAction[Any, Any], execution_id: int, **given: Any) -> bool:
    """Ask the broker for something; False if the execution has ended."""
    return bool((await form.screen.ask(action, execution_id=execution_id, **given))["requested"])


@router.post("/executions/{execution_id:int}/cancel")
async def cancel(form: Posted, execution_id: ExecutionId) -> Response:
    """Cancel an execution and its children."""
    requested = await _request(form, service.cancel_execution, execution_id, reason=_reason(form))
    said = "The broker cancels it and its children." if requested else "It had ended before."
    return form.done(_url(execution_id), said, kind="ok" if requested else "info")


@router.post("/executions/{execution_id:int}/pause")
async def pause(form: Posted, execution_id: ExecutionId) -> Response:
    """Pause an execution and its children."""
    requested = await _request(form, service.pause_execution, execution_id, reason=_reason(form))
    said = "The broker pauses it. Leased jobs go on." if requested else "It had ended before."
    return form.done(_url(execution_id), said, kind="ok" if requested else "info")


@router.post("/executions/{execution_id:int}/resume")
async def resume(form: Posted, execution_id: ExecutionId) -> Response:
    """Resume a paused execution and its children."""
    requested = await _request(form, service.resume_execution, execution_id)
    return form.done(_url(execution_id), "The broker resumes it." if requested else "It had ended before.")


@router.post("/executions/{execution_id:int}/signal")
async def send_signal(form: Posted, connections: Pooled, execution_id: ExecutionId) -> Response:
    """Send a signal to the execution, or with a key to whoever waits for it."""
    fields = {name: form.text(name) for name in ("name", "key", "payload")}
    name, key = fields["name"].strip(), fields["key"].strip()
    try:
        if not name or len(name) > LONGEST or len(key) > LONGEST:
            raise OperatorFault("give the name of the signal")
        payload = read_json(fields["payload"], "payload") if fields["payload"].strip() else None
        text = None if payload is None else json_text(payload)
        async with connections.borrow() as connection:
            if key:
                await signals.send_signal(connection, name, key, text, idempotency_key=None)
                return form.done(_url(execution_id), f"The signal {name} was sent to the key {key}.")
            sent = await signals.signal_execution(connection, execution_id, name, text, idempotency_key=None)
            keys = await signals.keys_of_waits(connection, execution_id, name)
    except BrokerError as error:
        return await _form(form.screen, connections, execution_id, "signal", fields, fault=str(error))
    if sent is None:
        return form.done(_url(execution_id), "It had ended before: nothing was sent.", kind="info")
    if keys and str(execution_id) not in keys:
        said = f"The signal {name} was sent, but a wait of this execution expects the key {' or '.join(keys)}."
        return form.done(_url(execution_id), said, kind="warn")
    return form.done(_url(execution_id), f"The signal {name} was sent to this execution.")


@router.post("/executions/{execution_id:int}/decide")
async def decide(caller: Operator, form: Posted, connections: Pooled, execution_id: ExecutionId) -> Response:
    """Approve or reject what waits for a person."""
    step, visit = read_visit(form.text("step"))
    approved = form.text("decision") == "approve"
    async with connections.borrow() as connection:
        approval = await approvals.find_approval(connection, execution_id, step, visit)
        given = form_values(form, approval.form)
        decided = await approvals.decide_approval(
            connection, approval, approved=approved, decided_by=caller.name, form=json_text(given, "form")
        )
        why = "" if decided else str(await approvals.nothing_waits(connection, execution_id, step, visit))
    if not decided:
        return form.done(_url(execution_id), why, kind="info")
    word = "approved" if approved else "rejected"
    return form.done(_url(execution_id), f"{form.text('step')} is {word} by {caller.name}.")


def form_values(form: SentForm, schema: dict[str, Any]) -> dict[str, Any]:
    """The values of an approval's form, of the types that its schema names; empty fields are left out."""
    values: dict[str, Any] = {}
    for name, field in schema.items():
        text = form.text(f"form.{name}")
        kind = field.get("type") if isinstance(field, dict) else None
        if kind == "boolean":
            values[name] = text == "true"
        elif text == "":
            continue
        elif kind == "string":
            values[name] = text
        else:
            values[name] = read_json(text, name)
    comment = form.text("comment").strip()
    return {**values, **({"comment": comment} if comment else {})}


@router.post("/executions/{execution_id:int}/fork")
async def fork(form: Posted, connections: Pooled, work: ShortWork, rules: Rules, execution_id: ExecutionId) -> Response:
    """Start an execution from a step of this one, perhaps with another result of a step."""
    fields = {name: form.text(name) for name in ("step", "of", "value", "version")}
    try:
        values = {fields["of"]: read_json(fields["value"], "result")} if fields["of"] else {}
        version = _version(fields["version"])

        async def start(connection: Connection) -> recoveries.Forked:
            other = None
            if version is not None:
                other = await recoveries.other_version(connection, execution_id, version, rules)
            step = fields["step"]
            return await recoveries.fork_execution(connection, execution_id, step, rules, other=other, values=values)

        made = await work.run(start)
    except BrokerError as error:
        return await _form(form.screen, connections, execution_id, "fork", fields, fault=str(error))
    taken = ", ".join(wanted.step for wanted in made.plan.taken)
    results = f"the results of {taken}" if taken else "no results"
    if values:
        results = f"{results}, and that of {fields['of']} is the one you gave"
    return form.done(
        _url(made.execution_id), f"This execution starts from {fields['step']} of {execution_id}; it has {results}."
    )


@router.post("/executions/{execution_id:int}/again")
async def start_again(form: Posted, connections: Pooled, rules: Rules, execution_id: ExecutionId) -> Response:
    """Start the same version of the playbook with another workload."""
    fields = {"payload": form.text("payload")}
    try:
        payload = read_json(fields["payload"], "workload")
        if not isinstance(payload, dict):
            raise OperatorFault("the workload is a JSON object")
        text = json_text(payload)
        async with connections.borrow() as connection:
            row = await executions.find_execution(connection, execution_id)
            (await payload_check(connection, row["path"], row["version"], rules))(payload, "")
            made = await executions.start_execution(
                connection, row["path"], text, version=row["version"], idempotency_key=None
            )
    except BrokerError as error:
        return await _form(form.screen, connections, execution_id, "again", fields, fault=str(error))
    return form.done(_url(made), f"It started as {execution_id} did, with this workload.")


def read_json(text: str, what: str) -> Any:
    """A value in a form. Raises OperatorFault that says where it is no JSON."""
    if has_many_values(text.encode(errors="surrogatepass")):
        raise OperatorFault(f"{what} is too large: {MANY_VALUES}")
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=read_integer, parse_float=read_real)
    except (ValueError, RecursionError) as error:
        raise OperatorFault(f'{what} is not JSON: {error}; write text in double quotes: "text"') from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _version(text: str) -> int | None:
    if not text.strip():
        return None
    version = version_in(text.strip())
    if version is None:
        raise OperatorFault(f"{text!r:.40} is no version: write a number such as 3")
    return version


def _reason(form: SentForm) -> str | None:
    return form.text("reason").strip()[:LONGEST] or None
