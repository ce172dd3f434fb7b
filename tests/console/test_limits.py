"""Slots of executions and throttles of jobs: API and pages."""

from __future__ import annotations

import re

import httpx

from tests.brokers import drain, register, rows, start
from tests.console.test_actions import STORY, do
from tests.console.test_bulk_pages import fields_of
from tests.console.test_execution_page import read
from tests.console.test_pages import sign_in
from tests.postgres import Database

ONE_EACH = 'concurrency: {key: "{{ workload.customer }}", limit: 1}'


async def of_customers(database: Database, *customers: str) -> list[str]:
    """Start executions of customers, each of whom may have one at a time; return their ids."""
    await register(database, f"workload: {{customer: x}}\n{STORY}", metadata=ONE_EACH)
    started = [(await start(database, payload={"customer": customer}))[0] for customer in customers]
    await drain(database)
    return [str(one) for one in started]


async def test_slots_say_who_holds_them_and_who_waits(database: Database, api: httpx.AsyncClient) -> None:
    """In the list, in the line of one slot, and of an execution, by API and pages; a viewer sees no keys."""
    first, second, other = await of_customers(database, "ann", "ann", "bob")
    listed = (await do(api, "get", "/slots"))["items"]
    line = (await do(api, "get", "/slots/line", params={"path": "story", "key": "ann"}))["items"]
    waiting = (await do(api, "get", f"/executions/{second}"))["slots"]
    page = re.sub(r"<[^>]+>", "", await read(api, f"/executions/{second}"))
    overview, queued = await read(api, "/"), await read(api, "/executions", status="QUEUED")
    slots, of_ann = await read(api, "/limits"), await read(api, "/limits/line", path="story", key="ann")
    for words in (
        "customer ann",
        f"/executions/{first}",
        "/limits/line?path=story&amp;key=ann",
        '?path=story">story</a>',
    ):
        assert words in slots
    assert "of a schedule" not in slots
    assert of_ann.index(first) < of_ann.index(second)
    assert "holds it" in of_ann
    assert "<h1>customer ann" in of_ann
    await sign_in(api, database, "viewer")
    hidden = (await do(api, "get", "/slots"))["items"]
    refused = await api.get("/api/v1/slots/line", params={"path": "story", "key": "ann"})
    seen = await read(api, "/limits")
    assert ("ann" in seen, "/limits/put" in seen, f"/executions/{first}" in seen) == (False, False, True)
    assert [(one["key"], one["held"], one["waiting"], one["holders"]) for one in listed] == [
        ("ann", 1, 1, [first]),
        ("bob", 1, 0, [other]),
    ]
    assert [(one["execution_id"], one["held_at"] is not None) for one in line] == [(first, True), (second, False)]
    assert [(one["before"], one["holders"]) for one in waiting] == [(0, [first])]
    assert ["Waits for a slot: customer ann, first of 1" in page, "Queued for" in page, f"held by {first}" in page] == [
        True,
        True,
        True,
    ]
    assert ["1 queued" in overview, overview.count("waits for a slot"), queued.count("waits for a slot")] == [
        True,
        1,
        1,
    ]
    assert [(one["key"], one["waiting"]) for one in hidden] == [(None, 1), (None, 0)]
    assert refused.status_code == 403


THROTTLED = STORY.replace(
    'url: "http://localhost"', 'url: "http://localhost", throttle: {name: bank, key: a, concurrency: 1}'
)


async def test_limits_on_jobs_are_listed_changed_and_deleted(database: Database, api: httpx.AsyncClient) -> None:
    """With the jobs that they count, and of one throttle its keys; a viewer sees no keys and changes nothing."""
    await do(api, "put", "/throttles/bank", json={"concurrency": 1})
    await register(database, THROTTLED)
    held = (await start(database, count=3))[-1]
    await drain(database)
    [job] = (await do(api, "get", f"/executions/{held}/jobs"))["items"]
    jobs = re.sub(r"<[^>]+>", "", await read(api, f"/executions/{held}", tab="jobs"))
    [listed] = (await do(api, "get", "/throttles"))["items"]
    keys = (await do(api, "get", "/throttles/bank/keys"))["items"]
    changed = await do(api, "put", "/throttles/bank", json={"concurrency": 2, "rate": 10})
    bad = await api.put("/api/v1/throttles/bank", json={"burst": 3})
    await sign_in(api, database, "viewer")
    hidden = (await do(api, "get", "/throttles/bank/keys"))["items"]
    refused = await api.delete("/api/v1/throttles/bank")
    [seen] = (await do(api, "get", f"/executions/{held}/jobs"))["items"]
    assert [job[name] for name in ("status", "held_for", "limit_name", "limit_key")] == ["held", ["limit"], "bank", "a"]
    assert seen["limit_key"] is None
    assert "Held by the throttle bank for a" in jobs
    assert [listed[name] for name in ("name", "concurrency", "keys", "leased", "ready", "held")] == [
        "bank",
        1,
        1,
        0,
        1,
        2,
    ]
    assert [(one["key"], one["held"]) for one in keys] == [("a", 2)]
    assert (changed, bad.status_code) == ({"name": "bank", "new": False, "deleted": None}, 400)
    assert ([one["key"] for one in hidden], refused.status_code) == ([None], 403)
    assert await rows(database, "select concurrency, rate from noetl.limit") == [(2, 10.0)]


async def test_an_operator_limits_jobs_by_a_form(database: Database, api: httpx.AsyncClient) -> None:
    """Wrong numbers stand at their fields; the page shows what each allows."""
    form = dict(fields_of((await api.get("/limits/put")).text, "/limits/put"))
    wrong = await api.post("/limits/put", data={**form, "name": "bank", "concurrency": "many", "rate": "quick"})
    made = await api.post("/limits/put", data={**form, "name": "bank", "concurrency": "5", "rate": "0.5", "burst": ""})
    page = (await api.get("/limits")).text
    change = (await api.get("/limits/put", params={"name": "bank"})).text
    asked = dict(fields_of((await api.get("/limits/delete", params={"name": "bank"})).text, "/limits/delete"))
    deleted = await api.post("/limits/delete", data=asked)
    assert (wrong.status_code, wrong.text.count('aria-invalid="true"')) == (400, 2)
    assert made.headers["location"] == "/limits"
    assert [words in page for words in ("5 at a time, 30/m", "is made: 5 at a time, 30/m")] == [True, True]
    assert 'value="30/m"' in change
    assert deleted.headers["location"] == "/limits"
    assert await rows(database, "select count(*) from noetl.limit") == [(0,)]


ITEMS = """
workflow:
  - {step: start, next: ask}
  - step: ask
    type: iterator
    collection: [1, 2, 3]
    element: n
    mode: async
    task: {type: http, url: "http://localhost", throttle: {name: bank, concurrency: 1}}
    next: end
  - {step: end}
"""


async def test_items_that_a_limit_holds_do_not_run(database: Database, api: httpx.AsyncClient) -> None:
    """They have begun, but only one may run."""
    await register(database, ITEMS)
    [execution_id] = await start(database)
    await drain(database)
    [progress] = (await do(api, "get", f"/executions/{execution_id}"))["iterators"]
    page = re.sub(r"<[^>]+>", "", await read(api, f"/executions/{execution_id}"))
    assert progress["started"] == 3
    assert progress["held"] == 2
    assert "0 of 3 items · 1 running · 2 held by a throttle" in page
