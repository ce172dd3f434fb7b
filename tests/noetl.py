"""A NoETL server and its worker as statements: what they write into the database, in the order in which they write it.

The server makes its own ids, writes JSON as text and changes the rows of its queue itself. The worker reports events
over a line that may lose them (`lost`), does not notice, and then has the server set the row.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

from noetl_broker.broker.model import JSON
from noetl_broker.playbook import Rules as PlaybookRules
from noetl_broker.store.migrate import migrate
from noetl_broker.store.pool import Connection, connect
from noetl_broker.store.verify import Scope, verify
from tests.brokers import drain, execute
from tests.postgres import Database
from tests.store import noetl_server

OWNERS = ("broker", "worker")
STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
RETRIED = STEP.replace("code: x", "code: x, retry: {max_attempts: 3, initial_delay: 20, jitter: false}")

LEASE = """
    with one as (
      select queue_id from noetl.queue
      where status in ('queued', 'retry')
        and (available_at is null or available_at <= now() + make_interval(secs => $2))
      order by priority desc, queue_id
      for update skip locked
      limit 1
    )
    update noetl.queue q
    set status = 'leased', worker_id = $1, lease_until = now() + interval '60 seconds', last_heartbeat = now(),
      attempts = q.attempts + 1
    from one
    where q.queue_id = one.queue_id
    returning q.*"""
COMPLETE = "update noetl.queue set status = 'done', lease_until = null where queue_id = $1"
DEAD = "update noetl.queue set status = 'dead' where queue_id = $1"
RETRY = "update noetl.queue set status = 'retry', available_at = now() + make_interval(secs => $2) where queue_id = $1"
REPORT = """
    insert into noetl.event (
      execution_id, catalog_id, event_id, event_type, node_id, node_name, node_type, status, context, result, meta,
      error
    ) values ($1, $2, noetl.snowflake_id(), $3, $4, $5, 'task', $6, $7, $8, '{}', $9)"""
START = """
    insert into noetl.event (
      execution_id, catalog_id, event_id, event_type, node_id, node_name, node_type, status, context, result, meta
    )
    select $1::bigint, c.catalog_id, noetl.snowflake_id(), 'execution_start', $1::bigint::text, c.path, 'playbook',
      'STARTED', $3, '{}', $4::jsonb
    from noetl.catalog c
    where c.path = $2::text
    order by c.version desc
    limit 1"""


# All that time brings about, as though it were over: pauses of children, and the grace of jobs that ended.
DUE = "update noetl.queue set available_at = now() where status = 'delegated' and available_at < 'infinity'"
REAP = "select r.woken + e from noetl.reap(1000, 5) r cross join noetl.reap_ended_jobs(1000, -1) e"


class Boom(Exception):
    """A task failed; the message is the error."""


@dataclass(slots=True)
class Job:
    """A row of the queue as the server hands it to a worker."""

    queue_id: int
    execution_id: int
    catalog_id: int
    node_id: str
    step: str
    attempts: int
    max_attempts: int
    action: dict[str, JSON]
    context: dict[str, JSON]


def run_python(job: Job) -> JSON:
    """Run the Python of a job as that worker does, with its `args`; raises Boom with what it raised."""
    names: dict[str, Any] = {}
    exec(b64decode(job.action["code_b64"]), names)  # noqa: S102 - the tests' own playbooks
    try:
        return names["main"](**job.action.get("args", {}))
    except Exception as error:
        raise Boom(str(error)) from error


@dataclass(slots=True)
class NoETL:
    """Both on one connection; `tasks` says what a step's task gives for its job, `lost` which events never come.

    `retries`: a worker tries a task again as long as the attempts of the row are not used up; else it never does.
    """

    connection: Connection
    tasks: dict[str, Callable[[Job], JSON]] = field(default_factory=dict)
    lost: Container[str] = ()
    retries: bool = True

    async def register(self, body: str, *, path: str = "mine") -> None:
        """Put a playbook into the catalog, as the server does: the kind first."""
        head = f"apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {{name: {path}, path: {path}}}\n"
        await self.connection.execute("insert into noetl.resource (name) values ('Playbook') on conflict do nothing")
        await self.connection.execute(
            """insert into noetl.catalog (catalog_id, path, version, kind, content)
            values (noetl.snowflake_id(), $1, 1, 'Playbook', $2)""",
            path,
            head + dedent(body),
        )

    async def start(
        self, execution_id: int, *, path: str = "mine", payload: JSON = None, meta: dict[str, JSON] | None = None
    ) -> int:
        """What the server does when it is to execute: a workload of its own, written three times, and the event."""
        for data in ({}, {"path": path}, {"path": path, "workload": {"n": "not this"}}):
            await self.connection.execute(
                """insert into noetl.workload (execution_id, data) values ($1, $2)
                on conflict (execution_id) do update set data = excluded.data""",
                execution_id,
                data,
            )
        context = json.dumps({"path": path, "version": "1", "workload": payload or {}})
        await self.connection.execute(START, execution_id, path, context, meta or {})
        return execution_id

    async def report(
        self, job: Job, kind: str, result: JSON = None, *, error: str | None = None, context: JSON = None
    ) -> None:
        """Send an event of a job, if the line lets it through; it has no id of the worker's."""
        if kind not in self.lost:
            status = {"action_started": "RUNNING", "action_error": "FAILED", "action_retry": "RUNNING"}
            await self.connection.execute(
                REPORT, job.execution_id, job.catalog_id, kind, job.node_id, job.step, status.get(kind, "COMPLETED"),
                json.dumps(context or {}), json.dumps(result), error,
            )  # fmt: skip

    async def lease(self, *, patience: float = 0.0) -> Job | None:
        """Lease one job; `patience`: one that is due within so many seconds counts as due."""
        row = await self.connection.fetchrow(LEASE, "worker", patience)
        if row is None:
            return None
        return Job(
            row["queue_id"], row["execution_id"], row["catalog_id"], row["node_id"], row["node_name"], row["attempts"],
            row["max_attempts"], json.loads(row["action"]), row["context"],
        )  # fmt: skip

    async def work(self, *, patience: float = 0.0) -> Job | None:
        """Lease a job, run its task, tell of it, and have the server set the row."""
        job = await self.lease(patience=patience)
        if job is None:
            return None
        await self.report(job, "action_started")
        try:
            data = self.tasks.get(job.step, run_python)(job)
        except Boom as boom:
            await self.fail(job, str(boom))
        else:
            await self.complete(job, data)
        return job

    async def complete(self, job: Job, data: JSON) -> None:
        """The envelope, the step's result right after it, the row."""
        await self.report(job, "action_completed", {"id": str(job.queue_id), "status": "success", "data": data})
        await self.report(job, "step_result", data)
        await self.connection.execute(COMPLETE, job.queue_id)

    async def fail(self, job: Job, message: str) -> None:
        """The error, the row; a retry is told after it."""
        await self.report(job, "action_error", {"error": message, "status": "error"}, error=message)
        if self.retries and job.attempts < job.max_attempts:
            await self.connection.execute(RETRY, job.queue_id, 60.0)
            await self.report(job, "action_retry", {"attempt": job.attempts})
        else:
            await self.connection.execute(DEAD, job.queue_id)


