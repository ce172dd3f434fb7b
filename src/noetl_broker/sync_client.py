"""The client for programs without asyncio: it runs the methods of `Client` in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import update_wrapper
from threading import Thread
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from noetl_broker.client import Client
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA

P = ParamSpec("P")
Answer = TypeVar("Answer")


def _blocking(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate[SyncClient, P], Answer]:
    """The method of the client, which returns when it is done."""

    def call(self: SyncClient, /, *arguments: P.args, **options: P.kwargs) -> Answer:
        return self._run(method(self._client, *arguments, **options))

    update_wrapper(call, method)
    return call


class SyncClient:
    """`Client` for programs without asyncio: the same methods, and each returns when it is done.

    ```python
    with SyncClient("postgresql://localhost/database") as client:
        execution_id = client.start("examples/hello", {"name": "Ada"}, idempotency_key="order 17")
        ended = client.wait(execution_id)
    ```

    Safe to share between threads. A process that forks makes its own after the fork.
    """

    def __init__(
        self, dsn: str | None = None, *, schema: str = DEFAULT_SCHEMA, connections: int = 4, nodes: Sequence[str] = ()
    ) -> None:
        """Start the thread. Connections are made on demand, with at most `connections`."""
        self._client = Client(dsn, schema=schema, connections=connections, nodes=nodes)
        self._loop = asyncio.new_event_loop()
        # A program that forgets to close must end all the same.
        self._thread = Thread(target=self._loop.run_forever, name="noetl-broker client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close all connections within a time limit, and end the thread. A second call does nothing."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """What the work returns or raises; an interrupt cancels it."""
        if self._loop.is_closed():
            work.close()
            message = "this client is closed; make another one"
            raise RuntimeError(message)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    start = _blocking(Client.start)
    start_many = _blocking(Client.start_many)
    status = _blocking(Client.status)
    outcome = _blocking(Client.outcome)
    wait = _blocking(Client.wait)
    cancel = _blocking(Client.cancel)
    signal = _blocking(Client.signal)
    signal_execution = _blocking(Client.signal_execution)
    approvals = _blocking(Client.approvals)
    decide = _blocking(Client.decide)
