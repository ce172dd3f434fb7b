"""Executions over HTTP: start, list by pages, what one holds and what is derived from it."""

from __future__ import annotations

import random
import re
from html import unescape
from typing import Any

import httpx
import pytest

from noetl_broker.diagram import layout
from noetl_broker.store.admin.list_pages import BYTES_READ
from tests.brokers import drain, register, rows, start, value
from tests.postgres import Database

STORY = """
workflow:
  - step: start
    next: [{step: end}]
  - step: end
    result: {sum: "{{ workload.x + 1 }}"}
"""
LOADS = """
workload: {n: 3}
workflow:
  - {step: start, next: [{when: "{{ workload.n > 2 }}", then: [{step: load}]}, {else: [{step: end}]}]}
  - {step: load, type: http, url: "http://localhost", next: end}
  - {step: end}
"""
EACH = """
workflow:
  - {step: start, next: each}
  - {step: each, type: iterator, distribute: true, collection: [a, b], element: n, on_error: continue, next: end,
     task: {type: python, code: "def main(n): return n", args: {n: "{{ n }}"}}}
  - {step: end}
"""
FAIL_FIRST = """
select noetl.fail_job(queue_id, 'test', attempts, '{"message": "no"}')
from noetl.lease_jobs('test', 1)
"""
LIST = "/api/v1/executions"


async def read(api: httpx.AsyncClient, url: str, **params: Any) -> Any:
    """Return the document of an answer that must be 200."""
    answer = await api.get(url, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def read_all(api: httpx.AsyncClient, url: str, **params: Any) -> list[list[Any]]:
    """Return the items of each page of a list."""
    pages, cursor = [], dict[str, str]()
    while True:
        page = await read(api, url, **params, **cursor)
        pages.append(page["items"])
        if page["next"] is None:
            return pages
        cursor = {"cursor": page["next"]}


async def begun(database: Database, body: str, **payload: Any) -> str:
    """Start an execution and let the broker decide; return its address."""
    await register(database, body)
    [execution_id] = await start(database, payload=payload)
    await drain(database)
    return f"{LIST}/{execution_id}"


async def test_an_execution_starts_and_shows_its_result(database: Database, api: httpx.AsyncClient) -> None:
    """Ids are text; the same key starts nothing new. A cursor leads through all pages, the newest first."""
    await register(database, STORY)
    body = {"path": "story", "payload": {"x": 1}}
    started = [await api.post(LIST, json=body, headers={"Idempotency-Key": "a"}) for _ in range(2)]
    assert [each.status_code for each in started] == [201, 201]
    assert started[0].json() == started[1].json()
    await drain(database)
    shown = await read(api, f"{LIST}/{started[0].json()['execution_id']}")
    assert (shown["status"], shown["result"]) == ("COMPLETED", {"sum": 2})
    assert [step["step"] for step in shown["steps"]] == ["start", "end"]
    ids = [*await start(database, count=4), int(shown["execution_id"])]
    await drain(database)
    pages = await read_all(api, LIST, limit=2)
    assert [item["execution_id"] for page in pages for item in page] == [str(one) for one in sorted(ids, reverse=True)]


async def test_what_an_execution_holds_is_read(
    database: Database, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events, jobs and logs by pages; why a step ran; its graph, a past state, its replay, its invariants."""
    execution = await begun(database, LOADS)
    events = [event for page in await read_all(api, f"{execution}/events", limit=1) for event in page]
    assert events == (await read(api, f"{execution}/events"))["items"]
    jobs = [(job["step"], job["status"]) for job in (await read(api, f"{execution}/jobs"))["items"]]
    assert jobs == [("load", "queued")]
    assert "load" in str(await read(api, f"{execution}/explain"))
    assert "workload.n > 2" in str(await read(api, f"{execution}/explain", step="load"))
    found = await read(api, f"{execution}/snapshot", turn=1)
    assert (found["turn"], [visit["step"] for visit in found["live"]]) == (1, ["load"])
    replayed = await read(api, f"{execution}/replay")
    assert (replayed["turns"], replayed["running"], replayed["differences"]) == (1, True, [])
    assert (await read(api, f"{execution}/verify"))["broken"] == 0

    [(job,)] = await rows(database, "select queue_id from noetl.lease_jobs('w', 1)")
    for text in ("one", "two", "three"):
        await rows(database, "select noetl.log_job($1, 'w', 1, 'info', $2)", job, text)
    log = await read_all(api, f"{execution}/logs", limit=2, step="load#1")
    assert [[entry["message"] for entry in page] for page in log] == [["one\n", "two\n"], ["three\n"]]
    assert log[0][0]["execution_id"] == execution.rpartition("/")[2]

    # A graph is SVG, which may run nothing if it is opened by itself, or Mermaid, which needs no library.
    svg = await api.get(f"{execution}/graph")
    assert (svg.headers["content-type"], svg.text[:4]) == ("image/svg+xml", "<svg")
    assert "sandbox" in svg.headers["content-security-policy"]
    assert "flowchart" in (await api.get(f"{execution}/graph", params={"format": "mermaid"})).text
    monkeypatch.setattr(layout, "graphlay", None)
    answer = await api.get(f"{execution}/graph")
    assert (answer.status_code, "?format=mermaid" in answer.json()["detail"]) == (501, True)


async def test_what_an_execution_does_not_have_is_404(database: Database, api: httpx.AsyncClient) -> None:
    """A step, a visit, an item, a turn."""
    execution = await begun(database, LOADS)
    steps = [("explain", "lod"), ("explain", "load#7"), ("explain", "lod[1]"), ("logs", "lod"), ("logs", "nothing")]
    answers = [await api.get(f"{execution}/{what}", params={"step": step}) for what, step in steps]
    answers.append(await api.get(f"{execution}/snapshot", params={"turn": 99}))
    assert [answer.status_code for answer in answers] == [404] * 6


async def test_items_are_listed_by_status(database: Database, api: httpx.AsyncClient) -> None:
    """Those that failed, say; the page of the execution counts them, and links to them."""
    execution = await begun(database, EACH)
    await value(database, FAIL_FIRST)
    await drain(database)
    found = (await read(api, f"{execution}/items", status="FAILED"))["items"]
    assert [(item["index"], item["status"]) for item in found] == [(0, "FAILED")]
    page = (await api.get(execution.removeprefix("/api/v1"))).text
    [link] = re.findall(r'href="([^"]+)">1 failed</a>', page)
    items = (await api.get(unescape(link))).text
    assert [name in items for name in ("[0]", "[1]")] == [True, False]


async def test_a_page_has_few_rows_with_large_values(database: Database, api: httpx.AsyncClient) -> None:
    """A thousand events or signals would fill the memory of the console. The next page goes on."""
    execution = await begun(database, LOADS, x=1, large=random.Random(1).randbytes(BYTES_READ).hex())
    events = await read_all(api, f"{execution}/events")
    assert ([event["event_type"] for event in events[0]], len(events)) == (["execution_start"], 2)
    large = random.Random(1).randbytes(900_000).hex()
    for number in range(4):
        sent = await api.post("/api/v1/signals", json={"name": "paid", "key": str(number), "payload": large})
        assert sent.status_code == 201
    signals = await read_all(api, "/api/v1/signals")
    assert [[signal["key"] for signal in page] for page in signals] == [["3", "2", "1"], ["0"]]
