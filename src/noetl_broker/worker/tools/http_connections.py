"""Connections of http steps: kept between jobs, by server and credential, and used by one job at a time.

Only a request that may be repeated is sent over a kept connection. The server may have closed that connection in the
same moment; then the request is sent again over a new one.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from types import MappingProxyType
from urllib.request import getproxies

import h11
import httpx

from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.redaction import Redactor
from noetl_broker.worker.tools.http_connection import HttpConnection, request_head

PORTS: Mapping[str, int] = MappingProxyType({"http": 80, "https": 443})
SWITCHED = 101  # the status of an answer after which the connection speaks another protocol
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


class HttpConnections:
    """The connections of all http steps of a worker, and how their servers are verified."""

    def __init__(self, idle: IdleConnections[HttpConnection]) -> None:
        self.idle = idle
        # httpx reads the same variables. Through a proxy no connection is kept.
        self.proxied = bool({"http", "https", "all"} & getproxies().keys())

    def tls(self, *, verify: bool) -> ssl.SSLContext:
        """The TLS context of a request."""
        return self._verifying if verify else self._trusting

    @cached_property
    def _verifying(self) -> ssl.SSLContext:
        return _context(verify=True)

    @cached_property
    def _trusting(self) -> ssl.SSLContext:
        return _context(verify=False)


def _context(*, verify: bool) -> ssl.SSLContext:
    context = httpx.create_ssl_context(verify=verify)
    context.set_alpn_protocols(["http/1.1"])
    return context


class KeepingTransport(httpx.AsyncBaseTransport):
    """The transport of one job: it takes kept connections, and keeps a connection whose exchange ended well."""

    def __init__(self, connections: HttpConnections, redactor: Redactor, *, verify: bool) -> None:
        self._connections = connections
        self._redactor = redactor
        self._verify = verify
        self._used: set[HttpConnection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response, with the body still to be read."""
        if request.url.scheme not in PORTS or not request.url.host:
            raise httpx.UnsupportedProtocol(f"{request.url.scheme}://{request.url.host} is no server for http")
        key = self._key(request)
        if request.method in REPEATABLE or REPEATABLE_WITH in request.headers:
            kept = self._connections.idle.take(key)
            if kept is not None:
                try:
                    return await self._exchange(kept, key, request)
                except httpx.TransportError:
                    if kept.answered or not kept.is_closed():
                        raise
                    self._connections.idle.forget(key)
        tls = self._connections.tls(verify=self._verify) if request.url.scheme == "https" else None
        port = request.url.port or PORTS[request.url.scheme]
        new = await HttpConnection.open(request.url.raw_host.decode("ascii"), port, tls)
        return await self._exchange(new, key, request)

    async def aclose(self) -> None:
        """Close the connections whose exchange has not ended."""
        for connection in self._used:
            connection.terminate()

    def finish(self, connection: HttpConnection, key: bytes | None) -> None:
        """Keep a connection whose exchange has ended, or close it: always without a key."""
        self._used.discard(connection)
        if key is None:
            connection.terminate()
        elif connection.rest():
            self._connections.idle.give_back(key, connection)

    def _key(self, request: httpx.Request) -> bytes:
        """The key of a request's connection: its server, its credentials, and whether the server is verified."""
        url = request.url
        named = sorted(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in request.headers.raw
            if name.decode("latin-1").lower() not in OPEN_HEADERS
        )
        return self._connections.idle.key(
            url.scheme, url.host, url.port, self._verify, named, self._redactor.known_in(str(url))
        )

    async def _exchange(self, connection: HttpConnection, key: bytes, request: httpx.Request) -> httpx.Response:
        self._used.add(connection)
        body = await request.aread()
        connection.send(request_head(request.method, request.url.raw_path, request.headers.raw), body)
        event = await connection.next_event()
        while isinstance(event, h11.InformationalResponse) and event.status_code != SWITCHED:
            event = await connection.next_event()
        was_read = not body or (request.method in READ_BODIES and event.status_code in SUCCESS)
        return httpx.Response(
            event.status_code,
            headers=event.headers.raw_items(),
            stream=_Body(self, connection, key if was_read else None),
            extensions={"http_version": b"HTTP/" + event.http_version, "reason_phrase": event.reason},
        )


class _Body(httpx.AsyncByteStream):
    """The body of a response; closing it ends the exchange."""

    def __init__(self, transport: KeepingTransport, connection: HttpConnection, key: bytes | None) -> None:
        self._transport = transport
        self._connection = connection
        self._key = key
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._connection.next_event(), h11.Data):
            yield bytes(event.data)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._transport.finish(self._connection, self._key)
