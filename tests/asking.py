"""Asks a broker's health port as a probe or a scraper does."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_SECONDS = 30.0


class Heard(NamedTuple):
    """An answer of a port."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON."""
        return dict(json.loads(self.body))


async def send(port: int, request: bytes) -> bytes:
    """Send these bytes and read to the end of what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            writer.write(request)
            await writer.drain()
            return await reader.read()
    finally:
        writer.close()


async def ask(port: int, path: str, *, method: str = "GET") -> Heard:
    """Send one request as a program does."""
    answer = await send(port, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = answer.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Heard(int(first.split(" ")[1]), headers, body)


async def figures(port: int) -> dict[tuple[str, ...], float]:
    """Scrape; gives each sample by its name (without the prefix) and the values of its labels but the database's."""
    found = {}
    for family in text_string_to_metric_families((await ask(port, "/metrics")).body):
        for sample in family.samples:
            name = sample.name.removeprefix("noetl_broker_")
            found[(name, *(value for label, value in sample.labels.items() if label != "database"))] = sample.value
    return found
