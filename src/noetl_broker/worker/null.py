"""A worker that does nothing, fast: it leases jobs by the batch and completes them all with {}, to measure the rest."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from noetl_broker.errors import DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.store.jobs import Completion, JobDatabase, RefusedFault, complete_jobs, lease_jobs
from noetl_broker.worker.logger import Log
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.tally import Tally
from noetl_broker.worker.waiting import RETRY_SECONDS, Backoff, first

log = Log(__name__)


async def run_null(options: WorkerOptions, database: JobDatabase, stop: asyncio.Event) -> Tally:
    """Complete every job of the asked types (None: any type at all) until the stop; say how many."""
    idle = Backoff(least=options.poll_min_seconds, most=options.poll_max_seconds)
    broken = Backoff(least=RETRY_SECONDS[0], most=RETRY_SECONDS[1])
    tally = Tally()
    while not stop.is_set():
        database.rung.clear()
        try:
            await database.listen()
            count = await _batch(options, database, tally)
        except (PermissionFault, SchemaFault):
            raise
        except (DatabaseFault, RefusedFault) as fault:
            pause = broken.next()
            log.warning("lease_failed", error=str(fault), pause_seconds=round(pause, 2))
            await first(stop.wait(), timeout=pause)
            continue
        broken.reset()
        if count:
            idle.reset()
        if count < options.null_batch:
            await first(database.rung.wait(), stop.wait(), timeout=idle.next())
    log.info("worker_stopped", worker_id=options.worker_id, **asdict(tally))
    return tally


async def _batch(options: WorkerOptions, database: JobDatabase, tally: Tally) -> int:
    jobs = await lease_jobs(
        database,
        worker_id=options.worker_id,
        max_jobs=options.null_batch,
        lease_seconds=options.lease_seconds,
        node_types=options.types,
    )
    tally.leased += len(jobs)
    if jobs:
        counted = await complete_jobs(database, options.worker_id, [Completion(job.lease) for job in jobs])
        tally.done += sum(counted.values())
    return len(jobs)
