"""The pages of approvals, schedules, signals, workers, dead letters and health."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from html import unescape
from urllib.parse import quote

import httpx
import pytest

from noetl_broker.store.connect.migrations import create_roles
from tests.brokers import drain, execute, register, rows, start, value
from tests.console.conftest import console
from tests.console.test_access import token
from tests.console.test_actions import APPROVAL as QUESTION
from tests.console.test_actions import STORY, WAIT, begun
from tests.console.test_bulk_pages import fields_of
from tests.console.test_pages import HOSTILE, sign_in
from tests.postgres import Database, named
from tests.roles import login

APPROVAL = """
workflow:
  - {step: start, next: ask}
  - step: ask
    type: approval
    title: "Pay {{ workload.who }}"
    form:
      discount: {type: number, maximum: 30}
      centre: {type: string, required: true}
      more: {type: object, default: {a: 1}}
    next: end
  - {step: end, result: "{{ ask }}"}
"""
DECIDERS = """
select context ->> 'by', context ->> 'decided_by' from noetl.event where event_type = 'approval_decided'
order by execution_id"""
PAGES = ("/approvals", "/schedules", "/signals", "/workers", "/dead-letters", "/health")


async def send(client: httpx.AsyncClient, page: str, action: str, typed: Mapping[str, str]) -> httpx.Response:
    """Send the form of a page."""
    return await client.post(action, data={**dict(fields_of((await client.get(page)).text, action)), **typed})


async def fill(database: Database) -> None:
    """Give each page something to show, with hostile names."""
    await register(database, STORY)
    await register(database, APPROVAL, path="pay")
    await start(database, "pay", {"who": HOSTILE})
    [execution_id] = await start(database)
    await drain(database)
    await value(database, "select count(*) from noetl.lease_jobs($1, 1)", HOSTILE)
    await value(database, "select noetl.put_schedule($1, 'story', cron => '30 2 * * *')", HOSTILE)
    await value(database, "select noetl.send_signal($1, $1, $2)", HOSTILE, {"a": HOSTILE})
    await execute(
        database,
        "insert into noetl.dead_letter (execution_id, event_id, reason)"
        " select execution_id, event_id, $2 from noetl.event where execution_id = $1 limit 1",
        execution_id,
        HOSTILE,
    )


async def test_an_empty_page_says_what_to_do(api: httpx.AsyncClient) -> None:
    """With a command to copy, but for what nobody wants to have."""
    found = [(await api.get(url)).text for url in PAGES]
    assert ['class="empty"' in text for text in found] == [True, True, True, True, True, False]
    assert ["noetl-broker " in text for text in found] == [True, True, True, True, False, True]


@pytest.mark.parametrize(
    "typed, decision, said, status",
    [
        (("77", "", ""), "approve", "It is 77, the most is 30|It is missing", "RUNNING"),
        (("5", "c", '{"a": 1, "b": 2}'), "approve", "", "COMPLETED"),
        (("", "", ""), "reject", "", "COMPLETED"),
    ],
)
async def test_an_approval_is_decided_in_its_place(
    database: Database, api: httpx.AsyncClient, typed: tuple[str, str, str], decision: str, said: str, status: str
) -> None:
    """A rejection needs no field; a value of a form is sent whole; what is wrong stands at its field."""
    await register(database, APPROVAL, path="pay")
    await start(database, "pay", {"who": "Ada"})
    await drain(database)
    page = (await api.get("/approvals")).text
    names = re.findall(r'<(?:input|textarea)[^>]* name="(a\d[^"]+)"', page)
    fields = dict(zip(names, (*typed, "a comment"), strict=True))  # in the order of the playbook
    answer = await send(api, "/approvals", "/approvals", {**fields, "decision": decision})
    await drain(database)
    [(found, result)] = await rows(database, "select status, result from noetl.execution")
    assert (answer.status_code, found) == (400 if said else 303, status)
    assert [words in unescape(answer.text) for words in said.split("|") if words] == [True] * (2 if said else 0)
    if decision == "approve" and not said:
        assert result["discount"] == 5
        assert result["more"] == {"a": 1, "b": 2}
        assert result["comment"] == "a comment"
        assert result["by"].startswith("login:")


async def test_a_schedule_is_made_changed_paused_filled_and_deleted(database: Database, api: httpx.AsyncClient) -> None:
    """Each after a form of its own; a backfill and a deletion say first what they do. A paused playbook is named."""
    await register(database, STORY)
    new, one = "/schedules/edit", "/schedules/one?name=n%2F1"
    wrong = await send(api, new, new, {"name": "n/1", "path": "story", "cron": "61 * * * *", "payload": "[1]"})
    typed = {"name": "n/1", "path": "story", "cron": "0 * * * *", "payload": "{}", "jitter": "5m", "timezone": "UTC"}
    typed |= {"overlap": "allow", "catch_up": "", "tags": "job=hourly", "priority": "9"}
    made = await send(api, new, new, typed)
    changed = await send(api, f"{new}?name=n%2F1", new, {**typed, "cron": "30 * * * *"})
    kept = ('<option value="allow" selected>', "job=hourly", 'type="text" value="9"')
    shown = (await api.get(f"{new}?name=n%2F1")).text
    assert [text for text in kept if text not in shown] == []
    assert await rows(database, "select overlap, catch_up::text from noetl.start_schedule") == [("allow", "01:00:00")]
    await execute(database, "select noetl.pause_path('story', 'the bank is closed')")
    assert ["the bank is closed" in (await api.get(url)).text for url in ("/schedules", one)] == [True, True]
    await execute(database, "select noetl.resume_path('story')")
    paused = await send(api, one, "/schedules/pause", {})
    resumed = await send(api, one, "/schedules/resume", {})
    preview = await api.get("/schedules/backfill", params={"name": "n/1", "since": "5h"})
    filled = await send(api, "/schedules/backfill?name=n%2F1&since=5h", "/schedules/backfill", {})
    asked = await api.get("/schedules/delete?name=n%2F1")
    deleted = await send(api, "/schedules/delete?name=n%2F1", "/schedules/delete", {})
    assert (wrong.status_code, "It must be a JSON object" in wrong.text, "cron" in wrong.text) == (400, True, True)
    assert [answer.headers["location"] for answer in (made, changed, paused, resumed, filled)] == [one] * 5
    assert ("5 of 5 moments have no execution" in preview.text, "Delete this schedule?" in asked.text) == (True, True)
    assert deleted.headers["location"] == "/schedules"
    assert await rows(database, "select count(*) from noetl.start_schedule") == [(0,)]
    assert await rows(database, "select count(*) from noetl.execution") == [(5,)]


async def test_a_type_that_no_worker_takes_is_named(database: Database, api: httpx.AsyncClient) -> None:
    """On the overview and beside the workers, with the way to the job that waits longest; not once it is taken."""
    await register(database, STORY)
    [execution_id] = await start(database)
    await drain(database)
    await execute(database, "update noetl.queue set available_at = clock_timestamp() - interval '120.5 s'")
    [(kind,)] = await rows(database, "select node_type from noetl.queue")
    said = f"No worker serves {kind}; one job waits for 2 min"
    waiting = [(await api.get(url)).text for url in ("/", "/workers")]
    await execute(database, "select noetl.lease_jobs('w')")
    taken = [(await api.get(url)).text for url in ("/", "/workers")]
    assert [(said in page, f"/executions/{execution_id}?tab=jobs" in page) for page in (*waiting, *taken)] == [
        (True, True), (True, True), (False, False), (False, False),
    ]  # fmt: skip


async def test_a_signal_is_sent_once(database: Database, api: httpx.AsyncClient) -> None:
    """However often its form is sent; what is no JSON stands at its field."""
    url = "/signals/send"
    form = dict(fields_of((await api.get(url)).text, url))
    typed = {**form, "name": "paid", "key": "17", "keep_seconds": "7d"}
    wrong = await api.post(url, data={**typed, "payload": "{", "keep_seconds": "soon"})
    sent = [await api.post(url, data={**typed, "payload": '{"a": 1}'}) for _ in range(2)]
    assert wrong.status_code == 400
    assert "is not JSON" in wrong.text
    assert [answer.headers["location"] for answer in sent] == ["/signals", "/signals"]
    assert await rows(database, "select name, key, payload from noetl.signal") == [("paid", "17", {"a": 1})]


async def test_what_waits_for_a_signal_is_listed(database: Database, api: httpx.AsyncClient) -> None:
    """With a button that sends it; filters choose, and a viewer sees no names and keys."""
    [waiting] = await begun(database, WAIT)
    shown = (await api.get("/signals")).text
    other = (await api.get("/signals", params={"key": "18"})).text
    await sign_in(api, database, "viewer")
    hidden = (await api.get("/signals")).text
    send = "/signals/send?name=paid&amp;key=17"
    assert [waiting in page for page in (shown, other, hidden)] == [True, False, True]
    assert [send in page for page in (shown, other, hidden)] == [True, False, False]
    assert '<span class="mono">17' not in hidden


async def test_the_console_needs_an_operators_login_alone(database: Database) -> None:
    """Every page, a start, a back-test and a bulk action have the rights of `noetl_operator` and no more."""
    await fill(database)
    [(execution_id,)] = await rows(database, "select execution_id from noetl.execution where path = 'story'")
    parts = ("", "/start", "/source", "/versions", "/difference", "/edit")
    chosen = f"id={execution_id}"
    urls = [
        *PAGES,
        *(f"/playbooks{part}?path=story" for part in parts),
        *(f"/executions/act?action={action}&{chosen}" for action in ("cancel", "retry", "reevaluate")),
        *("/", "/playbooks", f"/executions/{execution_id}", f"/executions/{execution_id}?turn=1&step=load"),
        "/executions/act?action=pause&scope=all",
        "/schedules/backfill?name=" + quote(HOSTILE) + "&since=2d",
    ]
    await create_roles(database)
    async with login(database, "console", named("noetl_operator")) as operator, console(operator) as client:
        found = {url: (await client.get(url)).status_code for url in urls}
        edit, begin = "/playbooks/edit?path=story", "/playbooks/start?path=story"
        [[text]] = await rows(database, "select content from noetl.catalog where path = 'story'")
        tested = await send(client, edit, "/playbooks/edit", {"content": text, "do": "check"})
        started = await send(client, begin, "/playbooks/start", {})
        acted = await send(client, f"/executions/act?action=cancel&{chosen}", "/executions/act", {})
        back = await send(client, f"/executions/act?action=reevaluate&{chosen}", "/executions/act", {})
    assert back.headers["location"] == "/dead-letters"
    assert await rows(database, "select count(*) from noetl.dead_letter") == [(0,)]
    assert found == dict.fromkeys(urls, 200)
    assert ("go the same way" in tested.text, started.status_code, acted.status_code) == (True, 303, 303)


@pytest.mark.parametrize("with_token", [True, False])
async def test_the_token_says_who_decides(database: Database, *, with_token: bool) -> None:
    """Without tokens, the login does. A name in the request stands beside it."""
    await begun(database, QUESTION, count=2)
    headers = await token(database, "operator", "ann") if with_token else {}
    async with console(database) as client:
        client.headers.update(headers)
        [one, other] = (await client.get("/api/v1/approvals")).json()["items"]
        body = {"execution_id": one["execution_id"], "step": "ask", "approved": True, "decided_by": "the-ceo"}
        decided = (await client.post("/api/v1/approvals/decisions", json=body)).json()
        typed = {"execution_id": other["execution_id"], "step": "ask", "decision": "approve"}
        await send(client, "/approvals", "/approvals", typed)
    kept = await rows(database, DECIDERS)
    by = "token:ann" if with_token else await value(database, "select 'login:' || session_user")
    assert (decided["by"], kept) == (by, [(by, "the-ceo"), (by, None)])


async def test_many_approvals_are_decided_at_once(database: Database, api: httpx.AsyncClient) -> None:
    """Those whose form has no field that an approval needs; the key says which is which."""
    await register(database, APPROVAL, path="pay")
    await start(database, "pay", {"who": "Ada"})
    ids = await begun(database, QUESTION, count=2)
    await execute(
        database, "update noetl.execution set idempotency_key = 'order-17' where execution_id = $1", int(ids[0])
    )
    page = (await api.get("/approvals")).text
    chosen = re.findall(r'type="checkbox" name="id" form="many" value="([^"]+)"', page)
    typed = {"decision": "approve", "id": [*chosen, "7:ask"], "csrf": dict(fields_of(page, "/approvals"))["csrf"]}
    none = await api.post("/approvals", data={**typed, "decision": "APPROVE"})
    assert (none.status_code, "choose Approve or Reject" in none.text) == (400, True)
    answer = await api.post("/approvals", data=typed)
    said = (await api.get("/approvals")).text
    assert (chosen, "order-17" in page) == ([f"{each}:ask" for each in ids], True)
    assert (answer.status_code, "2 were approved. 1 could not be decided" in said) == (303, True)


async def test_a_schedule_shows_its_past_and_next_moments(database: Database, api: httpx.AsyncClient) -> None:
    """With the execution of each, or why there is none; and how far away the next ones are."""
    await register(database, STORY)
    await value(database, "select noetl.put_schedule('n', 'story', every => '1 hour')")
    await execute(
        database,
        "update noetl.start_schedule set since_at = hour, created_at = hour - interval '210 min',"
        " paused_at = hour - interval '150 min', resumed_at = hour - interval '90 min'"
        " from date_trunc('hour', clock_timestamp()) hour",
    )
    starting = "select execution_id from noetl.start_scheduled('n', $1, 'x', false)"
    [(hour,)] = await rows(database, "select since_at from noetl.start_schedule")
    started = await value(database, starting, hour - timedelta(hours=1))
    page = re.sub(r"\s+", " ", (await api.get("/schedules/one?name=n")).text)
    past = page.partition('id="past"')[2].partition("</section>")[0]
    expected = {f'/executions/{started}"': 1, "was paused": 1, "too late": 2, '<li class="line">': 4}
    assert {words: past.count(words) for words in expected} == expected
    assert re.search(r"in \d+ h", page.partition('id="moments"')[2]) is not None
