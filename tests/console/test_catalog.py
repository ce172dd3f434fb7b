"""Playbooks, schedules, step types, workers and dead letters over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx

from tests.brokers import complete_jobs, drain, execute, register, rows, start
from tests.console.test_actions import API, STORY, do
from tests.postgres import Database
from tests.stories import document

EDITED = STORY.replace("{step: start, next: load}", "{step: start, next: end}")
SET_ASIDE = """
with aside as (delete from noetl.inbox returning execution_id, event_id)
insert into noetl.dead_letter (execution_id, event_id, reason) select execution_id, event_id, 'a bug' from aside
"""
# With an end: at midnight the last five days would be others.
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
FIVE_DAYS = {"since": (NOON - timedelta(days=8)).isoformat(), "until": (NOON - timedelta(days=3)).isoformat()}
SECOND = "insert into noetl.catalog (path, version, name, content) values ('story', 2, 'story', $1)"


async def test_versions_have_a_source_and_a_difference(database: Database, api: httpx.AsyncClient) -> None:
    """The list shows the latest version of each path. An unknown playbook is 404, and a near one is named."""
    await register(database, STORY)
    await execute(database, SECOND, document(EDITED))
    listed = (await do(api, "get", "/playbooks"))["items"]
    assert [(one["path"], one["version"], one["paused"]) for one in listed] == [("story", 2, False)]
    versions = (await do(api, "get", "/playbooks/versions", params={"path": "story"}))["items"]
    assert [one["version"] for one in versions] == [2, 1]
    one = {"path": "story", "version": 1}
    assert (await do(api, "get", "/playbooks/source", params=one))["content"] == document(STORY)
    difference = (await do(api, "get", "/playbooks/difference", params={**one, "other": 2}))["diff"]
    changed = [line for line in difference.splitlines() if line[:1] in "+-"][2:]
    assert changed == ["-  - {step: start, next: load}", "+  - {step: start, next: end}"]
    for what in ("versions", "source", "graph"):
        answer = await api.get(f"{API}/playbooks/{what}", params={"path": "stor"})
        assert (answer.status_code, '"story"' in answer.json()["detail"]) == (404, True)


async def test_a_text_is_checked_before_it_is_registered(database: Database, api: httpx.AsyncClient) -> None:
    """With the step types and the playbooks of the catalog."""
    await execute(database, "select noetl.announce_step_types('{resize}')")
    good = document("workflow:\n  - {step: start, next: a}\n  - {step: a, type: resize}\n")
    bad = document("workflow:\n  - {step: start, next: nowhere}\n")
    found = [await do(api, "post", "/playbooks/validate", json={"content": text}) for text in (good, bad)]
    assert [(one["valid"], bool(one["findings"])) for one in found] == [(True, False), (False, True)]


async def test_a_back_test_says_where_executions_diverge(database: Database, api: httpx.AsyncClient) -> None:
    """The same text diverges nowhere; a text with errors gives its findings. What was erased is not compared."""
    await register(database, STORY)
    started = await start(database, count=2)
    await drain(database)
    texts = (document(STORY), document(EDITED), document("workflow: []\n"))
    same, other, wrong = [await do(api, "post", "/playbooks/back-test", json={"content": text}) for text in texts]
    [group] = other["groups"]
    assert (same["executions"], same["same"], other["parting"], group["step"]) == (2, 2, 2, "start")
    assert (wrong["executions"], bool(wrong["findings"])) == (0, True)
    assert {one["execution_id"] for one in group["examples"]} == {str(one) for one in started}
    await complete_jobs(database)
    await drain(database)
    await do(api, "post", f"/executions/{started[0]}/erase", json={"preview": False})
    left = await do(api, "post", "/playbooks/back-test", json={"content": texts[0]})
    assert (left["executions"], left["same"]) == (1, 1)


async def test_a_paused_path_queues_new_executions(database: Database, api: httpx.AsyncClient) -> None:
    """Its resume admits them."""
    await register(database, STORY)
    paused = await do(api, "post", "/playbooks/pause", params={"path": "story"}, json={"reason": "why"})
    await start(database)
    await drain(database)
    before = await rows(database, "select status from noetl.execution")
    resumed = await do(api, "post", "/playbooks/resume", params={"path": "story"})
    pattern = await api.post(f"{API}/playbooks/pause", params={"path": "s*"})
    assert (paused["changed"], before, resumed["admitted"], pattern.status_code) == (True, [("QUEUED",)], 1, 400)


async def test_a_schedule_is_put_shown_paused_and_deleted(database: Database, api: httpx.AsyncClient) -> None:
    """A name may have slashes, as that of one which a playbook declares. A backfill starts at most `limit` at once."""
    await register(database, STORY)
    url = "/schedules/team/nightly"
    put = [(await do(api, "put", url, json={"path": "story", "cron": "@daily"}))["changed"] for _ in range(2)]
    shown = await do(api, "get", url)
    assert (put, shown["cron"], shown["catch_up"]) == ([True, False], "@daily", 3600.0)
    assert len((await do(api, "get", f"{url}/next", params={"count": 3}))["next"]) == 3
    body = {**FIVE_DAYS, "preview": True}
    preview = await do(api, "post", f"{url}/backfill", json=body)
    started = await do(api, "post", f"{url}/backfill", json={**body, "preview": False, "limit": 2})
    after = await do(api, "post", f"{url}/backfill", json=body)
    assert (preview["found"], len(started["done"]), started["failed"], after["found"]) == (5, 2, [], 3)
    assert (await do(api, "post", f"{url}/pause"))["changed"]
    assert (await do(api, "get", "/schedules", params={"path": "sto*"}))["items"][0]["paused"]
    assert (await do(api, "delete", url))["changed"]
    assert (await api.get(f"{API}{url}")).status_code == 404


async def test_step_types_are_added_and_removed(api: httpx.AsyncClient) -> None:
    """A type of the broker itself is refused."""
    added = await do(api, "put", "/step-types/resize")
    listed = [one["name"] for one in (await do(api, "get", "/step-types"))["items"]]
    removed = [(await do(api, "delete", "/step-types/resize"))["changed"] for _ in range(2)]
    own = {(await api.put(f"{API}/step-types/{name}")).status_code for name in ("wait", "python")}
    assert (added["changed"], listed, removed, own) == (True, ["resize"], [True, False], {400})


async def test_leases_are_listed_by_worker(database: Database, api: httpx.AsyncClient) -> None:
    """Each lease names its execution."""
    await register(database, STORY)
    started = await start(database, count=2)
    await drain(database)
    await execute(database, "select from noetl.lease_jobs('ann', 10)")
    [worker] = (await do(api, "get", "/workers"))["items"]
    assert (worker["worker_id"], worker["leases"]) == ("ann", 2)
    leases = (await do(api, "get", "/workers/leases", params={"worker_id": "ann"}))["items"]
    assert {one["execution_id"] for one in leases} == {str(one) for one in started}


async def test_dead_letters_go_back_to_the_broker(database: Database, api: httpx.AsyncClient) -> None:
    """They are listed with their reasons."""
    await register(database, STORY)
    [execution_id] = await start(database)
    await execute(database, SET_ASIDE)
    [letter] = (await do(api, "get", "/dead-letters", params={"reason": "bug"}))["items"]
    back = await do(api, "post", f"/executions/{execution_id}/reevaluate")
    left = (await do(api, "get", "/dead-letters"))["items"]
    assert (letter["reason"], back["put_back"], left) == ("a bug", 1, [])


async def test_health_says_whether_the_database_answers(api: httpx.AsyncClient) -> None:
    """Its findings are those of the command doctor."""
    assert await do(api, "get", "/health") == {"status": "ok"}
    found = (await do(api, "get", "/health/findings"))["findings"]
    assert "connection" in [one["check"] for one in found]
