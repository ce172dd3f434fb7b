"""Connections that wait for the next job."""

from __future__ import annotations

import asyncio
import time

from noetl_broker.worker.idle_connections import LIFE_SECONDS, IdleConnections


class Line:
    """A connection without a network."""

    def __init__(self, age_seconds: float = 0.0) -> None:
        self.opened_at = time.monotonic() - age_seconds
        self.ended = asyncio.Event()

    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self.ended.is_set()

    def terminate(self) -> None:
        """Close it."""
        self.ended.set()


async def test_the_connection_that_waited_shortest_is_taken_first() -> None:
    """The others are then closed sooner."""
    idle, lines = IdleConnections[Line](most=8), [Line(), Line()]
    for line in lines:
        idle.give_back(b"a", line)
    assert [idle.take(b"a"), idle.take(b"a"), idle.take(b"a")] == [*reversed(lines), None]


async def test_a_connection_is_taken_with_its_own_key_only() -> None:
    """A key differs with each part of what it names."""
    idle, line = IdleConnections[Line](most=8), Line()
    idle.give_back(idle.key("host", {"password": "old"}, ["s"]), line)
    others = [
        ("host", {"password": "new"}, ["s"]),
        ("host", {"password": "old"}, []),
        ("else", {"password": "old"}, ["s"]),
    ]
    assert [idle.take(idle.key(*named)) for named in others] == [None, None, None]
    assert idle.take(idle.key("host", {"password": "old"}, ["s"])) is line


async def test_more_than_the_bound_close_the_one_that_waits_longest() -> None:
    """Whatever its key."""
    idle, lines = IdleConnections[Line](most=2), [Line(), Line(), Line()]
    for line, key in zip(lines, (b"a", b"b", b"b"), strict=True):
        idle.give_back(key, line)
    assert [line.is_closed() for line in lines] == [True, False, False]


async def test_a_connection_is_closed_when_it_has_waited_long_enough() -> None:
    """Each in its turn."""
    idle, lines = IdleConnections[Line](most=8, idle_seconds=0.01), [Line(), Line()]
    for line in lines:
        idle.give_back(b"a", line)
        await line.ended.wait()


async def test_an_old_connection_is_closed_instead_of_waiting() -> None:
    """However often it was used."""
    idle, line = IdleConnections[Line](most=8), Line(age_seconds=LIFE_SECONDS)
    idle.give_back(b"a", line)
    assert line.is_closed()


async def test_a_closed_connection_is_not_taken() -> None:
    """The next one is."""
    idle, lines = IdleConnections[Line](most=8), [Line(), Line()]
    for line in lines:
        idle.give_back(b"a", line)
    lines[1].terminate()
    assert idle.take(b"a") is lines[0]


async def test_all_are_closed_at_the_end() -> None:
    """Also one that a job gives back later."""
    idle, lines = IdleConnections[Line](most=8), [Line(), Line()]
    idle.give_back(b"a", lines[0])
    idle.close()
    idle.give_back(b"a", lines[1])
    assert [line.is_closed() for line in lines] == [True, True]


async def test_without_idle_time_nothing_waits() -> None:
    """Each connection serves one job."""
    idle, line = IdleConnections[Line](most=8, idle_seconds=0), Line()
    idle.give_back(b"a", line)
    assert line.is_closed()
