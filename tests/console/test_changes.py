"""The stream of changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import pytest

from noetl_broker import embedded_postgres
from noetl_broker.console.changes import Changes, Polled, Stream
from noetl_broker.console.connections import Connections
from noetl_broker.embedded_postgres import EmbeddedPostgres
from noetl_broker.store.admin.changes import LatestTurn
from noetl_broker.store.connect.connection import call
from noetl_broker.store.connect.dsn import Database as StoredIn
from noetl_broker.store.connect.migrations import migrate
from tests.brokers import PATIENCE_SECONDS, drain, register, start
from tests.console.conftest import console
from tests.console.test_access import token
from tests.console.test_executions import STORY
from tests.postgres import Database
from tests.sessions import pooled_session

ASK = "workflow: [{step: start, next: a}, {step: a, type: approval, title: '?', next: end}, {step: end}]"


async def events(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **params: Any
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Yield the changes of each event."""
    asked = client.stream("GET", "/api/v1/changes", params=params, headers=headers)
    async with asyncio.timeout(PATIENCE_SECONDS), asked as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                told = json.loads(line.removeprefix("data: "))
                if "changes" in told:  # else it is of the database
                    yield told["changes"]


async def test_a_named_execution_is_told_as_it_is_and_when_it_changes(
    database: Database, api: httpx.AsyncClient
) -> None:
    """Its id is text."""
    await register(database, STORY)
    [execution_id] = await start(database, payload={"x": 1})
    stream = events(api, execution_id=execution_id)
    first = await anext(stream)
    await drain(database)
    last = await anext(stream)
    await stream.aclose()
    assert [(each["execution_id"], each["turn"] > 0, each["status"]) for each in first + last] == [
        (str(execution_id), False, "RUNNING"),
        (str(execution_id), True, "COMPLETED"),
    ]


async def test_a_stream_tells_how_much_waits_for_a_person(database: Database, api: httpx.AsyncClient) -> None:
    """At the beginning, and when it changes; also where the executions that it names do not change."""
    [other] = await start_of(database, STORY)
    asked = api.stream("GET", "/api/v1/changes", params={"execution_id": other})
    told: list[Any] = []
    async with asyncio.timeout(PATIENCE_SECONDS), asked as answer:
        is_next = False
        async for line in answer.aiter_lines():
            if is_next:
                told.append(json.loads(line.removeprefix("data: ")))
                if len(told) == 2:
                    break
                await start_of(database, ASK, path="ask")
            is_next = line == "event: attention"
    assert told == [{"approvals": 0, "dead_letters": 0}, {"approvals": 1, "dead_letters": 0}]


async def start_of(database: Database, body: str, *, path: str = "story") -> list[int]:
    """Start an execution of a new playbook, and let the broker decide."""
    await register(database, body, path=path)
    found = await start(database, path, payload={"x": 1})
    await drain(database)
    return found


async def test_a_stream_of_an_execution_that_does_not_exist_is_refused(api: httpx.AsyncClient) -> None:
    """It would tell nothing for ever."""
    assert (await api.get("/api/v1/changes", params={"execution_id": 5})).status_code == 404


async def test_a_stream_of_all_tells_what_changes_from_then_on(database: Database, api: httpx.AsyncClient) -> None:
    """Not what was there before."""
    await register(database, STORY)
    await start(database, payload={"x": 1})
    await drain(database)
    stream = events(api)
    told = await anext(stream)
    looked = asyncio.ensure_future(anext(stream))
    [execution_id] = await start(database, payload={"x": 1})
    changed = await looked
    await stream.aclose()
    assert (told, [each["execution_id"] for each in changed]) == ([], [str(execution_id)])


async def test_one_caller_cannot_hold_all_streams(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another token still gets one."""
    monkeypatch.setattr("noetl_broker.console.changes.MOST_OF_CALLER", 1)
    greedy, other = await token(database, "viewer"), await token(database, "operator")
    async with console(database) as client:
        stream = events(client, greedy)
        await anext(stream)
        refused = await client.get("/api/v1/changes", headers=greedy)
        another = events(client, other)
        told = await anext(another)
        await stream.aclose()
        await another.aclose()
    assert (refused.status_code, told) == (503, [])


async def test_a_stream_says_when_the_database_is_away_and_back(database: Database) -> None:
    """So a page does not look up to date while it is not."""
    connections = Connections(StoredIn(dsn="postgresql://127.0.0.1:1/none"))
    changes = Changes(connections)
    said: list[str] = []
    try:
        with changes.subscribe(frozenset({1})) as stream:
            for count in (1, 2):
                while len(said) < count:
                    said += [one for one in await changes.next(stream, PATIENCE_SECONDS) if "database" in one]
                connections.pools.own.database = database
    finally:
        changes.close()
        await connections.close()
    assert said == [f'event: database\ndata: {{"away":{word}}}\n\n' for word in ("true", "false")]


async def test_a_stream_ends_after_its_token_is_revoked(database: Database) -> None:
    """Also while changes keep coming."""
    await register(database, STORY)
    headers = await token(database, "viewer")
    async with console(database, token_seconds=0.0, heartbeat_seconds=0.1) as client:
        stream = events(client, headers)
        await anext(stream)
        async with pooled_session(database) as connection:
            await call(connection, "revoke_api_token", "viewer")

        async def keep_changing() -> None:
            while True:
                await start(database, payload={"x": 1})

        changing = asyncio.ensure_future(keep_changing())
        told = [changes async for changes in stream]
        changing.cancel()
    assert len(told) < 5


def test_a_slow_reader_gets_all_that_changed_since_its_last_message() -> None:
    """Each execution once, as it stands now; nothing is kept for the reader meanwhile."""
    stream, turn = Stream(None, "a"), LatestTurn(1, "RUNNING")
    first, second = Polled({1: turn}, everything=True), Polled({1: turn, 2: turn}, everything=True)
    told = [[*stream.tell(now)] for now in (first, second, second)]
    changed = '{"changes":[{"execution_id":"2","turn":1,"status":"RUNNING"}]}'
    assert told == [['event: changes\ndata: {"changes":[]}\n\n'], [f"event: changes\ndata: {changed}\n\n"], []]


URLS = ("/api/v1/executions", "/api/v1/health", "/api/v1/playbooks/graph?path=story")


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """Yield a Postgres that the test may stop."""
    with embedded_postgres.start(settings={"fsync": "off"}) as postgres:
        yield postgres


async def statuses(client: httpx.AsyncClient) -> list[int]:
    """The statuses of requests: of the list, of the health, and of one that computes much."""
    return [(await client.get(url)).status_code for url in URLS]


async def test_the_console_and_its_streams_go_on_after_an_outage(server: EmbeddedPostgres) -> None:
    """Meanwhile requests get 503."""
    database = Database(name="postgres", dsn=server.dsn())
    await migrate(database)
    await register(database, STORY)
    [execution_id] = await start(database, payload={"x": 1})
    async with console(database) as client:
        stream = events(client, execution_id=execution_id)
        first = await anext(stream)
        found = [await statuses(client)]
        await asyncio.to_thread(server.stop, "immediate")
        found.append(await statuses(client))
        await asyncio.to_thread(server.launch)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (after := await statuses(client)) != [200] * 3:
                assert set(after) <= {200, 503}
        await drain(database)
        last = await anext(stream)
        await stream.aclose()
    assert (found, first[0]["status"], last[0]["status"]) == ([[200] * 3, [503] * 3], "RUNNING", "COMPLETED")
