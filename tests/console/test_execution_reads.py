"""What one execution holds and what is derived from it, over HTTP."""

from __future__ import annotations

import random
import re
from html import unescape
from typing import Any

import httpx
import pytest

from noetl_broker.diagram import layout
from noetl_broker.store.admin.list_pages import BYTES_READ
from tests.brokers import drain, register, start, value
from tests.postgres import Database

STORY = """
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


@pytest.fixture
async def execution(database: Database) -> str:
    """The address of an execution that waits for a worker."""
    await register(database, STORY)
    [execution_id] = await start(database)
    await drain(database)
    return f"/api/v1/executions/{execution_id}"


async def read(api: httpx.AsyncClient, url: str, **params: Any) -> Any:
    """Return the document of an answer that must be 200."""
    answer = await api.get(url, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_pages_of_events_hold_each_event_once(api: httpx.AsyncClient, execution: str) -> None:
    """In the order of their ids."""
    first = await read(api, f"{execution}/events", limit=1)
    rest = await read(api, f"{execution}/events", cursor=first["next"])
    everything = await read(api, f"{execution}/events")
    assert (first["items"] + rest["items"], len(first["items"]), rest["next"]) == (everything["items"], 1, None)


async def test_jobs_of_an_execution_are_listed(api: httpx.AsyncClient, execution: str) -> None:
    """The one that waits for a worker."""
    assert [(job["step"], job["status"]) for job in (await read(api, f"{execution}/jobs"))["items"]] == [
        ("load", "queued")
    ]


async def test_explain_says_why_a_step_ran(api: httpx.AsyncClient, execution: str) -> None:
    """And what the execution waits for."""
    of_all = await read(api, f"{execution}/explain")
    of_step = await read(api, f"{execution}/explain", step="load")
    assert ("load" in str(of_all), "workload.n > 2" in str(of_step)) == (True, True)


async def test_a_graph_is_svg_or_mermaid(api: httpx.AsyncClient, execution: str) -> None:
    """An SVG that is opened by itself may run nothing."""
    svg = await api.get(f"{execution}/graph")
    mermaid = await api.get(f"{execution}/graph", params={"format": "mermaid"})
    assert (
        svg.headers["content-type"],
        "sandbox" in svg.headers["content-security-policy"],
        svg.text.startswith("<svg"),
        "flowchart" in mermaid.text,
    ) == ("image/svg+xml", True, True, True)


async def test_a_snapshot_is_the_state_after_a_turn(api: httpx.AsyncClient, execution: str) -> None:
    """Its open visits; a turn that is not there is 404."""
    found = await read(api, f"{execution}/snapshot", turn=1)
    missing = await api.get(f"{execution}/snapshot", params={"turn": 99})
    assert (found["turn"], [visit["step"] for visit in found["live"]], missing.status_code) == (1, ["load"], 404)


async def test_without_the_layout_library_a_graph_is_still_mermaid(
    api: httpx.AsyncClient, execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer names the parameter."""
    monkeypatch.setattr(layout, "graphlay", None)
    answer = await api.get(f"{execution}/graph")
    assert (answer.status_code, "?format=mermaid" in answer.json()["detail"]) == (501, True)


async def test_an_unknown_step_does_not_exist(api: httpx.AsyncClient, execution: str) -> None:
    """Nor does a visit that was not made."""
    asked = [("explain", "lod"), ("explain", "load#7"), ("explain", "lod[1]"), ("logs", "lod")]
    answers = [await api.get(f"{execution}/{what}", params={"step": step}) for what, step in asked]
    assert [answer.status_code for answer in answers] == [404] * 4


async def test_items_are_listed_by_status(database: Database, api: httpx.AsyncClient) -> None:
    """Those that failed, say; the page of the execution counts them, and links to them."""
    await register(database, EACH)
    [execution_id] = await start(database)
    await drain(database)
    await value(database, FAIL_FIRST)
    await drain(database)
    found = await read(api, f"/api/v1/executions/{execution_id}/items", status="FAILED")
    page = (await api.get(f"/executions/{execution_id}")).text
    [link] = re.findall(r'href="([^"]+)">1 failed</a>', page)
    items = (await api.get(unescape(link))).text
    assert (
        [(item["index"], item["status"]) for item in found["items"]],
        [name in items for name in ("[0]", "[1]")],
    ) == ([(0, "FAILED")], [True, False])


async def test_replay_and_verify_find_nothing_wrong(api: httpx.AsyncClient, execution: str) -> None:
    """Of an execution that runs."""
    replayed = await read(api, f"{execution}/replay")
    verified = await read(api, f"{execution}/verify")
    assert (replayed["turns"], replayed["running"], replayed["differences"], verified["broken"]) == (1, True, [], 0)


async def test_a_page_has_few_events_with_large_values(database: Database, api: httpx.AsyncClient) -> None:
    """A thousand of them would fill the memory of the console. The next page goes on."""
    await register(database, STORY)
    large = random.Random(1).randbytes(BYTES_READ).hex()
    [execution_id] = await start(database, payload={"x": 1, "large": large})
    await drain(database)
    url, cursor = f"/api/v1/executions/{execution_id}/events", None
    pages: list[list[str]] = []
    while cursor or not pages:
        answer = (await api.get(url, params={"cursor": cursor} if cursor else {})).json()
        pages.append([event["event_type"] for event in answer["items"]])
        cursor = answer["next"]
    assert (pages[0], len(pages)) == (["execution_start"], 2)


async def test_a_page_has_few_signals_with_large_payloads(api: httpx.AsyncClient) -> None:
    """As one of events; the next page goes on."""
    large = random.Random(1).randbytes(900_000).hex()
    for number in range(4):
        sent = await api.post("/api/v1/signals", json={"name": "paid", "key": str(number), "payload": large})
        assert sent.status_code == 201
    first = await read(api, "/api/v1/signals")
    second = await read(api, "/api/v1/signals", cursor=first["next"])
    keys = [[signal["key"] for signal in page["items"]] for page in (first, second)]
    assert (keys, second["next"]) == ([["3", "2", "1"], ["0"]], None)
