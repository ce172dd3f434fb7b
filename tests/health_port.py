"""Requests to a broker's health port, as a probe or a scraper sends them."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_SECONDS = 120.0


class Response(NamedTuple):
    """The answer to one request."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON."""
        return dict(json.loads(self.body))


async def send(port: int, content: bytes) -> bytes:
    """Send these bytes and return everything until the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            writer.write(content)
            await writer.drain()
            return await reader.read()
    finally:
        writer.close()


async def request(port: int, path: str, *, method: str = "GET") -> Response:
    """Send one request and return the answer."""
    answer = await send(port, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = answer.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Response(int(first.split(" ")[1]), headers, body)


async def samples(port: int) -> dict[tuple[str, ...], float]:
    """Scrape; return each sample by its name without the prefix and its label values, without the database's."""
    found = {}
    for family in text_string_to_metric_families((await request(port, "/metrics")).body):
        for sample in family.samples:
            name = sample.name.removeprefix("noetl_broker_")
            found[(name, *(value for label, value in sample.labels.items() if label != "database"))] = sample.value
    return found
