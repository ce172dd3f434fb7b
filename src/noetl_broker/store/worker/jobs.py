"""A worker's calls on the database: lease, heartbeat, complete, fail, and the wait for new jobs.

The SQL functions are the protocol. These are their batched forms, each one round trip. Every function raises
DatabaseFault if the database does not answer, and RefusedFault if it refuses a value. PermissionFault and SchemaFault:
a retry cannot help.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import asyncpg

from noetl_broker.errors import BrokerError, DatabaseFault, MovedFault, PermissionFault, SchemaFault
from noetl_broker.playbook.keywords import DEFAULT_POOL
from noetl_broker.store.connect.connection import (
    ANSWER_SECONDS,
    LISTEN_SECONDS,
    borrowed,
    close_quickly,
    connect,
)
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.lazy_pool import LazyPool
from noetl_broker.store.connect.nodes import is_elsewhere
from noetl_broker.store.connect.server_checks import pooler_fault
from noetl_broker.store.connect.sqlstates import fault_class_of, is_mixed_up, is_moved, message_of
from noetl_broker.store.queries import sql

JOBS, CANCELS = "noetl_job", "noetl_cancel"  # channels
LONGEST_DELAY = 60.0  # seconds that a notification may wait; a worker polls more often
MOVE_SECONDS = 5.0  # between two looks whether the bucket was moved
REFUSED = frozenset({"NB400", "NB404", "NB409"})
REFUSALS = asyncpg.DataError, asyncpg.ProgramLimitExceededError, asyncpg.IntegrityConstraintViolationError


class RefusedFault(BrokerError):
    """The database refuses a value (a text that jsonb cannot hold, a bad argument): the same call can never succeed.

    `limit` names the limit that the value exceeds, if there is one.
    """

    def __init__(self, message: str, limit: str | None = None) -> None:
        """A sentence for people, and the name of the bound."""
        super().__init__(message)
        self.limit = limit


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
        """The part of it that answers contain."""
        return Lease(self.queue_id, self.attempt)


class Completion(NamedTuple):
    """The success of an attempt; `result` is JSON text."""

    lease: Lease
    result: str = "{}"


class AttemptFailure(NamedTuple):
    """The failure of an attempt; `error` has at least `message`."""

    lease: Lease
    error: Mapping[str, Any]
    retryable: bool = True


class LogPart(NamedTuple):
    """A part of what an attempt printed. `first_byte`: the number of bytes before it, with the missing ones."""

    lease: Lease
    level: str
    message: str
    first_byte: int


async def lease_jobs(
    database: JobDatabase,
    *,
    worker_id: str,
    max_jobs: int,
    lease_seconds: int,
    node_types: Sequence[str] | None,
    pools: Sequence[str] = (DEFAULT_POOL,),
) -> list[LeasedJob]:
    """Lease up to `max_jobs` of these types (None: all) and pools, the most urgent first."""
    types = None if node_types is None else [*node_types]
    rows = await database.fetch(sql("lease_jobs"), worker_id, max_jobs, lease_seconds, types, [*pools])
    return [_leased_job(row) for row in rows]


def _leased_job(row: Mapping[str, Any]) -> LeasedJob:
    return LeasedJob(
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


async def announce_types(database: JobDatabase, names: Sequence[str]) -> None:
    """Tell registration of step types that this worker has functions for."""
    await database.fetch(sql("announce_types"), [*names])


class Announcement(NamedTuple):
    """What a worker tells of itself. `stops`: it ends now."""

    worker_id: str
    pools: Sequence[str]
    types: Sequence[str] | None  # None: all
    slots: int
    leased: int
    host: str
    version: str
    stops: bool = False


async def announce_worker(database: JobDatabase, about: Announcement) -> None:
    """Put a worker into the list of workers; it must say so again within a minute."""
    types = None if about.types is None else [*about.types]
    await database.fetch(sql("announce_worker"), about.worker_id, [*about.pools], types, *about[3:])


async def heartbeat_jobs(
    database: JobDatabase,
    worker_id: str,
    leases: Sequence[Lease],
    *,
    lease_seconds: int,
    timeout_seconds: float | None = None,
) -> dict[int, bool]:
    """Renew leases; returns by `queue_id` whether to work on. `timeout_seconds` limits the call."""
    rows = await database.fetch(
        sql("heartbeat_jobs"), worker_id, lease_seconds, *_columns(leases), timeout_seconds=timeout_seconds
    )
    return {row["queue_id"]: row["accepted"] for row in rows}


async def heartbeat_job(database: JobDatabase, worker_id: str, lease: Lease, *, lease_seconds: int) -> bool:
    """Renew one lease; False: it is not ours any more, or nobody wants the result. Stop the work."""
    return (await heartbeat_jobs(database, worker_id, [lease], lease_seconds=lease_seconds))[lease.queue_id]


async def complete_jobs(database: JobDatabase, worker_id: str, completions: Sequence[Completion]) -> dict[int, bool]:
    """Complete jobs; returns by `queue_id` whether the result was accepted (False: the lease was lost)."""
    leases = [completion.lease for completion in completions]
    rows = await database.fetch(
        sql("complete_jobs"), worker_id, *_columns(leases), [item.result for item in completions]
    )
    return {row["queue_id"]: row["accepted"] for row in rows}


async def complete_jobs_and_lease(
    database: JobDatabase,
    completions: Sequence[Completion],
    *,
    worker_id: str,
    max_jobs: int,
    lease_seconds: int,
    node_types: Sequence[str] | None,
    pools: Sequence[str] = (DEFAULT_POOL,),
) -> tuple[dict[int, bool], list[LeasedJob]]:
    """Complete jobs and lease up to `max_jobs` others, with one commit; returns what each of the two calls would."""
    leases = [completion.lease for completion in completions]
    rows = await database.fetch(
        sql("complete_jobs_and_lease"),
        worker_id,
        *_columns(leases),
        [item.result for item in completions],
        max_jobs,
        lease_seconds,
        None if node_types is None else [*node_types],
        [*pools],
    )
    accepted = {row["queue_id"]: row["accepted"] for row in rows if row["accepted"] is not None}
    return accepted, [_leased_job(row) for row in rows if row["accepted"] is None]


async def attempt_status(database: JobDatabase, worker_id: str, lease: Lease) -> str:
    """What became of an attempt: leased, stopped, completed or lost."""
    [row] = await database.fetch(sql("attempt_status"), *lease, worker_id)
    return str(row["status"])


async def fail_jobs(database: JobDatabase, worker_id: str, failures: Sequence[AttemptFailure]) -> dict[int, bool]:
    """Fail attempts; returns by `queue_id` whether the error was accepted (False: the lease was lost)."""
    leases = [failure.lease for failure in failures]
    errors = [json.dumps(failure.error) for failure in failures]
    rows = await database.fetch(
        sql("fail_jobs"), worker_id, *_columns(leases), errors, [item.retryable for item in failures]
    )
    return {row["queue_id"]: row["accepted"] for row in rows}


async def log_jobs(database: JobDatabase, worker_id: str, parts: Sequence[LogPart]) -> dict[int, bool]:
    """Add to the logs of attempts, in this order; returns by `queue_id` whether it was accepted.

    A part that is sent again is added once.
    """
    leases = [part.lease for part in parts]
    texts = [part.level for part in parts], [part.message for part in parts], [part.first_byte for part in parts]
    rows = await database.fetch(sql("log_jobs"), worker_id, *_columns(leases), *texts)
    return {row["queue_id"]: row["accepted"] for row in rows}


async def report_progress(
    database: JobDatabase, worker_id: str, reports: Sequence[tuple[Lease, Mapping[str, Any]]]
) -> dict[int, bool]:
    """Tell how far attempts are; returns by `queue_id` whether to work on."""
    leases = [lease for lease, _ in reports]
    texts = [json.dumps(progress) for _, progress in reports]
    rows = await database.fetch(sql("report_progress"), worker_id, *_columns(leases), texts)
    return {row["queue_id"]: row["accepted"] for row in rows}


async def traceparent_of(database: JobDatabase, job: LeasedJob) -> str:
    """The W3C traceparent of a job: the span of its visit, in the trace of the root execution."""
    [row] = await database.fetch(sql("traceparent"), job.execution_id, job.node_id)
    return str(row["traceparent"])


def _columns(leases: Sequence[Lease]) -> tuple[list[int], list[int]]:
    return [lease.queue_id for lease in leases], [lease.attempt for lease in leases]


class JobDatabase:
    """A worker's connections: a pool for calls, and one that listens for new jobs and for cancels.

    `listener_lost` is set while nothing listens. `answer_seconds` limits each call that has no limit of its own.
    """

    def __init__(
        self,
        database: Database,
        *,
        application_name: str,
        connections: int = 3,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._database = database
        self._name = application_name
        self._answer_seconds = answer_seconds
        self._pool = LazyPool(database, name=application_name, size=connections)
        self._listener: asyncpg.Connection[Any] | None = None
        self._asks_at = 0.0  # monotonic seconds
        self._notified = asyncio.Event()
        self._cancelled = asyncio.Event()
        self.cancels = 0  # how often `cancelled` was set
        self.listener_lost = asyncio.Event()
        self.listener_lost.set()

    async def fetch(self, statement: str, *arguments: object, timeout_seconds: float | None = None) -> list[Any]:
        """Run one statement; `timeout_seconds` limits the call with the wait for a connection."""
        pool = await self._pool.get()
        limit = self._answer_seconds if timeout_seconds is None else timeout_seconds
        try:
            async with database_faults(), borrowed(pool, limit) as connection:
                return list(await connection.fetch(statement, *arguments))
        except MovedFault:
            await self._stop_listening()
            self._lose_listener()
            raise

    async def listen(self) -> None:
        """Listen for new jobs and for cancels on a connection outside the pool, unless it does already."""
        heard = self._listener
        if heard is not None and not heard.is_closed() and not await self._is_elsewhere(heard):
            self.listener_lost.clear()  # an older one may have reported its end later
            return
        await self._stop_listening()
        async with database_faults(), asyncio.timeout(LISTEN_SECONDS):
            listener = await connect(self._database, name=f"{self._name} listener", takes="writes")
            try:
                await listener.add_listener(JOBS, self._hear_job)
                await listener.add_listener(CANCELS, lambda *_notification: self.cancel_heard())
                listener.add_termination_listener(lambda _connection: self._lose_listener())
            except BaseException:
                listener.terminate()
                raise
        self._listener = listener
        self.listener_lost.clear()
        # Jobs that were queued and cancelled before are not notified.
        self._notified.set()
        self.cancel_heard()

    async def _is_elsewhere(self, listener: asyncpg.Connection[Any]) -> bool:
        """Whether the bucket was moved: calls are passed on to its new node, but notifications are sent there alone."""
        if time.monotonic() < self._asks_at:
            return False
        async with database_faults(), asyncio.timeout(LISTEN_SECONDS):
            moved = await is_elsewhere(listener)
        self._asks_at = time.monotonic() + MOVE_SECONDS
        if moved:
            await (await self._pool.get()).expire_connections()
        return moved

    def _hear_job(self, _connection: object, _pid: int, _channel: str, seconds: object) -> None:
        """Wake the worker, where the notification says so in some seconds."""
        try:
            delay = float(str(seconds) or 0)
        except ValueError:  # of somebody else's
            delay = 0.0
        if 0 < delay < LONGEST_DELAY:
            asyncio.get_running_loop().call_later(delay, self._notified.set)
        else:
            self._notified.set()

    def cancel_heard(self) -> None:
        """Look at the leases again: some may be stopped."""
        self.cancels += 1
        self._cancelled.set()

    def _lose_listener(self) -> None:
        """A lost connection hears nothing: wake the worker, so that it polls and listens again."""
        self.listener_lost.set()
        self._notified.set()

    @property
    def place(self) -> Database:
        """The database and the schema of the queue."""
        return self._database

    @property
    def notified(self) -> asyncio.Event:
        """Set when a job may have been queued; clear it before looking."""
        return self._notified

    @property
    def cancelled(self) -> asyncio.Event:
        """Set when a leased job may have been cancelled; clear it before looking."""
        return self._cancelled

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await close_quickly(listener)

    async def close(self) -> None:
        """Close all connections within a time limit."""
        await self._stop_listening()
        await self._pool.close()

    async def __aenter__(self) -> Self:
        """Return itself; it connects on demand."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close."""
        await self.close()


