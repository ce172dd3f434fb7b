"""Who the caller is."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from noetl_broker.console.access import Role, Viewer

router = APIRouter(prefix="/me", tags=["me"])


class Me(BaseModel):
    """The role and the name of a token."""

    role: Role
    name: str


@router.get("")
async def show_me(caller: Viewer) -> Me:
    """Show the role of the token."""
    return Me(role=caller.role, name=caller.name)
