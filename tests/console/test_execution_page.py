"""The page of one execution: where it stands, its steps, its past, and what an operator does with it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from noetl_broker.errors import OperatorFault
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service.replays import Replays
from noetl_broker.store.connect.session import session
from noetl_broker.store.queries import sql
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.console.conftest import console
from tests.console.counted import count_statements, of_pages
from tests.console.test_pages import FIELD, sign_in
from tests.postgres import Database

STORY = """
workload: {n: 3, secret: canary-7}
workflow:
  - {step: start, next: [{when: "{{ workload.n > 2 }}", then: [{step: load}]}, {else: [{step: other}]}]}
  - {step: load, type: http, url: "http://localhost", args: {key: "{{ workload.secret }}"}, next: check}
  - {step: check, type: http, url: "http://localhost", next: end}
  - {step: other, type: http, url: "http://localhost", next: end}
  - {step: end, result: "{{ check }}"}
"""
ASKS = """
workflow:
  - {step: start, next: decide}
  - {step: decide, type: approval, title: "Ship <b>it</b>?", form: {discount: {type: number, maximum: 30}}, next: end}
  - {step: end, result: "{{ decide }}"}
"""
WAITS = """
workflow:
  - {step: start, next: go}
  - {step: go, type: wait, signal: go, next: end}
  - {step: end, result: "{{ go }}"}
"""
LEAF = "workflow: [{step: start, type: python, code: x}]"
FAMILY = """
workflow:
  - {step: start, next: each}
  - {step: each, type: iterator, collection: [1, 2], element: n, task: {type: playbook, path: leaf}, mode: parallel}
"""
FAIL = "select noetl.fail_job(queue_id, 'test', attempts, $1) from noetl.lease_jobs('test', 10)"


async def began(database: Database, body: str = STORY) -> int:
    """An execution on which the broker has decided once."""
    await register(database, body)
    [execution_id] = await start(database)
    await drain(database)
    return execution_id


async def halfway(database: Database) -> int:
    """An execution of STORY that is at `check`."""
    execution_id = await began(database)
    await complete_jobs(database, {"rows": "canary-8"})
    await drain(database)
    return execution_id


async def read(client: httpx.AsyncClient, url: str, **params: Any) -> str:
    """The text of a page that must be 200."""
    answer = await client.get(url, params=params)
    assert answer.status_code == 200, answer.text
    return answer.text


async def post(client: httpx.AsyncClient, execution_id: int, action: str, **fields: str) -> httpx.Response:
    """Send a form of the execution's page, with its token; the answer is the page that it leads to."""
    found = FIELD.search(await read(client, f"/executions/{execution_id}/fork"))
    data = {**fields, "csrf": found[1] if found else ""}
    return await client.post(f"/executions/{execution_id}/{action}", data=data, follow_redirects=True)


async def test_a_page_shows_where_an_execution_stands(database: Database, api: httpx.AsyncClient) -> None:
    """Its graph with links, its timeline, what it waits for, its lists by pages, and what is known of a step."""
    execution_id = await halfway(database)
    url = f"/executions/{execution_id}"
    page = await read(api, url)
    shown = ('class="nb time"', "Waits for a worker", "What it waits for", f'data-changes="{execution_id}"')
    assert [words for words in (f'href="{url}?step=check#step"', *shown) if words not in page] == []
    for tab, has_more in (("events", True), ("jobs", True), ("children", False)):
        assert ('rel="next"' in await read(api, url, tab=tab, limit=1)) is has_more
    timeline = await api.get(f"/api/v1{url}/timeline")
    assert (timeline.headers["content-type"], timeline.text[:4]) == ("image/svg+xml", "<svg")
    assert ">check<" in timeline.text

    # Inputs, result, and the condition that led to a step; of one that did not run, the condition that did not.
    load, other = await read(api, url, step="load"), await read(api, url, step="other")
    assert "canary-7" in load.partition("<h3>Inputs</h3>")[2]
    assert "canary-8" in load.partition("<h3>Result</h3>")[2]
    assert ["workload.n &gt; 2" in text.partition("<h3>Why</h3>")[2] for text in (load, other)] == [True, True]
    assert "has no step or visit" in await read(api, url, step="lod")

    # The past after any turn. A list replays nothing: it is read in the event loop, where that would hold up others.
    first, second = [await read(api, url, turn=turn, step="load") for turn in (1, 2)]
    assert ("<h3>Result</h3>" in first, "step_started load" in first) == (False, True)
    assert "canary-8" in second.partition("<h3>Result</h3>")[2]
    assert re.findall(r"after turn <strong>(\d+)</strong> of (\d+)", second) == [("2", "2")]
    missing = [(await api.get(url, params={"turn": 999, "tab": tab})).status_code for tab in ("", "events")]
    assert missing == [404, 200]


