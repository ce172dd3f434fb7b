"""A worker's calls on the database: lease, heartbeat, complete, fail, and the wait for new jobs.

The SQL functions are the protocol; here are their batched forms, each one round trip, and the connection that keeps
them going. Every function raises DatabaseFault when the database does not answer, PermissionFault and SchemaFault where
waiting would not help, and RefusedFault when it is the value that the database will not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import asyncpg

from noetl_broker.errors import BrokerError, DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.store.faults import is_mixed_up, sentence
from noetl_broker.store.pool import (
    ANSWER_SECONDS,
    CLOSE_SECONDS,
    LISTEN_SECONDS,
    connect,
    create_pool,
    hang_up,
    lent,
)
from noetl_broker.store.poolers import pooler_fault
from noetl_broker.store.queries import sql

CHANNEL = "noetl_job"
REFUSED = frozenset({"NB400", "NB404", "NB409"})
# A constraint, a view's check, a trigger that raises: somebody has put them on our tables.
REFUSING_CLASSES = ("23", "44", "P0")


class RefusedFault(BrokerError):
    """The database refuses a value (a text that jsonb cannot hold, a bad argument): the same call can never succeed.

    `limit` names the bound that the value is past, where it is one.
    """

    def __init__(self, message: str, limit: str | None = None) -> None:
        """A sentence for people, and the name of the bound."""
        super().__init__(message)
        self.limit = limit


def refuses(fault: RefusedFault | DatabaseFault) -> bool:
    """Tell whether the database will not have a value, whenever it is asked; else it may take it another time."""
    return isinstance(fault, RefusedFault) or (fault.sqlstate or "").startswith(REFUSING_CLASSES)


class Lease(NamedTuple):
    """What a worker holds of a job: its `queue_id`, and the fencing token of this lease."""

    queue_id: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedJob:
    """A row of `noetl.queue` that is ours for a while; `action` and `context` are JSON text as there."""

    queue_id: int
    attempt: int
    execution_id: int
    node_id: str
    node_name: str
    node_type: str
    action: str
    context: str | None
    priority: int
    timeout_seconds: float | None = None

    @property
    def lease(self) -> Lease:
        """The part that the answers need."""
        return Lease(self.queue_id, self.attempt)


class Completion(NamedTuple):
    """The good end of a job; `result` is JSON text."""

    lease: Lease
    result: str = "{}"


class Failing(NamedTuple):
    """The bad end of a job; `error` has at least `message`."""

    lease: Lease
    error: Mapping[str, Any]
    retryable: bool = True


async def lease_jobs(
    database: JobDatabase, *, worker_id: str, max_jobs: int, lease_seconds: int, node_types: Sequence[str] | None
) -> list[LeasedJob]:
    """Lease up to `max_jobs` of these types (None: all), the most urgent first.

    Where the database refuses the start of one of them, that one fails, and the others are leased.
    """
    arguments = worker_id, max_jobs, lease_seconds, None if node_types is None else [*node_types]
    try:
        rows = await database.fetch(sql("lease_jobs"), *arguments)
    except (DatabaseFault, RefusedFault) as fault:
        if not refuses(fault):
            raise
        rows = await database.fetch(sql("lease_singly"), *arguments)
    return [
        LeasedJob(
            queue_id=row["queue_id"],
            attempt=row["attempts"],
            execution_id=row["execution_id"],
            node_id=row["node_id"],
            node_name=row["node_name"],
            node_type=row["node_type"],
            action=row["action"],
            context=row["context"],
            priority=row["priority"],
            timeout_seconds=row["timeout_seconds"],
        )
        for row in rows
    ]


async def heartbeat_jobs(
    database: JobDatabase,
    worker_id: str,
    leases: Sequence[Lease],
    *,
    lease_seconds: int,
    patience: float = ANSWER_SECONDS,
) -> dict[int, bool]:
    """Prolong leases; gives by `queue_id` whether each is still ours. `patience`: seconds until it is given up."""
    rows = await database.fetch(sql("heartbeat_jobs"), worker_id, lease_seconds, *_columns(leases), patience=patience)
    return {row["queue_id"]: row["yours"] for row in rows}


async def heartbeat_job(database: JobDatabase, worker_id: str, lease: Lease, *, lease_seconds: int) -> bool:
    """Prolong one lease; false: it is no longer ours, stop the work."""
    return (await heartbeat_jobs(database, worker_id, [lease], lease_seconds=lease_seconds))[lease.queue_id]


async def complete_jobs(database: JobDatabase, worker_id: str, completions: Sequence[Completion]) -> dict[int, bool]:
    """End jobs with their results; gives by `queue_id` whether the answer counted (false: the lease was taken over)."""
    leases = [completion.lease for completion in completions]
    rows = await database.fetch(
        sql("complete_jobs"), worker_id, *_columns(leases), [item.result for item in completions]
    )
    return {row["queue_id"]: row["yours"] for row in rows}


async def fail_jobs(database: JobDatabase, worker_id: str, failings: Sequence[Failing]) -> dict[int, bool]:
    """End attempts with errors; gives by `queue_id` whether the answer counted."""
    leases = [failing.lease for failing in failings]
    errors = [json.dumps(failing.error) for failing in failings]
    rows = await database.fetch(
        sql("fail_jobs"), worker_id, *_columns(leases), errors, [item.retryable for item in failings]
    )
    return {row["queue_id"]: row["yours"] for row in rows}


async def traceparent_of(database: JobDatabase, job: LeasedJob) -> str:
    """The W3C traceparent of a job: the span of its visit, in the trace of the root execution."""
    [row] = await database.fetch(sql("traceparent"), job.execution_id, job.node_id)
    return str(row["traceparent"])


def _columns(leases: Sequence[Lease]) -> tuple[list[int], list[int]]:
    return [lease.queue_id for lease in leases], [lease.attempt for lease in leases]


class JobDatabase:
    """A worker's connections: a few for calls, made anew when they break, and one that listens for new jobs."""

    def __init__(self, dsn: str | None, *, application_name: str, connections: int = 3) -> None:
        self._dsn = dsn
        self._name = application_name
        self._connections = connections
        self._pool: asyncpg.Pool[Any] | None = None
        self._listener: asyncpg.Connection[Any] | None = None
        self._rung = asyncio.Event()

    async def fetch(self, statement: str, *arguments: object, patience: float = ANSWER_SECONDS) -> list[Any]:
        """Run one statement on any connection; so many seconds, the wait for one counted, until it is cut."""
        if self._pool is None:
            self._pool = await create_pool(self._dsn, name=self._name, size=self._connections)
        async with database_faults(), lent(self._pool, patience) as connection:
            return list(await connection.fetch(statement, *arguments))

    async def listen(self) -> None:
        """Listen for new jobs, unless we do, on a connection of its own outside the pool."""
        if self._listener is not None and not self._listener.is_closed():
            return
        await self._stop_listening()
        async with database_faults(), asyncio.timeout(LISTEN_SECONDS):
            listener = await connect(self._dsn, name=f"{self._name} listener", takes="writes")
            try:
                await listener.add_listener(CHANNEL, lambda *_notification: self._rung.set())
                # Whoever waits for the bell must not sleep on where nobody rings it any more.
                listener.add_termination_listener(lambda _connection: self._rung.set())
            except BaseException:
                listener.terminate()
                raise
        self._listener = listener
        # What was queued before we listened rang no bell of ours.
        self._rung.set()

    @property
    def rung(self) -> asyncio.Event:
        """Set when a job may have been queued; whoever is about to look clears it first."""
        return self._rung

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await hang_up(listener)

    async def close(self) -> None:
        """Close all connections; one that does not answer is cut."""
        await self._stop_listening()
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()

    async def __aenter__(self) -> Self:
        """Give itself; connections are made when they are first needed."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close."""
        await self.close()


@contextlib.asynccontextmanager
async def database_faults() -> AsyncIterator[None]:
    """Turn what a call raises into the program's own faults."""
    try:
        yield
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError) as error:
        message = f"the database lacks what a worker calls ({sentence(error)}); run `noetl-broker migrate`"
        raise SchemaFault(message) from None
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise PermissionFault(f"the database refuses for want of rights: {sentence(error)}") from None
    except asyncpg.PostgresError as error:
        if is_mixed_up(error):
            raise pooler_fault() from None
        if isinstance(error, (asyncpg.DataError, asyncpg.ProgramLimitExceededError)) or error.sqlstate in REFUSED:
            limit = getattr(error, "constraint_name", None)
            raise RefusedFault(f"the database refuses the value: {sentence(error)}", limit) from None
        fault = DatabaseFault(f"the database does not answer as it should: {sentence(error)}")
        fault.sqlstate = error.sqlstate
        raise fault from None
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise DatabaseFault(f"the database cannot be reached: {str(error) or type(error).__name__}") from None
