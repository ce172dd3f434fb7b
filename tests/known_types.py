"""What the driver asks each new session about the types of Postgres, asked once in a test process.

The driver does not know arrays of built-in types, such as `int8[]`. The recursive statement that describes one takes
10 ms of processor time in a new session, and most tests have some. Built-in types are the same in every database. A
process that a test starts asks as always, and so do the tests of `asking`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg

BUILT_IN_BELOW = 10_000  # Postgres gives these numbers by hand, and never again
_Connection: Any = asyncpg.Connection
_ask_types = _Connection._introspect_types
_ask_type = _Connection._introspect_type
_types: dict[frozenset[int], Any] = {}
_named: dict[str, Any] = {}


async def _known_types(connection: Any, numbers: Iterable[int], seconds: float | None) -> tuple[Any, Any]:
    """Describe types; what comes with it tells the driver that no statement was sent in between."""
    wanted = frozenset(numbers)
    if wanted in _types:
        return _types[wanted], SimpleNamespace(name="none was sent")
    described, statement = await _ask_types(connection, numbers, seconds)
    if all(number < BUILT_IN_BELOW for number in wanted):
        _types[wanted] = described
    return described, statement


async def _known_type(connection: Any, name: str, schema: str) -> Any:
    """Describe a type by its name."""
    if schema != "pg_catalog":
        return await _ask_type(connection, name, schema)
    if name not in _named:
        _named[name] = await _ask_type(connection, name, schema)
    return _named[name]


def remember() -> None:
    """Let the driver of this process ask about each built-in type once."""
    _Connection._introspect_types = _known_types
    _Connection._introspect_type = _known_type


@contextmanager
def asking() -> Iterator[None]:
    """Let the driver ask as always, for tests that count or break its statements."""
    _Connection._introspect_types = _ask_types
    _Connection._introspect_type = _ask_type
    try:
        yield
    finally:
        remember()
