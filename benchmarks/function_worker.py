"""`python -m benchmarks.function_worker CONCURRENCY`: a `Worker` whose functions do nothing, or say how late they are.

Its database is that of NOETL_BROKER_DSN.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from noetl_broker import Job, Worker

worker = Worker(os.environ["NOETL_BROKER_DSN"], concurrency=int(sys.argv[1]))


@worker.task("trivial")
async def trivial(_job: Job) -> int:
    """Nothing."""
    return 1


@worker.task("timed")
async def timed(job: Job) -> float:
    """The milliseconds since the moment that the payload has, by a clock that all processes share."""
    return (time.perf_counter() - float(job.context["workload"]["sent"])) * 1000


if __name__ == "__main__":
    asyncio.run(worker.run())
