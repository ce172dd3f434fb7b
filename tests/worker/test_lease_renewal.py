"""Which leases a worker renews."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from noetl_broker.store.worker.jobs import JobDatabase, LeasedJob, lease_jobs
from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.job_log import JobLog
from noetl_broker.worker.job_progress import JobProgress
from noetl_broker.worker.lease_renewal import LeaseRenewal, RunningJob
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.redaction import Redactor
from noetl_broker.worker.sql.job_transaction import JobTransaction
from tests.brokers import execute
from tests.postgres import Database
from tests.worker.test_loop import Queue, queue

__all__ = ["queue"]


async def test_the_later_attempt_of_a_job_keeps_its_lease(database: Database, queue: Queue) -> None:
    """The answer of the earlier attempt still waits, and the worker's set has them in any order."""
    queue_id = await queue.put_one({"type": "python"})
    jobs = JobDatabase(database, application_name="test")
    [earlier] = await lease_jobs(jobs, worker_id="w", max_jobs=1, lease_seconds=60, node_types=None)
    await execute(database, "update noetl.queue set attempts = 2")
    queue.forget()
    running = [_running(jobs, replace(earlier, attempt=2)), _running(jobs, earlier)]
    options = WorkerOptions(dsn=database.dsn, schema=database.schema, worker_id="w", lease_seconds=60)
    renewal = asyncio.create_task(LeaseRenewal(jobs, options, running).run())
    jobs.cancel_heard()  # renew now
    renewed = asyncio.create_task(queue.until(queue_id, "leased"))
    tasks = [renewed, *(one.task for one in running if one.task is not None)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [one.killed_because for one in running] == [None, None]
        await renewed
    finally:
        for one in running:
            one.finish()
        for task in [renewal, *tasks]:
            task.cancel()
        await jobs.close()


def _running(jobs: JobDatabase, job: LeasedJob) -> RunningJob:
    own = JobTransaction(jobs, "w", job, IdleConnections(most=1), idle_seconds=60)
    log = JobLog(job.lease, Redactor({}, None))
    task = asyncio.create_task(_work())
    return RunningJob(job=job, log=log, progress=JobProgress(), transaction=own, task=task)


async def _work() -> None:
    await asyncio.Event().wait()
