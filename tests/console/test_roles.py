"""What each role of a token may do, by the API and in the pages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.brokers import drain, execute, register, rows, start, value
from tests.console.conftest import console
from tests.console.test_access import token
from tests.postgres import Database, named
from tests.roles import logins

ENDS = "workflow: [{step: start, next: end}, {step: end, result: 7}]"
ASKS = "workflow: [{step: start, next: ask}, {step: ask, type: approval, title: Pay 7?, form: {n: {type: integer}}}]"
OWN = """\
apiVersion: noetl.io/v1
kind: Playbook
metadata:
  path: story
  schedule: {name: often, every: 1d}
  on_signal: [{signal: paid}]
workflow: [{step: start, next: end}, {step: end}]
"""
HALTED = (
    "select (select paused from noetl.start_schedule), (select since_at = 'infinity' from noetl.on_signal),"
    " (select max(version) from noetl.catalog)"
)


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a console whose login operates and registers."""
    async with logins(database) as roles:
        login = await value(roles.operator, "select session_user::text")
        await execute(database, f'grant {named("noetl_author")} to "{login}"')
        async with console(roles.operator) as made:
            yield made


async def test_a_producer_starts_and_sees_what_came_of_it(database: Database, client: httpx.AsyncClient) -> None:
    """By its own token: the start of another one is not found, as if there were none."""
    await register(database, ENDS)
    mine, other = await token(database, "producer"), await token(database, "producer", "other")
    made = (await client.post("/api/v1/executions", headers=mine, json={"path": "story"})).json()["execution_id"]
    await drain(database)
    url = f"/api/v1/executions/{made}"
    found = (await client.get(f"{url}/outcome", headers=mine)).json()
    assert (found["status"], found["result"]) == ("COMPLETED", 7)
    assert await rows(database, "select started_by from noetl.execution") == [("token:producer",)]
    refused = [(await client.get(f"{url}/outcome", headers=other)).status_code]
    refused += [(await client.get(each, headers=mine)).status_code for each in (url, "/api/v1/executions", "/workers")]
    refused += [(await client.post(f"{url}/cancel", headers=mine)).status_code]
    assert refused == [404, 403, 403, 403, 403]


async def test_an_approver_decides_and_sees_nothing_else(database: Database, client: httpx.AsyncClient) -> None:
    """It sees the question and the form. Its page does not ask for changes, which it may not see."""
    await register(database, ASKS)
    (execution,) = await start(database)
    await drain(database)
    mine = await token(database, "approver")
    [waiting] = (await client.get("/api/v1/approvals", headers=mine)).json()["items"]
    assert (waiting["title"], waiting["form"]) == ("Pay 7?", {"n": {"type": "integer"}})
    page = (await client.get("/approvals", headers=mine)).text
    assert ("Approve" in page, "data-changes" in page) == (True, False)
    assert (await client.get("/", headers=mine)).headers["location"] == "/approvals"
    refused = [(await client.get(each, headers=mine)).status_code for each in ("/executions", "/api/v1/playbooks")]
    decision = {"execution_id": str(execution), "step": "ask", "approved": True}
    answer = await client.post("/api/v1/approvals/decisions", headers=mine, json=decision)
    assert (refused, answer.status_code, answer.json()["by"]) == ([403, 403], 200, "token:approver")


async def test_what_an_author_registers_waits_for_an_operator(database: Database, client: httpx.AsyncClient) -> None:
    """Its schedules and signals; executions may start. An operator resumes both."""
    roles = {role: await token(database, role) for role in ("viewer", "author", "operator")}
    url, text = "/api/v1/playbooks", {"content": OWN}
    refused = await client.put(url, headers=roles["viewer"], json=text)
    wrong = (await client.put(url, headers=roles["author"], json={"content": "kind: Playbook"})).json()
    made = (await client.put(url, headers=roles["author"], json=text)).json()
    assert (refused.status_code, wrong["path"], bool(wrong["findings"])) == (403, None, True)
    assert made == {"findings": [], "path": "story", "version": 1, "new": True, "notes": []}
    assert await rows(database, HALTED) == [(True, True, 1)]
    source = await client.get("/playbooks/edit?path=story", headers=roles["author"])
    assert (source.status_code, "Check" in source.text) == (200, True)
    assert (await client.post(f"{url}/pause?path=story", headers=roles["author"], json={})).status_code == 403
    for each in (f"{url}/resume?path=story", "/api/v1/schedules/story%23often/resume"):
        assert (await client.post(each, headers=roles["operator"])).status_code == 200
    assert await rows(database, HALTED) == [(False, False, 1)]
    await client.put(url, headers=roles["operator"], json={"content": OWN.replace("1d", "2d")})
    assert await rows(database, HALTED) == [(False, False, 2)]