async def test_a_page_whose_past_is_refused_shows_the_execution_as_it_is(
    database: Database, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says why there is no past, or no slider."""
    execution_id = await halfway(database)
    monkeypatch.setattr("noetl_broker.service.replays.MOST_BYTES", 0)
    large = await read(api, f"/executions/{execution_id}", turn=1, step="load")
    await execute(database, "update noetl.execution_state set turn = 10001")
    long = await read(api, f"/executions/{execution_id}", turn=1, step="load")
    assert "The past is not shown: its history has 0 MiB" in large
    assert "The slider shows the past of up to 10,000" in long
    assert ["canary-8" in page.partition("<h3>Result</h3>")[2] for page in (large, long)] == [True, True]


async def test_a_past_visit_has_its_own_result_alone(database: Database, api: httpx.AsyncClient) -> None:
    """Of a step that ran twice, only the last result is known after a turn."""
    execution_id = await began(database, STORY.replace("next: check}", "next: [load]}"))
    for name in ("first", "second"):
        await complete_jobs(database, {"rows": name})
        await drain(database)
    visits = [await read(api, f"/executions/{execution_id}", turn=3, step=name) for name in ("load#1", "load#2")]
    results = [page.partition("<h3>Result</h3>")[2].partition("</pre>")[0] for page in visits]
    assert ["second" in result for result in results] == [False, True]


async def test_children_are_in_the_timeline_and_in_a_tab(database: Database, api: httpx.AsyncClient) -> None:
    """Each with the index of its item."""
    await register(database, LEAF, path="leaf")
    execution_id = await began(database, FAMILY)
    found = await rows(database, "select execution_id from noetl.execution where path = 'leaf'")
    children = [child for (child,) in found]
    assert len(children) == 2
    page = await read(api, f"/executions/{execution_id}")
    assert all(f"/executions/{child}" in page for child in children)
    tab = await read(api, f"/executions/{execution_id}", tab="children")
    assert [f"each[{index}]" in tab for index in range(3)] == [True, True, False]


async def test_an_operator_pauses_resumes_and_cancels(database: Database, api: httpx.AsyncClient) -> None:
    """A cancel is asked for first."""
    execution_id = await began(database)
    found = []
    for action in ("pause", "resume", "cancel"):
        page = await read(api, f"/executions/{execution_id}")
        assert [f"/{execution_id}/{action}" in page, f"</svg>{action.capitalize()}</" in page] == [True, True]
        await post(api, execution_id, action, reason="a reason")
        await drain(database)
        found += await rows(database, "select status from noetl.execution")
    form = await read(api, f"/executions/{execution_id}/cancel")
    assert (found, "cannot be taken back" in form) == ([("PAUSED",), ("RUNNING",), ("CANCELLED",)], True)


async def test_an_approval_is_decided_in_place(database: Database, api: httpx.AsyncClient) -> None:
    """With the values of its form, in the types of its schema; one that breaks it is refused."""
    execution_id = await began(database, ASKS)
    page = await read(api, f"/executions/{execution_id}")
    discount, comment = re.findall(r'name="(a[^"]+)"', page)
    fields = {"step": "decide", comment: "fine", "decision": "approve"}
    wrong = await post(api, execution_id, "decide", **fields, **{discount: "40"})
    right = await post(api, execution_id, "decide", **fields, **{discount: "4.5"})
    await drain(database)
    [(result,)] = await rows(database, "select result from noetl.execution")
    assert "Ship &lt;b&gt;it&lt;/b&gt;?" in page
    assert wrong.status_code == 400
    assert "is approved by login:" in right.text
    assert result["discount"] == 4.5
    assert result["comment"] == "fine"


async def test_a_signal_is_sent(database: Database, api: httpx.AsyncClient) -> None:
    """Its payload is JSON; text that is none is shown again with the fault."""
    execution_id = await began(database, WAITS)
    wrong = await post(api, execution_id, "signal", name="go", key="", payload="{n: 1}")
    await post(api, execution_id, "signal", name="go", key="", payload='{"n": 1}')
    await drain(database)
    assert (wrong.status_code, "is not JSON" in wrong.text, "{n: 1}" in wrong.text) == (400, True, True)
    assert await rows(database, "select status, result from noetl.execution") == [("COMPLETED", {"n": 1})]


async def test_a_failed_execution_is_retried_and_forked(database: Database, api: httpx.AsyncClient) -> None:
    """A fork with another result of a step hands it to what comes after."""
    execution_id = await halfway(database)
    await value(database, FAIL, {"type": "ValueError", "message": "no price", "traceback": "line 7"})
    await drain(database)
    page = await read(api, f"/executions/{execution_id}")
    form = await read(api, f"/executions/{execution_id}/fork", of="load")
    retried = await post(api, execution_id, "retry")
    forked = await post(api, execution_id, "fork", step="check", of="load", value='{"rows": 5}', version="")
    again = await post(api, execution_id, "again", payload='{"n": 1}')
    await drain(database)
    assert "canary-8" not in await read(api, forked.url.path, step="load")
    assert ["no price" in page, "<summary>Traceback</summary>" in page, "canary-8" in form] == [True, True, True]
    assert ["How it came to this" in page, "noetl-broker retry" in page, '<option value="check" selected>' in form] == [
        True,
        False,
        True,
    ]
    assert 'aria-label="Last turn"' not in page
    assert [
        f"continues {execution_id} from check" in retried.text and "<dt>Continues</dt>" in retried.text,
        "the results of load" in forked.text,
    ] == [True, True]
    assert "with this workload" in again.text
    assert await rows(database, "select status, forked_from from noetl.execution order by execution_id") == [
        ("FAILED", None),
        ("RUNNING", execution_id),
        ("RUNNING", execution_id),
        ("RUNNING", None),
    ]
    assert await value(database, "select count(*) from noetl.queue where node_name = 'other'") == 1


async def test_a_past_that_is_too_long_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of its turns; what is kept answers for earlier turns while the execution goes on."""
    execution_id = await halfway(database)
    replays = Replays()
    async with session(database, name="test") as connection:
        kept = await replays.past(connection, execution_id, 2, PlaybookRules())
        again = await replays.past(connection, execution_id, 1, PlaybookRules())
        monkeypatch.setattr("noetl_broker.service.replays.MOST_TURNS", 1)
        with pytest.raises(OperatorFault, match=r"has 2 turns; the console shows the past of up to 1$"):
            await Replays().past(connection, execution_id, 1, PlaybookRules())
    assert (len(kept.turns), again is kept) == (2, True)


async def test_of_a_long_log_the_end_is_shown(database: Database, api: httpx.AsyncClient) -> None:
    """Its beginning is left to the command."""
    execution_id = await began(database)
    [(job,)] = await rows(database, "select queue_id from noetl.lease_jobs('w', 1)")
    lines = "select noetl.log_job($1, 'w', 1, 'info', 'line ' || n || '.') from generate_series(1, 250) n"
    await rows(database, lines, job)
    page = await read(api, f"/executions/{execution_id}", step="load")
    shown = re.findall(r"line (\d+)\.", page)
    assert (shown[0], shown[-1], len(shown)) == ("51", "250", 200)


WIDE = """
workload: {items: 0}
workflow:
  - {step: start, next: each}
  - step: each
    type: iterator
    distribute: true
    mode: async
    collection: "{{ range(workload.items) | list }}"
    element: item
    on_error: continue
    task: {type: http, url: "http://localhost", args: {item: "{{ item }}"}}
    next: end
  - {step: end}
"""
TABS = ("?tab=items", "?tab=items&status=COMPLETED", "?tab=events", "?tab=jobs")
OF_WIDE = ("", "?why=1", "?step=each", *TABS, "/retry", "/signal", "/cancel")
MOST_ITEMS = 60  # of a page and more


async def test_pages_of_many_items_ask_and_show_no_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither open items nor ended ones: lists have pages, everything else counts them."""
    asked, found = count_statements(monkeypatch), []
    await register(database, WIDE)
    async with console(database) as client:
        for count in (1, MOST_ITEMS, 2 * MOST_ITEMS):  # the first connects
            [execution] = await start(database, payload={"items": count})
            await drain(database)
            for _ in range(2):
                asked.clear()
                pages = [await client.get(f"/executions/{execution}{address}") for address in OF_WIDE]
                assert {page.status_code for page in pages} == {200}
                found.append((of_pages(asked), [len(page.text) // 4_096 for page in pages]))
                await complete_jobs(database, {"rows": 7})
                await drain(database)
    few, many = found[2:4], found[4:]
    assert [statements for statements, _ in few] == [statements for statements, _ in many]
    grown = [
        (address, small, large)
        for (_, before), (_, after) in zip(few, many, strict=True)
        for address, small, large in zip(OF_WIDE, before, after, strict=True)
        if large > small + 1
    ]
    assert grown == []


async def test_a_long_execution_that_ended_is_explained_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a retry or an undo has something to add; for a viewer by itself, without values."""
    asked, counts = count_statements(monkeypatch), []
    monkeypatch.setattr("noetl_broker.service.views.EXPLAINED_TURNS", 1)
    execution = await halfway(database)
    await complete_jobs(database, {"rows": 7})
    await drain(database)
    await execute(database, "update noetl.execution set ended_at = ended_at - interval '2 min'")
    async with console(database) as client:
        for case in ("operator", "again", "viewer", "retried"):
            if case == "viewer":
                await sign_in(client, database, "viewer")
            if case == "retried":
                await execute(
                    database, "update noetl.execution set forked_from = $1 where execution_id = $1", execution
                )
            asked.clear()
            page = await client.get(f"/executions/{execution}", params={"why": "1"})
            assert ("How it came to this" in page.text, "canary" in page.text) == (True, case in {"operator", "again"})
            counts.append(asked[sql("explain_turns")])
    assert counts == [1, 0, 1, 1]


async def test_the_log_of_all_steps_is_searched(api: httpx.AsyncClient, database: Database) -> None:
    """By a part of a line, and by step; a text that no entry has says so, and a viewer sees no log."""
    execution_id = await began(database)
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