@contextlib.asynccontextmanager
async def database_faults() -> AsyncIterator[None]:
    """Raise the driver's errors as the program's faults."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _fault_of(error) from None
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise DatabaseFault(f"the database cannot be reached: {str(error) or type(error).__name__}") from None


def _fault_of(error: asyncpg.PostgresError) -> BrokerError:
    if is_moved(error):
        return MovedFault(fault_class_of(error).reason)
    if isinstance(error, asyncpg.InvalidSchemaNameError | asyncpg.UndefinedFunctionError | asyncpg.UndefinedTableError):
        return SchemaFault(f"the database lacks what a worker calls ({message_of(error)}); run `noetl-broker migrate`")
    if isinstance(error, asyncpg.InsufficientPrivilegeError | asyncpg.InvalidAuthorizationSpecificationError):
        return PermissionFault(f"the database refuses, because a right is missing: {message_of(error)}")
    if is_mixed_up(error):
        return pooler_fault()
    if isinstance(error, REFUSALS) or error.sqlstate in REFUSED:
        limit = getattr(error, "constraint_name", None)
        return RefusedFault(f"the database refuses the value: {message_of(error)}", limit)
    fault = DatabaseFault(f"the database does not answer as it should: {message_of(error)}")
    fault.sqlstate = error.sqlstate
    return fault
