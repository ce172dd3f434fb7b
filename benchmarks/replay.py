"""`replay --all` of executions of ten steps: the core only, and the whole command."""

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
from noetl_broker.history.record import HistoryPart
from noetl_broker.history.replay import Replay
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin import history_scan
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.history import Versions

CORE = 2_000  # executions that fit into memory at once


async def measure(bench: Bench) -> list[Row]:
    """Measure executions a second."""
    executions = bench.scaled(10_000, 500)
    async with bench.database() as database:
        await drained(database, executions)
        probe = await database.probe()
        stored = await _stored(database, min(executions, CORE))
        cores = [_replay(stored) for _ in range(bench.rounds)]
        commands = [await _command(database, executions) for _ in range(bench.rounds)]
    rates, spent = zip(*commands, strict=True)
    beside = {"command µs/execution": sorted(spent)[len(spent) // 2]}
    return [
        Row(figure="replay", what="the core alone", unit="executions/s", values=tuple(cores), bar=at_least(2_000)),
        Row(figure="replay", what="the whole command", unit="executions/s", values=rates, bar=at_least(800),
            beside=beside, probes=(probe,)),
    ]  # fmt: skip


async def _stored(database: Database, executions: int) -> list[HistoryPart]:
    """Read this many histories into memory."""
    versions = Versions(PlaybookRules())
    parts: list[HistoryPart] = []
    async for batch in history_scan.measure_sizes(database.connection, Filter()):
        async with aclosing(history_scan.read(database.connection, batch, versions)) as loaded:
            async for read in loaded:
                parts += islice(read, executions - len(parts))
        if len(parts) >= executions:
            break
    return parts


def _replay(parts: list[HistoryPart]) -> float:
    """Return executions a second of processor time, which does not depend on other load."""
    began = time.thread_time()
    for part in parts:
        replay = Replay(part.history, in_parts=False)
        found = [difference for turn in part.readable_turns() for difference in replay.apply(turn).differences]
        if found or replay.finish():
            raise RuntimeError(f"execution {part.history.execution_id} is decided differently than it was written")
    return len(parts) / (time.thread_time() - began)


async def _command(database: Database, executions: int) -> tuple[float, float]:
    """Return executions a second, and processor microseconds for each."""
    arguments = program("replay", "--all", "--json", "--dsn", database.dsn)
    began, before = time.perf_counter(), _children_seconds()
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    taken = time.perf_counter() - began
    report = json.loads(answer)
    if report["executions"] != executions or report["differing"]:
        raise RuntimeError(f"{report['executions']} executions replayed, {report['differing']} differ")
    return executions / taken, (_children_seconds() - before) / executions * 1e6


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
