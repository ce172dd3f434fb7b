"""The http tool: sends one request and returns the response."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from noetl_broker.playbook.keywords import HTTP_METHODS
from noetl_broker.worker.credentials import entries
from noetl_broker.worker.errors import ToolFault
from noetl_broker.worker.tools.http_connections import HttpRequest
from noetl_broker.worker.tools.http_decoding import GROWTH_BYTES, decoded
from noetl_broker.worker.tools.task import RESULT_BYTES, Task, as_text, mapping, seconds

TIMEOUT_SECONDS = 30.0
EXCERPT_CHARACTERS = 1_000
FIRST_ERROR_STATUS = 400
LONGEST_URL = 65_536
WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
BODIES = ("json", "body", "payload", "data")
FORM = "application/x-www-form-urlencoded"
TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
LENGTH = "content-length"
SCHEMES = ("http", "https")
AS_GET = frozenset({302, 303})  # the statuses of redirects that are followed with GET; 301 only after a POST
MOVED = 301
REDIRECTS = AS_GET | {MOVED, 307, 308}
MOST_REDIRECTS = 20
# A redirect is a request with a host and cookies of its own. To another server only these headers follow: any other may
# be a key.
OF_ONE_REQUEST = frozenset({"cookie", "host"})
SENT_ANYWHERE = frozenset({"accept", "accept-language", "content-type", "user-agent"})


async def run_http(task: Task) -> Any:
    """Return {status_code, headers, data, url, elapsed}. A status of 400 or more is a fault with `status_code`.

    `data` is JSON if the response says so and is valid, else text, else base64 with `encoding: base64`.
    """
    request = request_of(task)
    shown = f"{request.method} {without_query(request.url)}"
    timeout = task.first("timeout")
    limit = seconds(TIMEOUT_SECONDS if timeout is None else timeout, "timeout")
    try:
        async with asyncio.timeout(limit):  # of the whole exchange: a byte now and then does not extend it
            result, reason = await _exchange(task, request, shown)
    except TimeoutError:
        message = f"{shown} did not answer in full within {limit:g} s"
        raise task.fault(message, kind="timeout", retryable=True) from None
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError, OSError) as error:
        # The text of a response error has the whole address.
        reason = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
        message = f"{shown} failed: {reason or type(error).__name__}"[:EXCERPT_CHARACTERS]
        raise task.fault(message, kind="connection", retryable=True) from None
    except ValueError as error:
        raise task.fault(f"{shown} cannot be sent: {error}", kind="bad_value") from None
    result["url"] = task.shared.redactor.clean(result["url"])
    if result["status_code"] >= FIRST_ERROR_STATUS:
        text = result["data"] if isinstance(result["data"], str) else json.dumps(result["data"], ensure_ascii=False)
        text = task.shared.redactor.clean(text)
        raise task.fault(
            f"{shown} answered {result['status_code']} {reason}".rstrip(),
            kind="http",
            retryable=True,
            status_code=result["status_code"],
            response=text[:EXCERPT_CHARACTERS] or None,
        )
    return result


def without_query(url: URL) -> str:
    """An address for messages: without user, query and fragment."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


async def _exchange(task: Task, request: HttpRequest, shown: str) -> tuple[dict[str, Any], str]:
    """Send a request, follow redirects, and return the last response as JSON, with the words of its status."""
    cookies = aiohttp.CookieJar(unsafe=True, quote_cookie=False)  # of this job; unsafe: also of a server without a name
    connections, first = task.shared.http_connections, request.url
    follow = task.action.get("follow_redirects", True) is not False
    for _ in range(MOST_REDIRECTS + 1):
        began = time.monotonic()
        async with connections.exchange(request, cookies, task.shared.redactor) as response:
            location = response.headers.get("location") if follow and response.status in REDIRECTS else None
            if location is None:
                body = await _body(response, shown)
                return content(response, body) | {"elapsed": time.monotonic() - began}, _text(response.reason or "")
        request = redirected(request, response.status, _address(task, shown, request.url, location), first)
    raise task.fault(f"{shown} redirects without end", kind="http", retryable=True)


