"""absurd: a task with a checkpoint for each step; four workers of twenty tasks each in one process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import absurdctl
import psycopg
from absurd_sdk import AsyncAbsurd, AsyncTaskContext

WARM = 10  # workflows, before the clock runs
WORKERS = 4
CONCURRENCY = int((sys.argv[3:] or ["80"])[0]) // WORKERS  # of each worker
QUEUE = "peers"


async def main(workflows: int, steps: int) -> None:
    """Run them all and say how long it took."""
    dsn = os.environ["PEER_DSN"]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    ended: asyncio.Queue[None] = asyncio.Queue()
    clients = [AsyncAbsurd(dsn, queue_name=QUEUE) for _ in range(WORKERS + 1)]
    await clients[0].create_queue()

    async def give() -> int:
        return 1

    async def workflow(_params: object, context: AsyncTaskContext) -> None:
        for number in range(1, steps + 1):
            await context.step(f"s{number}", give)
        ended.put_nowait(None)

    for client in clients:
        client.register_task("workflow")(workflow)

    async def run(many: int) -> float:
        began = time.perf_counter()
        for _ in range(many):
            await clients[0].spawn("workflow", {})
        for _ in range(many):
            await ended.get()
        return time.perf_counter() - began

    workers = [asyncio.create_task(client.start_worker(concurrency=CONCURRENCY)) for client in clients[1:]]
    await run(WARM)
    print(json.dumps({"steps": workflows * steps, "seconds": await run(workflows)}), flush=True)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
