"""Pages that many have open share what their scripts ask, and take the database a bounded share of its time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest

from noetl_broker.console.access import COOKIE
from noetl_broker.console.connections import Connections
from noetl_broker.console.pages import live, shared
from noetl_broker.console.pages.shared import FIRST_GUESS, LONGEST_WAIT, ReadAllowance, SharedRead, TooSoonError
from noetl_broker.store.admin.api_tokens import create_token
from noetl_broker.store.queries import sql
from tests.brokers import drain, register, start
from tests.console.conftest import console
from tests.console.counted import asked, count_statements
from tests.console.test_viewer import STORY, VALUE
from tests.postgres import Database
from tests.sessions import pooled_session

LIVE = {"X-Live": "1"}
CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')


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
    """Count statements; scripts may ask as much as they like, also on a slow machine."""
    count_statements(monkeypatch)
    monkeypatch.setattr(live, "ReadAllowance", partial(ReadAllowance, saved=600.0))


async def test_many_readers_of_a_page_ask_the_database_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a token of his own. Their names and the tokens of their forms are theirs."""
    monkeypatch.setattr(shared, "KEPT_SECONDS", 600.0)  # forty requests take longer than a second on a slow machine
    async with readers(database, *["operator"] * 20) as clients:
        pages = await asyncio.gather(*(client.get("/", headers=LIVE) for client in clients))
        again = [await client.get("/", headers=LIVE) for client in clients]
    once = {asked[sql(name)] for name in ("load_present", "load_activity", "list_oldest_live")}
    assert (
        once,
        {page.status_code for page in (*pages, *again)},
        [f"operator-{number}<" in page.text for number, page in enumerate(again)],
        len({CSRF.findall(page.text)[0] for page in pages}),
        ["set-cookie" in page.headers for page in pages],
        ["x-age-ms" in page.headers for page in pages],
    ) == ({1}, {200}, [True] * 20, 20, [False] * 20, [True] * 20)


async def test_people_who_load_a_page_at_once_wait_for_one_answer(database: Database) -> None:
    """It was begun after all of them asked; the first has one of his own."""
    async with readers(database, *["operator"] * 20) as clients:
        pages = await asyncio.gather(*(client.get("/") for client in clients))
    assert ({page.status_code for page in pages}, asked[sql("load_present")] <= 4) == ({200}, True)


async def test_an_operator_and_a_viewer_share_nothing(database: Database) -> None:
    """A viewer's page has no values, whoever asked before; each role is read by itself."""
    await register(database, STORY.replace("VALUE", VALUE))
    [execution] = await start(database, payload={"who": VALUE})
    await drain(database)
    addresses = [f"/executions/{execution}", f"/executions?text={execution}", "/approvals"]
    async with readers(database, "operator", "viewer") as (operator, viewer):
        for address in addresses:
            shown = [await client.get(address, headers=LIVE) for client in (operator, viewer, operator)]
            assert [(page.status_code, "operator-0<" in page.text) for page in shown] == [
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


async def test_scripts_get_a_bounded_share_of_the_time(database: Database) -> None:
    """Four reads of 0.1 s, which may take half of the time: the next begins after 0.8 s."""
    connections, allowance = Connections(database), ReadAllowance(0.5, saved=0.0)

    async def load() -> float:
        async with connections.borrow() as connection:
            now = time.monotonic()
            await connection.fetchval("select pg_sleep(0.1)")
            return now

    try:
        began: float = await allowance.run("kind", load)
        await asyncio.gather(*(allowance.run("kind", load) for _ in range(3)))
        after: float = await allowance.run("kind", load)
    finally:
        await connections.close()
    assert after - began >= 0.7


async def test_who_would_wait_too_long_is_told_to_ask_again() -> None:
    """A read that cost less than was thought gives the rest back."""
    allowance = ReadAllowance(FIRST_GUESS / LONGEST_WAIT / 2, saved=0.0)
    begun, end = asyncio.Event(), asyncio.Event()

    async def load() -> int:
        begun.set()
        await end.wait()
        return 7

    first = asyncio.ensure_future(allowance.run("kind", load))
    await begun.wait()
    with pytest.raises(TooSoonError) as told:
        await allowance.run("kind", load)
    end.set()
    assert (told.value.seconds > LONGEST_WAIT, await first, await allowance.run("kind", load)) == (True, 7, 7)


async def test_an_expensive_answer_is_kept_longer(database: Database) -> None:
    """An address takes the database a fiftieth of its time: what took 60 ms is kept for three seconds."""
    connections = Connections(database)

    async def load(seconds: float) -> None:
        async with connections.borrow() as connection:
            await connection.fetchval("select pg_sleep($1)", seconds)

    try:
        reads = [SharedRead(partial(load, seconds)) for seconds in (0.0, 0.06)]
        await asyncio.gather(*(read.future for read in reads))
    finally:
        await connections.close()
    assert [read.until - read.began >= 2.9 for read in reads] == [False, True]
