"""The http tool: sends one request and returns the response."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx

from noetl_broker.playbook.keywords import HTTP_METHODS
from noetl_broker.worker.credentials import entries
from noetl_broker.worker.errors import ToolFault
from noetl_broker.worker.tools.http_connections import KeepingTransport
from noetl_broker.worker.tools.http_decoding import ACCEPTED, CodingFault, Decoder, too_large
from noetl_broker.worker.tools.task import RESULT_BYTES, Task, as_text, mapping, seconds

TIMEOUT_SECONDS = 30.0
EXCERPT_CHARACTERS = 1_000
FIRST_ERROR_STATUS = 400
WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
BODIES = ("json", "body", "payload", "data")
FORM = "application/x-www-form-urlencoded"
PORTS = range(65_536)
Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]
# Headers that follow a redirect to another server. Any other header of a step may be a key. (httpx itself handles
# cookies and the host.)
SENT_ANYWHERE = frozenset({"accept", "accept-language", "content-type", "cookie", "host", "user-agent"})


async def run_http(task: Task) -> Any:
    """Return {status_code, headers, data, url, elapsed}. A status of 400 or more is a fault with `status_code`.

    `data` is JSON if the response says so and is valid, else text, else base64 with `encoding: base64`.
    """
    method, request = request_of(task)
    shown = f"{method} {without_query(request['url'])}"
    timeout = task.first("timeout")
    limit = seconds(TIMEOUT_SECONDS if timeout is None else timeout, "timeout")
    try:
        # The limit covers the whole exchange: the timeouts of httpx begin again with each byte.
        async with asyncio.timeout(limit), _closing() as trace, _client(task, request) as client:
            auth = request.pop("auth", None)
            sent = client.build_request(method, **request, extensions={"trace": trace})
            follow = task.action.get("follow_redirects", True) is not False
            response, body = await _exchange(client, sent, shown, auth=auth, follow=follow)
    except (TimeoutError, httpx.TimeoutException):
        message = f"{shown} did not answer in full within {limit:g} s"
        raise task.fault(message, kind="timeout", retryable=True) from None
    except httpx.TooManyRedirects:
        raise task.fault(f"{shown} redirects without end", kind="http", retryable=True) from None
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL, ValueError) as error:
        raise task.fault(f"{shown} cannot be sent: {error}", kind="bad_value") from None
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise task.fault(f"{shown} failed: {reason}", kind="connection", retryable=True) from None
    except httpx.RequestError as error:
        message = f"{shown} answers with what cannot be read: {error}"
        raise task.fault(message, kind="http", retryable=True) from None
    result = content(response, body)
    result["url"] = task.shared.redactor.clean(result["url"])
    if response.status_code >= FIRST_ERROR_STATUS:
        text = result["data"] if isinstance(result["data"], str) else json.dumps(result["data"], ensure_ascii=False)
        text = task.shared.redactor.clean(text)
        raise task.fault(
            f"{shown} answered {response.status_code} {response.reason_phrase}".rstrip(),
            kind="http",
            retryable=True,
            status_code=response.status_code,
            response=text[:EXCERPT_CHARACTERS] or None,
        )
    return result


def without_query(url: httpx.URL) -> str:
    """An address for messages: without user, query and fragment."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii').partition('?')[0]}"


def _client(task: Task, request: Mapping[str, Any]) -> httpx.AsyncClient:
    """The client of one request, without timeouts. It accepts the codings that are decoded here.

    Cookies belong to the client, so no other job sees them.
    """
    verify = task.action.get("verify_ssl", task.action.get("verify", True)) is not False
    hooks = _hooks(request["url"], request["headers"])
    connections = task.shared.http_connections
    through: dict[str, Any] = (
        {"verify": connections.tls(verify=verify)}
        if connections.proxied
        else {"transport": KeepingTransport(connections, task.shared.redactor, verify=verify)}
    )
    headers = {"accept-encoding": ACCEPTED}
    return httpx.AsyncClient(timeout=httpx.Timeout(None), event_hooks=hooks, headers=headers, **through)


@contextlib.asynccontextmanager
async def _closing() -> AsyncIterator[Trace]:
    """Close the connections to proxies at the end: httpx leaves one open when its TLS handshake is cancelled."""
    opened: list[Any] = []

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(info["return_value"])

    try:
        yield trace
    finally:
        for stream in opened:
            await stream.aclose()


def _hooks(first: httpx.URL, headers: Mapping[str, str]) -> dict[str, list[Callable[[httpx.Request], Awaitable[None]]]]:
    """Hooks of httpx that check each request of a chain of redirects, and remove headers for another server."""
    keys = {name.lower() for name in headers} - SENT_ANYWHERE

    async def check(request: httpx.Request) -> None:
        if (request.url.port or 0) not in PORTS:
            raise httpx.RemoteProtocolError(f"there is no port {request.url.port}")
        if not same_origin(request.url, first):
            for key in keys:
                request.headers.pop(key, None)

    return {"request": [check]}


def same_origin(url: httpx.URL, first: httpx.URL) -> bool:
    """Whether an address is on the server of the first one: the same port, or the default port with TLS."""
    same = (url.scheme, url.port) == (first.scheme, first.port)
    secured = (first.scheme, first.port, url.scheme, url.port) == ("http", None, "https", None)
    return url.host == first.host and (same or secured)


async def _exchange(
    client: httpx.AsyncClient, request: httpx.Request, shown: str, *, auth: tuple[str, str] | None, follow: bool
) -> tuple[httpx.Response, bytes]:
    """Send a request, follow redirects, and return the last response with its body."""
    login: Any = auth
    for _ in range(client.max_redirects + 1):
        response = await client.send(request, auth=login, stream=True)
        try:
            if not follow or response.next_request is None:
                return response, await _body(response, shown)
        finally:
            await response.aclose()
        request, login = response.next_request, httpx.Auth()  # a login in the new address is not sent
    raise httpx.TooManyRedirects("too many", request=request)