def _address(task: Task, shown: str, url: URL, location: str) -> URL:
    """The address of a redirect. A login in it is not used."""
    try:
        address = url.join(URL(location)).with_user(None)
    except ValueError:
        address = URL()
    if address.scheme and address.scheme not in SCHEMES:
        raise task.fault(f"{shown} redirects to {address.scheme}, which is not http", kind="bad_value")
    if not address.host:
        raise task.fault(f"{shown} redirects to no address", kind="connection", retryable=True)
    return address


def redirected(request: HttpRequest, status: int, url: URL, first: URL) -> HttpRequest:
    """The request that follows a redirect of `request` to `url`; `first` is the address of the step."""
    headers = request.headers.copy()
    for name in request.headers:
        if name.lower() in OF_ONE_REQUEST or not (same_origin(url, first) or name.lower() in SENT_ANYWHERE):
            headers.popall(name, None)
    if request.method == "POST" if status == MOVED else status in AS_GET and request.method != "HEAD":
        return replace(request, method="GET", url=url, headers=headers, body=None)
    return replace(request, url=url, headers=headers)


def same_origin(url: URL, first: URL) -> bool:
    """Whether an address is on the server of the first one: the same port, or the default port with TLS."""
    same = (url.scheme, url.port) == (first.scheme, first.port)
    secured = (first.scheme, first.port, url.scheme, url.port) == ("http", 80, "https", 443)
    return url.host == first.host and (same or secured)


async def _body(response: aiohttp.ClientResponse, shown: str) -> bytes:
    """The decoded body. Of an error response that is too large, its start; of one that cannot be read, nothing."""
    body, is_error = bytearray(), response.status >= FIRST_ERROR_STATUS
    async for part in response.content.iter_any():
        body += part
        if len(body) > RESULT_BYTES + GROWTH_BYTES:
            break
    coding = response.headers.get("content-encoding", "") if body else ""  # without a body it may be any
    try:
        return decoded(bytes(body), coding, RESULT_BYTES, cut=is_error)
    except ToolFault as fault:
        if is_error:
            return b""
        message, details = f"{shown} {fault}", {"status_code": response.status}
        raise ToolFault(message, kind=fault.kind, retryable=fault.retryable, **details) from None


