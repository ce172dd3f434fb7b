"""The console of an installation with buckets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from noetl_broker.store.connect.buckets import bucket_of_id, buckets_of
from tests.brokers import drain, execute, value
from tests.console.conftest import console, page_routes
from tests.postgres import Database
from tests.service.test_buckets import COUNT, STORY, register_everywhere

PAGES = sorted(url for url in page_routes("GET") if "{" not in url and url not in {"/sign-in", "/arrival"})


@pytest.fixture
async def api(installation: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a console of the installation, which has a playbook."""
    await register_everywhere(installation, STORY)
    async with console(installation) as client:
        yield client


async def test_executions_of_all_buckets_are_listed_and_shown(installation: Database, api: httpx.AsyncClient) -> None:
    """By the pages and by the API: list, execution, its parts; and they are acted on."""
    started = [(await api.post("/api/v1/executions", json={"path": "story"})).json()["execution_id"] for _ in range(12)]
    for one in buckets_of(installation, COUNT):
        await drain(one)
    page = (await api.get("/executions")).text
    assert [f"/executions/{each}" in page for each in started] == [True] * 12
    listed = (await api.get("/api/v1/executions", params={"limit": 5})).json()
    assert [row["execution_id"] for row in listed["items"]] == sorted(started, key=int)[::-1][:5]
    for each in started[:4]:
        assert "waits for a person" in (await api.get(f"/executions/{each}")).text
        for part in ("events", "jobs", "explain", "timeline", "replay", "verify"):
            assert (await api.get(f"/api/v1/executions/{each}/{part}")).status_code == 200, part
        assert (await api.post(f"/api/v1/executions/{each}/cancel", json={})).status_code == 202
    assert (await api.get("/api/v1/executions/63")).status_code == 404


@pytest.mark.parametrize("url", PAGES)
async def test_each_page_of_all_buckets(api: httpx.AsyncClient, url: str) -> None:
    """None of them fails, or names a bucket as missing."""
    answer = await api.get(url, params={"name": "paid", "key": "k", "path": "story", "action": "cancel"})
    assert answer.status_code < 500
    assert "did not answer" not in answer.text


async def test_a_page_names_the_bucket_that_does_not_answer(installation: Database, api: httpx.AsyncClient) -> None:
    """And shows the executions of the others."""
    started = [await value(one, "select noetl.start_execution('story')") for one in buckets_of(installation, COUNT)]
    await execute(installation.bucket(2), "drop schema noetl cascade")
    page = (await api.get("/executions")).text
    assert f"did not answer, so this page lacks what they have: {installation.schema}_2" in page
    assert [f"/executions/{each}" in page for each in started] == [bucket_of_id(each) != 2 for each in started]
    listed = (await api.get("/api/v1/executions")).json()
    assert [one.partition(":")[0] for one in listed["unanswered"]] == [f"{installation.schema}_2"]


async def test_a_stream_tells_of_executions_in_any_bucket(installation: Database, api: httpx.AsyncClient) -> None:
    """It begins with the state of each that is asked for."""
    started = [
        str(await value(one, "select noetl.start_execution('story')")) for one in buckets_of(installation, COUNT)
    ]
    async with api.stream("GET", "/api/v1/changes", params={"execution_id": started}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and all(each in line for each in started):
                break