async def _body(response: httpx.Response, shown: str) -> bytes:
    """Read at most as much of a body as a result may hold. The body of an error response is cut there."""
    body = bytearray()
    try:
        await _read(response, body)
    except CodingFault as fault:
        if response.status_code < FIRST_ERROR_STATUS:
            message, details = f"{shown} {fault}", {"status_code": response.status_code}
            raise ToolFault(message, kind=fault.kind, retryable=fault.retryable, **details) from None
    return bytes(body)


async def _read(response: httpx.Response, body: bytearray) -> None:
    """Append the decoded response to `body`. Raises CodingFault when it is larger than a result may be."""
    decoder = None
    async for part in response.aiter_raw():
        # Only here: a response without a body may name any coding.
        decoder = decoder or Decoder(response.headers.get("content-encoding", ""), RESULT_BYTES)
        for portion in decoder.feed(part):
            body += portion
            if len(body) > RESULT_BYTES:
                raise too_large(RESULT_BYTES)


def content(response: httpx.Response, body: bytes) -> dict[str, Any]:
    """The response as JSON."""
    result: dict[str, Any] = {
        "status_code": response.status_code,
        "headers": dict(response.headers),
        "url": str(response.url.copy_with(userinfo=b"") if response.url.userinfo else response.url),
        "elapsed": response.elapsed.total_seconds(),
    }
    media = response.headers.get("content-type", "").split(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        try:
            return result | {"data": _json(body) if body else None}
        except (ValueError, RecursionError):
            pass
    cut = len(body) > RESULT_BYTES  # perhaps inside a character
    try:
        text = body.decode(response.charset_encoding or "utf-8", "replace" if cut else "strict")
    except (UnicodeError, LookupError):
        return result | {"data": base64.b64encode(body).decode("ascii"), "encoding": "base64"}
    return result | {"data": text.replace("\x00", "\ufffd")}


def _json(body: bytes) -> Any:
    """Read JSON. Raises ValueError also for NaN, Infinity and numbers too large for a float, which Python accepts."""
    value = json.loads(body)
    json.dumps(value, allow_nan=False)
    return value


def request_of(task: Task) -> tuple[str, dict[str, Any]]:
    """The method of the request, and its other parts as arguments of httpx."""
    method = str(task.action.get("method") or "GET").upper()
    if method not in HTTP_METHODS:
        raise task.fault(f"the method {method!r} is none of {', '.join(sorted(HTTP_METHODS))}", kind="bad_value")
    address = task.first("url", "endpoint")
    if not isinstance(address, str) or not address.startswith(("http://", "https://")):
        raise task.fault(f"url must start with http:// or https://, not {address!r}", kind="bad_value")
    given = mapping(task.action.get("headers"), "headers")
    # httpx computes the length of the body.
    headers = {str(key): as_text(value) for key, value in given.items() if str(key).lower() != "content-length"}
    request: dict[str, Any] = {"url": _url(task, address.strip())}
    query = dict(mapping(task.action.get("params"), "params"))
    body = task.first(*BODIES)
    if body is not None and method in WITHOUT_BODY and task.first("json", "body", "payload") is None:
        # A request without a body sends its `data` as the query.
        query |= mapping(body, "data")
        body = None
    if query:
        # Merge it with the query of the address: httpx would replace that.
        try:
            request["url"] = request["url"].copy_merge_params(_query(query))
        except (httpx.InvalidURL, UnicodeError) as error:
            raise task.fault(f"the query cannot be sent: {error}", kind="bad_value") from None
    request |= _payload(body, headers)
    request |= _authorize(task, headers)
    return method, request | {"headers": headers}


def _url(task: Task, address: str) -> httpx.URL:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = None
    if url is None or (url.port or 0) not in PORTS:
        # The address is not shown: a password with a slash in it may be a part of the error.
        message = "the url cannot be read; look at its host, its port, and characters that are not printable"
        raise task.fault(message, kind="bad_value")
    return url


def _payload(body: Any, headers: Mapping[str, str]) -> dict[str, Any]:
    media = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    if body is None:
        return {}
    if isinstance(body, str):
        return {"content": body}
    if isinstance(body, Mapping) and media.lower().startswith(FORM):
        return {"data": _query(body)}
    return {"json": body}


def _query(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: [as_text(item) for item in value] if isinstance(value, list) else as_text(value)
        for key, value in values.items()
    }


def _authorize(task: Task, headers: dict[str, str]) -> dict[str, Any]:
    """Add the credentials of `auth` to the headers; httpx sends a basic one."""
    extra: dict[str, Any] = {}
    for entry in entries(task.first("auth", "credential", "credentials"), task.shared.environment):
        kind = str(entry.get("type") or "bearer").lower()
        token = next(
            (entry[key] for key in ("token", "access_token", "value", "api_key", "text") if entry.get(key)), None
        )
        if kind == "basic":
            extra["auth"] = (str(entry.get("user") or entry.get("username") or ""), str(entry.get("password") or ""))
        elif token is None or kind not in ("bearer", "api_key", "header"):
            raise task.fault(
                f"auth of type {kind!r} is not supported or has no token; use bearer, basic, api_key or header",
                kind="not_supported",
            )
        elif kind == "bearer":
            headers["Authorization"] = f"Bearer {token}"
        else:
            headers[str(entry.get("header") or entry.get("name") or "X-API-Key")] = as_text(token)
    return extra
