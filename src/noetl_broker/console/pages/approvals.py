"""Approvals: what waits for a person, each with its form, decided in its place or many at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from zlib import crc32

from fastapi import APIRouter, Response

from noetl_broker.console.pages.schema_form import Input, inputs_of_form, read_inputs, with_errors
from noetl_broker.console.pages.screen import Decided, SentForm, Shown
from noetl_broker.errors import BrokerError, DatabaseFault, ForbiddenFault, OperatorFault
from noetl_broker.playbook.approval import COMMENT, faults_of_filled
from noetl_broker.service import waits as service
from noetl_broker.service.models.base import MOST_ROWS, Role
from noetl_broker.service.models.values import ExecutionId
from noetl_broker.service.models.waits import ApprovalView

router = APIRouter()

DECISIONS: Final = {"approve": True, "reject": False}
COMMENT_SCHEMA: Final = {"type": "string", "title": "Comment, or why it is rejected"}


class Asking(NamedTuple):
    """An approval with the fields of its form; `faults` belong to no field."""

    row: Mapping[str, Any]
    visit: str
    inputs: list[Input]
    faults: list[str]
    key: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], *, may_act: bool) -> Asking:
        """The approval of a row; only who may decide gets the fields, and the key of the execution."""
        visit = row["step"] + row["node_id"].removeprefix(f"{row['execution_id']}:{row['step']}")
        return cls(row, visit, inputs_of(row), [], row.get("key")) if may_act else cls(row, visit, [], [])


def inputs_of(row: Mapping[str, Any]) -> list[Input]:
    """The fields of an approval, and a comment; their names are the same however the list changes."""
    form = row["form"] if isinstance(row["form"], dict) else {}
    prefix = f"a{row['execution_id']}-{crc32(row['node_id'].encode(errors='surrogatepass')):x}-"
    inputs = inputs_of_form({**form, COMMENT: form.get(COMMENT, COMMENT_SCHEMA)}, prefix=prefix)
    return [replace(one, kind="lines") if one.name == COMMENT and one.kind == "text" else one for one in inputs]


@router.get("/approvals")
async def list_approvals(screen: Shown) -> Response:
    """The visits that wait for a person, the oldest execution first."""
    found = await screen.ask(service.list_approvals, **screen.asked("cursor", "limit", "path", "approver"))
    rows = [{**screen.seen(ApprovalView, row), "key": row["key"]} for row in found["items"]]
    items = [Asking.of(row, may_act=screen.may(Role.APPROVER)) for row in rows]
    shown: dict[str, Any] = {"items": items, "next": found["next"], "is_one": False}
    return screen.render("approvals.html", title="Approvals", changes="all", **shown)


@router.post("/approvals")
@router.post("/executions/{execution_id:int}/decide")
async def decide(form: Decided, execution_id: ExecutionId | None = None) -> Response:
    """Approve or reject; what is wrong with the form stands at its fields. With `id`: many, each without its form."""
    decision = form.text("decision")
    if decision not in DECISIONS:
        raise OperatorFault(f"the decision {decision!r:.40} is none: choose Approve or Reject")
    approved = DECISIONS[decision]
    if execution_id is None and (form.all("id") or not form.text("execution_id")):
        return await _decide_many(form, approved=approved)
    which = {"execution_id": execution_id or form.text("execution_id"), "step": form.text("step")}
    found = await form.screen.ask(service.find_approval, **which)
    asking = Asking.of(found, may_act=True)
    filled, inputs = read_inputs(form, asking.inputs, merged=False)
    values = {name: value for name, value in filled.items() if (name, value) != (COMMENT, "")}
    wrong, faults = faults_of_filled(found["form"], values, approved=approved), list[str]()
    is_read = not any(one.error for one in inputs)
    if is_read and wrong:
        inputs, faults = with_errors(inputs, [fault._asdict() for fault in wrong])
    elif is_read:
        back = "/approvals" if execution_id is None else f"/executions/{execution_id}"
        try:
            decided = await form.screen.ask(service.decide, **which, approved=approved, form=values)
            word = "approved" if approved else "rejected"
            what, by = (found["title"], "") if execution_id is None else (asking.visit, f" by {decided['by']}")
            return form.done(back, f"{what} is {word}{by}.")
        except (DatabaseFault, ForbiddenFault):
            raise
        except OperatorFault as fault:
            faults = [str(fault)]
        except BrokerError as fault:  # somebody was faster
            return form.done(back, str(fault), kind="warn")
    shown: dict[str, Any] = {"items": [asking._replace(inputs=inputs, faults=faults)], "next": None, "is_one": True}
    return form.screen.render("approvals.html", title="Approvals", status=HTTPStatus.BAD_REQUEST, **shown)


async def _decide_many(form: SentForm, *, approved: bool) -> Response:
    """Decide the chosen visits, each named `EXECUTION:VISIT`, with the defaults of their forms."""
    chosen, faults = form.all("id")[:MOST_ROWS], []
    for each in chosen:
        execution_id, _, visit = each.partition(":")
        try:
            await form.screen.ask(service.decide, execution_id=execution_id, step=visit, approved=approved)
        except DatabaseFault:
            raise
        except BrokerError as fault:
            faults.append(str(fault))
    done = len(chosen) - len(faults)
    said = f"{done:,} {'was' if done == 1 else 'were'} {'approved' if approved else 'rejected'}."
    if faults:
        said += f" {len(faults):,} could not be decided; the first: {faults[0]}"
    return form.done("/approvals", said if chosen else "Choose approvals first.", kind="ok" if done else "warn")
