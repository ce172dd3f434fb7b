"""procrastinate: a job for each step; each defers the next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time

import procrastinate

WARM = 10  # workflows, before the clock runs
CONCURRENCY = int((sys.argv[3:] or ["20"])[0])


async def main(workflows: int, steps: int) -> None:
    """Run them all and say how long it took."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["PEER_DSN"], max_size=10))
    ended: asyncio.Queue[None] = asyncio.Queue()

    @app.task(name="step")
    async def step(number: int) -> None:
        if number < steps:
            await step.defer_async(number=number + 1)
        else:
            ended.put_nowait(None)

    async def run(many: int) -> float:
        began = time.perf_counter()
        await step.batch_defer_async(*({"number": 1} for _ in range(many)))
        for _ in range(many):
            await ended.get()
        return time.perf_counter() - began

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        # A wake-up that it loses would otherwise cost it five seconds.
        worker = asyncio.create_task(
            app.run_worker_async(concurrency=CONCURRENCY, fetch_job_polling_interval=0.1, install_signal_handlers=False)
        )
        await run(WARM)
        print(json.dumps({"steps": workflows * steps, "seconds": await run(workflows)}), flush=True)
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
