"""The reference worker's tools: an iterator of trivial items, a job each, for a worker with eight jobs at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from benchmarks.bench import Bench, Database
from benchmarks.functions import FUNCTION_WORKER
from benchmarks.playbooks import HEAD
from benchmarks.results import Row, at_least, percentile

ROUNDS: Final = 3
CONCURRENCY: Final = "8"
WARM: Final = 20  # items
PLAYBOOK: Final = (
    HEAD
    + """workflow:
- {{step: start, next: each}}
- step: each
  type: iterator
  collection: "{{{{ range(workload.n) | list }}}}"
  element: i
  mode: async
  concurrency: 1000
  distribute: true
  task: {task}
"""
)


class Tool(NamedTuple):
    """A task of the iterator, with the arguments of its worker; `python`: on one core."""

    what: str
    kind: str
    task: str
    bar: int | None = None
    items: int = 3_000
    module: str = "noetl_broker"
    arguments: tuple[str, ...] = ("worker", "--concurrency", CONCURRENCY)


LIBRARY: Final = "matplotlib.figure"  # with numpy
IMPORTS: Final = f"{{type: python, code: 'def main(): import {LIBRARY}'}}"
PRELOADING: Final = ("worker", "--preload", LIBRARY, "--concurrency", CONCURRENCY)
TOOLS: Final = (
    Tool(
        "python, its worker on one core", "python", "{type: python, code: 'def main(): return 1'}", bar=300, items=1_000
    ),
    Tool("python with an expensive import", "python", IMPORTS, items=60),
    Tool("the same with --preload", "python", IMPORTS, items=600, arguments=PRELOADING),
    Tool("postgres", "postgres", "{type: postgres, sql: select 1 as n}", bar=1_500),
    Tool("http", "http", "{type: http, url: 'http://127.0.0.1:PORT/'}", bar=1_500),
    Tool("a function of a Worker", "trivial", "{type: trivial}", module=FUNCTION_WORKER, arguments=(CONCURRENCY,)),
)
ANSWER: Final = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n{"n":1}'
TIMEOUT_SECONDS: Final = 240.0
ENDED: Final = """
    select x.status, x.error::text
    from noetl.execution x
    where x.execution_id = $1 and not noetl.is_live(x.status)"""
DONE: Final = "select count(*) from noetl.queue where execution_id = $1 and status = 'done' and node_type = $2"


async def measure(bench: Bench) -> list[Row]:
    """Measure items a second of each tool, and the worker's processor time for one."""
    rows = []
    async with _answering() as port:
        for tool in TOOLS:
            paces, costs, probes = [], [], []
            items = bench.scaled(tool.items, 50)
            task = tool.task.replace("PORT", str(port))
            for _ in range(ROUNDS):
                async with bench.database() as database:
                    probes.append(await database.probe())
                    await database.register("tool", PLAYBOOK.format(path="tool", task=task))
                    pace, cost = await _pace(database, tool, items)
                    paces.append(pace)
                    costs.append(cost)
            rows.append(
                Row(figure="tools", what=tool.what, unit="/s", values=tuple(paces),
                    bar=None if tool.bar is None else at_least(tool.bar),
                    beside={"worker ms/job": percentile(costs, 0.5)}, probes=tuple(probes))
            )  # fmt: skip
    return rows


async def _pace(database: Database, tool: Tool, items: int) -> tuple[float, float]:
    """Items a second, and milliseconds of the worker's processor time for one; raises RuntimeError if one is lost."""
    async with database.daemon(), database.worker(tool.module, *tool.arguments) as worker:
        if tool.kind == "python":
            os.sched_setaffinity(worker.process.pid, {0})
        await _run(database, tool, WARM)  # the worker connects, plans are made
        before, began = worker.seconds(), time.perf_counter()
        await _run(database, tool, items)
        pace = items / (time.perf_counter() - began)
        return pace, (worker.seconds() - before) / items * 1000


async def _run(database: Database, tool: Tool, items: int) -> None:
    """Run one execution to its end."""
    ended = asyncio.Event()
    await database.connection.add_listener("noetl_end", lambda *_: ended.set())
    (execution_id,) = await database.start("tool", {"n": items})
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while (found := await database.connection.fetchrow(ENDED, execution_id)) is None:
            await ended.wait()
            ended.clear()
    done = await database.connection.fetchval(DONE, execution_id, tool.kind)
    if found["status"] != "COMPLETED" or done != items:
        raise RuntimeError(f"{tool.what}: {found['status']} {found['error']}, {done} of {items} jobs are done")


@contextlib.asynccontextmanager
async def _answering() -> AsyncIterator[int]:
    """Answer HTTP requests with a short document; gives the port."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            await writer.drain()
    writer.close()
