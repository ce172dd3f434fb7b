"""Approvals: what waits for a person, and the decision."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StrictBool

from noetl_broker.broker.model.limits import MAX_NODE_CHARS
from noetl_broker.client import mapping_text
from noetl_broker.console.access import LOCAL, Operator, Viewer, refuse_hidden_filter
from noetl_broker.console.api.execution_actions import LONGEST_TEXT, Given
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import Pooled
from noetl_broker.console.values import GivenId, Hidden, Id, Moment, Payload
from noetl_broker.node_ids import read_visit
from noetl_broker.store.admin import approvals, list_pages

router = APIRouter(prefix="/approvals", tags=["approvals"])


class ApprovalView(BaseModel):
    """A visit that waits for a person."""

    execution_id: Id
    node_id: str
    step: str
    path: str | None
    title: Payload
    details: Payload
    form: Payload = Field(description="JSON Schema by field")
    assignees: Hidden
    since: Moment
    times_out_at: Moment | None


class DecisionRequest(Given):
    """What a person decides."""

    execution_id: GivenId
    step: str = Field(min_length=1, max_length=LONGEST_TEXT, description="a step, or approve#2 for its second visit")
    approved: StrictBool
    by: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_NODE_CHARS,
        description="who decides, while there are no tokens; a token's name counts instead",
    )
    form: dict[str, Any] = Field(default_factory=dict, description="the fields of the form, and `comment`")


class DecisionView(BaseModel):
    """The visit that was decided."""

    execution_id: Id
    node_id: str
    by: str = Field(description="who decided: the token's name")
    decided: Literal[True] = True


@router.get("", response_model=Listed[ApprovalView])
async def list_approvals(
    caller: Viewer,
    connections: Pooled,
    page: Paging,
    path: Annotated[str | None, Query(max_length=LONGEST_TEXT, description="* stands for any characters")] = None,
    assignee: Annotated[str | None, Query(max_length=LONGEST_TEXT)] = None,
) -> Any:
    """List what waits for a person, in the order of executions. A viewer sees no question, form and assignees."""
    refuse_hidden_filter(caller, "assignees", assignee)
    async with connections.borrow() as connection:
        found = await list_pages.page_approvals(connection, path=path, assignee=assignee, **page.arguments(int, str))
    return page.document(found)


@router.post("/decisions", response_model=DecisionView)
async def decide(caller: Operator, connections: Pooled, given: DecisionRequest) -> Any:
    """Approve or reject. A form that breaks its schema is refused. A second decision is refused, too (409)."""
    step, visit = read_visit(given.step)
    form = mapping_text(given.form, "form")
    by = given.by if given.by is not None and caller is LOCAL else caller.name
    async with connections.borrow() as connection:
        approval = await approvals.find_approval(connection, given.execution_id, step, visit)
        decided = await approvals.decide_approval(
            connection, approval, approved=given.approved, decided_by=by, form=form
        )
        if not decided:
            raise await approvals.nothing_waits(connection, given.execution_id, step, visit)
    return {"execution_id": given.execution_id, "node_id": approval.node_id, "by": by}
