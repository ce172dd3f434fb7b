"""The frame of all pages: headers, escapes, forms, sign-in, errors. Pages are read as a browser without script does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import httpx

from noetl_broker import console as console_package
from noetl_broker.store.connect.dsn import Database as Place
from tests.brokers import drain, execute, register, start
from tests.console.conftest import console, page_routes
from tests.console.test_access import token
from tests.postgres import Database

COOKIE = "noetl_session"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
FAILS = """
workflow:
  - step: start
    next: [{when: "{{ 1 / 0 }}", step: end}]
  - step: end
"""
FIELD = re.compile(r'<input type="hidden" name="csrf" value="([0-9a-f]+)">')
FILES = Path(console_package.__file__).parent


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
    assert {policy[name] for name in ("default-src", "base-uri", "frame-ancestors")} == {"'none'"}
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src", "form-action")} == {"'self'"}
    assert page.headers["cache-control"] == "no-store"
    assert [*sorted(page.headers["set-cookie"].split("; ")[1:])] == ["HttpOnly", "Path=/", "SameSite=strict"]


def test_no_template_has_what_the_policy_forbids() -> None:
    """A style or script inside of a page would not work, and `safe` would let values through. Scripts stay short."""
    forbidden = ("style=", "|safe", "| safe", "javascript:", "onclick", "http://", "https://")
    texts = {path.name: path.read_text(encoding="utf-8") for path in FILES.glob("templates/*.html")}
    assert len(texts) > 10
    assert [(name, words) for name, text in texts.items() for words in forbidden if words in text] == []
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES.glob("static/*.js")) < 600


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
    assert [answer.status_code for answer in (refused, entered, seen, left, after)] == [303, 303, 200, 303, 303]
    assert [answer.headers["location"] for answer in (refused, entered, left)] == [
        "/sign-in?next=%2Fexecutions%3Fstatus%3DFAILED",
        "/executions?status=FAILED",
        "/sign-in",
    ]
    assert "HttpOnly; Path=/; SameSite=strict" in entered.headers["set-cookie"]
    assert COOKIE not in client.cookies
    assert "The token is still valid" in said


async def test_a_wrong_token_opens_nothing(database: Database) -> None:
    """Who guesses is slowed down, in words."""
    async with console(database, tokens_demanded=True) as client:
        answers = [await post(client, "/sign-in", {"token": "nbt_guess"}) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert COOKIE not in client.cookies
    assert "The token is not valid" in answers[0].text
    assert "try again in" in answers[-1].text


async def test_a_redirect_stays_here(database: Database) -> None:
    """An address of another site is not followed."""
    secret = (await token(database, "viewer"))["Authorization"].removeprefix("Bearer ")
    own = "/executions?status=FAILED"
    elsewhere = ("//elsewhere.example", "/\\elsewhere.example", "https:elsewhere.example", "/a\r\nSet-Cookie: x", "")
    async with console(database) as client:
        answers = [await post(client, "/sign-in", {"token": secret, "next": to}) for to in (own, *elsewhere)]
    assert [answer.headers["location"] for answer in answers] == [own, *["/"] * 5]


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
    async with console(database) as other:
        form = FIELD.findall((await other.get("/sign-in")).text)[0]
        cookie = "; ".join(f"{name}={value}" for name, value in other.cookies.items())
    sent, headers = {"csrf": form, "token": mine}, {"Origin": "http://127.0.0.1:3000", "Cookie": cookie}
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
        addresses = {path: re.sub(r"\{\w+(:\w+)?\}", "1", path) for path in writing}
        answers = {path: (await post(client, url, {}, of="/executions")).status_code for path, url in addresses.items()}
        pages = [(await client.get(url)).text for url in ("/", "/executions")]
        forms = [re.findall(r'method="post"|class="check"|</svg>Start one', page) for page in pages]
        await sign_in(client, database, "operator")
        assert "</svg>Start one" in (await client.get("/executions")).text
        untold = {path: (await client.post(url, data={"csrf": "0"})).status_code for path, url in addresses.items()}
    assert {"/executions/act", "/limits/put", "/limits/delete", "/executions/{execution_id:int}/undo"} <= writing
    assert untold == answers == dict.fromkeys(writing, 403)
    assert forms == [['method="post"'] * 2] * 2  # sign out, in both kinds of navigation


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
    assert page.status_code == 200
    assert 'content="0; url=/executions?status=FAILED&amp;path=a"' in page.text
    assert "set-cookie" not in page.headers
    assert "content-security-policy" in page.headers


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
    """It says so, with 503 and when to ask again, and not where the database is; the API does, too."""
    async with console(Place(dsn="postgresql://127.0.0.1:1/none")) as client:  # type: ignore[arg-type] # no test's database
        page, problem = await client.get("/executions"), await client.get("/api/v1/executions")
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in (page, problem)] == [(503, "2")] * 2
    assert ('http-equiv="refresh"' in page.text, problem.json()["code"]) == (True, "NB503")
    assert "127.0.0.1" not in page.text + problem.text


async def test_a_sentence_about_what_was_done_comes_back_once(api: httpx.AsyncClient) -> None:
    """What is no sentence of ours is ignored."""
    name = f"{HOSTILE}\u202e"
    await post(api, "/limits/put", {"name": name, "concurrency": "1"}, of="/limits/put")
    pages = [(await api.get("/limits")).text for _ in range(2)]
    assert ["is made: 1 at a time" in page for page in pages] == [True, False]
    assert ["<script>alert" in page for page in pages] == [False, False]
    for bad in ("bla", "WyJhIiwgImIiXQ==", "W1tdLDFd"):
        assert (await api.get("/limits", headers={"Cookie": f"noetl_flash={bad}"})).status_code == 200


async def test_of_a_long_value_only_the_beginning_is_shown(database: Database, api: httpx.AsyncClient) -> None:
    """To indent 16 MiB held up all other requests for seconds; the whole value has an address."""
    long = [{"k": number, "v": "\u200e"} for number in range(10_000)]
    await register(database, "workflow: [{step: start, next: end}, {step: end}]")
    [execution_id] = await start(database, payload={"long": long})
    await drain(database)
    page = (await api.get(f"/executions/{execution_id}")).text
    assert len(page) < 200_000
    assert f"/executions/{execution_id}/values/workload" in page
    whole = f"/executions/{execution_id}/values/workload"
    assert (await api.get(whole)).json() == {"long": long}
    await sign_in(api, database, "viewer")
    assert (await api.get(whole)).status_code == 403
