"""Steps end to end: workflows of ten trivial steps, 500 in flight, one worker process; beside what others do.

Ours is the shipped daemon and the null worker, which leases and completes by the batch. A peer runs in an environment
of its own (peers/NAME), is told a database on the same server, and prints one line of JSON: its steps and seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.playbooks import HEAD, STEPS
from benchmarks.results import Row, at_least, ratios

ROUNDS: Final = 3
PEERS: Final = Path(__file__).parent / "peers"
ENVIRONMENTS: Final = Path(__file__).parent.parent / ".venv-peers"
PATIENCE_SECONDS: Final = 240.0


async def measure(bench: Bench) -> list[Row]:
    """Steps a second, in turns with every peer that is installed."""
    workflows = bench.scaled(500, 100)
    names = sorted(folder.name for folder in PEERS.iterdir() if (ENVIRONMENTS / folder.name / ".installed").exists())
    ours, probes = [], []
    theirs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, found in theirs.items():
            async with bench.database() as database:
                found.append(await _peer(name, database.dsn, workflows))
        async with bench.database() as database:
            probes.append(await database.probe())
            await database.register("steps", _steps())
            ours.append(await _ours(database.dsn, bench, workflows))
    rows = [Row(figure="steps", what="noetl-broker", unit="/s", values=tuple(ours), probes=tuple(probes))]
    rows += [Row(figure="steps", what=name, unit="/s", values=tuple(found)) for name, found in theirs.items()]
    rows += [
        Row(figure="steps", what=f"noetl-broker ÷ {name}", unit="×", values=ratios(ours, found),
            bar=at_least(10 if name == "dbos" else 2.5))
        for name, found in theirs.items()
    ]  # fmt: skip
    return rows


def _steps() -> str:
    """Ten steps in a row that say nothing, for a worker that says nothing."""
    lines = [HEAD.format(path="steps"), "workflow:\n- {step: start, next: s1}\n"]
    for number in range(1, STEPS + 1):
        following = f"s{number + 1}" if number < STEPS else "end"
        lines.append(f'- {{step: s{number}, type: python, code: "def main(): return 1", next: {following}}}\n')
    return "".join([*lines, "- {step: end}\n"])


async def _ours(dsn: str, bench: Bench, workflows: int) -> float:
    database = await bench.on(dsn)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "noetl_broker", "worker", "--null",
        env=os.environ | {"NOETL_BROKER_DSN": dsn, "NOETL_BROKER_LOG_LEVEL": "error"},
    )  # fmt: skip
    try:
        async with database.daemon():
            await _run(dsn, bench, 10)  # the worker is connected, the plans are made
            seconds = await _run(dsn, bench, workflows)
    finally:
        worker.terminate()
        await worker.wait()
        await database.connection.close()
    return workflows * STEPS / seconds


async def _run(dsn: str, bench: Bench, workflows: int) -> float:
    database = await bench.on(dsn)
    rung = asyncio.Event()
    await database.connection.add_listener("noetl_end", lambda *_: rung.set())
    began = time.perf_counter()
    await database.start("steps", many=workflows)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await database.connection.fetchval(
            "select exists (select from noetl.execution where status = 'RUNNING')"
        ):
            await rung.wait()
            rung.clear()
    seconds = time.perf_counter() - began
    ended = await database.connection.fetchval("select count(*) from noetl.execution where status <> 'COMPLETED'")
    await database.connection.close()
    if ended:
        raise RuntimeError(f"{ended} executions did not complete")
    return seconds


async def _peer(name: str, dsn: str, workflows: int) -> float:
    process = await asyncio.create_subprocess_exec(
        str(ENVIRONMENTS / name / "bin" / "python"), str(PEERS / name / "run.py"), str(workflows), str(STEPS),
        env=os.environ | {"PEER_DSN": dsn},  # arguments can be read by everybody on the machine
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        told, complaints = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    except TimeoutError:
        process.kill()
        raise
    if process.returncode:
        raise RuntimeError(f"{name}: {complaints.decode()[-2000:]}")
    answer = json.loads(told.decode().strip().splitlines()[-1])
    return float(answer["steps"] / answer["seconds"])
