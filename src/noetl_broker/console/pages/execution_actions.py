"""The actions of an operator on one execution: their buttons, and their forms with what each will do."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Response

from noetl_broker.broker.state.state import COMPENSATING, COMPLETED, FAILED, is_live
from noetl_broker.console.pages.model_form import fields_of
from noetl_broker.console.pages.screen import Posted, Screen, SentForm, Shown
from noetl_broker.console.problem import Refusal
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.node_ids import visit_name
from noetl_broker.service import execution_actions as service
from noetl_broker.service import executions, views, waits
from noetl_broker.service.action import ServiceAction
from noetl_broker.service.field_errors import FieldFault
from noetl_broker.service.models.values import ExecutionId
from noetl_broker.service.recoveries import Outlook
from noetl_broker.service.typed_json import read_short_json

router = APIRouter()

LONGEST_EDITED: Final = 262_144  # characters of a value that a form shows
LEFT: Final = ("open", "failed", "unknown")  # statuses of undos that are left
MOST_LISTED: Final = 200  # visits and items that a confirmation of an undo lists


class Confirmation(NamedTuple):
    """The page that asks before an action: the execution's details, and the fields of the form, which it may fill."""

    screen: Screen
    details: Mapping[str, Any]
    fields: dict[str, str]

    async def ask(self, action: ServiceAction[Any, Any], /, **given: Any) -> Any:
        """The answer of the service about this execution."""
        return await self.screen.ask(action, execution_id=self.details["execution_id"], **given)


class PageAction(NamedTuple):
    """An action on one execution: its button, with a kind and a picture, and the title of its page.

    It is an `action` of the service, after which the page says `done`; or `acts` does it. A click does it, or (`asks`)
    a form with these `fields`, in place of those of the action's request. `template` and `prepare` are of forms with
    more to say.
    """

    word: str
    picture: str
    title: str = ""
    kind: str = "plain"
    action: ServiceAction[Any, Any] | None = None
    done: str = ""
    asks: bool = True
    acts: Callable[[SentForm, int], Awaitable[Response]] | None = None
    fields: tuple[str, ...] = ()
    template: str = "execution_act.html"
    prepare: Callable[[Confirmation], Awaitable[dict[str, Any]]] | None = None


def buttons_of(details: Mapping[str, Any]) -> Iterator[tuple[str, PageAction]]:
    """The buttons of an execution's page."""
    status = details["status"]
    counts = details["undo"]["counts"] if details["undo"] is not None else {}
    undoes = details["undo_status"] == "undoing"
    is_left = not is_live(status) and not undoes and any(counts.get(each) for each in LEFT)
    for name, one in ACTIONS.items() if details.get("erased_at") is None else ():
        if name == "retry" and (status == FAILED or details["dead_letters"]):
            yield name, one._replace(kind="plain" if is_left else one.kind)
        elif name == "undo":
            if is_left:
                yield name, one._replace(kind="plain" if status == COMPLETED else "primary")
        elif status in service.STATUSES_OF.get(name, ()) or (name == "abandon" and undoes):
            yield name, one


@router.get("/executions/{execution_id:int}/{action}")
async def ask(screen: Shown, execution_id: ExecutionId, action: str) -> Response:
    """The form of an action, with what it will do. A viewer gets none."""
    if action not in ACTIONS or not ACTIONS[action].asks:
        raise Refusal(HTTPStatus.NOT_FOUND, f"the console has no page {screen.request.url.path}")
    if not screen.may_act:
        raise Refusal(HTTPStatus.FORBIDDEN, "only an operator can act on an execution")
    return await _form(screen, execution_id, action, screen.asked)


async def _form(
    screen: Screen,
    execution_id: int,
    name: str,
    texts: Callable[..., dict[str, str]],
    fault: BrokerError | None = None,
) -> Response:
    """The form of an action, with the texts of its fields."""
    one = ACTIONS[name]
    asked = [] if one.action is None else fields_of(one.action.request, but=frozenset({"execution_id"}))
    details = await screen.ask(executions.show_execution, execution_id=execution_id)
    page = Confirmation(screen, details, texts(*(one.fields or (each.name for each in asked))))
    more = {} if one.prepare is None else await one.prepare(page)
    return screen.form(
        one.template, one.title, page.fields, fault,
        action=name, of_action=one, asked=asked, details=details, **more,
    )  # fmt: skip


