"""Tokens of the HTTP API: only their digests are stored."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.store.queries import sql

PREFIX = "nbt_"  # tells a leaked token from other secrets
_BYTES = 32


class TokenCheck(NamedTuple):
    """What the database says about a token: name and role of a valid one, else None.

    `any_token`: there is or was a token. `valid_token`: one of them is valid.
    """

    name: str | None
    role: str | None
    any_token: bool
    valid_token: bool


def new_token() -> str:
    """A token that nobody has."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


async def create_token(
    connection: Connection,
    name: str,
    role: str,
    valid: timedelta | None,
    token: str | None = None,
    *,
    by: str | None = None,
) -> tuple[str, datetime | None]:
    """A new token, or this one, which nobody can read again, and when it expires.

    Raises BrokerError if the name is taken.
    """
    token = token or new_token()
    return token, await call(connection, "create_api_token", name, digest_of(token), role, valid, by)


async def list_tokens(connection: Connection) -> list[dict[str, Any]]:
    """All tokens, the oldest first, each with `status`: valid, expired or revoked."""
    return [dict(row) for row in await connection.fetch(sql("list_api_tokens"))]


async def check_token(connection: Connection, token: str | None) -> TokenCheck:
    """Whose token this is; None: only whether there are tokens."""
    digest = None if token is None else digest_of(token)
    [row] = await connection.fetch(sql("check_api_token"), digest)
    return TokenCheck(*row)


def digest_of(token: str) -> bytes:
    """The digest by which the database knows a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
