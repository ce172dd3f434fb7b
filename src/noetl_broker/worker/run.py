"""Runs a worker: its resources, and a loop for its queue, or one for each bucket that it serves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from difflib import get_close_matches
from typing import Any

from noetl_broker.errors import OperatorFault
from noetl_broker.playbook.step_types import ACTION_TYPES
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.worker.jobs import JobDatabase
from noetl_broker.tasks import first, run_beside, run_until
from noetl_broker.worker.announcing import Announcer
from noetl_broker.worker.buckets import find_buckets, serve_each
from noetl_broker.worker.environment import kept_environment, visible_environment
from noetl_broker.worker.executor import types_with
from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.logger import Log
from noetl_broker.worker.loop import LEASE_GRACE_SECONDS, Assignment, WorkerLoop
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.slots import Slots
from noetl_broker.worker.stats import Stats
from noetl_broker.worker.tools import TOOLS
from noetl_broker.worker.tools.http_connections import HttpConnections
from noetl_broker.worker.tools.python_processes import ForkServerFault, Interpreters
from noetl_broker.worker.tools.task import Tool, WorkerResources

# The connections of a bucket beside its listener. A call without an answer keeps its slots from other buckets so long.
BUCKET_LIMITS = {"connections": 1, "answer_seconds": 10.0}
LONGEST_POLL_SECONDS = 10.0  # between two polls of one of many buckets

log = Log(__name__)


def types_of(options: WorkerOptions, tools: Mapping[str, Tool] | None) -> tuple[str, ...]:
    """The job types to lease. A worker with `tools` of its own takes only their types, unless options name others.

    Raises OperatorFault for a type without a tool.
    """
    able = types_with(TOOLS if tools is None else tools)
    types = tuple(sorted(able if tools is None else tools)) if options.types is None else options.types
    unknown = sorted(set(types) - able)
    if unknown or not types:
        named = ", ".join(unknown) or "nothing"
        near = [word for name in unknown for word in get_close_matches(name, able, n=1)]
        meant = f"did you mean {' and '.join(near)}? It" if near else "it"
        raise OperatorFault(f"the worker has no tool for {named}; {meant} has {', '.join(sorted(able))}")
    return types


def types_to_announce(tools: Mapping[str, Tool] | None) -> tuple[str, ...]:
    """The types of a worker's own tools that registration does not know."""
    return tuple(sorted(name for name in tools or () if name not in ACTION_TYPES))


async def start_interpreters(interpreters: Interpreters, stop: asyncio.Event, *, wait: bool) -> None:
    """Start the fork server of python steps before the first job. `wait`: until it has imported its modules, or `stop`.

    Raises OperatorFault then, if one cannot be imported.
    """
    starting = interpreters.start()
    if not wait:
        return
    await first(asyncio.wait({starting}), stop.wait())
    if stop.is_set():
        return
    try:
        await starting
    except ForkServerFault as fault:
        raise OperatorFault(f"{fault}; install it beside the worker, or take it out of preload") from fault


async def run_worker(options: WorkerOptions, stop: asyncio.Event, tools: Mapping[str, Tool] | None = None) -> Stats:
    """Work until `stop` is set, then drain; returns the numbers. `tools` by type replace the built-in ones.

    Waits while the database is away. Raises OperatorFault for wrong options or a wrong DSN, and PermissionFault and
    SchemaFault when the database refuses this worker.
    """
    types: tuple[str, ...] | None = types_of(options, tools)
    if options.null:
        types, options = options.types, replace(options, concurrency=options.null_batch)
    environment = kept_environment(os.environ, options.pass_env)
    interpreters = Interpreters(visible_environment(environment), preload=options.preload)
    most, seconds = options.concurrency, options.idle_connection_seconds
    shared = WorkerResources(
        dsn=options.dsn,
        environment=environment,
        unseen=os.environ,
        interpreters=interpreters,
        sql_connections=IdleConnections(most=most, idle_seconds=seconds),
        http_connections=HttpConnections(IdleConnections(most=most, idle_seconds=seconds)),
        tools=tools,
    )
    log.info("worker_started", worker_id=options.worker_id, types=types, concurrency=options.concurrency)
    stats = Stats()
    try:
        if tools is None and not options.null and "python" in (types or ()):
            await start_interpreters(interpreters, stop, wait=bool(options.preload))
        work = Assignment(stats=stats, types=types, unannounced=types_to_announce(tools))
        buckets = await find_buckets(options.database, options.bucket_numbers, stop)
        slots = Slots(options.concurrency, is_shared=buckets is not None and len(buckets) > 1)
        if buckets is None:
            await serve_queue(options, options.database, stop, shared, slots, work)
        else:
            own = options_of_bucket(options, len(buckets))

            async def serve(number: int, database: Database, on_answer: Callable[[], None]) -> None:
                bucket = replace(work, bucket=number, on_answer=on_answer)
                await serve_queue(own, database, stop, shared, slots, bucket)

            await serve_each(buckets, serve, stop)
    finally:
        await shared.close_connections()
        await interpreters.close()
        log.info("worker_stopped", worker_id=options.worker_id, **asdict(stats))
    return stats


def options_of_bucket(options: WorkerOptions, buckets: int) -> WorkerOptions:
    """The options for each of so many buckets: together they poll about as often as one, if they are few."""
    longest = max(options.poll_max_seconds, min(options.poll_max_seconds * buckets, LONGEST_POLL_SECONDS))
    return replace(options, poll_max_seconds=longest)


async def serve_queue(
    options: WorkerOptions,
    database: Database,
    stop: asyncio.Event,
    shared: WorkerResources,
    slots: Slots,
    work: Assignment,
) -> None:
    """Work on one queue until `stop` is set, then drain."""
    limits: dict[str, Any] = BUCKET_LIMITS if work.bucket is not None else {}
    async with JobDatabase(database, application_name="noetl-broker worker", **limits) as jobs:
        loop = WorkerLoop(options, jobs, stop, shared, slots, work)
        slots.join(loop)
        announcer = Announcer(jobs, options, work.types, lambda: len(loop.running))
        background = [
            asyncio.create_task(loop.reporter.run(), name="the reporter of answers"),
            asyncio.create_task(loop.logs.run(), name="the sender of logs"),
            asyncio.create_task(loop.progress.run(), name="the sender of progress"),
            asyncio.create_task(loop.renewal.run(), name="the renewal of leases"),
            asyncio.create_task(announcer.run(), name="the announcer of the worker"),
        ]
        try:
            await run_beside(background, run_until(stop, loop.run(), grace=LEASE_GRACE_SECONDS))
        finally:
            try:
                await loop.drain()
            finally:  # if the drain is cancelled, no answer is sent after it
                for task in background:
                    task.cancel()
                slots.leave(loop)
            await asyncio.gather(*background, return_exceptions=True)
            await announcer.stop()
