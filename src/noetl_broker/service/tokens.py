"""Tokens of the HTTP API: create, list, revoke. The owner of the schema does it, on the command line."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from noetl_broker.errors import OperatorFault
from noetl_broker.service.action import Caller, Role, action
from noetl_broker.service.models import health as models
from noetl_broker.service.models.base import Given
from noetl_broker.service.spans import parse_span
from noetl_broker.service.where import everywhere, in_any, whole
from noetl_broker.store.admin import api_tokens
from noetl_broker.store.connect.bucket_connections import Place
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.store.connect.places import in_each_schema

NEVER = "never"


@action(Role.OPERATOR, dict[str, Any], where=whole)
async def create_token(connection: Place, caller: Caller, given: models.TokenRequest) -> Any:
    """Make a token. It is shown once: the database keeps a digest only."""
    seconds = None if given.expires == NEVER else parse_span(given.expires)
    if given.expires != NEVER and not seconds:
        raise OperatorFault(f"--expires {given.expires!r} is not a time span; write 12h, 90d, 2w, or never")
    valid = None if seconds is None else timedelta(seconds=seconds)
    token = api_tokens.new_token()

    async def create(one: Connection) -> tuple[str, datetime | None]:
        return await api_tokens.create_token(one, given.name, given.role, valid, token, by=caller.by)

    _, expires_at = await in_each_schema(connection, create)
    return {"name": given.name, "role": given.role, "expires_at": expires_at, "token": token}


@action(Role.OPERATOR, list[dict[str, Any]], where=in_any)
async def list_tokens(connection: Connection, _caller: Caller, _given: Given) -> Any:
    """List the tokens, the oldest first, each with its status."""
    return await api_tokens.list_tokens(connection)


@action(Role.OPERATOR, dict[str, Any], where=everywhere)
async def revoke_token(connection: Connection, caller: Caller, given: models.OneToken) -> Any:
    """Revoke a token."""
    return {"name": given.name, "revoked": await call(connection, "revoke_api_token", given.name, caller.by)}