async def open_noetl(database: Database) -> NoETL:
    """A NoETL database, migrated, with both of them at work on it; close the connection."""
    await execute(database, noetl_server.TABLES)
    await migrate(database.dsn)
    return NoETL(await connect(database.dsn, name="test"))


async def run(noetl: NoETL, database: Database, *, turns: int = 50, **changes: Any) -> None:
    """Broker and worker by turns, until there is neither mail nor a job; what is late counts as due."""
    for _ in range(turns):
        await drain(database, **changes)
        if await noetl.work(patience=1000.0) is not None:
            continue
        await noetl.connection.execute(DUE)
        if not await noetl.connection.fetchval(REAP):
            return
    raise AssertionError("it does not end")


async def faults(noetl: NoETL) -> dict[str, list[str]]:
    """Everything that `verify --deep` finds, by its sentence."""
    report = await verify(noetl.connection, Scope(), deep=PlaybookRules())
    return {v.check.sentence: [fault.detail for fault in v.examples] for v in report.verdicts if v.broken}


async def ended(noetl: NoETL) -> list[tuple[Any, ...]]:
    """How each execution ended."""
    found = await noetl.connection.fetch(
        "select status, result, error ->> 'message' from noetl.execution order by execution_id"
    )
    return [tuple(row) for row in found]


async def log(noetl: NoETL) -> list[str]:
    """The event types in the order that the server's own listing gives."""
    found = await noetl.connection.fetch("select event_type from noetl.event order by created_at, event_id")
    return [row[0] for row in found]


async def overlook(noetl: NoETL, seconds: float = 30.0) -> int:
    """What the reaper decides from rows whose jobs ended so many seconds ago."""
    await noetl.connection.execute(
        "update noetl.ended_job set ended_at = ended_at - make_interval(secs => $1)", seconds
    )
    return int(await noetl.connection.fetchval("select noetl.reap_ended_jobs(1000, 30)"))


def fails_until(attempt: int) -> Any:
    """A task that fails until this attempt."""
    return lambda job: {"attempt": job.attempts} if job.attempts >= attempt else boom(f"attempt {job.attempts}")


def boom(message: str) -> Any:
    """Fail with this message."""
    raise Boom(message)
