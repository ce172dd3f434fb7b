"""What an operator does over HTTP: with one execution, with many, with what waits for a person or a signal."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.brokers import drain, register, rows, start, value
from tests.postgres import Database

API = "/api/v1"
STORY = """
workflow:
  - {step: start, next: load}
  - {step: load, type: http, url: "http://localhost", next: end}
  - {step: end}
"""
FAIL = """
with leased as (select queue_id, attempts from noetl.lease_jobs('test', 10))
select count(noetl.fail_job(queue_id, 'test', attempts, '{"message": "no", "type": "gone"}')) from leased
"""
APPROVAL = """
workflow:
  - {step: start, next: ask}
  - {step: ask, type: approval, title: "?", form: {discount: {type: number, maximum: 30}}, next: end}
  - {step: end, result: "{{ ask.discount }}"}
"""
WAIT = """
workflow:
  - {step: start, next: paid}
  - {step: paid, type: wait, signal: paid, key: "17", next: end}
  - {step: end, result: "{{ paid }}"}
"""


async def do(api: httpx.AsyncClient, method: str, url: str, **given: Any) -> Any:
    """Return the document of an answer that must be a success."""
    answer = await api.request(method, f"{API}{url}", **given)
    assert answer.is_success, answer.text
    return answer.json()


async def begun(database: Database, body: str = STORY, count: int = 1) -> list[str]:
    """Start executions of a playbook and let the broker decide."""
    await register(database, body)
    started = await start(database, count=count)
    await drain(database)
    return [str(each) for each in started]


async def statuses(database: Database) -> list[str]:
    """Return the statuses of all executions, the oldest first, once the broker has read everything."""
    await drain(database)
    return [row[0] for row in await rows(database, "select status from noetl.execution order by execution_id")]


async def test_one_execution_is_paused_resumed_and_cancelled(database: Database, api: httpx.AsyncClient) -> None:
    """A request on one that has ended is not made. A running one has nothing to retry."""
    [execution_id] = await begun(database)
    url, found = f"/executions/{execution_id}", []
    assert (await api.post(f"{API}{url}/retry")).status_code == 409
    for action, body in (("pause", {"reason": "why"}), ("resume", None), *[("cancel", {"reason": "why"})] * 2):
        asked = await do(api, "post", f"{url}/{action}", json=body)
        found.append((asked["requested"], *await statuses(database)))
    assert found == [(True, "PAUSED"), (True, "RUNNING"), (True, "CANCELLED"), (False, "CANCELLED")]


async def test_a_fork_starts_from_a_step_with_given_results(database: Database, api: httpx.AsyncClient) -> None:
    """Its key starts one execution; a step that the playbook lacks is an error."""
    [execution_id] = await begun(database)
    url, body = f"/executions/{execution_id}/fork", {"from": "end", "set": {"load": {"n": 1}}}
    forks = [await do(api, "post", url, json=body, headers={"Idempotency-Key": "a"}) for _ in range(2)]
    assert (forks[0] == forks[1], forks[0]["taken"]) == (True, ["load"])
    assert (await api.post(f"{API}{url}", json={"from": "nowhere"})).status_code == 404
    assert await statuses(database) == ["RUNNING", "COMPLETED"]


async def test_a_bulk_action_goes_on_where_it_stopped(database: Database, api: httpx.AsyncClient) -> None:
    """Each request treats at most `limit` executions. One that does not say "preview": false counts, in groups."""
    started = await begun(database, count=3)
    url = "/executions/bulk/cancel"
    preview = await do(api, "post", url, json={"which": {"path": "sto*"}})
    assert (preview["found"], preview["done"], await statuses(database)) == (3, [], ["RUNNING"] * 3)
    assert [(group["path"], group["executions"]) for group in preview["groups"]] == [("story", 3)]
    body: dict[str, Any] = {"which": {"all": True}, "preview": False, "limit": 2}
    first = await do(api, "post", url, json=body)
    rest = await do(api, "post", url, json={**body, "after": first["next"]})
    assert [one["execution_id"] for one in (*first["done"], *rest["done"])] == started
    assert (rest["next"], await statuses(database)) == (None, ["CANCELLED"] * 3)


async def test_failed_executions_are_retried_on_another_version(database: Database, api: httpx.AsyncClient) -> None:
    """One, which is retried once, and many with a preview that says what each will do; the list marks both."""
    started = await begun(database, count=2)
    await value(database, FAIL)
    await drain(database)
    await register(database, STORY.replace("localhost", "127.0.0.1"), version=2)
    one, again = [
        await do(api, "post", f"/executions/{started[0]}/retry", json={"version": "latest"}) for _ in range(2)
    ]
    assert (one["version"], one["steps"]) == (2, ["load"])
    assert one["recovered_as"] == again["recovered_as"]
    body: dict[str, Any] = {"which": {"version": 1}, "version": 2}
    [group] = (await do(api, "post", "/executions/bulk/retry", json=body))["groups"]
    [fork] = (await do(api, "post", "/executions/bulk/fork", json={**body, "from": "load"}))["groups"]
    assert (group["outlook"], group["goes_on"]) == ("version 2: begins at load, keeps no results", True)
    assert fork == group
    done = await do(api, "post", "/executions/bulk/retry", json={**body, "preview": False})
    assert [each["version"] for each in done["done"]] == [2]
    listed = (await do(api, "get", "/executions", params={"version": 2}))["items"]
    assert [each["forked_from"] for each in listed] == started[::-1]


@pytest.mark.parametrize(
    "action, body",
    [
        ("cancel", {"which": {"all": True}, "version": 2}),
        ("retry", {"which": {"all": True}, "or_from_start": True}),
        ("cancel", {"which": {}, "preview": True}),
        ("fork", {"which": {"all": True}, "preview": True}),
        ("cancel", {"which": {"since": "yesterday"}, "preview": True}),
        ("rename", {"which": {"all": True}, "preview": True}),
    ],
)
async def test_a_bulk_action_must_say_what_and_which(api: httpx.AsyncClient, action: str, body: Any) -> None:
    """Never all by default."""
    assert (await api.post(f"{API}/executions/bulk/{action}", json=body)).status_code == 400


async def test_a_person_decides_an_approval(database: Database, api: httpx.AsyncClient) -> None:
    """A form that breaks its schema is refused; who comes second is told so."""
    [execution_id] = await begun(database, APPROVAL)
    [waiting] = (await do(api, "get", "/approvals"))["items"]
    body = {"execution_id": execution_id, "step": "ask", "approved": True}
    wrong = await api.post(f"{API}/approvals/decisions", json={**body, "form": {"discount": 40}})
    decided = await do(api, "post", "/approvals/decisions", json={**body, "form": {"discount": 5}})
    await drain(database)
    late = await api.post(f"{API}/approvals/decisions", json=body)
    shown = await do(api, "get", f"/executions/{execution_id}")
    assert (waiting["step"], wrong.status_code, decided["decided"], late.status_code) == ("ask", 400, True, 409)
    assert shown["result"] == 5


async def test_a_signal_reaches_who_waits_for_its_key(database: Database, api: httpx.AsyncClient) -> None:
    """One idempotency key sends one signal; one to an execution that has ended is refused."""
    [execution_id] = await begun(database, WAIT)
    url = f"/executions/{execution_id}/signals"
    to_it = await do(api, "post", url, json={"name": "paid"})  # its wait has a key, so it does not take this one
    assert (to_it["signal_id"] is not None, to_it["other_keys"]) == (True, ["17"])
    body = {"name": "paid", "key": 17, "payload": {"n": 1}}
    sent = [await do(api, "post", "/signals", json=body, headers={"Idempotency-Key": "a"}) for _ in range(2)]
    kept = [(one["name"], one["key"]) for one in (await do(api, "get", "/signals", params={"key": "17"}))["items"]]
    await drain(database)
    shown = await do(api, "get", f"/executions/{execution_id}")
    late = await api.post(f"{API}{url}", json={"name": "paid"})
    assert (sent[0] == sent[1], kept, shown["result"], late.status_code) == (True, [("paid", "17")], {"n": 1}, 409)
