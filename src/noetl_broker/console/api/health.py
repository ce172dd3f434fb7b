"""Health: what a load balancer asks, and what keeps brokers from working."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from noetl_broker.console.access import Anybody, Viewer
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import OwnConnections, Pooled
from noetl_broker.console.values import Id, Moment, Payload, Recorded
from noetl_broker.store.admin import list_pages
from noetl_broker.store.admin.approvals import login_name
from noetl_broker.store.admin.doctor import examine

router = APIRouter(prefix="/health", tags=["health"])


class Alive(BaseModel):
    """The console and the database answer."""

    status: Literal["ok"]


class DoctorFindingView(BaseModel):
    """One check: what it found, why that matters, what to do."""

    check: str
    state: Literal["ok", "notice", "problem"]
    says: Payload
    why: str | None
    do: Payload
    facts: Recorded


class LeftUndone(BaseModel):
    """An execution that ended and left something undone, with the numbers of visits and items."""

    execution_id: Id
    path: str | None
    status: str
    ended_at: Moment | None
    open: int = Field(description="not tried")
    failed: int
    unknown: int = Field(description="nobody knows whether they happened")


class HealthView(BaseModel):
    """What keeps brokers from working."""

    problems: int
    notices: int
    findings: list[DoctorFindingView]


@router.get("", response_model=Alive, dependencies=[Anybody])
async def ask_health(connections: OwnConnections) -> Any:
    """Answer 200 if the database answers, else 503. It needs no token and shows nothing else."""
    async with connections.borrow() as connection:
        await login_name(connection)
    return {"status": "ok"}


@router.get("/undone", response_model=Listed[LeftUndone])
async def list_left_undone(_caller: Viewer, connections: Pooled, page: Paging) -> Any:
    """List the executions that ended and left something undone, the newest first."""
    async with connections.borrow() as connection:
        return page.document(await list_pages.page_left_undone(connection, **page.arguments(int)))


@router.get("/findings", response_model=HealthView)
async def list_findings(_caller: Viewer, connections: Pooled) -> Any:
    """Examine the database, as the command doctor does with the login of the console."""
    found = await examine(connections.database)
    return {
        "problems": sum(finding.state == "problem" for finding in found),
        "notices": sum(finding.state == "notice" for finding in found),
        "findings": [finding._asdict() for finding in found],
    }
