"""The frame of all pages: headers, escapes, forms, sign-in, errors. Pages are read as a browser without script does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from noetl_broker.console import pages
from noetl_broker.console.access import COOKIE
from noetl_broker.console.pages import csrf, flash
from noetl_broker.console.pages.rendering import FOLDER, pretty
from noetl_broker.console.pages.screen import own_address, picture
from noetl_broker.store.connect.dsn import Database as Place
from tests.brokers import drain, execute, register, start
from tests.console.conftest import console, page_routes
from tests.console.test_access import token
from tests.postgres import Database

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
FAILS = """
workflow:
  - step: start
    next: [{when: "{{ 1 / 0 }}", step: end}]
  - step: end
"""
FIELD = re.compile(r'<input type="hidden" name="csrf" value="([0-9a-f]+)">')
STATIC = Path(pages.__file__).parents[1] / "static"


async def post(
    client: httpx.AsyncClient, url: str, fields: Mapping[str, str], *, of: str = "/sign-in"
) -> httpx.Response:
    """Send a form with the CSRF token of the page `of`."""
    found = FIELD.search((await client.get(of)).text)
    return await client.post(url, data={**fields, "csrf": found[1] if found else ""})


async def sign_in(client: httpx.AsyncClient, database: Database, role: str) -> httpx.Response:
    """Give the client a session of this role."""
    secret = (await token(database, role))["Authorization"].removeprefix("Bearer ")
    return await post(client, "/sign-in", {"token": secret, "next": "/executions?status=FAILED"})


async def test_a_page_allows_nothing_from_elsewhere(api: httpx.AsyncClient) -> None:
    """No script and no style inside of it, no frame around it; its cookie is for this site and not for scripts."""
    page = await api.get("/executions")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert (
        {policy[name] for name in ("default-src", "base-uri", "frame-ancestors")},
        {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src", "form-action")},
        page.headers["cache-control"],
        [*sorted(page.headers["set-cookie"].split("; ")[1:])],
    ) == ({"'none'"}, {"'self'"}, "no-store", ["HttpOnly", "Path=/", "SameSite=strict"])


@pytest.mark.parametrize("forbidden", ["style=", "|safe", "| safe", "javascript:", "onclick", "http://", "https://"])
def test_no_template_has_what_the_policy_forbids(forbidden: str) -> None:
    """A style or script inside of a page would not work, and `safe` would let values through."""
    assert [path.name for path in FOLDER.glob("*.html") if forbidden in path.read_text(encoding="utf-8")] == []


def test_the_scripts_are_short() -> None:
    """Pages work without them."""
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in STATIC.glob("*.js")) < 600


async def test_files_are_kept_by_their_digest(api: httpx.AsyncClient) -> None:
    """One with another digest is not kept; what is no file of ours is not there."""
    page = (await api.get("/sign-in")).text
    stylesheet = re.findall(r'href="(/static/[^"]+console\.css)"', page)[0]
    answers = [await api.get(url) for url in (stylesheet, "/static/old/console.css", "/static/old/..%2Fapp.py")]
    assert [(answer.status_code, answer.headers["cache-control"]) for answer in answers] == [
        (200, "public, max-age=31536000, immutable"),
        (200, "no-cache"),
        (404, "no-store"),
    ]


async def test_hostile_names_are_text(database: Database, api: httpx.AsyncClient) -> None:
    """In lists, attributes and addresses; characters that turn the direction of writing are made visible."""
    path = f"{HOSTILE}\u202e"
    await register(database, FAILS, path=path)
    await start(database, path, count=2)
    await drain(database)
    found = [await api.get("/"), await api.get("/executions"), await api.get("/executions", params={"path": path})]
    assert [
        (answer.status_code, "<script>alert" in answer.text or "<img" in answer.text, "\\u202e" in answer.text)
        for answer in found
    ] == [(200, False, True)] * 3
    assert 'value="&lt;script&gt;' in found[2].text
    assert found[2].text.count('id="row-') == 2  # the filter got the path as it is


async def test_signing_in_and_out(database: Database) -> None:
    """A token opens the page that was wanted, until its session ends."""
    async with console(database, tokens_demanded=True) as client:
        refused = await client.get("/executions?status=FAILED")
        entered = await sign_in(client, database, "operator")
        seen = await client.get("/executions")
        left = await post(client, "/sign-out", {}, of="/executions")
        said = (await client.get("/sign-in")).text
        after = await client.get("/executions")
    assert (
        [answer.status_code for answer in (refused, entered, seen, left, after)],
        [answer.headers["location"] for answer in (refused, entered, left)],
        "HttpOnly; Path=/; SameSite=strict" in entered.headers["set-cookie"],
        COOKIE in client.cookies or "The token is still valid" not in said,
    ) == (
        [303, 303, 200, 303, 303],
        ["/sign-in?next=%2Fexecutions%3Fstatus%3DFAILED", "/executions?status=FAILED", "/sign-in"],
        True,
        False,
    )


async def test_a_wrong_token_opens_nothing(database: Database) -> None:
    """Who guesses is slowed down, in words."""
    async with console(database, tokens_demanded=True) as client:
        answers = [await post(client, "/sign-in", {"token": "nbt_guess"}) for _ in range(11)]
    assert (
        [answer.status_code for answer in answers],
        COOKIE in client.cookies,
        "The token is not valid" in answers[0].text,
        "try again in" in answers[-1].text,
    ) == ([401] * 10 + [429], False, True, True)


@pytest.mark.parametrize(
    "given, own",
    [
        ("/executions?status=FAILED", "/executions?status=FAILED"),
        ("//elsewhere.example", "/"),
        ("/\\elsewhere.example", "/"),
        ("https:elsewhere.example", "/"),
        ("/a\r\nSet-Cookie: x", "/"),
        (None, "/"),
    ],
)
def test_a_redirect_stays_here(given: str | None, own: str) -> None:
    """An address of another site is not followed."""
    assert own_address(given) == own


async def test_a_form_of_another_page_is_refused(database: Database) -> None:
    """Without a token, with that of another browser, of another session, from another site, or as another type."""
    async with console(database) as client, console(database) as other:
        elsewhere = FIELD.findall((await other.get("/sign-in")).text)[0]
        mine = FIELD.findall((await client.get("/sign-in")).text)[0]
        client.cookies.set(COOKIE, "nbt_of_another_session")
        answers = [
            await client.post("/sign-out", data={"csrf": ""}),
            await client.post("/sign-out", data={"csrf": elsewhere}),
            await client.post("/sign-out", data={"csrf": mine}),
            await client.post("/sign-out", json={"csrf": mine}),
            await client.post("/sign-out", content=b"csrf=%ff", headers={"Content-Type": "text/plain"}),
        ]
        client.cookies.delete(COOKIE)
        answers.append(await client.post("/sign-out", data={"csrf": mine}))
    assert [answer.status_code for answer in answers] == [403, 403, 403, 415, 415, 303]


async def test_nobody_is_signed_in_by_another_page(database: Database) -> None:
    """One at another port of this machine can set the cookie that its form needs."""
    mine = (await token(database, "viewer"))["Authorization"].removeprefix("Bearer ")
    secret = csrf.new_secret()
    sent = {csrf.FIELD: csrf.token_of(secret, None), "token": mine}
    headers = {"Origin": "http://127.0.0.1:3000", "Cookie": f"{csrf.COOKIE}={secret}"}
    async with console(database) as client:
        answer = await client.post("/sign-in", data=sent, headers=headers)
    assert (answer.status_code, COOKIE in client.cookies) == (403, False)


async def test_a_viewer_cannot_write_by_any_form(database: Database) -> None:
    """Each route that takes a form refuses, also with a good CSRF token; and no page shows one but for signing out.

    An operator's form without the token is refused, too.
    """
    writing = page_routes("POST") - {"/sign-in", "/sign-out"}
    async with console(database) as client:
        await sign_in(client, database, "viewer")
        answers = {
            path: (await post(client, re.sub(r"\{\w+(:\w+)?\}", "1", path), {}, of="/executions")).status_code
            for path in sorted(writing)
        }
        shown = [
            re.findall(r'method="post"|class="check"', (await client.get(url)).text) for url in ("/", "/executions")
        ]
        await sign_in(client, database, "operator")
        untold = {
            path: (await client.post(re.sub(r"\{\w+(:\w+)?\}", "1", path), data={"csrf": "0"})).status_code
            for path in writing
        }
    assert {"/executions/act", "/limits/put", "/limits/delete", "/executions/{execution_id:int}/undo"} <= writing
    assert untold == dict.fromkeys(writing, 403)
    assert answers == dict.fromkeys(sorted(writing), 403)
    assert shown == [['method="post"'] * 2] * 2  # sign out, in both kinds of navigation


async def test_a_viewer_reads_no_texts_of_errors(database: Database) -> None:
    """Neither a message nor what a worker wrote as the type; an operator reads both."""
    await register(database, FAILS)
    await start(database)
    await drain(database)
    await execute(database, "update noetl.execution set error = error || jsonb_build_object('type', 'card 4711')")
    async with console(database) as client:
        operators = [(await client.get(url)).text for url in ("/", "/executions")]
        await sign_in(client, database, "viewer")
        viewers = [(await client.get(url)).text for url in ("/", "/executions")]
    assert [("card 4711" in text, "divides by zero" in text) for text in (*operators, *viewers)] == [
        *((True, False), (True, True)),
        *((False, False), (False, False)),
    ]


async def test_a_link_from_elsewhere_opens_once_more(api: httpx.AsyncClient) -> None:
    """Browsers withhold cookies from it, so it must not get a new secret for forms."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    page = await api.get("/executions?status=FAILED&path=a", headers=headers)
    assert (
        page.status_code,
        'content="0; url=/executions?status=FAILED&amp;path=a"' in page.text,
        "set-cookie" in page.headers,
        "content-security-policy" in page.headers,
    ) == (200, True, False, True)


