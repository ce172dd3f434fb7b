"""Commands in this process share an event loop and the sessions that they open, so that each need not plan anew.

A new session costs 5 to 10 ms of processor time, and as much again for the plans of its statements. A session is lent
to one command at a time. In between it is reset as a pool of the driver resets one, and it has another name.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg

IDLE = "tests"  # the name of a session that no command uses
NAME = "select set_config('application_name', $1, false)"
_asyncio: Any = asyncio
_asyncpg: Any = asyncpg
_run, _connect = asyncio.run, asyncpg.connect


class KeptSessions:
    """The event loop of the commands, and their idle sessions by all that they were opened with."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._idle: dict[object, list[Any]] = {}

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let `asyncio.run` use this loop, and `asyncpg.connect` the sessions."""
        _asyncio.run, _asyncpg.connect = self._run, self._connect
        try:
            yield
        finally:
            _asyncio.run, _asyncpg.connect = _run, _connect

    def close(self) -> None:
        """Close all sessions."""
        self._runner.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        for connection in (one for idle in self._idle.values() for one in idle):
            connection.terminate()

    def _run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run a command to its end, and then the tasks that it has left."""
        try:
            return self._runner.run(main, context=contextvars.copy_context())
        finally:
            self._runner.run(_end_tasks())

    async def _connect(self, dsn: str | None = None, **options: Any) -> Any:
        """Lend an idle session, or open one. The system's variables and the state of the server are looked at anew."""
        if dsn is None or options.get("target_session_attrs") is not None:
            return await _connect(dsn, **options)
        settings = dict(options.get("server_settings", {}))
        name = settings.pop("application_name", "")
        key = (
            dsn,
            repr(settings),
            *((option, options.get(option)) for option in ("connection_class", "command_timeout")),
        )
        idle = self._idle.setdefault(key, [])
        while idle:
            connection = idle.pop()
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await connection.execute(NAME, name)
                return connection
        keeping = _keeping(options.get("connection_class", asyncpg.Connection))
        connection = await _connect(dsn, **options | {"connection_class": keeping})
        connection.keep = idle.append
        return connection


def _keeping(kind: type) -> type:
    """The class of connections that `close` gives back, unless they are broken."""

    async def close(self: Any, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as the driver's
        if self.is_closed():
            return
        try:
            await self.reset(timeout=timeout)
            await self.execute(NAME, IDLE, timeout=timeout)
        except BaseException:
            self.terminate()
            raise
        self.keep(self)

    return type("Connection", (kind,), {"__slots__": ("keep",), "close": close})


async def _end_tasks() -> None:
    """End what a command has left, as `asyncio.run` does."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
