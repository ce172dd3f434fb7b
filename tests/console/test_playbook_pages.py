"""The pages of playbooks: list, graph, start form, source, differences, the check of an edited text, pause."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx

from tests.brokers import drain, execute, register, rows, start, value
from tests.console.conftest import console
from tests.console.test_bulk_pages import fields_of
from tests.console.test_pages import HOSTILE, sign_in
from tests.postgres import Database

ORDER = """
workload: {order: 17, region: eu, greeting: "Hello {{ workload.order }}", extra: {a: 1, b: 2}}
workload_schema:
  required: [order, email]
  additionalProperties: false
  properties:
    order: {type: integer, minimum: 1}
    region: {enum: [eu, us]}
    email: {type: string}
    greeting: {type: string}
    extra: {type: object}
    express: {type: boolean}
workflow:
  - {step: start, next: [{when: "{{ workload.order > 5 }}", step: big}, {step: small}]}
  - {step: big, type: http, url: "http://localhost", next: end}
  - {step: small, type: http, url: "http://localhost", next: end}
  - {step: end}
"""
FORM = """
workload: {o: {a: {b: 1, c: 2}}, s: x}
workload_schema:
  additionalProperties: false
  properties:
    n: {type: number}
    o: {type: object, properties: {d: {type: integer}}}
    e: {enum: [a, 1]}
    s: {type: string}
