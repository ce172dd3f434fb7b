"""Who may use the API: tokens, roles, foreign pages and hosts, and who guesses tokens."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest

from noetl_broker.store.admin.api_tokens import create_token
from noetl_broker.store.connect.connection import call
from tests.console.conftest import console
from tests.postgres import Database
from tests.sessions import pooled_session

LIST = "/api/v1/executions"
MOST_FAILURES = 10  # wrong tokens of one address
SMALL_BODY_BYTES = 64 << 10  # of a body that anybody may send


async def token(database: Database, role: str, name: str = "", valid: timedelta | None = None) -> dict[str, str]:
    """Create a token; return the header that presents it."""
    async with pooled_session(database) as connection:
        made, _ = await create_token(connection, name or role, role, valid)
    return {"Authorization": f"Bearer {made}"}


async def test_from_the_first_token_on_nobody_enters_without_one(database: Database) -> None:
    """Also after it is revoked."""
    async with console(database) as client:
        before = await client.get(LIST)
    mine = await token(database, "viewer")
    async with console(database) as client:
        answers = [before, await client.get(LIST), await client.get(LIST, headers=mine)]
    async with pooled_session(database) as connection:
        await call(connection, "revoke_api_token", "viewer")
    async with console(database) as client:
        answers += [await client.get(LIST, headers=mine), await client.get(LIST)]
    assert [answer.status_code for answer in answers] == [200, 401, 200, 401, 401]


async def test_an_expired_token_is_refused(database: Database) -> None:
    """By the clock of the database."""
    mine = await token(database, "viewer", valid=timedelta(microseconds=1))
    async with console(database) as client:
        assert (await client.get(LIST, headers=mine)).status_code == 401


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"Host": "rebound.example"}, 403),
        ({"X-Forwarded-For": "192.0.2.1"}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "127.0.0.2:1"}, 200),
        ({"Host": "10.0.0.1"}, 403),
        ({"Origin": "http://rebound.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "image"}, 403),  # another port of this machine
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "image"}, 200),
    ],
)
async def test_a_foreign_page_is_refused(api: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    """A page that points its own name to this machine, that asks from its own address, or that embeds an answer.

    Whether a picture of a graph loads would tell which playbooks exist. A browser that does not say who asks obeys
    Cross-Origin-Resource-Policy. A link is no danger.
    """
    answer = await api.get(LIST, headers=headers)
    assert (answer.status_code, answer.headers.get("Cross-Origin-Resource-Policy")) == (status, "same-origin")


async def test_who_guesses_tokens_has_to_wait(database: Database) -> None:
    """Whoever has a valid token does not, though it comes from the same address for the first time."""
    mine = await token(database, "viewer")
    async with console(database, tokens_demanded=True) as client:
        statuses = []
        guesses = [{"Authorization": f"Bearer {number}"} for number in range(MOST_FAILURES + 1)]
        answers = [await client.get(LIST, headers=guess) for guess in guesses]
        statuses += [answer.status_code for answer in answers]
        statuses.append((await client.get(LIST, headers=mine)).status_code)
    assert (statuses, "Retry-After" in answers[-1].headers) == ([*[401] * MOST_FAILURES, 429, 200], True)


@pytest.mark.parametrize("path", ["/sign-in", LIST])
async def test_a_large_body_is_read_of_an_operator_alone(database: Database, path: str) -> None:
    """A form of 15 MiB that anybody sent held up all others for seconds."""
    callers = [{}, *[await token(database, role) for role in ("viewer", "operator")]]
    json = {"Content-Type": "application/json"}
    body = b"{" * (SMALL_BODY_BYTES + 1)
    async with console(database) as client:
        answers = [await client.post(path, content=body, headers={**json, **headers}) for headers in callers]
    assert [answer.status_code for answer in answers] == [401, 403, 415 if path == "/sign-in" else 400]
