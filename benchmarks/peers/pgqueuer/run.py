"""PGQueuer: a job for each step; each enqueues the next."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import asyncpg
from pgqueuer import AsyncpgPoolDriver, Job, PgQueuer, Queries

WARM = 10  # workflows, before the clock runs
CONCURRENCY = int(sys.argv[3]) if sys.argv[3:] else None  # without: batches of a hundred, and no limit
BATCH = 100 if CONCURRENCY is None else CONCURRENCY // 2  # the largest that PGQueuer allows


async def main(workflows: int, steps: int) -> None:
    """Run them all and say how long it took."""
    async with asyncpg.create_pool(os.environ["PEER_DSN"], min_size=4, max_size=10) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries = Queries(driver)
        await queries.install()
        manager = PgQueuer(driver)
        ended: asyncio.Queue[None] = asyncio.Queue()

        @manager.entrypoint("step")
        async def step(job: Job) -> None:
            number = int(job.payload or b"1")
            if number < steps:
                await queries.enqueue("step", str(number + 1).encode())
            else:
                ended.put_nowait(None)

        async def run(many: int) -> float:
            began = time.perf_counter()
            await queries.enqueue(["step"] * many, [b"1"] * many, [0] * many)
            for _ in range(many):
                await ended.get()
            return time.perf_counter() - began

        worker = asyncio.create_task(manager.run(batch_size=BATCH, max_concurrent_tasks=CONCURRENCY))
        await run(WARM)
        print(json.dumps({"steps": workflows * steps, "seconds": await run(workflows)}), flush=True)
        manager.shutdown.set()
        await worker


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
