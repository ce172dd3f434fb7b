"""Logs of executions over HTTP."""

from __future__ import annotations

import httpx

from tests.brokers import drain, register, rows, start
from tests.postgres import Database

STORY = """
workflow:
  - {step: start, next: load}
  - {step: load, type: python, code: x, next: end}
  - {step: end}
"""


async def test_pages_of_a_log_hold_each_entry_once(api: httpx.AsyncClient, database: Database) -> None:
    """By time; also those of one step."""
    await register(database, STORY)
    [execution_id] = await start(database)
    await drain(database)
    [(job,)] = await rows(database, "select queue_id from noetl.lease_jobs('w', 1)")
    for text in ("one", "two", "three"):
        await rows(database, "select noetl.log_job($1, 'w', 1, 'info', $2)", job, text)
    url = f"/api/v1/executions/{execution_id}/logs"
    first = (await api.get(url, params={"limit": 2})).json()
    rest = (await api.get(url, params={"cursor": first["next"], "step": "load#1"})).json()
    assert [entry["message"] for entry in first["items"] + rest["items"]] == ["one\n", "two\n", "three\n"]
    assert (first["items"][0]["execution_id"], rest["next"]) == (str(execution_id), None)
    assert (await api.get(url, params={"step": "nothing"})).status_code == 404
