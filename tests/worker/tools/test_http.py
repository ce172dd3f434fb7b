"""The http tool: its requests, its results and its failures."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from yarl import URL

from noetl_broker.template import unwrap
from noetl_broker.worker.tools.http import same_origin
from tests.worker.conftest import Perform, Site, failed


def http(site: Site, query: str = "", **more: Any) -> dict[str, Any]:
    """Make an action that sends a request to the site."""
    return {"type": "http", "url": f"{site.url}/things{query}"} | more


async def test_the_result_has_status_headers_and_data(perform: Perform, site: Site) -> None:
    """JSON is decoded; the result has the address and the time."""
    result = await perform(http(site, timeout=None))  # null counts as missing
    assert (result["status_code"], result["data"]) == (200, {"ok": True})
    assert result["headers"]["content-type"] == "application/json"
    assert result["url"] == f"{site.url}/things"


@pytest.mark.parametrize(
    "more, target, body",
    [
        ({"params": {"q": "a b", "n": 1, "all": True, "x": [1, 2]}}, "/things?q=a+b&n=1&all=true&x=1&x=2", ""),
        ({"data": {"latitude": 1.5}}, "/things?latitude=1.5", ""),
        ({"query": "?key=1&a=2", "params": {"b": 3, "x": [4, 5]}}, "/things?key=1&a=2&b=3&x=4&x=5", ""),
        ({"query": "?key=1&a=2", "params": {"a": 3}}, "/things?key=1&a=3", ""),
        ({"query": "?key=1", "data": {"b": 3}}, "/things?key=1&b=3", ""),
        ({"args": {"city": "Paris"}}, "/things", ""),
        ({"method": "post", "payload": {"a": [1]}}, "/things", {"a": [1]}),
        ({"method": "PUT", "data": {"a": 1}}, "/things", {"a": 1}),
        ({"method": "POST", "body": "plain", "params": {"p": "1"}}, "/things?p=1", "plain"),
        ({"method": "POST", "json": [1]}, "/things", [1]),
    ],
)
async def test_a_request_has_its_query_and_body(
    perform: Perform, site: Site, more: dict[str, Any], target: str, body: Any
) -> None:
    """A body is JSON unless it is text; args are not sent.

    `params` are the query; so is `data` without a body, added to the query of the address.
    """
    await perform(http(site, **more))
    sent = site.requests[0]
    assert sent["target"] == target
    assert (json.loads(sent["body"]) if isinstance(body, (dict, list)) else sent["body"]) == (body)


async def test_a_form_is_sent_as_a_form(perform: Perform, site: Site) -> None:
    """By the content type."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    await perform(http(site, method="POST", headers=headers, payload={"a": "1 2", "b": 3}))
    assert site.requests[0]["body"] == "a=1+2&b=3"


async def test_a_header_can_read_a_secret(perform: Perform, site: Site) -> None:
    """In a deferred string."""
    await perform(http(site, headers={"Authorization": "Bearer {{ secret.api_token }}", "X-City": "{{ env.CITY }}"}))
    assert site.requests[0]["headers"]["authorization"] == "Bearer s3cret"
    assert site.requests[0]["headers"]["x-city"] == "Oslo"


async def test_a_missing_secret_is_named_with_its_remedy(perform: Perform, site: Site) -> None:
    """Nothing is sent."""
    outcome = await perform(http(site, headers={"A": "{{ secret.nothing }}"}))
    assert "secret.nothing" in failed(outcome)["message"]
    assert "NOETL_SECRET_<NAME>" in failed(outcome)["message"]
    assert site.requests == []


@pytest.mark.parametrize(
    "auth, header, value",
    [
        ({"type": "bearer", "token": "abc"}, "authorization", "Bearer abc"),
        ({"one": {"type": "api_key", "header": "X-Key", "value": "k"}}, "x-key", "k"),
        ({"type": "basic", "username": "u", "password": "p"}, "authorization", "Basic dTpw"),
        ({"type": "header", "name": "X-Id", "value": 5}, "x-id", "5"),
    ],
)
async def test_auth_becomes_a_header(perform: Perform, site: Site, auth: Any, header: str, value: str) -> None:
    """For each kind of `auth` that needs no other server."""
    await perform(http(site, auth=auth))
    assert site.requests[0]["headers"][header] == value


@pytest.mark.parametrize("key", ["auth", "credential", "credentials"])
async def test_a_stored_credential_is_an_auth(perform: Perform, site: Site, key: str) -> None:
    """With the same keys as in a step. The variable of a missing one is in the message."""
    said: dict[str, Any] = {key: {"type": "bearer", "token": "abc"}}
    await perform(http(site, **said))
    assert site.requests[0]["headers"]["authorization"] == "Bearer abc"
    outcome = await perform(http(site) | {key: "my-api"})
    assert "NOETL_CREDENTIAL_MY_API" in failed(outcome)["message"]
    assert not outcome.retryable


