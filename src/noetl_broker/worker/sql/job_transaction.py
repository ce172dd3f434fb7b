"""The transaction of one attempt: what it writes into the broker's database commits with the completion of its job.

A job may run more than once. Only the attempt that ends the lease commits, so these rows are written once. If the reply
to the COMMIT is lost, the database is asked what became of the attempt. The rows are never written again for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from functools import cache, partial, wraps
from typing import Any

import asyncpg

from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.growing_pauses import JITTER, RETRY_SECONDS, Backoff
from noetl_broker.sql_text import split_statements, words_of
from noetl_broker.store.connect.connection import (
    ANSWER_SECONDS,
    CALL_SECONDS,
    CLOSE_SECONDS,
    CONNECT_SECONDS,
    TAKING_TEXT,
    close_quickly,
    connection_fault,
)
from noetl_broker.store.connect.nodes import open_at_node
from noetl_broker.store.connect.schema_name import Shards, application_name, rendered
from noetl_broker.store.queries import sql
from noetl_broker.store.worker.jobs import JobDatabase, LeasedJob, RefusedFault, attempt_status, database_faults
from noetl_broker.worker.errors import FinalFault, ToolFault
from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.logger import Log, job_fields
from noetl_broker.worker.sql.bounded_connection import BoundedConnection
from noetl_broker.worker.sql.run import DRIVER_FAULTS, reset

UNBOUNDED = 2**62  # bytes that the server may send for a function of your own
SESSION = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "15s",
    "default_transaction_isolation": "read committed",  # the lock of the lease and the look at it need two snapshots
}
# Statements that begin or end a transaction. A rollback to a savepoint ends none.
_ENDING = re.compile(
    r"(?:begin|start transaction|commit|end|abort|prepare transaction|rollback(?! (?:(?:work|transaction) )?to))\b"
)
# The savepoint of our own is gone.
ENDED = asyncpg.NoActiveSQLTransactionError, asyncpg.InvalidSavepointSpecificationError

log = Log(__name__)


class JobConnection(BoundedConnection):
    """A connection in the transaction of a job. It refuses statements that begin or end a transaction.

    Only statements of the worker are rendered for the schema of the broker.
    """

    __slots__ = ("is_ours", "shards")
    schema: str
    installation: str | None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.is_ours = True  # whether the worker sends, and not the step
        self.shards: Shards | None = None


@cache
def connection_class(schema: str, installation: str | None) -> type[JobConnection]:
    """The class of connections for jobs of this schema."""
    methods: dict[str, Any] = {"__slots__": (), "schema": schema, "installation": installation}
    methods |= {name: _guarded(getattr(asyncpg.Connection, name)) for name in TAKING_TEXT}
    return type("JobConnection", (JobConnection,), methods)


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """The driver's method, after a look at its text."""

    @wraps(method)
    def guard(self: JobConnection, text: str, *arguments: Any, **options: Any) -> Any:
        if self.is_ours:
            text = rendered(text, self.schema, self.installation, self.shards)
        else:
            refuse_ending(text)
        return method(self, text, *arguments, **options)

    return guard


def refuse_ending(text: str) -> None:
    """Raise ToolFault for a statement that begins or ends a transaction."""
    for statement in split_statements(text):
        if _ENDING.match(words_of(statement)):
            raise FinalFault(
                f"{statement[:80]!r} would begin or end the transaction of the job, which commits with its completion; "
                "remove it, or nest `async with connection.transaction()`",
                kind="ends_transaction",
            )


class CommitFault(ToolFault):
    """The rows and the completion were not committed, and the attempt still has its lease: it failed."""


