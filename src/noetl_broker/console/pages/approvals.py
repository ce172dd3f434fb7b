"""Approvals: what waits for a person, each with its form, decided in its place or many at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, Final, NamedTuple
from zlib import crc32

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator, refuse_hidden_filter
from noetl_broker.console.pages.form_values import read_id
from noetl_broker.console.pages.schema_form import Input, inputs_of_form, read_inputs, with_errors
from noetl_broker.console.pages.screen import Paging, Posted, Shown
from noetl_broker.console.services import Pooled
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.node_ids import read_visit
from noetl_broker.playbook.approval import COMMENT, faults_of_filled
from noetl_broker.service import paging
from noetl_broker.service import waits as service
from noetl_broker.service.models.base import LONGEST_TEXT, MOST_ROWS
from noetl_broker.service.models.waits import ApprovalView
from noetl_broker.service.typed_json import json_text
from noetl_broker.store.admin import approvals, list_pages
from noetl_broker.store.connect.session import translate_faults

router = APIRouter()

COMMENT_SCHEMA: Final = {"type": "string", "title": "Comment, or why it is rejected"}


class Asking(NamedTuple):
    """An approval with the fields of its form; `faults` belong to no field."""

    row: Mapping[str, Any]
    visit: str
    inputs: list[Input]
    faults: list[str]
    key: str | None = None

    @property
    def needs_form(self) -> bool:
        """Whether nobody can approve it without its form."""
        return any(one.is_required for one in self.inputs)


def inputs_of(row: Mapping[str, Any]) -> list[Input]:
    """The fields of an approval, and a comment; their names are the same however the list changes."""
    form = row["form"] if isinstance(row["form"], dict) else {}
    prefix = f"a{row['execution_id']}-{crc32(row['node_id'].encode(errors='surrogatepass')):x}-"
    inputs = inputs_of_form({**form, COMMENT: form.get(COMMENT, COMMENT_SCHEMA)}, prefix=prefix)
    return [replace(one, kind="lines") if one.name == COMMENT and one.kind == "text" else one for one in inputs]


def visit_of(row: Mapping[str, Any]) -> str:
    """The step, with the number of its visit where it is not the first."""
    step, node_id = str(row["step"]), str(row["node_id"])
    return step + node_id.removeprefix(f"{row['execution_id']}:{step}")


@router.get("/approvals")
async def list_approvals(
    screen: Shown,
    connections: Pooled,
    page: Paging,
    *,
    path: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
    assignee: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
) -> Response:
    """The visits that wait for a person, the oldest execution first."""
    refuse_hidden_filter(screen.caller, "assignees", assignee or None)
    async with connections.borrow() as connection:
        found = await list_pages.page_approvals(
            connection, path=path.strip() or None, assignee=assignee.strip() or None, **paging.place(page, int, str)
        )
    listed = paging.listed(found)
    seen = [(row, screen.seen(ApprovalView, row)) for row in listed["items"]]
    return screen.render(
        "approvals.html",
        title="Approvals",
        changes="all",
        items=[
            Asking(row, visit_of(row), inputs_of(row), [], whole["key"])
            if screen.may_act
            else Asking(row, visit_of(row), [], [])
            for whole, row in seen
        ],
        next=listed["next"],
        asked={"path": path, "assignee": assignee},
        is_one=False,
    )


@router.post("/approvals")
async def decide(caller: Operator, form: Posted, connections: Pooled) -> Response:
    """Approve or reject; what is wrong with the form stands at its fields. With `id`: many, each without its form."""
    approved = form.text("decision") == "approve"
    if form.all("id") or not form.text("execution_id"):
        return await _decide_many(form, approved=approved)
    execution_id = read_id(form.text("execution_id"))
    step, visit = read_visit(form.text("step"))
    async with connections.borrow() as connection:
        found = await approvals.find_approval(connection, execution_id, step, visit)
        row = form.screen.seen(ApprovalView, {name: getattr(found, name) for name in ApprovalView.model_fields})
        filled = read_inputs(form, inputs_of(row), merged=False)
        inputs = filled.inputs
        faults: list[str] = []
        values = {name: value for name, value in filled.values.items() if (name, value) != (COMMENT, "")}
        wrong = faults_of_filled(found.form, values, approved=approved)
        if not filled.has_errors and wrong:
            inputs, faults = with_errors(inputs, [fault._asdict() for fault in wrong])
        elif not filled.has_errors:
            try:
                with translate_faults():
                    decided = await approvals.decide_approval(
                        connection, found, approved=approved, decided_by=caller.name, form=json_text(values, "form")
                    )
            except DatabaseFault:
                raise
            except BrokerError as fault:
                faults = [str(fault)]
            else:
                said = f"{found.title} is {'approved' if approved else 'rejected'}."
                if not decided:
                    said = str(await approvals.nothing_waits(connection, execution_id, step, visit))
                return form.done("/approvals", said, kind="ok" if decided else "warn")
    return form.screen.render(
        "approvals.html",
        title="Approvals",
        status=HTTPStatus.BAD_REQUEST,
        items=[Asking(row, visit_of(row), inputs, faults)],
        next=None,
        asked={"path": "", "assignee": ""},
        is_one=True,
    )


async def _decide_many(form: Posted, *, approved: bool) -> Response:
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