workflow: [{step: start}]
"""


async def posted(client: httpx.AsyncClient, page: str, action: str, **typed: str) -> httpx.Response:
    """Send the form of a page, with what a person typed."""
    text = (await client.get(page)).text
    return await client.post(action, data={**dict(fields_of(text, action)), **typed})


async def test_values_of_a_form(database: Database, api: httpx.AsyncClient) -> None:
    """What is as the form showed it is not sent: the default stands. A fault stands at its field, also a deeper one."""
    await register(database, FORM)
    shown = {"v0": "", "v1": '{"a": {"b": 1, "c": 2}}', "v2": "", "v3": "x"}
    cases: list[tuple[dict[str, str], dict[str, Any] | list[str]]] = [
        ({}, {}),
        ({"v0": " 7 ", "v2": "1"}, {"n": 7, "e": 1}),
        ({"v0": "1.5", "v3": ""}, {"n": 1.5, "s": ""}),
        ({"v1": '{"a": {"b": 1, "c": 3}, "d": 4}'}, {"o": {"a": {"c": 3}, "d": 4}}),
        ({"v1": '{"a": {"b": true, "c": 2.0}}'}, {"o": {"a": {"b": True, "c": 2.0}}}),
        ({"v0": "NaN", "v2": "2"}, ["'NaN' is not a number", "it is none of the values to choose from"]),
        ({"v1": '{"a": NaN}'}, ["it is not JSON: NaN is not a JSON number"]),
        ({"v1": "[" * 100_000}, ["it is nested too deeply"]),
        ({"v1": '{"d": "x"}'}, ["d is 'x'"]),
    ]
    url, sent = "/playbooks/start", []
    for typed, expected in cases:
        answer = await posted(api, f"{url}?path=story", url, **{**shown, **typed})
        if isinstance(expected, list):
            assert answer.status_code == 400
            assert [words for words in expected if words not in unescape(answer.text)] == []
        else:
            assert answer.status_code == 303, answer.text
            sent.append(expected)
    found = await rows(database, "select context -> 'workload' from noetl.event order by event_id")
    assert [row[0] for row in found] == sent


async def test_a_form_starts_one_execution(database: Database, api: httpx.AsyncClient) -> None:
    """However often it is sent; what is wrong with a value stands beside it, and what was typed stays."""
    await register(database, ORDER)
    url = "/playbooks/start"
    wrong = await posted(api, "/playbooks/start?path=story", url, v0="0", v1='"us"', v2="", v4='{"a": 1}')
    form = dict(fields_of((await api.get("/playbooks/start?path=story")).text, url))
    typed = {"v0": "17", "v1": '"us"', "v2": "ada", "v3": "", "v4": '{"b": 3}'}
    twice = [await api.post(url, data={**form, **typed}) for _ in range(2)]
    other = await api.post(url, data={**form, **typed, "v2": "bob"})
    assert wrong.status_code == 400
    assert [said in wrong.text for said in ("It is 0, the least is 1", "It is missing", "default: &#34;Hello {{")] == [
        True,
        True,
        True,
    ]
    assert twice[0].headers["location"] == twice[1].headers["location"] != other.headers["location"]
    assert await rows(database, "select context -> 'workload' from noetl.event order by event_id") == [
        ({"region": "us", "email": "ada", "extra": {"b": 3}},),
        ({"region": "us", "email": "bob", "extra": {"b": 3}},),
    ]


async def test_an_edited_text_is_compared_with_executions(database: Database, api: httpx.AsyncClient) -> None:
    """Before anybody registers it: which would differ, where and why; a text with errors is compared with nothing."""
    await register(database, ORDER)
    [big] = await start(database, payload={"email": "a"})
    await start(database, payload={"email": "a", "order": 3})
    await drain(database)
    [[text]] = await rows(database, "select content from noetl.catalog")
    answers = [
        await posted(api, "/playbooks/edit?path=story", "/playbooks/edit", content=content, do="check", limit="20")
        for content in (text.replace("> 5", "> 20"), text.replace("next: end", "nxt: end"), text)
    ]
    found = [re.findall(r'class="figure">(\d+)<', answer.text) for answer in answers]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert found == [["1", "1"], [], ["2", "0"]]
    assert f'href="/executions/{big}?turn=1"' in answers[0].text
    assert "did you mean `next`?" in answers[1].text
    assert await rows(database, "select count(*) from noetl.catalog") == [(1,)]


async def test_an_edited_text_outlives_its_session(database: Database) -> None:
    """Who is signed out gets the text back, and sends it again after signing in; a page of others gets nothing."""
    await register(database, ORDER, path="orders")
    url = "/playbooks/edit"
    async with console(database) as client:
        await sign_in(client, database, "operator")
        kept = await client.get(url, params={"path": "orders"})
        content = f"{await value(database, 'select content from noetl.catalog')}# mine <b>\n"
        session = client.cookies["noetl_session"]
        own = {"Origin": str(client.base_url).rstrip("/")}
        answers, typed = [], dict[str, str]()
        for signed_in in (False, True, True):
            client.cookies.delete("noetl_session")
            if signed_in:
                client.cookies.set("noetl_session", session)
            typed = {**dict(fields_of(kept.text, url)), "content": content, "limit": "20"}
            kept = await client.post(url, data=typed, headers=own)
            answers.append((kept.status_code, "# mine &lt;b&gt;" in kept.text))
        foreign = await client.post(url, data=typed, headers={"Origin": "http://elsewhere.example"})
    assert (answers, "# mine" in foreign.text) == ([(401, True), (403, True), (200, True)], False)


async def test_the_parts_of_a_playbook(database: Database, api: httpx.AsyncClient) -> None:
    """Hostile texts are texts; findings stand beside their lines; a version has its own address."""
    path = f"a/{HOSTILE}\u202e"
    await register(database, ORDER.replace("step: small", "stepp: small", 1), path=path)
    await execute(
        database,
        "insert into noetl.catalog (path, version, name, content)"
        " select path, 2, name, content || '# ' || $1 from noetl.catalog",
        HOSTILE,
    )
    urls = ("/playbooks", "/playbooks/source", "/playbooks/versions", "/playbooks/difference", "/playbooks/edit")
    pages = [await api.get(url, params={"path": path}) for url in urls]
    found = [(await api.get("/playbooks", params={"search": text})).text for text in ("/", "zz", "a/*")]
    assert ["/playbooks?path=a" in page for page in found] == [True, False, True]
    listed, old = await api.get("/playbooks"), await api.get("/playbooks", params={"path": path, "version": 1})
    assert [(page.status_code, "<script>alert" in page.text) for page in [*pages, listed, old]] == [(200, False)] * 7
    assert 'class="said bad"' in pages[1].text
    assert ['<li class="new">' in pages[3].text, "equal lines" in pages[3].text] == [True, True]
    assert "This is version 1; the latest is" in old.text


async def test_a_path_is_paused_and_resumed(database: Database, api: httpx.AsyncClient) -> None:
    """New executions are queued meanwhile."""
    await register(database, ORDER)
    page = "/playbooks?path=story"
    for action, status in (("pause", "QUEUED"), ("resume", "RUNNING")):
        answer = await posted(api, page, f"/playbooks/{action}", reason="why")
        assert answer.headers["location"] == page
        await start(database, payload={"email": "a"})
        await drain(database)
        assert {row[0] for row in await rows(database, "select status from noetl.execution")} == {status}


async def test_a_viewer_sees_graph_and_versions_alone(database: Database) -> None:
    """Without conditions and without forms."""
    await register(database, ORDER)
    urls = ["/playbooks", "/playbooks/versions", "/playbooks/source", "/playbooks/start", "/playbooks/edit"]
    async with console(database) as client:
        await sign_in(client, database, "viewer")
        answers = [await client.get(url, params={"path": "story"}) for url in [*urls, "/playbooks/difference"]]
    assert [answer.status_code for answer in answers] == [200, 200, 403, 403, 403, 403]
    assert "workload.order" not in answers[0].text
    assert [len(re.findall(r'method="post"', answer.text)) for answer in answers[:2]] == [2, 2]
