"""The client for programs: starts, awaits, shows and cancels executions, sends signals, and decides approvals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from noetl_broker.broker.state.state import is_live
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.service import execution_actions, executions, waits
from noetl_broker.service.action import Caller, ServiceAction
from noetl_broker.service.field_errors import request_of
from noetl_broker.service.models.base import MOST_ROWS
from noetl_broker.service.models.waits import KEEP_SECONDS, ListApprovals
from noetl_broker.store.admin.approvals import Approval
from noetl_broker.store.connect.bucket_connections import Place, in_schema
from noetl_broker.store.connect.connection import Connection, reconnecting
from noetl_broker.store.connect.dsn import Database, node_addresses
from noetl_broker.store.connect.lazy_pool import LazyPool, LazyPools
from noetl_broker.store.connect.places import in_their_buckets
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA
from noetl_broker.store.connect.session import translate_faults
from noetl_broker.template.durations import moment_text

__all__ = ["Approval", "Client", "Ended", "ExecutionFailed"]

CALLER = Caller()  # the login of the connections
POLL_SECONDS = (0.02, 0.5)  # the first pause between two polls of an execution, and the longest


class ExecutionFailed(BrokerError):
    """An execution did not complete; `ended` has its status, result and error."""

    def __init__(self, ended: Ended) -> None:
        """The error has the message of the execution."""
        error = ended.error if isinstance(ended.error, dict) else {}
        super().__init__(
            f"execution {ended.execution_id} of {ended.path} ended {ended.status}: "
            f"{error.get('message', 'no reason given')}"
        )
        self.ended = ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The state of an execution: `status` is COMPLETED, FAILED or CANCELLED.

    An execution that has not ended is RUNNING, QUEUED or PAUSED.
    `error` is a mapping with `message` and usually `step`.
    """

    execution_id: int
    path: str | None
    version: int | None
    status: str
    result: Any = None
    error: Any = None

    def or_raise(self) -> Any:
        """The result of a completed execution; raises ExecutionFailed for any other status."""
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

    `dsn` None: the PG* variables; `schema`: where the broker's tables are; `nodes`: as the setting, on Citus.
    `connection`: a connection of asyncpg to use in place of own ones. Starts, signals and cancels then commit or roll
    back with the rows of the caller's transaction. `status`, `wait`, `approvals` and `decide` need a client without it.
    Every method raises DatabaseFault if the database does not answer. PermissionFault and SchemaFault: waiting does
    not help. NotFoundFault: it does not exist.
    Safe to share between tasks.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        connections: int = 4,
        nodes: Sequence[str] = (),
        connection: Connection | None = None,
    ) -> None:
        """Connect on demand, with at most `connections`."""
        database = Database(dsn=dsn, schema=schema, nodes=node_addresses(nodes))
        self._pools = LazyPools(database, name="noetl-broker client", size=connections)
        self._given = None if connection is None else in_schema(connection, database)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close all its own connections within a time limit."""
        await self._pools.close()

    async def start(  # noqa: PLR0913 - keywords of a start
        self,
        path: str,
        payload: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
        bucket_key: str | None = None,
        tags: Mapping[str, str | float | bool] | None = None,
        start_at: datetime | None = None,
        start_after: timedelta | None = None,
        priority: int | None = None,
    ) -> int:
        """Start an execution of a registered playbook; returns its id. `version` None: the latest.

        A second call with the same path and `idempotency_key` returns the id of the first execution. Raises BrokerError
        if the first had another payload or `bucket_key`, or a fork has that key. `bucket_key` says what belongs
        together: in an installation with buckets, executions of one key live in one bucket. By `tags`, lists find it:
        at most 16, such as {"customer": 7}. A repeated call does not change them. It is QUEUED until `start_at`, which
        has a time zone, or for `start_after`. `priority` is that of its jobs, where step and playbook say none.
        """
        asked = {"path": path, "payload": payload or {}, "version": version, "idempotency_key": idempotency_key}
        asked |= {"bucket_key": bucket_key, **_later(start_at, start_after)}
        asked |= {"tags": None if tags is None else dict(tags), "priority": priority}
        return int((await self._send(executions.start_unchecked, asked))["execution_id"])

    async def start_many(  # noqa: PLR0913 - keywords of a start
        self,
        path: str,
        payloads: Sequence[Mapping[str, Any] | None],
        *,
        version: int | None = None,
        idempotency_keys: Sequence[str | None] | None = None,
        bucket_key: str | None = None,
        tags: Mapping[str, str | float | bool] | None = None,
        start_at: datetime | None = None,
        start_after: timedelta | None = None,
        priority: int | None = None,
    ) -> list[int]:
        """Start an execution for each payload in one transaction; returns their ids in the same order.

        All start, or none. At most 10,000 payloads. An error says the number of the payload, counted from 1.
        `idempotency_keys` has a key, or None, for each payload; a repeated key gives the same id, as in `start`.
        All get the same `tags`, moment and `priority`.
        """
        asked = {
            "path": path,
            "payloads": [dict(payload or {}) for payload in payloads],
            "version": version,
            "idempotency_keys": None if idempotency_keys is None else [*idempotency_keys],
            "bucket_key": bucket_key,
            "tags": None if tags is None else dict(tags),
            **_later(start_at, start_after),
            "priority": priority,
        }
        return list((await self._send(executions.start_executions, asked))["execution_ids"])

    async def status(self, execution_id: int) -> Ended:
        """The state of an execution. Needs the role noetl_operator."""
        row = await self._ask(executions.find_execution, {"execution_id": execution_id})
        return Ended(**{name: row[name] for name in Ended.__dataclass_fields__})

    async def outcome(self, execution_id: int) -> Ended:
        """What an execution came to so far. Its login must have started it, or be an operator; else NotFoundFault."""
        return Ended(**await self._ask(executions.show_outcome, {"execution_id": execution_id}))

    async def wait(self, execution_id: int, *, seconds: float | None = None) -> Ended:
        """Wait until an execution has ended; raises TimeoutError after `seconds` (None: no limit).

        Its login must have started it, or repeated its start with the same key and payload, or be an operator.
        """
        pause, longest = POLL_SECONDS
        async with asyncio.timeout(seconds):
            while is_live((found := await self.outcome(execution_id)).status):
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, longest)
        return found

    async def cancel(self, execution_id: int, reason: str | None = None) -> bool:
        """Request a cancel of an execution and its children; False if it has ended."""
        asked = {"execution_id": execution_id, "reason": reason}
        return bool((await self._send(execution_actions.cancel_execution, asked))["requested"])

    async def signal(
        self,
        name: str,
        key: str | float,
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        keep: timedelta = timedelta(seconds=KEEP_SECONDS),
    ) -> int:
        """Send a signal to the executions that wait for its name and key; returns its id.

        `payload` is anything that JSON can hold. It is kept for `keep` for a wait that begins later. A second call with
        the same name, key and `idempotency_key` returns the id of the first one. Raises BrokerError if that had another
        payload.
        """
        asked = {"name": name, "key": key, "payload": payload, "keep_seconds": keep.total_seconds()}
        asked["idempotency_key"] = idempotency_key
        return int((await self._send(waits.send_signal, asked))["signal_id"])

    async def signal_execution(
        self, execution_id: int, name: str, payload: Any = None, *, idempotency_key: str | None = None
    ) -> int | None:
        """Send a signal to one execution, which is kept until that ends; returns its id, None if it has ended."""
        asked = {"execution_id": execution_id, "name": name, "payload": payload, "idempotency_key": idempotency_key}
        sent: int | None = await self._send(execution_actions.send_to_execution, asked)
        return sent

    async def approvals(self, *, path: str | None = None, approver: str | None = None) -> list[Approval]:
        """What waits for a person, oldest first; `path` may hold `*`. Needs the role noetl_approver."""
        found: list[Approval] = []
        fields = Approval.__dataclass_fields__
        given = {"path": path, "approver": approver, "limit": MOST_ROWS}
        async with self._connection() as connection:
            while True:
                page = await waits.list_approvals(connection, CALLER, request_of(ListApprovals, given))
                found += [Approval(**{name: row[name] for name in fields}) for row in page["items"]]
                if page["next"] is None:
                    return found
                given["cursor"] = page["next"]

    async def decide(
        self,
        approval: Approval,
        *,
        approved: bool,
        decided_by: str | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> bool:
        """Approve or reject; `form` has its fields and `comment`. False if it was decided or timed out before.

        `decided_by` is a name beside that of the login. Raises OperatorFault if the form does not fit, and
        ForbiddenFault where the approval has approvers and the login is none. Needs the role noetl_approver.
        """
        async with self._connection() as found:
            asked: dict[str, Any] = {"approved": approved, "decided_by": decided_by, "form": form or {}}
            [decided] = await in_their_buckets(
                found, [approval.execution_id], lambda one, _ids: waits.decide_approval(one, CALLER, approval, **asked)
            )
            return decided

    async def _send(self, action: ServiceAction[Any, Any], asked: Mapping[str, Any]) -> Any:
        """Do it on the connection of the caller, if there is one."""
        if self._given is None:
            return await self._ask(action, asked)
        with translate_faults(self._given):
            return await action(self._given, CALLER, request_of(action.request, asked))

    async def _ask(self, action: ServiceAction[Any, Any], asked: Mapping[str, Any]) -> Any:
        given = request_of(action.request, asked)
        async with self._connection() as connection:
            return await action(connection, CALLER, given)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Place]:
        if self._given is not None:
            raise OperatorFault("a client on your own connection starts, sends and cancels; make another one to ask")
        async with self._pools.place(_borrow) as found:
            yield found


def _later(start_at: datetime | None, start_after: timedelta | None) -> dict[str, Any]:
    if start_at is not None and start_at.tzinfo is None:
        raise OperatorFault(f"start_at {start_at} has no time zone; give one, such as datetime.now(UTC)")
    return {
        "start_at": None if start_at is None else moment_text(start_at),
        "start_after": None if start_after is None else start_after.total_seconds(),
    }


@asynccontextmanager
async def _borrow(pool: LazyPool) -> AsyncIterator[Connection]:
    opened = await pool.get()
    with translate_faults():
        async with reconnecting(opened), opened.acquire() as connection:
            yield connection
