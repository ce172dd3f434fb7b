"""PGQueuer: a job for each step; each enqueues the next."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import asyncpg
from pgqueuer import AsyncpgPoolDriver, Job, PgQueuer, Queries


async def main(workflows: int, steps: int) -> None:
    """Run them all and say how long it took."""
    async with asyncpg.create_pool(os.environ["PEER_DSN"], min_size=4, max_size=10) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries = Queries(driver)
        await queries.install()
        manager = PgQueuer(driver)
        left = workflows

        @manager.entrypoint("step")
        async def step(job: Job) -> None:
            nonlocal left
            number = int(job.payload or b"1")
            if number < steps:
                await queries.enqueue("step", str(number + 1).encode())
                return
            left -= 1
            if left == 0:
                manager.shutdown.set()

        began = time.perf_counter()
        await queries.enqueue(["step"] * workflows, [b"1"] * workflows, [0] * workflows)
        await manager.run(batch_size=100)
        print(json.dumps({"steps": workflows * steps, "seconds": time.perf_counter() - began}))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
