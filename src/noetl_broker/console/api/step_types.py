"""Step types of people's own workers, which registration accepts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel

from noetl_broker.console.access import Operator, Viewer
from noetl_broker.console.services import Pooled
from noetl_broker.console.values import Moment
from noetl_broker.store.admin import catalog

router = APIRouter(prefix="/step-types", tags=["step types"])

Name = Annotated[str, Path(pattern="^[A-Za-z_][A-Za-z0-9_.-]{0,62}$", description="not a type of the broker's own")]


class StepType(BaseModel):
    """A step type, and who added it."""

    name: str
    added_at: Moment
    added_by: str


class StepTypes(BaseModel):
    """All of them; they are few."""

    items: list[StepType]
    next: None = None


class StepTypeChange(BaseModel):
    """Whether something changed."""

    name: str
    changed: bool


@router.get("", response_model=StepTypes)
async def list_step_types(_caller: Viewer, connections: Pooled) -> Any:
    """List the step types beside the built-in ones."""
    async with connections.borrow() as connection:
        return {"items": await catalog.list_step_types(connection)}


@router.put("/{name}", response_model=StepTypeChange)
async def add_step_type(_caller: Operator, connections: Pooled, name: Name) -> Any:
    """Add a step type."""
    async with connections.borrow() as connection:
        return {"name": name, "changed": bool(await catalog.announce_step_types(connection, [name]))}


@router.delete("/{name}", response_model=StepTypeChange)
async def remove_step_type(_caller: Operator, connections: Pooled, name: Name) -> Any:
    """Remove a step type. Registered playbooks go on."""
    async with connections.borrow() as connection:
        return {"name": name, "changed": bool(await catalog.remove_step_types(connection, [name]))}