KEYS: dict[str, Any] = {
    "auth": {"type": "api_key", "header": "X-Key", "value": "k"},
    "headers": {"X-Token": "{{ secret.api_token }}", "Authorization": "t", "User-Agent": "me", "Accept": "a/b"},
}
SECRET = ("x-key", "x-token", "authorization")


@pytest.mark.parametrize("status", [302, 307])
async def test_headers_with_keys_do_not_follow_a_redirect_to_another_server(
    perform: Perform, site: Site, other: Site, status: int
) -> None:
    """Also not to another port. The body and harmless headers do."""
    site.answers = [(status, {"location": f"{other.url}/there"}, b"")]
    other.answers = [
        (status, {"location": "/elsewhere", "set-cookie": "their=own"}, b""),
        (status, {"location": site.url}, b""),
    ]
    await perform(http(site, method="POST", payload={"a": 1}, **KEYS))
    first, fourth = site.requests
    second, third = other.requests
    assert [first["headers"].get(name) for name in SECRET] == ["k", "s3cret", "t"]
    for request in (second, third, fourth):
        assert not set(SECRET) & request["headers"].keys()
        assert [request["headers"][name] for name in ("user-agent", "accept")] == ["me", "a/b"]
        assert request["body"] == ('{"a":1}' if status == 307 else "")
    assert third["headers"]["cookie"] == "their=own"


async def test_headers_with_keys_follow_a_redirect_on_the_same_server(perform: Perform, site: Site) -> None:
    """To another path of it."""
    site.answers = [(302, {"location": "/elsewhere"}, b"")]
    await perform(http(site, **KEYS))
    first, second = site.requests
    assert [first["target"], second["target"]] == ["/things", "/elsewhere"]
    for request in (first, second):
        assert [request["headers"][name] for name in SECRET] == ["k", "s3cret", "t"]


SAME = [("https://a/x", "https://a:443/"), ("https://A/", "http://a/")]
OTHER = [
    ("http://a/", "https://a/"),
    ("https://a:8443/", "http://a:8080/"),
    ("https://a:8443/", "http://a/"),
    ("http://a:81/", "http://a/"),
    ("https://b.a/", "https://a/"),
]


def test_an_origin_is_scheme_host_and_port() -> None:
    """The same server with TLS counts as the same."""
    same = [(url, first) for url, first in SAME + OTHER if same_origin(URL(url), URL(first))]
    assert same == SAME


async def test_a_status_from_400_fails_with_its_code(perform: Perform, site: Site) -> None:
    """The message has no query, which may contain secrets. The error has the start of the body."""
    site.answer = (503, {"content-type": "text/plain"}, b"busy")
    outcome = await perform(http(site, params={"key": "hush"}))
    error = failed(outcome)
    assert (error["status_code"], error["type"], error["response"]) == (503, "http", "busy")
    assert error["message"] == f"step 'fetch': GET {site.url}/things answered 503 Said"
    assert outcome.retryable


@pytest.mark.parametrize("body", [b'{"x": NaN}', b"[-Infinity]", b'{"x": [1e999]}', b"[" * 100_000, b"9" * 5_000])
async def test_invalid_json_is_text(perform: Perform, site: Site, body: bytes) -> None:
    """A database could not store it."""
    site.answer = (200, {"content-type": "application/json"}, body)
    assert (await perform(http(site)))["data"] == body.decode()
    site.answer = (500, *site.answer[1:])
    assert failed(await perform(http(site)))["status_code"] == 500


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:abc/x",
        "http://[::1/x",
        "http://me:pass/word@host/",
        "http://127.0.0.1:99999/pass",
        "https://[::1]:-1/pass",
    ],
)
async def test_an_invalid_address_is_refused(perform: Perform, url: str) -> None:
    """Without a retry. It is not shown, because it may contain a password."""
    outcome = await perform({"type": "http", "url": url})
    assert (failed(outcome)["type"], outcome.retryable) == ("bad_value", False)
    assert "url cannot be read" in failed(outcome)["message"]
    assert "pass" not in failed(outcome)["message"]


async def test_an_invalid_address_is_null_with_on_error_continue(perform: Perform, site: Site) -> None:
    """Like an item whose server is missing."""
    urls = [site.url, f"{site.url}:abc", "http://127.0.0.1:99999"]
    loop = {"collection": urls, "element": "base", "on_error": "continue"}
    action = http(site, url="{{ base }}", loop=loop, unfinished=[["url"]])
    first, *others = unwrap(await perform(action))
    assert (first["status_code"], others) == (200, [None, None])


