"""A worker that runs nothing: it leases jobs in batches and completes each with {}, for benchmarks of the broker."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from noetl_broker.errors import DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.growing_pauses import JITTER, RETRY_SECONDS, Backoff
from noetl_broker.store.worker.jobs import Completion, JobDatabase, RefusedFault, complete_jobs, lease_jobs
from noetl_broker.tasks import first
from noetl_broker.worker.logger import Log
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.stats import Stats

log = Log(__name__)


async def run_noop_worker(options: WorkerOptions, database: JobDatabase, stop: asyncio.Event) -> Stats:
    """Complete every job of the given types (None: of all types) until the stop; returns the numbers."""
    idle = Backoff(options.poll_min_seconds, options.poll_max_seconds, JITTER)
    broken = Backoff(*RETRY_SECONDS, JITTER)
    stats = Stats()
    while not stop.is_set():
        database.notified.clear()
        try:
            await database.listen()
            count = await _complete_batch(options, database, stats)
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
            await first(database.notified.wait(), stop.wait(), timeout=idle.next())
    log.info("worker_stopped", worker_id=options.worker_id, **asdict(stats))
    return stats


async def _complete_batch(options: WorkerOptions, database: JobDatabase, stats: Stats) -> int:
    jobs = await lease_jobs(
        database,
        worker_id=options.worker_id,
        max_jobs=options.null_batch,
        lease_seconds=options.lease_seconds,
        node_types=options.types,
    )
    stats.leased += len(jobs)
    if jobs:
        counted = await complete_jobs(database, options.worker_id, [Completion(job.lease) for job in jobs])
        stats.done += sum(counted.values())
    return len(jobs)
