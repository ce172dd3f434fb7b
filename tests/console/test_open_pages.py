"""Pages that many have open share what their scripts ask, and take a bounded share of the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from noetl_broker.console.access import COOKIE
from noetl_broker.console.pages import live
from noetl_broker.store.admin.api_tokens import create_token
from noetl_broker.store.queries import sql
from tests.brokers import drain, register, start
from tests.console.conftest import console
from tests.console.counted import asked, count_statements
from tests.console.test_viewer import STORY, VALUE
from tests.postgres import Database
from tests.sessions import pooled_session

LIVE = {"X-Live": "1"}


@asynccontextmanager
async def readers(database: Database, *roles: str) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Yield a client for each role, with a token and a browser of its own that has opened the overview."""
    async with console(database) as client, pooled_session(database) as connection:
        clients = []
        for number, role in enumerate(roles):
            secret, _ = await create_token(connection, f"{role}-{number}", role, None)
            one = httpx.AsyncClient(base_url=client.base_url, cookies={COOKIE: secret}, trust_env=False, timeout=60)
            clients.append(one)
        try:
            for one in clients:
                await one.get("/")
            asked.clear()
            yield clients
        finally:
            for one in clients:
                await one.aclose()


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    count_statements(monkeypatch)
    monkeypatch.setattr(live, "KEPT_SECONDS", 600.0)  # requests take longer than a second on a slow machine


async def test_many_readers_of_a_page_ask_the_database_once(database: Database) -> None:
    """Each has a token of his own. What they share has no name and no token for forms."""
    async with readers(database, *["operator"] * 20) as clients:
        pages = await asyncio.gather(*(client.get("/", headers=LIVE) for client in clients))
        again = [await client.get("/", headers=LIVE) for client in clients]
    shared = {page.text for page in (*pages, *again)}
    assert {asked[sql(name)] for name in ("load_present", "load_activity", "list_oldest_live")} == {1}
    assert {page.status_code for page in (*pages, *again)} == {200}
    assert [("operator-" in text, 'name="csrf" value=""' in text) for text in shared] == [(False, True)]
    assert ["set-cookie" in page.headers for page in pages] == [False] * 20
    assert ["x-age-ms" in page.headers for page in pages] == [True] * 20


async def test_an_operator_and_a_viewer_share_nothing(database: Database) -> None:
    """A viewer's page has no values, whoever asked before; each role is read by itself."""
    await register(database, STORY.replace("VALUE", VALUE))
    [execution] = await start(database, payload={"who": VALUE})
    await drain(database)
    addresses = [f"/executions/{execution}", f"/executions?text={execution}", "/approvals"]
    async with readers(database, "operator", "viewer") as (operator, viewer):
        for address in addresses:
            shown = [await client.get(address, headers=LIVE) for client in (operator, viewer, operator)]
            assert [(page.status_code, page.text == shown[0].text) for page in shown] == [
                (200, True),
                (200, False),
                (200, True),
            ]
            assert VALUE not in shown[1].text
            assert "<form action=" not in shown[1].text.replace('<form action="/sign-out"', "")


async def test_nobody_gets_a_shared_answer_without_a_token(database: Database) -> None:
    """Also not who has a token that is not valid any more."""
    async with readers(database, "operator") as (operator,):
        own = await operator.get("/", headers=LIVE)
        operator.cookies.clear()
        without = await operator.get("/", headers=LIVE)
        wrong = await operator.get("/", headers={**LIVE, "Cookie": f"{COOKIE}=nbt_wrong"})
    assert [(page.status_code, "Started executions" in page.text) for page in (without, wrong)] == [(303, False)] * 2
    assert own.status_code == 200


async def test_what_a_person_loads_ends_what_was_shared(database: Database) -> None:
    """So no page goes back to what was before, and shows what its reader just did."""
    await register(database, STORY)
    async with readers(database, "operator") as (operator,):
        before = await operator.get("/executions", headers=LIVE)
        [execution] = await start(database)
        loaded = await operator.get("/executions")
        after = await operator.get("/executions", headers=LIVE)
    assert [str(execution) in page.text for page in (before, loaded, after)] == [False, True, True]


async def test_scripts_take_turns_that_leave_the_time_to_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later a page comes, the later it may ask again, because each answer takes a share of the time."""
    monkeypatch.setattr(live, "SHARE", 0.000_1)  # each answer takes the most
    monkeypatch.setattr(live, "KEPT_SECONDS", 0.0)
    async with readers(database, "operator") as (operator,):
        pauses = [
            float((await operator.get(address, headers=LIVE)).headers["retry-after"])
            for address in ("/", "/executions", "/limits", "/")
        ]
    first, second, third, shared = pauses
    assert [first >= live.MOST_SECONDS - 1, second - first >= 8, third - second >= 8, shared <= first] == [True] * 4