@pytest.mark.parametrize(
    "more",
    [
        {"params": {"q": "x" * 70_000}},
        {"data": {"q": "x" * 70_000}},
        {"params": {"q": "\ud800"}},
        {"method": "POST", "body": "\ud800"},
        {"method": "POST", "payload": {"x": float("nan")}},
    ],
)
async def test_values_that_no_request_can_carry_are_refused(perform: Perform, site: Site, more: dict[str, Any]) -> None:
    """Without a retry; nothing is sent."""
    outcome = await perform(http(site, **more))
    assert (failed(outcome)["type"], outcome.retryable) == ("bad_value", False)
    assert "cannot be sent" in failed(outcome)["message"]
    loop = {"collection": [1], "element": "n", "on_error": "continue"}
    assert unwrap(await perform(http(site, **more, loop=loop))) == [None]
    assert site.requests == []


async def test_the_content_length_is_that_of_the_body(perform: Perform, site: Site) -> None:
    """Whatever the step sets."""
    await perform(http(site, method="POST", body="abc", headers={"content-length": "9"}))
    assert (site.requests[0]["headers"]["content-length"], site.requests[0]["body"]) == ("3", "abc")


async def test_a_redirect_to_an_invalid_address_is_retryable(perform: Perform, site: Site) -> None:
    """Like one to text that is no address."""
    for location in ("http://127.0.0.1:99999/", "http://127.0.0.1:abc/"):
        site.answer = (302, {"location": location}, b"")
        outcome = await perform(http(site))
        assert (failed(outcome)["type"], outcome.retryable) == ("connection", True)


async def test_a_redirect_to_what_is_no_web_server_fails_for_good(perform: Perform, site: Site) -> None:
    """Nothing is sent there."""
    site.answer = (302, {"location": "ftp://127.0.0.1/"}, b"")
    outcome = await perform(http(site))
    assert (failed(outcome)["type"], outcome.retryable, len(site.requests)) == ("bad_value", False, 1)


async def test_a_failed_connection_is_retryable(perform: Perform) -> None:
    """A missing server is a failure of kind connection."""
    outcome = await perform({"type": "http", "url": "http://127.0.0.1:1/"})
    assert failed(outcome)["type"] == "connection"
    assert outcome.retryable


async def test_binary_content_is_base64(perform: Perform, site: Site) -> None:
    """Text is text, and broken JSON is text."""
    site.answer = (200, {"content-type": "image/png"}, b"\xff\x00")
    result = await perform(http(site))
    assert (result["data"], result["encoding"]) == ("/wA=", "base64")
    site.answer = (200, {"content-type": "application/json"}, b"{broken")
    assert (await perform(http(site)))["data"] == "{broken"
    site.answer = (200, {"content-type": "text/plain; charset=undefined"}, b"a")
    assert (await perform(http(site)))["data"] == "YQ=="


async def test_a_response_that_is_too_large_is_refused(perform: Perform, site: Site) -> None:
    """The tool reads no more than a result may contain."""
    site.answer = (200, {"content-type": "text/plain"}, b"x" * (2 * 1024 * 1024 + 1))
    outcome = await perform(http(site))
    assert failed(outcome)["type"] == "result_too_large"
    assert not outcome.retryable


@pytest.mark.parametrize("body", [b"", b"\x78"])
async def test_a_body_of_which_a_coding_leaves_nothing_is_empty(perform: Perform, site: Site, body: bytes) -> None:
    """Or less than the header of the next coding."""
    site.answer = (200, {"content-encoding": "deflate, gzip"}, gzip.compress(body))
    assert (await perform(http(site)))["data"] == ""


@pytest.mark.parametrize("media", ["text/html", "application/json"])
async def test_an_error_response_of_any_size_keeps_its_status(perform: Perform, site: Site, media: str) -> None:
    """It is retryable, and the start of the body is text."""
    for before in ("", "x", "xx"):
        site.answer = (503, {"content-type": media}, (before + "\u20ac" * 1024 * 1024).encode())
        outcome = await perform(http(site))
        assert (failed(outcome)["type"], failed(outcome)["status_code"], outcome.retryable) == ("http", 503, True)
        assert failed(outcome)["response"] == (before + "\u20ac" * 1_000)[:1_000]


@pytest.mark.parametrize(
    "more", [{"method": "BREW"}, {"url": "ftp://x"}, {"url": "http:///x"}, {"url": None}, {"headers": []}]
)
async def test_an_invalid_request_is_refused(perform: Perform, site: Site, more: dict[str, Any]) -> None:
    """Without a retry."""
    outcome = await perform(http(site, **more))
    assert failed(outcome)["type"] == "bad_value"
    assert not outcome.retryable