async def test_errors_are_pages_and_those_of_the_api_are_not(api: httpx.AsyncClient) -> None:
    """Each says what is wrong."""
    answers = [
        await api.get("/nothing"),
        await api.get("/executions?limit=bla"),
        await api.get("/api/v1/nothing"),
        await api.post("/api/v1/health"),
        await api.get("/", headers={"Host": "rebound.example"}),
    ]
    assert [(answer.status_code, answer.headers["content-type"].partition(";")[0]) for answer in answers] == [
        (404, "text/html"),
        (400, "text/html"),
        (404, "application/problem+json"),
        (405, "application/problem+json"),
        (403, "text/html"),
    ]


async def test_a_request_without_a_route_learns_the_methods_and_gets_no_redirect(api: httpx.AsyncClient) -> None:
    """HEAD is GET without a body, also of a stream. A redirect to an address without a slash would repeat the host."""
    heads = [await api.head(url) for url in ("/health", "/api/v1/health", "/api/v1/changes", "/nothing")]
    slashes = [await api.get(url) for url in ("/executions/", "/api/v1/executions/")]
    wrong = [await api.put(url) for url in ("/approvals", "/api/v1/executions")]
    assert [(answer.status_code, answer.content) for answer in heads] == [*[(200, b"")] * 3, (404, b"")]
    assert [answer.status_code for answer in slashes] == [404, 404]
    assert [(answer.status_code, answer.headers["allow"]) for answer in wrong] == [(405, "HEAD, GET, POST")] * 2