async def _cancel_form(page: Confirmation) -> dict[str, Any]:
    return {"begun": await page.ask(views.preview_cancel)}


async def _signal_form(page: Confirmation) -> dict[str, Any]:
    waiting = [wait for wait in page.details["waits"] if wait["kind"] == "signal"]
    return {"names": sorted({name for wait in waiting for name in wait["names"] or ()})}


async def _fork_form(page: Confirmation) -> dict[str, Any]:
    fields, error = page.fields, page.details["error"]
    failed_at = error.get("step") if isinstance(error, dict) else None
    if not fields["of"]:
        return {"from_step": fields["step"] or failed_at}
    replaced = await page.ask(views.preview_fork, of=fields["of"])
    fields["value"] = fields["value"] or _edited(replaced["result"])
    return {"from_step": fields["step"] or replaced["following"] or failed_at}


async def _again_form(page: Confirmation) -> dict[str, Any]:
    page.fields["payload"] = page.fields["payload"] or _edited((await page.ask(views.show_origin))["workload"])
    return {}


async def _retry_form(page: Confirmation) -> dict[str, Any]:
    version = page.fields["version"]
    on = {"version": version, "or_from_start": page.fields["or_from_start"]} if version else {}
    try:
        preview: dict[str, Any] = await page.ask(service.preview_retry, **on)
    except OperatorFault as fault:
        return {"outlook": Outlook(goes_on=False, says=str(fault)), "latest": None}
    return preview


async def _undo_form(page: Confirmation) -> dict[str, Any]:
    """What will be undone, the last success first."""
    undo, unknown = page.details["undo"], page.fields["unknown"] == "true"
    counts = undo["counts"] if undo is not None else {}
    wanted = {*LEFT} if unknown else {"open", "failed"}
    rows = (await page.ask(executions.list_undos, limit=MOST_LISTED))["items"]
    return {
        "rows": [
            {**row, "name": visit_name(row["step"], row["visit"], row["index"])}
            for row in rows
            if row["status"] in wanted
        ],
        "total": sum(counts.get(status, 0) for status in wanted),
        "doubtful": counts.get("unknown", 0),
        "unknown": unknown,
        "steps": sorted({row["step"] for row in rows if row["status"] in LEFT}),
    }


async def _erase_form(page: Confirmation) -> dict[str, Any]:
    """How many will be erased, and why they cannot be."""
    return {"erasure": await page.ask(service.erase_execution, preview=True)}


