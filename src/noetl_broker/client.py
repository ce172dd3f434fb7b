"""Executions asked for by a program: started, awaited, looked at, cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.store import executions
from noetl_broker.store.pool import CLOSE_SECONDS, Connection, Pool, create_pool, renewed
from noetl_broker.store.session import translated

LOOK_SECONDS = (0.02, 0.5)  # the first pause between two looks at an execution, and the longest


class ExecutionFailed(BrokerError):
    """An execution that was waited for did not complete; `ended` is how it ended."""

    def __init__(self, ended: Ended) -> None:
        """The error's message is that of the execution."""
        error = ended.error if isinstance(ended.error, dict) else {}
        super().__init__(
            f"execution {ended.execution_id} of {ended.path} ended {ended.status}: "
            f"{error.get('message', 'no reason given')}"
        )
        self.ended = ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Where an execution stands: `status` is RUNNING, COMPLETED, FAILED or CANCELLED.

    `error` is a mapping with `message`, and mostly `step`.
    """

    execution_id: int
    path: str | None
    version: int | None
    status: str
    result: Any = None
    error: Any = None

    def or_raise(self) -> Any:
        """Give the result of an execution that completed; raises ExecutionFailed for any other end."""
        if self.status != "COMPLETED":
            raise ExecutionFailed(self)
        return self.result


class Client:
    """A producer's connections to the database of a broker.

    ```python
    async with Client("postgresql://localhost/database") as client:
        execution_id = await client.start("examples/hello", {"name": "Ada"}, idempotency_key="order 17")
        ended = await client.wait(execution_id)
    ```

    `dsn` None: the PG* variables. Every method raises DatabaseFault where the database does not answer, PermissionFault
    and SchemaFault where waiting would not help, NotFoundFault for what is not there. Safe to share between tasks.
    """

    def __init__(self, dsn: str | None = None, *, connections: int = 4) -> None:
        """Connect when it is first needed, `connections` at most."""
        self._dsn = dsn
        self._connections = connections
        self._pool: Pool | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Give itself."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close all connections; one that does not answer is cut."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
            except TimeoutError:
                pool.terminate()

    async def start(
        self,
        path: str,
        payload: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Start an execution of a registered playbook (None: its latest version), give its id.

        The same path and `idempotency_key` again start nothing and give the id of the first. Raises BrokerError where a
        fork has that key.
        """
        text = _text(payload or {})
        async with self._connection() as connection:
            return await executions.start_execution(
                connection, path, text, version=version, idempotency_key=idempotency_key
            )

    async def status(self, execution_id: int) -> Ended:
        """Where an execution stands."""
        async with self._connection() as connection:
            row = await executions.find_execution(connection, execution_id)
        return Ended(**{name: row[name] for name in Ended.__dataclass_fields__})

    async def wait(self, execution_id: int, *, seconds: float | None = None) -> Ended:
        """Wait until an execution has ended; raises TimeoutError after `seconds` (None: no limit)."""
        pause, longest = LOOK_SECONDS
        async with asyncio.timeout(seconds):
            while (found := await self.status(execution_id)).status == executions.OPEN:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, longest)
        return found

    async def cancel(self, execution_id: int, reason: str | None = None) -> bool:
        """Ask the broker to cancel an execution and its children; false when it has ended already."""
        async with self._connection() as connection:
            return await executions.cancel_execution(connection, execution_id, reason)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._lock:
            if self._pool is None:
                self._pool = await create_pool(self._dsn, name="noetl-broker client", size=self._connections)
        with translated():
            async with renewed(self._pool), self._pool.acquire() as connection:
                yield connection


def _text(payload: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(payload), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise OperatorFault(f"the payload must be a mapping that JSON can hold: {error}") from error
