"""Imitates a NoETL server and its worker: the statements that they run on the database, in their order.

The server makes its own ids, writes JSON as text and changes rows of its queue itself. The worker lets the server
render a job again, reads the inputs by its own rules, and runs the task. Its reported events may get lost (`lost`); it
does not notice, and lets the server change the row. `tests/interop/` runs the real server and worker.
"""

from __future__ import annotations

import inspect
import json
from base64 import b64decode
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError

from noetl_broker.broker.model.values import JSON
from noetl_broker.playbook import PlaybookRules
from noetl_broker.store.admin.verify import VerifyScope, verify
from noetl_broker.store.connect.connection import Connection, connect
from tests.brokers import drain
from tests.postgres import Database
from tests.stories import document

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


# What waits for a time becomes due: children that are retried, and jobs that ended.
DUE = "update noetl.timer set due_at = now() where purpose = 'child'"
REAP = """
    select t.fired + e
    from noetl.reap(1000, 5) r
    cross join noetl.fire_timers(1000) t
    cross join noetl.reap_ended_jobs(1000, -1) e"""


class TaskError(Exception):
    """A task failed: the message is the error, `result` what the tool returned, if it did."""

    def __init__(self, message: str | None, result: JSON = None) -> None:
        super().__init__(message)
        self.message, self.result = message, result


@dataclass(slots=True)
class Job:
    """A row of the queue as the server gives it to a worker."""

    queue_id: int
    execution_id: int
    catalog_id: int
    node_id: str
    step: str
    attempts: int
    max_attempts: int
    action: dict[str, JSON]
    context: dict[str, JSON]


# The keys of an action from which that worker reads inputs; the first wins. It never reads `args`.
INPUT_KEYS = ("data", "with", "payload", "input")
TEMPLATES = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - no HTML


def rendered(job: Job) -> Job:
    """Return the job as the server renders it for the worker: one template; unchanged if it cannot be rendered."""
    text = json.dumps(job.action)
    if "{{" not in text or "}}" not in text:
        return job
    try:
        return replace(job, action=json.loads(TEMPLATES.from_string(text).render(**job.context)))
    except (TemplateError, TypeError, ValueError):
        return job