def _edited(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= LONGEST_EDITED else "null"


async def _send_signal(form: SentForm, execution_id: int) -> Response:
    """Send a signal to the execution, or with a key to whoever waits for it."""
    url, name, key = f"/executions/{execution_id}", form.text("name").strip(), form.text("key").strip()
    if key:
        await form.ask(waits.send_signal)
        return form.done(url, f"The signal {name} was sent to the key {key}.")
    given = form.texts("name", "payload")
    sent = await form.screen.ask(service.signal_execution, execution_id=execution_id, **given)
    if sent["other_keys"]:
        keys = " or ".join(sent["other_keys"])
        said = f"The signal {name} was sent, but a wait of this execution expects the key {keys}."
        return form.done(url, said, kind="warn")
    return form.done(url, f"The signal {name} was sent to this execution.")


async def _retry(form: SentForm, execution_id: int) -> Response:
    """Continue a failed execution as a new one, or give dead letters back to the broker."""
    made = await form.ask(service.retry_execution, execution_id=execution_id)
    if "put_back" in made:
        return form.done(f"/executions/{execution_id}", f"{made['put_back']} events went back to the broker.")
    url = f"/executions/{made['recovered_as']}"
    if made["status_before"] is not None:
        return form.done(url, "This is the execution that an earlier retry made.", kind="info")
    on = f" on version {made['version']}" if made.get("version") is not None else ""
    return form.done(url, f"This execution continues {execution_id} from {', '.join(made['steps'])}{on}.")


async def _fork(form: SentForm, execution_id: int) -> Response:
    """Start an execution from a step of this one, perhaps with another result of a step."""
    step, of = form.text("step").strip(), form.text("of").strip()
    if form.text("value").strip() and not of:
        raise FieldFault({"value": "it is the result of no step: choose the step, or leave it out"})
    values = {of: _result(form.text("value"))} if of else {}
    made = await form.ask(service.fork_execution, execution_id=execution_id, from_step=step, values=values)
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


async def _erase(form: SentForm, execution_id: int) -> Response:
    """Erase the values of the execution, and of what belongs to it."""
    made = await form.screen.ask(service.erase_execution, execution_id=execution_id, preview=False)
    count = made["executions"]
    said = f"The values of {count:,} execution{'' if count == 1 else 's'} were erased."
    return form.done(f"/executions/{execution_id}", said)


async def _start_again(form: SentForm, execution_id: int) -> Response:
    """Start the same version of the playbook with another workload."""
    of = await form.screen.ask(executions.show_execution, execution_id=execution_id)
    given = {"path": of["path"], "version": of["version"], "payload": form.text("payload").strip() or "null"}
    made = await form.screen.ask(executions.start_execution, **given)
    return form.done(f"/executions/{made['execution_id']}", f"It started as {execution_id} did, with this workload.")


# In the order of their buttons.
ACTIONS: Final[Mapping[str, PageAction]] = {
    "resume": PageAction(
        "Resume", "resume", kind="primary", asks=False, action=service.resume_execution, done="The broker resumes it."
    ),
    "pause": PageAction(
        "Pause", "pause", asks=False, action=service.pause_execution, done="The broker pauses it. Leased jobs go on."
    ),
    "signal": PageAction(
        "Signal", "signal", "Send a signal",
        acts=_send_signal, fields=("name", "key", "payload"), prepare=_signal_form,
    ),
    "retry": PageAction(
        "Retry", "retry", "Retry", "primary",
        acts=_retry, fields=("version", "or_from_start"), template="retry.html", prepare=_retry_form,
    ),
    "undo": PageAction(
        "Undo", "undo", "Undo", action=service.undo_execution,
        done="The broker reads it; this page shows how far it is.", template="undo.html", prepare=_undo_form,
    ),
    "fork": PageAction(
        "Fork", "fork", "Fork from a step",
        acts=_fork, fields=("step", "of", "value", "version"), prepare=_fork_form,
    ),
    "again": PageAction(
        "Start again", "start", "Start again", acts=_start_again, fields=("payload",), prepare=_again_form
    ),
    "abandon": PageAction(
        "Abandon", "cancel", "Abandon the undo", "danger", service.abandon_execution,
        "The broker ends the undo. This page then lists what is left.",
    ),
    "erase": PageAction(
        "Erase", "cancel", "Erase the values", "danger", acts=_erase, fields=("preview",), prepare=_erase_form
    ),
    "cancel": PageAction(
        "Cancel", "cancel", "Cancel the execution", "danger", service.cancel_execution,
        "The broker cancels it and its children.", prepare=_cancel_form,
    ),
}  # fmt: skip


def _add_route(name: str, one: PageAction) -> None:
    """The route that acts. A form that is refused is shown again, with what is wrong."""

    async def act(form: Posted, execution_id: ExecutionId) -> Response:
        try:
            if one.acts is not None:
                return await one.acts(form, execution_id)
            answer = {} if one.action is None else await form.ask(one.action, execution_id=execution_id)
        except BrokerError as fault:
            if not one.asks:
                raise
            return await _form(form.screen, execution_id, name, form.texts, fault)
        was_late = not answer.get("requested", True)
        late = "It is undoing what it did." if answer.get("status") == COMPENSATING else "It had ended before."
        late = answer.get("said", late)
        said = late if was_late else one.done
        return form.done(f"/executions/{execution_id}", said, kind="info" if was_late else "ok")

    router.add_api_route(f"/executions/{{execution_id:int}}/{name}", act, methods=["POST"])


for _name, _action in ACTIONS.items():
    _add_route(_name, _action)
