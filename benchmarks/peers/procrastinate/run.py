"""procrastinate: a job for each step; each defers the next."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import procrastinate


async def main(workflows: int, steps: int) -> None:
    """Run them all and say how long it took."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["PEER_DSN"], max_size=10))
    left = workflows
    ended = asyncio.Event()

    @app.task(name="step")
    async def step(number: int) -> None:
        nonlocal left
        if number < steps:
            await step.defer_async(number=number + 1)
            return
        left -= 1
        if left == 0:
            ended.set()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        began = time.perf_counter()
        await step.batch_defer_async(*({"number": 1} for _ in range(workflows)))
        # A wake-up that it loses would otherwise cost it five seconds.
        worker = asyncio.create_task(
            app.run_worker_async(concurrency=20, fetch_job_polling_interval=0.1, install_signal_handlers=False)
        )
        await ended.wait()
        print(json.dumps({"steps": workflows * steps, "seconds": time.perf_counter() - began}))
        worker.cancel()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
