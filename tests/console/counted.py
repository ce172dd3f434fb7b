"""Connections of a console that count the statements of its requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from noetl_broker.console import services, threads
from noetl_broker.console.connections import REQUEST_SECONDS, Connections
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import load, sql

asked: Counter[str] = Counter()  # statements, by text


class CountedConnections(Connections):
    """Connections whose statements are counted in `asked`."""

    @asynccontextmanager
    async def borrow(self, seconds: float = REQUEST_SECONDS) -> AsyncIterator[Connection]:
        """Give a connection."""
        async with super().borrow(seconds) as connection:
            with connection.query_logger(lambda statement: asked.update([statement.query])):
                yield connection


def count_statements(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Let consoles that are made from now on count; gives `asked`, which is empty."""
    asked.clear()
    for module in (services, threads):
        monkeypatch.setattr(module, "Connections", CountedConnections)
    return asked


def of_pages(statements: Counter[str]) -> int:
    """The number of the program's statements without those that a console asks at times: of tokens, and of what waits.

    The driver asks for types on each new connection; whether a request needs a new one is chance.
    """
    own = {text for text in load().values() if "check_api_token" not in text and text != sql("count_attention")}
    return sum(statements[text] for text in own)