async def test_a_page_tries_again_while_the_database_is_away() -> None:
    """It says so, with 503, and not where the database is."""
    async with console(Place(dsn="postgresql://127.0.0.1:1/none")) as client:  # type: ignore[arg-type] # no test's database
        page = await client.get("/executions")
    assert (page.status_code, page.headers["retry-after"], 'http-equiv="refresh"' in page.text) == (503, "2", True)
    assert "127.0.0.1" not in page.text


def test_a_flash_comes_back_once_and_nothing_else_does() -> None:
    """A long sentence is cut; what is no sentence of ours is ignored."""
    said = flash.Flash("ok", "3 executions wait\u202e " + "é" * 5_000)
    value = flash.written(said)
    found = flash.read(value)
    assert found is not None
    assert (len(value) < 4_000, found.message[:24]) == (True, "3 executions wait\\u202e ")
    assert [flash.read(bad) for bad in (None, "", "bla", "WyJhIiwgImIiXQ==", "W1tdLDFd")] == [None] * 5


def test_a_token_belongs_to_its_browser_and_session() -> None:
    """And to nothing else."""
    secret = csrf.new_secret()
    mine = csrf.token_of(secret, "session")
    cases = [(mine, secret, "session"), (mine, secret, None), (mine, csrf.new_secret(), "session"), ("", "", None)]
    assert [csrf.fits(*case) for case in cases] == [True, False, False, False]


def test_of_a_long_value_only_the_beginning_is_indented() -> None:
    """Texts of its rest are never made: to indent 16 MiB held up all other requests for seconds."""
    value = [{"k": number, "v": "\u200e"} for number in range(1_000)]
    cut, whole = pretty(value, 500), pretty(value, None)
    assert (cut.is_cut, cut.text, cut.size, whole.is_cut, json.loads(whole.text)) == (
        True,
        whole.text[:500],
        len(json.dumps(value, ensure_ascii=False)),
        False,
        value,
    )


def test_a_picture_leaves_its_style_to_the_stylesheet() -> None:
    """The policy would refuse it."""
    assert picture("<svg><title>a</title><style>.nb{}</style><path/></svg>") == "<svg><title>a</title><path/></svg>"
