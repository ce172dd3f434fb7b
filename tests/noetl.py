"""A NoETL server and its worker as statements: what they write into the database, in the order in which they write it.

The server makes its own ids, writes JSON as text and changes the rows of its queue itself. The worker has the server
render a job once more, takes the inputs where it looks for them, and runs the task. It reports events over a line that
may lose them (`lost`), does not notice, and then has the server set the row. `tests/interop/` runs the real ones.
"""

from __future__ import annotations

import inspect
import json
from base64 import b64decode
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from textwrap import dedent
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError

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
    """A task failed; the message is the error. With a `result`, that is what its tool gave: it may say no error."""

    def __init__(self, message: str | None, result: JSON = None) -> None:
        super().__init__(message)
        self.message, self.result = message, result


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


# Where that worker looks for inputs, the strongest first. It never reads `args`.
LOOKED_AT = ("data", "with", "payload", "input")
TEMPLATES = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - no HTML


def rendered(job: Job) -> Job:
    """What the server makes of a job when the worker asks: its text as one template, as it was where that fails."""
    text = json.dumps(job.action)
    if "{{" not in text or "}}" not in text:
        return job
    try:
        return replace(job, action=json.loads(TEMPLATES.from_string(text).render(**job.context)))
    except (TemplateError, TypeError, ValueError):
        return job


def inputs_of(action: Mapping[str, JSON]) -> dict[str, JSON]:
    """What that worker takes for the inputs of a job."""
    inputs: dict[str, JSON] = {}
    for word in reversed(LOOKED_AT):
        if isinstance(action.get(word), dict):
            inputs |= action[word]
    return inputs


def run_task(job: Job) -> JSON:
    """Run a job as that worker does; raises Boom with the error that it would report."""
    try:
        if job.action["type"] == "iterator":
            return [_run_item(job, place, item) for place, item in enumerate(job.action["collection"])]
        return _run_python(job.action, inputs_of(job.action), job.context)
    except Exception as error:
        raise Boom(str(error)) from error


def _run_item(job: Job, place: int, item: JSON) -> JSON:
    """One item: its task sees nothing but what stands under its `with`, which is rendered here, and `value`."""
    task, names = job.action["task"], {**job.context, job.action["element"]: item, "_loop": {"index": place}}
    inputs = {key: _once_more(value, names) for key, value in (task.get("with") or {}).items()}
    return _run_python(task, {"value": item, **inputs}, names)


def _once_more(value: JSON, names: Mapping[str, JSON]) -> JSON:
    """A string that is a template is rendered, and read as a number, a list or a mapping where it looks like one."""
    if not isinstance(value, str) or "{{" not in value:
        return value
    text = TEMPLATES.from_string(value).render(**names)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(value: JSON) -> JSON:
    """A text in brackets or braces is what it says, where it is JSON."""
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _run_python(action: Mapping[str, JSON], inputs: Mapping[str, JSON], context: Mapping[str, JSON]) -> JSON:
    """Call `main` with what its signature asks for, as far as there is such an input, or `context`."""
    code = b64decode(action["code_b64"]).decode() if "code_b64" in action else action["code"]
    names: dict[str, Any] = {}
    # what the text imports or defines beside `main`, that does not see
    exec(code, {"context": context}, names)  # noqa: S102 - the tests' own playbooks
    inputs = {key: _read(value) for key, value in inputs.items()}
    main, known = names["main"], {"context": context, **inputs}
    asked = inspect.signature(main).parameters
    if list(asked) == ["input_data"]:
        return main({**known, "with": inputs})
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in asked.values()):
        return main(**known)
    return main(**{name: known[name] for name in asked if name in known})


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
        job = rendered(job)
        await self.report(job, "action_started")
        try:
            data = self.tasks.get(job.step, run_task)(job)
        except Boom as boom:
            await self.fail(job, boom.message, boom.result)
        else:
            await self.complete(job, data)
        return job

    async def complete(self, job: Job, data: JSON) -> None:
        """The envelope, the step's result right after it, the row."""
        await self.report(job, "action_completed", {"id": str(job.queue_id), "status": "success", "data": data})
        await self.report(job, "step_result", data)
        await self.connection.execute(COMPLETE, job.queue_id)

    async def fail(self, job: Job, message: str | None, result: JSON = None) -> None:
        """The error, the row; a retry is told after it. The http tool's error is none: its `result` has the status."""
        envelope = result or {"id": str(job.queue_id), "status": "error", "error": message}
        await self.report(job, "action_error", envelope, error=message)
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


def boom(message: str | None, result: JSON = None) -> Any:
    """Fail with this message, or with what a tool gave that says none."""
    raise Boom(message, result)


def answered(status: int, body: JSON = "") -> dict[str, JSON]:
    """What the http tool gives for an answer that is no success: no error, and the status in its data."""
    answer = {"status_code": status, "headers": {}, "url": "http://x/?key=1", "elapsed": 0.1, "data": body}
    return {"id": "x", "status": "error", "data": answer}
