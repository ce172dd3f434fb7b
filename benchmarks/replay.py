"""`replay --all` over stored executions of ten steps: the core alone, and the whole command by the clock."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from contextlib import aclosing
from itertools import islice

from benchmarks.bench import Bench, Database, program
from benchmarks.drain import drained
from benchmarks.results import Row, at_least
from noetl_broker.broker.replay import Retaking
from noetl_broker.playbook.findings import Rules
from noetl_broker.store import histories
from noetl_broker.store.history import Versions

CORE = 2_000  # executions that fit into memory at once


async def measure(bench: Bench) -> list[Row]:
    """Executions a second."""
    executions = bench.scaled(10_000, 500)
    async with bench.database() as database:
        await drained(database, executions)
        probe = await database.probe()
        stored = await _stored(database, min(executions, CORE))
        cores = [_retake(stored) for _ in range(bench.rounds)]
        commands = [await _command(database, executions) for _ in range(bench.rounds)]
    rates, spent = zip(*commands, strict=True)
    beside = {"command µs/execution": sorted(spent)[len(spent) // 2]}
    return [
        Row(figure="replay", what="the core alone", unit="executions/s", values=tuple(cores), bar=at_least(2_000)),
        Row(figure="replay", what="the whole command", unit="executions/s", values=rates, bar=at_least(800),
            beside=beside, probes=(probe,)),
    ]  # fmt: skip


async def _stored(database: Database, executions: int) -> list[histories.Part]:
    """So many histories, read and kept."""
    versions = Versions(Rules())
    parts: list[histories.Part] = []
    async for load in histories.weigh(database.connection, histories.ALL):
        async with aclosing(histories.read(database.connection, load, versions)) as loaded:
            async for read in loaded:
                parts += islice(read, executions - len(parts))
        if len(parts) >= executions:
            break
    return parts


def _retake(parts: list[histories.Part]) -> float:
    """The processor's own time: a busy machine does not make the core slower."""
    began = time.thread_time()
    for part in parts:
        retaking = Retaking(part.history, in_parts=False)
        found = [difference for turn in part.readable_turns() for difference in retaking.take(turn).found]
        if found or retaking.end():
            raise RuntimeError(f"execution {part.history.execution_id} is retaken otherwise than it was decided")
    return len(parts) / (time.thread_time() - began)


async def _command(database: Database, executions: int) -> tuple[float, float]:
    """Executions a second by the clock, and microseconds of the processor for each."""
    arguments = program("replay", "--all", "--json", "--dsn", database.dsn)
    began, before = time.perf_counter(), _children_seconds()
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    taken = time.perf_counter() - began
    told = json.loads(answer)
    if told["executions"] != executions or told["differing"]:
        raise RuntimeError(f"{told['executions']} executions replayed, {told['differing']} differ")
    return executions / taken, (_children_seconds() - before) / executions * 1e6


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
