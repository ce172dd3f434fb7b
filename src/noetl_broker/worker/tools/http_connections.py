"""Connections of http steps: kept between jobs, by server and credential, and used by one request at a time.

Only a request that may be repeated is sent over a kept connection. The server may have closed that connection in the
same moment; then the request is sent again over a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from noetl_broker.worker.idle_connections import LIFE_SECONDS, IdleConnections
from noetl_broker.worker.meter import Meter
from noetl_broker.worker.redaction import Redactor
from noetl_broker.worker.tools.http_decoding import ACCEPTED

LINE_BYTES = 64 * 1024  # of an answer: its status, and each of its headers
MOST_HEADERS = 256
OTHER_BYTES = 512 * 1024  # of an answer between two parts of its body
NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
REPEATABLE_WITH = "idempotency-key"
# With another method or status, a server may have answered without reading the body. It then reads the body as a
# request, and the answer to that would be the next job's.
READ_BODIES = frozenset({"POST", "PUT", "PATCH"})
SUCCESS = range(200, 300)
# Headers that are no credential. Any other header may be one: a connection is kept for requests with the same.
OPEN_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-length", "content-type"}
    | {"if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "prefer", "range", "user-agent"}
    | {REPEATABLE_WITH, "traceparent", "tracestate", "x-correlation-id", "x-request-id"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request; `verify`: whether the certificate of its server is checked."""

    method: str
    url: URL = field(repr=False)
    headers: CIMultiDict[str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    verify: bool = True


class _ExchangeMeter(Meter):
    """Closes a connection when data come between two exchanges, or many data that hold nothing of a body.

    The library gets the last byte of what came a moment later. If an answer ends before it, something follows the
    answer. The library keeps that, or drops it.
    """

    def __init__(self, protocol: Any, transport: Any) -> None:
        super().__init__(protocol, transport)
        self.protocol = protocol
        self.rests = False
        self.body: aiohttp.StreamReader | None = None  # of the current answer, once its head has come
        self._body_bytes = 0
        self._other_bytes = 0  # since a byte of the body
        self._last = b""
        self.begin()

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent, or more than an answer has come."""
        return bool(self._last) or self.protocol.should_close or not self.protocol.is_connected()

    def data_received(self, data: bytes) -> None:
        """Pass all but the last byte on, and then that."""
        self._pass_last()
        super().data_received(data[:-1])
        self._last = data[-1:]
        asyncio.get_running_loop().call_soon(self._pass_last)

    def _pass_last(self) -> None:
        last, self._last = self._last, b""
        if last:
            super().data_received(last)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        self._pass_last()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._pass_last()
        super().connection_lost(exc)

    def check(self, data: bytes) -> Exception | None:
        """The fault of data that nobody asked for, and of a chunk whose head does not end."""
        if self.rests:
            return aiohttp.ServerDisconnectedError()
        if self.body is None:
            return None
        if self.body.total_bytes != self._body_bytes:
            self._body_bytes, self._other_bytes = self.body.total_bytes, 0
        self._other_bytes += len(data)
        if self._other_bytes > OTHER_BYTES:
            return aiohttp.ClientPayloadError(f"more than {OTHER_BYTES} bytes come without a part of the body")
        return None


class HttpConnection(aiohttp.TCPConnector):
    """At most one connection to a server, for one exchange after another.

    Between two exchanges nothing may come from the server: an answer is never read in a later exchange.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(ssl=tls, limit=1, keepalive_timeout=LIFE_SECONDS, use_dns_cache=False)
        self.opened_at = time.monotonic()
        self._meter: _ExchangeMeter | None = None
        self._is_begun = False

    async def send(self, request: HttpRequest, cookies: aiohttp.CookieJar, proxy: str | None) -> aiohttp.ClientResponse:
        """Begin an exchange: send a request and return its response, with the body still to be read."""
        self._is_begun = False
        if self._meter is not None:
            self._meter.rests = False
        session = aiohttp.ClientSession(
            connector=self, connector_owner=False, cookie_jar=cookies, headers={"Accept-Encoding": ACCEPTED},
            skip_auto_headers=("Content-Type",), auto_decompress=False, timeout=NO_TIMEOUT, max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES, max_headers=MOST_HEADERS,
        )  # fmt: skip
        method, url, headers = request.method, request.url, request.headers
        try:
            response = await session.request(
                method, url, headers=headers, data=request.body, allow_redirects=False, proxy=proxy
            )
        except BaseException:
            self.terminate()
            raise
        finally:
            session.detach()
        if self._meter is not None:
            self._meter.body = response.content
        return response

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - of the library
        """Connect, once an exchange: the library would repeat a request by itself."""
        if self._is_begun:
            raise aiohttp.ServerDisconnectedError
        self._is_begun = True
        connection = await super().connect(req, traces, timeout)
        if self._meter is None or self._meter.protocol is not connection.protocol:
            self._meter = _ExchangeMeter(connection.protocol, connection.transport)
        return connection

    def rest(self) -> bool:
        """End an exchange; False if the connection is closed, so that nothing more can be sent."""
        if self._meter is not None:
            self._meter.rests, self._meter.body = True, None
        return not self.is_closed()

    def is_closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self._meter is None or self._meter.is_closed

    def terminate(self) -> None:
        """Close it; the loop does it as its next work."""
        self._closing = asyncio.ensure_future(self.close())


class HttpConnections:
    """The connections of all http steps of a worker, how their servers are verified, and the proxies before them."""

    def __init__(self, idle: IdleConnections[HttpConnection]) -> None:
        self.idle = idle
        self._proxies = getproxies()
        self._contexts: dict[bool, ssl.SSLContext] = {}

    @contextlib.asynccontextmanager
    async def exchange(
        self, request: HttpRequest, cookies: aiohttp.CookieJar, redactor: Redactor
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; gives its response. A response that is read to its end leaves its connection to a later job.

        Through a proxy no connection is kept.
        """
        proxy, key = self._proxy(request.url), self._key(request, cookies, redactor)
        repeatable = request.method in REPEATABLE or REPEATABLE_WITH in request.headers
        connection, response = None if proxy or not repeatable else self.idle.take(key), None
        if connection is not None:
            try:
                response = await connection.send(request, cookies, None)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                self.idle.forget(key)
        if connection is None or response is None:
            connection = HttpConnection(self.tls(verify=request.verify))
            response = await connection.send(request, cookies, proxy)
        was_read = not request.body or (request.method in READ_BODIES and response.status in SUCCESS)
        try:
            yield response
        finally:
            ended = response.content.at_eof()
            response.close()
            if ended and was_read and not proxy and connection.rest():
                self.idle.give_back(key, connection)
            else:
                connection.terminate()

    def tls(self, *, verify: bool) -> ssl.SSLContext:
        """The TLS context of a request."""
        if verify not in self._contexts:
            context = self._contexts[verify] = ssl.create_default_context()
            if not verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return self._contexts[verify]

    def _proxy(self, url: URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if not proxy or proxy_bypass(f"{url.host}:{url.port}"):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _key(self, request: HttpRequest, cookies: aiohttp.CookieJar, redactor: Redactor) -> bytes:
        """The key of a request's connection: its server, its credentials, and whether the server is verified."""
        url = request.url
        headers = ((name.lower(), value) for name, value in request.headers.items())
        named = sorted(header for header in headers if header[0] not in OPEN_HEADERS)
        login = (named, str(cookies.filter_cookies(url)), redactor.known_in(str(url)))
        return self.idle.key(url.scheme, url.host, url.port, request.verify, *login)
