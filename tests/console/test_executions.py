"""Executions over HTTP: start, list by pages, details."""

from __future__ import annotations

import httpx

from tests.brokers import drain, register, start
from tests.postgres import Database

STORY = """
workflow:
  - step: start
    next: [{step: end}]
  - step: end
    result: {sum: "{{ workload.x + 1 }}"}
"""


async def test_an_execution_starts_and_shows_its_result(database: Database, api: httpx.AsyncClient) -> None:
    """Ids are text; the same key starts nothing new."""
    await register(database, STORY)
    body = {"path": "story", "payload": {"x": 1}}
    started = [await api.post("/api/v1/executions", json=body, headers={"Idempotency-Key": "a"}) for _ in range(2)]
    await drain(database)
    execution_id = started[0].json()["execution_id"]
    shown = (await api.get(f"/api/v1/executions/{execution_id}")).json()
    assert (
        [each.status_code for each in started],
        started[0].json() == started[1].json(),
        type(execution_id),
        shown["status"],
        shown["result"],
        [step["step"] for step in shown["steps"]],
    ) == ([201, 201], True, str, "COMPLETED", {"sum": 2}, ["start", "end"])


async def test_a_cursor_leads_through_all_pages(database: Database, api: httpx.AsyncClient) -> None:
    """The newest first, each once."""
    await register(database, STORY)
    started = await start(database, count=5)
    await drain(database)
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/api/v1/executions", params={"limit": "2", **cursor})).json()
        found += [item["execution_id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == [str(one) for one in sorted(started, reverse=True)]
