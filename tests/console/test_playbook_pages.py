"""The pages of playbooks: list, graph, start form, source, differences, the check of an edited text, pause."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from noetl_broker.console.pages.schema_form import (
    changed_only,
    inputs_of_workload,
    read_inputs,
    with_errors,
)
from noetl_broker.console.pages.screen import SentForm
from noetl_broker.service.source_lines import compare_texts
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
SCHEMA: dict[str, Any] = {
    "properties": {"n": {"type": "integer"}, "o": {"type": "object"}, "e": {"enum": ["a", 1]}, "s": {"type": "string"}},
    "additionalProperties": False,
}


async def posted(client: httpx.AsyncClient, page: str, action: str, **typed: str) -> httpx.Response:
    """Send the form of a page, with what a person typed."""
    text = (await client.get(page)).text
    return await client.post(action, data={**dict(fields_of(text, action)), **typed})


def read(**typed: str) -> tuple[dict[str, Any], list[str | None]]:
    """The values and errors of a form with these fields."""
    inputs = inputs_of_workload(SCHEMA, {"o": {"a": {"b": 1, "c": 2}}, "s": "x"})
    shown = {one.field: [typed.get(one.field, one.shown)] for one in inputs}
    filled = read_inputs(SentForm(None, shown), inputs)  # type: ignore[arg-type] # its fields alone
    return filled.values, [one.error for one in filled.inputs if one.error]


@pytest.mark.parametrize(
    "typed, values, errors",
    [
        ({}, {}, []),
        ({"v0": " 7 ", "v2": "1"}, {"n": 7, "e": 1}, []),
        ({"v0": "1.5", "v3": ""}, {"n": 1.5, "s": ""}, []),
        ({"v0": "NaN", "v2": "2"}, {}, ["'NaN' is not a number", "it is none of the values to choose from"]),
        ({"v1": '{"a": {"b": 1, "c": 3}, "d": 4}'}, {"o": {"a": {"c": 3}, "d": 4}}, []),
        ({"v1": '{"a": NaN}'}, {}, ["it is not JSON: NaN is not a JSON number"]),
        ({"v1": "[" * 100_000}, {}, ["it is not JSON: it is nested too deeply, it has at most 190 levels"]),
    ],
)
def test_values_of_a_form(typed: dict[str, str], values: dict[str, Any], errors: list[str]) -> None:
    """What is as the form showed it is not sent: the default stands, with its templates."""
    assert read(**typed) == (values, errors)


def test_equal_parts_of_a_default_are_not_sent() -> None:
    """JSON has true and 1, 1 and 1.0 as different values."""
    assert changed_only({"a": 1, "b": True, "c": {"d": 1}}, {"a": 1.0, "b": 1, "c": {"d": 1}}) == {"a": 1.0, "b": 1}


def test_a_fault_stands_at_its_field() -> None:
    """Also one that is deeper, or in a value whose name is no word; the others stand above the form."""
    inputs = inputs_of_workload({"properties": {"a": {}, "a b": {}}, "additionalProperties": False}, {})
    places = [
        {"path": "a.c[0]", "message": "is 1"},
        {"path": "['a b']", "message": "is missing"},
        {"path": "", "message": "x"},
    ]
    marked, rest = with_errors(inputs, places)
    assert ([one.error for one in marked], rest) == (["c[0] is 1", "It is missing"], ["the workload x"])


def test_a_difference_has_both_numbers() -> None:
    """And says how many lines are equal."""
    before = "\n".join("abcdefghij")
    found = [tuple(line) for line in compare_texts(before, before.replace("f", "F"))]
    assert (found[0], found[4:6], found[-1], compare_texts(before, before)) == (
        ("gap", None, None, "2 equal lines"),
        [("old", 6, None, "f"), ("new", None, 6, "F")],
        ("gap", None, None, "1 equal line"),
        [],
    )


async def test_a_form_starts_one_execution(database: Database, api: httpx.AsyncClient) -> None:
    """However often it is sent; what is wrong with a value stands beside it, and what was typed stays."""
    await register(database, ORDER)
    url = "/playbooks/start"
    wrong = await posted(api, "/playbooks/start?path=story", url, v0="0", v1='"us"', v2="", v4='{"a": 1}')
    form = dict(fields_of((await api.get("/playbooks/start?path=story")).text, url))
    typed = {"v0": "17", "v1": '"us"', "v2": "ada", "v3": "", "v4": '{"b": 3}'}
    twice = [await api.post(url, data={**form, **typed}) for _ in range(2)]
    other = await api.post(url, data={**form, **typed, "v2": "bob"})
    assert (
        wrong.status_code,
        [said in wrong.text for said in ("It is 0, the least is 1", "It is missing", "default: &#34;Hello {{")],
        twice[0].headers["location"] == twice[1].headers["location"] != other.headers["location"],
        await rows(
            database,
            "select context -> 'workload' from noetl.event where event_type = 'execution_start' order by event_id",
        ),
    ) == (
        400,
        [True, True, True],
        True,
        [
            ({"region": "us", "email": "ada", "extra": {"b": 3}},),
            ({"region": "us", "email": "bob", "extra": {"b": 3}},),
        ],
    )


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
    assert (
        [answer.status_code for answer in answers],
        found,
        f'href="/executions/{big}?turn=1"' in answers[0].text,
        "did you mean `next`?" in answers[1].text,
        await rows(database, "select count(*) from noetl.catalog"),
    ) == ([200, 200, 200], [["1", "1"], [], ["2", "0"]], True, True, [(1,)])


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
    assert (
        'class="said bad"' in pages[1].text,
        '<li class="new">' in pages[3].text,
        "This is version 1; the latest is" in old.text,
    ) == (True, True, True)


async def test_a_path_is_paused_and_resumed(database: Database, api: httpx.AsyncClient) -> None:
    """New executions are queued meanwhile."""
    await register(database, ORDER)
    page = "/playbooks?path=story"
    said = []
    for action in ("pause", "resume"):
        answer = await posted(api, page, f"/playbooks/{action}", reason="why")
        await start(database, payload={"email": "a"})
        await drain(database)
        said.append(
            (
                answer.headers["location"],
                await rows(database, "select status from noetl.execution order by execution_id"),
            )
        )
    assert said == [
        ("/playbooks?path=story", [("QUEUED",)]),
        ("/playbooks?path=story", [("RUNNING",), ("RUNNING",)]),
    ]


async def test_a_viewer_sees_graph_and_versions_alone(database: Database) -> None:
    """Without conditions and without forms."""
    await register(database, ORDER)
    urls = ["/playbooks", "/playbooks/versions", "/playbooks/source", "/playbooks/start", "/playbooks/edit"]
    async with console(database) as client:
        await sign_in(client, database, "viewer")
        answers = [await client.get(url, params={"path": "story"}) for url in [*urls, "/playbooks/difference"]]
    assert (
        [answer.status_code for answer in answers],
        "workload.order" in answers[0].text,
        [len(re.findall(r'method="post"', answer.text)) for answer in answers[:2]],
    ) == ([200, 200, 403, 403, 403, 403], False, [2, 2])
