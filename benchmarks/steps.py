"""Steps end to end: workflows of ten trivial steps, 500 at a time, one worker process; beside other programs.

Ours is a daemon with default settings and the null worker, which leases and completes in batches. A peer runs in its
own environment (peers/NAME), gets a database on the same server, and prints one line of JSON: its steps and seconds.
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
TIMEOUT_SECONDS: Final = 240.0


async def measure(bench: Bench) -> list[Row]:
    """Measure steps a second, in turns with each installed peer."""
    workflows = bench.scaled(500, 100)
    names = installed_peers()
    ours, probes = [], []
    theirs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, found in theirs.items():
            async with bench.database() as database:
                found.append(await run_peer(name, database.dsn, workflows))
        async with bench.database() as database:
            probes.append(await database.probe())
            await database.register("steps", ten_steps("python"))
            ours.append(await _ours(database.dsn, bench, workflows))
    rows = [Row(figure="steps", what="noetl-broker", unit="/s", values=tuple(ours), probes=tuple(probes))]
    rows += [Row(figure="steps", what=name, unit="/s", values=tuple(found)) for name, found in theirs.items()]
    rows += [
        Row(figure="steps", what=f"noetl-broker ÷ {name}", unit="×", values=ratios(ours, found),
            bar=at_least(10 if name == "dbos" else 2.5))
        for name, found in theirs.items()
    ]  # fmt: skip
    return rows


def installed_peers() -> list[str]:
    """Return the names of the peers that have an environment."""
    return sorted(folder.name for folder in PEERS.iterdir() if (ENVIRONMENTS / folder.name / ".installed").exists())


def ten_steps(kind: str) -> str:
    """Return a playbook of ten steps without inputs and results."""
    lines = [HEAD.format(path="steps"), "workflow:\n- {step: start, next: s1}\n"]
    for number in range(1, STEPS + 1):
        following = f"s{number + 1}" if number < STEPS else "end"
        lines.append(f'- {{step: s{number}, type: {kind}, code: "def main(): return 1", next: {following}}}\n')
    return "".join([*lines, "- {step: end}\n"])


async def _ours(dsn: str, bench: Bench, workflows: int) -> float:
    database = await bench.on(dsn)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "noetl_broker", "worker", "--null",
        env=os.environ | {"NOETL_BROKER_DSN": dsn, "NOETL_BROKER_LOG_LEVEL": "error"},
    )  # fmt: skip
    try:
        async with database.daemon():
            await run_workflows(dsn, bench, 10)  # warm-up: the worker connects, plans are made
            seconds = await run_workflows(dsn, bench, workflows)
    finally:
        worker.terminate()
        await worker.wait()
        await database.connection.close()
    return workflows * STEPS / seconds


async def run_workflows(dsn: str, bench: Bench, workflows: int) -> float:
    """Start so many executions of `steps`; return the seconds until all have completed."""
    database = await bench.on(dsn)
    notified = asyncio.Event()
    await database.connection.add_listener("noetl_end", lambda *_: notified.set())
    began = time.perf_counter()
    await database.start("steps", many=workflows)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while await database.connection.fetchval(
            "select exists (select from noetl.execution where status = 'RUNNING')"
        ):
            await notified.wait()
            notified.clear()
    seconds = time.perf_counter() - began
    ended = await database.connection.fetchval("select count(*) from noetl.execution where status <> 'COMPLETED'")
    await database.connection.close()
    if ended:
        raise RuntimeError(f"{ended} executions did not complete")
    return seconds


async def run_peer(name: str, dsn: str, workflows: int, concurrency: int | None = None) -> float:
    """Return the steps a second of a peer; `concurrency` None: what it usually has."""
    given = () if concurrency is None else (str(concurrency),)
    process = await asyncio.create_subprocess_exec(
        str(ENVIRONMENTS / name / "bin" / "python"), str(PEERS / name / "run.py"), str(workflows), str(STEPS), *given,
        env=os.environ | {"PEER_DSN": dsn},  # not an argument: all users of the machine can read those
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
    except TimeoutError:
        process.kill()
        raise
    if process.returncode:
        raise RuntimeError(f"{name}: {errors.decode()[-2000:]}")
    answer = json.loads(output.decode().strip().splitlines()[-1])
    return float(answer["steps"] / answer["seconds"])