def content(response: aiohttp.ClientResponse, body: bytes) -> dict[str, Any]:
    """The response as JSON."""
    headers = {name.lower(): _text(", ".join(response.headers.getall(name))) for name in response.headers}
    result: dict[str, Any] = {
        "status_code": response.status,
        "headers": headers,
        "url": str(response.url.with_user(None)),
    }
    media = response.headers.get("content-type", "").split(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        try:
            return result | {"data": _json(body) if body else None}
        except (ValueError, RecursionError):
            pass
    cut = len(body) > RESULT_BYTES  # perhaps inside a character
    try:
        text = body.decode(response.charset or "utf-8", "replace" if cut else "strict")
    except (UnicodeError, LookupError):
        return result | {"data": base64.b64encode(body).decode("ascii"), "encoding": "base64"}
    return result | {"data": text.replace("\x00", "\ufffd")}


def _json(body: bytes) -> Any:
    """Read JSON. Raises ValueError also for NaN, Infinity and numbers too large for a float, which Python accepts."""
    value = json.loads(body)
    json.dumps(value, allow_nan=False)
    return value


def _text(value: str) -> str:
    """A part of a response's head as text: the library keeps bytes that are no UTF-8 as surrogates."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def request_of(task: Task) -> HttpRequest:
    """The request of a step. Raises ToolFault for one that cannot be sent."""
    method = str(task.action.get("method") or "GET").upper()
    if method not in HTTP_METHODS:
        raise task.fault(f"the method {method!r} is none of {', '.join(sorted(HTTP_METHODS))}", kind="bad_value")
    address = task.first("url", "endpoint")
    if not isinstance(address, str) or not address.startswith(("http://", "https://")):
        raise task.fault(f"url must start with http:// or https://, not {address!r}", kind="bad_value")
    given = mapping(task.action.get("headers"), "headers")
    # The library computes the length of the body.
    headers = CIMultiDict((str(key), as_text(value)) for key, value in given.items() if str(key).lower() != LENGTH)
    query = dict(mapping(task.action.get("params"), "params"))
    body = task.first(*BODIES)
    if body is not None and method in WITHOUT_BODY and task.first("json", "body", "payload") is None:
        # A request without a body sends its `data` as the query.
        query |= mapping(body, "data")
        body = None
    url = _url(task, address.strip())
    try:
        url = url.update_query(_query(query)) if query else url
        payload = _payload(body, headers)
    except (ValueError, TypeError, RecursionError) as error:
        raise task.fault(f"the request cannot be sent: {error}", kind="bad_value") from None
    if len(str(url)) > LONGEST_URL:
        message = f"the request cannot be sent: its address has more than {LONGEST_URL} characters"
        raise task.fault(message, kind="bad_value")
    if url.user or url.password:
        headers["Authorization"] = _basic(url.user, url.password)
    _authorize(task, headers)
    if unfit := next((name for name in headers if not TOKEN.fullmatch(name)), None):
        raise task.fault(f"{unfit!r:.80} is no name of a header", kind="bad_value")
    verify = task.action.get("verify_ssl", task.action.get("verify", True)) is not False
    return HttpRequest(method=method, url=url.with_user(None), headers=headers, body=payload, verify=verify)


def _url(task: Task, address: str) -> URL:
    try:
        url = URL(address)
    except ValueError:
        url = URL()
    if not url.host:
        # The address is not shown: a password with a slash in it may be a part of the error.
        message = "the url cannot be read; look at its host, its port, and characters that are not printable"
        raise task.fault(message, kind="bad_value")
    return url


def _payload(body: Any, headers: CIMultiDict[str]) -> bytes | None:
    """The body of a request: text as it is, a mapping as a form if the headers say so, anything else as JSON."""
    if body is None:
        return None
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, Mapping) and headers.get("content-type", "").lower().startswith(FORM):
        return urlencode(_query(body), doseq=True).encode()
    headers.setdefault("Content-Type", "application/json")
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _query(values: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """The texts of a query or a form. Raises UnicodeEncodeError for what is none: the library would leave it out."""
    texts = {
        key: [*map(as_text, value)] if isinstance(value, list) else as_text(value) for key, value in values.items()
    }
    json.dumps(texts, ensure_ascii=False).encode()
    return texts


def _authorize(task: Task, headers: CIMultiDict[str]) -> None:
    """Add the credentials of `auth` to the headers."""
    for entry in entries(task.first("auth", "credential", "credentials"), task.shared.environment):
        kind = str(entry.get("type") or "bearer").lower()
        token = next(
            (entry[key] for key in ("token", "access_token", "value", "api_key", "text") if entry.get(key)), None
        )
        if kind == "basic":
            headers["Authorization"] = _basic(entry.get("user") or entry.get("username"), entry.get("password"))
        elif token is None or kind not in ("bearer", "api_key", "header"):
            raise task.fault(
                f"auth of type {kind!r} is not supported or has no token; use bearer, basic, api_key or header",
                kind="not_supported",
            )
        elif kind == "bearer":
            headers["Authorization"] = f"Bearer {token}"
        else:
            headers[str(entry.get("header") or entry.get("name") or "X-API-Key")] = as_text(token)


def _basic(user: Any, password: Any) -> str:
    return "Basic " + base64.b64encode(f"{user or ''}:{password or ''}".encode()).decode("ascii")