class JobTransaction:
    """The transaction of one attempt. It begins when a task first uses it, and ends with the job."""

    def __init__(
        self,
        database: JobDatabase,
        worker_id: str,
        job: LeasedJob,
        idle: IdleConnections[BoundedConnection],
        *,
        idle_seconds: float,
    ) -> None:
        """`idle`: where connections come from and wait. `idle_seconds` may pass between two statements."""
        self._database = database
        self._worker_id = worker_id
        self._job = job
        self._idle = idle
        self._idle_seconds = idle_seconds
        self._lock = asyncio.Lock()
        self._connection: JobConnection | None = None
        self._outer: asyncpg.transaction.Transaction | None = None
        self._is_completed = False

    @property
    def is_used(self) -> bool:
        """Whether a task has used it: then the job is completed by `commit`."""
        return self._outer is not None

    @contextlib.asynccontextmanager
    async def statements(self) -> AsyncIterator[JobConnection]:
        """The connection, for the statements of one task; other tasks of the job wait.

        A fault undoes these statements only. Raises ToolFault if they ended the transaction.
        """
        async with self._lock:
            connection = await self._begin()
            nested = connection.transaction()
            await nested.start()
            connection.bound(UNBOUNDED, "")
            connection.is_ours = False
            try:
                yield connection
            except Exception:
                connection.is_ours = True
                await _undo(connection, nested)
                raise
            except BaseException:  # a cancelled job waits for no server
                connection.terminate()
                raise
            connection.is_ours = True
            await self._release(connection, nested)

    async def _release(self, connection: JobConnection, nested: asyncpg.transaction.Transaction) -> None:
        try:
            await nested.commit()
        except ENDED:
            connection.terminate()
            raise FinalFault(
                f"step '{self._job.node_name}' ended the transaction of its job; look for rows that it committed",
                kind="ends_transaction",
            ) from None
        except asyncpg.InFailedSQLTransactionError:
            await _undo(connection, nested)
            raise ToolFault(
                f"a statement of step '{self._job.node_name}' failed, and the step went on; "
                "nest `async with connection.transaction()` around what may fail",
                kind="postgres",
                sqlstate="25P02",
            ) from None

    async def _begin(self) -> JobConnection:
        """The connection with the transaction. A new one replaces a dead idle connection."""
        if self._connection is not None:
            return self._connection
        kept = self._idle.take(self._key())
        if isinstance(kept, JobConnection):
            try:
                return await self._start(kept)
            except DRIVER_FAULTS:  # nothing of the job was sent
                self._idle.forget(self._key())
        return await self._start(await self._connect())

    async def _start(self, connection: JobConnection) -> JobConnection:
        outer = connection.transaction()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await outer.start()
        except BaseException:
            connection.terminate()
            raise
        self._connection, self._outer = connection, outer
        return connection

    def _key(self) -> bytes:
        place = self._database.place
        return self._idle.key("job", place.dsn, place.schema, self._idle_seconds)

    async def _connect(self) -> JobConnection:
        place = self._database.place
        settings = SESSION | {
            "application_name": application_name("noetl-broker worker job", place.schema),
            "idle_in_transaction_session_timeout": f"{self._idle_seconds:g}s",
        }
        opens = partial(
            asyncpg.connect,
            place.dsn,
            timeout=CONNECT_SECONDS,
            statement_cache_size=0,
            connection_class=connection_class(place.schema, place.installation),
            server_settings=settings,
        )
        try:
            return await open_at_node(place, opens)  # type: ignore[return-value] # of this class
        except Exception as error:  # noqa: BLE001 - becomes the fault that fits
            fault = connection_fault(error, place.dsn)
            raise ToolFault(f"step '{self._job.node_name}': {fault}", kind="postgres") from None

    async def commit(self, result: str) -> str:
        """Complete the job and commit; returns what became of the attempt: `completed`, `stopped` or `lost`.

        Raises CommitFault if nothing was written, and the attempt still has its lease.
        """
        try:
            async with database_faults(), asyncio.timeout(ANSWER_SECONDS):
                await self._complete(result)
        except BrokerError as fault:
            self.cut()
            status = await self._ask(fault)
            self._outer = None
            if status != "leased":
                return status
            kind, refused = "commit_failed", isinstance(fault, RefusedFault) and not self._is_completed
            if isinstance(fault, RefusedFault) and refused:  # the result, as the reporter says it
                kind = fault.limit or "bad_result"
            message = f"step '{self._job.node_name}': its rows and its completion were not committed: {fault}"
            raise CommitFault(message, kind=kind, retryable=not refused) from None
        except BaseException:  # the worker stops
            self.cut()
            raise
        await self._give_back()
        return "completed"

    async def _complete(self, result: str) -> None:
        connection, outer, lease = self._connection, self._outer, self._job.lease
        if connection is None or outer is None:
            raise DatabaseFault("the transaction of the job has ended")
        await connection.fetch(sql("complete_job_once"), lease.queue_id, self._worker_id, lease.attempt, result)
        self._is_completed = True
        await outer.commit()

    async def _ask(self, fault: BrokerError) -> str:
        """Ask what became of the attempt until the database answers. Its answer waits for the old transaction."""
        backoff = Backoff(*RETRY_SECONDS, JITTER)
        while True:
            try:
                return await attempt_status(self._database, self._worker_id, self._job.lease)
            except DatabaseFault as away:
                pause = backoff.next()
                log.warning(
                    "commit_unknown",
                    **job_fields(self._job),
                    error=str(fault),
                    asked=str(away),
                    pause_seconds=round(pause, 2),
                )
                await asyncio.sleep(pause)
            except BrokerError:  # a right is missing: the report of the failure says so, and changes no ended job
                return "leased"

    async def roll_back(self) -> None:
        """Undo what the attempt wrote, and end its transaction."""
        if self._connection is not None and self._outer is not None:
            await _undo(self._connection, self._outer)
            await self._give_back()
        self._outer = None

    def cut(self) -> None:
        """End the transaction without a wait for the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if await reset(connection):
            self._idle.give_back(self._key(), connection)
        else:
            await close_quickly(connection)


async def _undo(connection: JobConnection, own: asyncpg.transaction.Transaction) -> None:
    """Roll back, or cut the connection, which rolls back as well."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await own.rollback()
    except (*DRIVER_FAULTS, TimeoutError):
        connection.terminate()
