"""Logs of executions over HTTP."""

from __future__ import annotations

import httpx

from tests.brokers import drain, register, rows, start
from tests.console.test_pages import sign_in
from tests.postgres import Database

STORY = """
workflow:
  - {step: start, next: load}
  - {step: load, type: python, code: x, next: end}
  - {step: end}
"""


async def test_the_log_of_all_steps_is_searched(api: httpx.AsyncClient, database: Database) -> None:
    """By a part of a line, and by step; a text that no entry has says so, and a viewer sees no log."""
    await register(database, STORY)
    [execution_id] = await start(database)
    await drain(database)
    [(job,)] = await rows(database, "select queue_id from noetl.lease_jobs('w', 1)")
    for text in ("one <b>", "Two"):
        await rows(database, "select noetl.log_job($1, 'w', 1, 'warning', $2)", job, text)
    url = f"/executions/{execution_id}"
    asked = ("", "&text=two", "&step=load&text=<b>", "&text=three", "&step=nothing")
    pages = [(await api.get(f"{url}?tab=log{more}")).text for more in asked]
    assert [("one &lt;b&gt;" in page, "Two\n" in page) for page in pages] == [
        (True, True), (False, True), (True, False), (False, False), (False, False),
    ]  # fmt: skip
    assert ("Nothing was printed" in pages[3], "has no step nothing" in pages[4]) == (True, True)
    await sign_in(api, database, "viewer")
    hidden = [await api.get(address) for address in (f"{url}?tab=log", url)]
    assert [(answer.status_code, "tab=log" in answer.text) for answer in hidden] == [(403, False), (200, False)]