def inputs_of(action: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the inputs that this worker reads from a job."""
    inputs: dict[str, JSON] = {}
    for key in reversed(INPUT_KEYS):
        if isinstance(action.get(key), dict):
            inputs |= action[key]
    return inputs


def run_task(job: Job) -> JSON:
    """Run a job as this worker does; raises TaskError with the error that it would report."""
    try:
        if job.action["type"] == "iterator":
            return [_run_item(job, index, item) for index, item in enumerate(job.action["collection"])]
        return _run_python(job.action, inputs_of(job.action), job.context)
    except Exception as error:
        raise TaskError(str(error)) from error


def _run_item(job: Job, index: int, item: JSON) -> JSON:
    """Run one item; the task gets only `value` and its own `with`, which the worker renders."""
    task, names = job.action["task"], {**job.context, job.action["element"]: item, "_loop": {"index": index}}
    inputs = {key: _rendered_value(value, names) for key, value in (task.get("with") or {}).items()}
    return _run_python(task, {"value": item, **inputs}, names)


def _rendered_value(value: JSON, names: Mapping[str, JSON]) -> JSON:
    """Return a value rendered if it is a template, and parsed if the result is JSON."""
    if not isinstance(value, str) or "{{" not in value:
        return value
    text = TEMPLATES.from_string(value).render(**names)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parsed(value: JSON) -> JSON:
    """Return a string parsed if it is a JSON list or object."""
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _run_python(action: Mapping[str, JSON], inputs: Mapping[str, JSON], context: Mapping[str, JSON]) -> JSON:
    """Call `main` with those inputs, and `context`, that are parameters of it."""
    code = b64decode(action["code_b64"]).decode() if "code_b64" in action else action["code"]
    names: dict[str, Any] = {}
    # `main` does not see what the code imports or defines outside of it
    exec(code, {"context": context}, names)  # noqa: S102 - the tests' own playbooks
    inputs = {key: _parsed(value) for key, value in inputs.items()}
    main, known = names["main"], {"context": context, **inputs}
    parameters = inspect.signature(main).parameters
    if list(parameters) == ["input_data"]:
        return main({**known, "with": inputs})
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return main(**known)
    return main(**{name: known[name] for name in parameters if name in known})


@dataclass(slots=True)
class NoETL:
    """Server and worker on one connection.

    `tasks`: by step, what its task returns for a job. `lost`: types of reported events that get lost. `retries`: the
    worker retries a task until the attempts of its row are used up; else it never does.
    """

    connection: Connection
    tasks: dict[str, Callable[[Job], JSON]] = field(default_factory=dict)
    lost: Container[str] = ()
    retries: bool = True

    async def register(self, body: str, *, path: str = "mine") -> None:
        """Put a playbook into the catalog as the server does."""
        await self.connection.execute("insert into noetl.resource (name) values ('Playbook') on conflict do nothing")
        await self.connection.execute(
            """insert into noetl.catalog (catalog_id, path, version, kind, content)
            values (noetl.snowflake_id(), $1, 1, 'Playbook', $2)""",
            path,
            document(body, path=path),
        )

    async def start(
        self, execution_id: int, *, path: str = "mine", payload: JSON = None, meta: dict[str, JSON] | None = None
    ) -> int:
        """Start an execution as the server does: it writes a workload three times, then the event."""
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
        """Report an event of a job, unless its type is in `lost`; it has no worker id."""
        if kind not in self.lost:
            status = {"action_started": "RUNNING", "action_error": "FAILED", "action_retry": "RUNNING"}
            await self.connection.execute(
                REPORT, job.execution_id, job.catalog_id, kind, job.node_id, job.step, status.get(kind, "COMPLETED"),
                json.dumps(context or {}), json.dumps(result), error,
            )  # fmt: skip

    async def lease(self, *, due_in: float = 0.0) -> Job | None:
        """Lease one job that is due, or that becomes due within `due_in` seconds."""
        row = await self.connection.fetchrow(LEASE, "worker", due_in)
        if row is None:
            return None
        return Job(
            row["queue_id"], row["execution_id"], row["catalog_id"], row["node_id"], row["node_name"], row["attempts"],
            row["max_attempts"], json.loads(row["action"]), row["context"],
        )  # fmt: skip

    async def work(self, *, due_in: float = 0.0) -> Job | None:
        """Lease a job, run its task, report events, and let the server change the row."""
        job = await self.lease(due_in=due_in)
        if job is None:
            return None
        job = rendered(job)
        await self.report(job, "action_started")
        try:
            data = self.tasks.get(job.step, run_task)(job)
        except TaskError as error:
            await self.fail(job, error.message, error.result)
        else:
            await self.complete(job, data)
        return job

    async def complete(self, job: Job, data: JSON) -> None:
        """Report the envelope and the step's result, then change the row."""
        await self.report(job, "action_completed", {"id": str(job.queue_id), "status": "success", "data": data})
        await self.report(job, "step_result", data)
        await self.connection.execute(COMPLETE, job.queue_id)

    async def fail(self, job: Job, message: str | None, result: JSON = None) -> None:
        """Report the error, then change the row, then report a retry. The http tool has no message, but a `result`."""
        envelope = result or {"id": str(job.queue_id), "status": "error", "error": message}
        await self.report(job, "action_error", envelope, error=message)
        if self.retries and job.attempts < job.max_attempts:
            await self.connection.execute(RETRY, job.queue_id, 60.0)
            await self.report(job, "action_retry", {"attempt": job.attempts})
        else:
            await self.connection.execute(DEAD, job.queue_id)


async def open_noetl(database: Database) -> NoETL:
    """Return server and worker on the `noetl_database` of a test; the caller closes the connection."""
    return NoETL(await connect(database, name="test"))


async def run(noetl: NoETL, database: Database, *, turns: int = 50, **changes: Any) -> None:
    """Let broker and worker work in turns until there is neither mail nor a job; all that waits becomes due."""
    for _ in range(turns):
        await drain(database, **changes)
        if await noetl.work(due_in=1000.0) is not None:
            continue
        await noetl.connection.execute(DUE)
        if not await noetl.connection.fetchval(REAP):
            return
    raise AssertionError("the executions do not end")


async def verify_faults(noetl: NoETL) -> dict[str, list[str]]:
    """Return the faults that `verify --deep` finds, by the sentence of the check."""
    report = await verify(noetl.connection, VerifyScope(), deep=PlaybookRules())
    return {v.check.sentence: [fault.detail for fault in v.examples] for v in report.verdicts if v.broken}


async def ended(noetl: NoETL) -> list[tuple[Any, ...]]:
    """Return status, result and error message of each execution."""
    found = await noetl.connection.fetch(
        "select status, result, error ->> 'message' from noetl.execution order by execution_id"
    )
    return [tuple(row) for row in found]


async def log(noetl: NoETL) -> list[str]:
    """Return the event types in the order in which the server lists events."""
    found = await noetl.connection.fetch("select event_type from noetl.event order by created_at, event_id")
    return [row[0] for row in found]


async def reap_ended_jobs(noetl: NoETL, seconds: float = 30.0) -> int:
    """Reap as if the jobs had ended `seconds` earlier; return how many the reaper decided on."""
    await noetl.connection.execute(
        "update noetl.ended_job set ended_at = ended_at - make_interval(secs => $1)", seconds
    )
    return int(await noetl.connection.fetchval("select noetl.reap_ended_jobs(1000, 30)"))


def fails_until(attempt: int) -> Any:
    """Return a task that fails before this attempt."""
    return lambda job: {"attempt": job.attempts} if job.attempts >= attempt else fail_task(f"attempt {job.attempts}")


def fail_task(message: str | None, result: JSON = None) -> Any:
    """Raise the error of a task with this message, or with the result of a tool."""
    raise TaskError(message, result)


def http_error(status: int, body: JSON = "") -> dict[str, JSON]:
    """Return what the http tool returns for a response that is no success: no error, but the status in its data."""
    answer = {"status_code": status, "headers": {}, "url": "http://x/?key=1", "elapsed": 0.1, "data": body}
    return {"id": "x", "status": "error", "data": answer}
