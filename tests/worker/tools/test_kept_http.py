"""Connections of http steps between two jobs: nothing of one job is sent or read in another."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from noetl_broker.worker.idle_connections import IDLE_SECONDS
from noetl_broker.worker.tools.http_connections import HttpConnections
from noetl_broker.worker.tools.task import WorkerResources
from tests.worker.conftest import Perform, failed
from tests.worker.servers import listening

END = b"\r\n\r\n"


def answer(body: bytes, more: str = "", status: str = "200 OK") -> bytes:
    """Give a whole answer."""
    return f"HTTP/1.1 {status}\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


class KeepingSite:
    """A web server that keeps connections: records requests by connection, answers with the request's number."""

    def __init__(self) -> None:
        self.heads: list[tuple[int, str]] = []  # of each request: its connection, and its head
        self.said: list[bytes | None] = []  # the first answers, instead; None: the connection is closed
        self.came = asyncio.Queue[int]()  # the connection of each request
        self.ended = asyncio.Queue[int]()
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def connections(self) -> list[int]:
        """The connection of each request."""
        return [number for number, _ in self.heads]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the client closes."""
        self._writers.append(writer)
        number = len(self._writers)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(END)).decode()
                length = next((line for line in head.split("\r\n") if line.lower().startswith("content-length:")), ":0")
                await reader.readexactly(int(length.partition(":")[2]))
                self.heads.append((number, head))
                self.came.put_nowait(number)
                said = self.said.pop(0) if self.said else answer(str(len(self.heads)).encode())
                if said is None:
                    break
                writer.write(said)
                await writer.drain()
        self.ended.put_nowait(number)

    async def next_end(self) -> int:
        """Wait for the end of a connection, for less time than an unused one is kept."""
        async with asyncio.timeout(IDLE_SECONDS / 2):
            return await self.ended.get()

    def send_all(self, data: bytes) -> None:
        """Send this to all clients."""
        for writer in self._writers:
            writer.write(data)

    def close_all(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def site() -> AsyncIterator[KeepingSite]:
    """Run the server."""
    own = KeepingSite()
    async with listening(own.serve) as port:
        own.url = f"http://127.0.0.1:{port}/"
        yield own


async def data(perform: Perform, site: KeepingSite, query: str = "", **more: Any) -> Any:
    """Run one job; give the data of its result."""
    return (await perform({"type": "http", "url": f"{site.url}{query}", **more}))["data"]


async def test_the_next_job_uses_the_connection(perform: Perform, site: KeepingSite) -> None:
    """Whatever its path, and its headers that are no credential."""
    headers = {"Idempotency-Key": "1", "traceparent": "00-1", "Accept": "text/plain"}
    assert [await data(perform, site), await data(perform, site, "there", headers=headers)] == ["1", "2"]
    assert site.connections == [1, 1]


async def test_two_jobs_at_a_time_have_two_connections(perform: Perform, site: KeepingSite) -> None:
    """Each is kept."""
    for _ in range(2):
        await asyncio.gather(data(perform, site), data(perform, site))
    assert sorted(site.connections) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "other",
    [
        {"auth": {"type": "bearer", "token": "b"}},
        {"auth": {"type": "basic", "username": "u", "password": "p"}},
        {"headers": {"X-Key": "b"}},
        {"headers": {"Cookie": "a=b"}},
        {"params": {"key": "{{ secret.api_token }}"}},
        {"verify": False},
    ],
)
async def test_another_credential_has_a_connection_of_its_own(
    perform: Perform, site: KeepingSite, other: dict[str, Any]
) -> None:
    """In whatever place a request has it. A key in a query is known if it is a secret of the worker."""
    for more in ({}, other, {}, other):
        await data(perform, site, **more)
    assert site.connections == [1, 2, 1, 2]


async def test_a_changed_credential_gets_a_new_connection(perform: Perform, site: KeepingSite) -> None:
    """Of the same kind."""
    for token in ("old", "new", "new"):
        await data(perform, site, auth={"type": "bearer", "token": token})
    assert site.connections == [1, 2, 2]


async def test_cookies_are_not_sent_in_the_next_job(perform: Perform, site: KeepingSite) -> None:
    """On the same connection."""
    site.said = [answer(b"x", "set-cookie: session=1\r\n")]
    await data(perform, site)
    await data(perform, site)
    assert site.connections == [1, 1]
    assert "session" not in site.heads[1][1]


HALF = answer(b"12345")[:-2]
POISON = answer(b"poison")
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [
        answer(b"1") + POISON,
        answer(b"1") + POISON[:9],
        answer(b"1") + b"\r\n",
        CHUNKS + b"1\r\n1\r\n0\r\n\r\n" + POISON,
        answer(b"1", "connection: close\r\n"),
        answer(b"1").replace(b"1.1", b"1.0"),
        answer(b"", "connection: upgrade\r\nupgrade: x\r\n", "101 Now") + POISON,
    ],
    ids=[
        "an answer",
        "half an answer",
        "a line",
        "an answer after chunks",
        "close",
        "an old protocol",
        "a new protocol",
    ],
)
async def test_what_follows_an_answer_is_not_read(perform: Perform, site: KeepingSite, said: bytes) -> None:
    """The connection is closed; the next job has another."""
    site.said = [said]
    await perform({"type": "http", "url": site.url})
    assert await site.next_end() == 1
    assert (await data(perform, site), site.connections) == ("2", [1, 2])


async def test_what_comes_between_two_jobs_is_not_read(perform: Perform, site: KeepingSite) -> None:
    """The connection is closed at once."""
    await data(perform, site)
    site.send_all(POISON)
    assert await site.next_end() == 1
    assert (await data(perform, site), site.connections) == ("2", [1, 2])


@pytest.mark.parametrize(
    "said", [HALF, b"HTTP/1.1 200 OK\r\nx: ", CHUNKS + b"5\r\n123", CHUNKS + b"no chunk\r\n"], ids=range(4)
)
async def test_half_an_answer_spoils_no_other_job(perform: Perform, site: KeepingSite, said: bytes) -> None:
    """Neither one that waits too long for the rest, nor one whose connection is kept."""
    await data(perform, site)
    site.said = [said]
    outcome = await perform({"type": "http", "url": site.url, "timeout": "{{ 0.2 }}", "unfinished": [["timeout"]]})
    assert (failed(outcome)["type"] in ("timeout", "connection"), outcome.retryable) == (True, True)
    assert (await data(perform, site), site.connections) == ("3", [1, 1, 2])


async def test_a_cancelled_request_is_not_answered_in_the_next_job(perform: Perform, site: KeepingSite) -> None:
    """Its connection is closed."""
    await data(perform, site)
    site.said = [b""]
    running = asyncio.create_task(data(perform, site))
    assert [await site.came.get(), await site.came.get()] == [1, 1]
    running.cancel()
    assert await site.next_end() == 1
    assert (await data(perform, site), site.connections) == ("3", [1, 1, 2])


async def test_a_connection_that_the_server_closed_is_replaced(perform: Perform, site: KeepingSite) -> None:
    """Before a request is sent."""
    await data(perform, site)
    site.close_all()
    assert await site.next_end() == 1
    assert await data(perform, site, method="POST") == "2"


@pytest.mark.parametrize("more", [{}, {"method": "POST", "headers": {"Idempotency-Key": "1"}}])
async def test_a_request_that_meets_the_end_of_its_connection_is_repeated(
    perform: Perform, site: KeepingSite, more: dict[str, Any]
) -> None:
    """If it may be: the server closes when it comes."""
    await data(perform, site)
    site.said = [None]
    assert (await data(perform, site, **more), site.connections) == ("3", [1, 1, 2])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_request_that_must_not_be_repeated_has_a_new_connection(
    perform: Perform, site: KeepingSite, method: str
) -> None:
    """So the end of an old one cannot fail it."""
    await data(perform, site)
    await data(perform, site, method=method)
    assert site.connections == [1, 2]


@pytest.mark.parametrize(
    "method, status, connections",
    [
        ("POST", "201 Created", [1, 1]),
        ("GET", "200 OK", [1, 2]),
        ("DELETE", "200 OK", [1, 2]),
        ("POST", "401 Unauthorized", [1, 2]),
        ("PUT", "307 Elsewhere", [1, 2]),
    ],
)
async def test_a_body_that_may_not_have_been_read_is_no_request(
    perform: Perform, site: KeepingSite, method: str, status: str, connections: list[int]
) -> None:
    """A server that did not read it takes it for the next request, so the connection is closed."""
    site.said = [answer(b"x", status=status)]
    await perform({"type": "http", "url": site.url, "method": method, "body": "GET /other HTTP/1.1\r\n\r\n"})
    await data(perform, site)
    assert site.connections == connections


async def test_a_new_connection_that_ends_without_an_answer_fails_the_job(perform: Perform, site: KeepingSite) -> None:
    """The request is not repeated by the tool."""
    site.said = [None]
    outcome = await perform({"type": "http", "url": site.url})
    assert (failed(outcome)["type"], outcome.retryable, site.connections) == ("connection", True, [1])


async def test_a_redirect_keeps_the_connections_of_both_servers(perform: Perform, site: KeepingSite) -> None:
    """A body that is not read ends its connection."""
    to = f"location: {site.url}there\r\n"
    site.said = [answer(b"", to, "302 Found"), answer(b"1"), answer(b"x" * 100_000, to, "302 Found"), answer(b"2")]
    assert [await data(perform, site), await data(perform, site)] == ["1", "2"]
    assert site.connections == [1, 1, 1, 2]


async def test_a_request_through_a_proxy_has_a_new_connection(
    perform: Perform, shared: WorkerResources, site: KeepingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of the worker name the proxy."""
    monkeypatch.setenv("http_proxy", site.url)
    using = dataclasses.replace(shared, http_connections=HttpConnections(shared.http_connections.idle))
    for _ in range(2):
        await perform({"type": "http", "url": "http://elsewhere.example/there"}, using=using)
    assert [head.split("\r\n")[0] for _, head in site.heads] == ["GET http://elsewhere.example/there HTTP/1.1"] * 2
    assert site.connections == [1, 2]
