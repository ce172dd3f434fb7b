"""The preview of an action on many executions, and the action on exactly those that it named."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx
import pytest

from tests.brokers import drain, register, rows, value
from tests.console.conftest import console
from tests.console.counted import count_statements, of_pages
from tests.console.test_actions import FAIL, STORY, begun, statuses
from tests.console.test_pages import sign_in
from tests.postgres import Database

MOST_COMPARED = 8  # executions that a preview plans one by one
HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


def fields_of(page: str, action: str = "/executions/act") -> list[tuple[str, str]]:
    """The hidden fields of the form that posts to an address."""
    found = re.search(rf'<form action="{re.escape(action)}" method="post".*?</form>', page, re.DOTALL)
    return [(name, unescape(text)) for name, text in HIDDEN.findall(found[0])] if found else []


async def confirm(client: httpx.AsyncClient, preview: httpx.Response, **more: str) -> httpx.Response:
    """Send the form of a preview."""
    data: dict[str, Any] = {}
    for name, text in [*fields_of(preview.text), *more.items()]:
        data.setdefault(name, []).append(text)
    return await client.post("/executions/act", data=data)


async def failed(database: Database, count: int) -> list[str]:
    """Executions that failed at `load`."""
    ids = await begun(database, count=count)
    for _ in range(-(-count // 10)):
        await value(database, FAIL)
    await drain(database)
    return ids


async def test_fifty_chosen_ones_are_retried(database: Database, api: httpx.AsyncClient) -> None:
    """The preview says what each will do; a form that is sent twice starts nothing more."""
    ids = await failed(database, 50)
    preview = await api.get("/executions/act", params={"action": "retry", "id": ids})
    answers = [await confirm(api, preview), await confirm(api, preview)]
    again = await api.get("/executions/act", params={"action": "retry", "id": ids})
    assert "Retry 50 executions?" in preview.text
    assert "begins at load, keeps no results" in preview.text
    assert [answer.status_code for answer in answers] == [200, 200]
    assert ["50 executions were started again" in answer.text for answer in answers] == [True, False]
    assert "was recovered already" in again.text
    assert await rows(
        database, "select count(*), count(distinct forked_from) from noetl.execution where forked_from > 0"
    ) == [(50, 50)]


async def test_what_an_action_is_not_for_is_left_out(database: Database, api: httpx.AsyncClient) -> None:
    """With the reason; the others are acted on, and the list says so."""
    [gone] = await failed(database, 1)
    running = [str(row[0]) for row in await rows(database, "select noetl.start_execution('story', '{}')")]
    await drain(database)
    preview = await api.get("/executions/act", params={"action": "cancel", "id": [gone, *running, "7"]})
    done = await confirm(api, preview, reason="by hand")
    assert "Cancel 1 execution?" in preview.text
    assert [why in preview.text for why in ("has ended, it is FAILED", "does not exist")] == [True, True]
    assert done.headers["location"] == "/executions"
    assert "1 execution was asked to end." in (await api.get("/executions")).text
    assert await statuses(database) == ["FAILED", "CANCELLED"]


async def test_all_that_match_are_those_of_the_filters(database: Database, api: httpx.AsyncClient) -> None:
    """Of the fields, and of the text that is searched."""
    ids = await begun(database, count=3)
    where: list[dict[str, Any]] = [{"path": "story"}, {"path": "other"}, {"text": ids[1]}, {"since": "bla"}]
    previews = [await api.get("/executions/act", params={"action": "pause", "scope": "all", **one}) for one in where]
    assert [page.status_code for page in previews] == [200, 200, 200, 400]
    assert [[text for name, text in fields_of(page.text) if name == "id"] for page in previews] == [
        ids,
        [],
        [ids[1]],
        [],
    ]


async def test_a_preview_needs_chosen_executions_and_an_operator(database: Database) -> None:
    """It shows messages, so a viewer does not get it."""
    async with console(database) as client:
        nothing = await client.get("/executions/act", params={"action": "retry", "status": "FAILED"})
        await sign_in(client, database, "viewer")
        refused = await client.get("/executions/act", params={"action": "retry", "id": "1"})
    assert nothing.status_code == 303
    assert nothing.headers["location"] == "/executions?status=FAILED"
    assert refused.status_code == 403


async def test_a_retry_on_another_version_is_previewed(database: Database, api: httpx.AsyncClient) -> None:
    """The preview says that there is one; on it, it says which can go on, and what was asked is done."""
    ids = await failed(database, 2)
    await register(database, STORY.replace("localhost", "127.0.0.1"), version=2)
    own = await api.get("/executions/act", params={"action": "retry", "id": ids})
    other = await api.get("/executions/act", params={"action": "retry", "id": ids, "version": "latest"})
    bad = await api.get("/executions/act", params={"action": "retry", "id": ids, "version": "0"})
    done = await confirm(api, other)
    assert "Version 2 of story is registered" in own.text
    assert "version 2: begins at load" in other.text
    assert "Version: it must be at least 1" in bad.text
    assert "on v2" in done.text
    assert await rows(database, "select count(*) from noetl.execution where forked_from > 0 and version = 2") == [(2,)]


async def test_a_fork_of_many_asks_for_its_step(database: Database, api: httpx.AsyncClient) -> None:
    """Then it previews what each begins with; the list offers what fits the status."""
    ids = await failed(database, 2)
    asked = await api.get("/executions/act", params={"action": "fork", "id": ids})
    ready = await api.get("/executions/act", params={"action": "fork", "id": ids, "from": "load"})
    nowhere = await api.get("/executions/act", params={"action": "fork", "id": ids, "from": "nowhere"})
    await confirm(api, ready)
    every = await api.get("/executions/act", params={"action": "fork", "scope": "all", "from": "load"})
    offered = [(await api.get("/executions", params=one)).text for one in ({}, {"status": "FAILED"})]
    assert [fields_of(page.text) == [] for page in (asked, ready)] == [True, False]
    assert "begins at load, keeps" in ready.text
    assert ["has no step nowhere" in nowhere.text, "It cannot be done for any of them" in nowhere.text] == [True, True]
    assert fields_of(nowhere.text) == []
    assert ["There is nothing to fork" in every.text, "was recovered already" in every.text] == [True, True]
    assert await rows(database, "select count(*) from noetl.execution where forked_from > 0") == [(2,)]
    assert [[name in page for name in ('value="fork"', 'value="pause"')] for page in offered] == [
        [True, True],
        [True, False],
    ]


@pytest.mark.parametrize("query", [{}, {"version": "latest"}, {"action": "fork", "from": "load"}])
async def test_a_preview_asks_no_more_for_more_executions(
    database: Database, monkeypatch: pytest.MonkeyPatch, query: dict[str, str]
) -> None:
    """It plans a bounded number of them, says which, and acts on all."""
    asked, statements, pages, chosen = count_statements(monkeypatch), [], [], f"the oldest {MOST_COMPARED}"
    for version, text in enumerate((STORY, STORY.replace("localhost", "127.0.0.1")), 1):
        await register(database, text, version=version)
    async with console(database) as client:
        await client.get("/executions/act", params={"action": "retry", "id": "1"})  # connects
        for count in (MOST_COMPARED + 2, MOST_COMPARED + 8):
            await rows(database, "select noetl.start_execution('story', '{}', 1) from generate_series(1, $1)", count)
            await drain(database)
            for _ in range(-(-count // 10)):
                await value(database, FAIL)
            await drain(database)
            asked.clear()
            pages.append(await client.get("/executions/act", params={"action": "retry", "scope": "all", **query}))
            statements.append(of_pages(asked))
    assert statements[1] - statements[0] == 0
    assert [f"Previewed: {chosen if query else 'the newest of each line'}." in page.text for page in pages] == [
        True,
        True,
    ]
    assert [len([name for name, _ in fields_of(page.text) if name == "id"]) for page in pages] == [
        MOST_COMPARED + 2,
        2 * MOST_COMPARED + 10,
    ]
