"""Signals: one statement sends 10,000, and a daemon brings them to as many waits, which end their executions.

The time of the delivery runs from the commit of the statement until all executions have ended.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from benchmarks.bench import Bench, Database
from benchmarks.playbooks import HEAD
from benchmarks.results import Row, at_least

ROUNDS: Final = 3
PLAYBOOK: Final = (
    HEAD.format(path="signals")
    + """workflow:
- {step: start, next: paid}
- {step: paid, type: wait, signal: payment, key: "{{ execution_id }}0"}
"""
)
# The keys are not the ids of the executions, so that they are not of those alone.
SEND: Final = """
    select count(noetl.send_signal('payment', execution_id || '0', '{"amount": 5}'))
    from unnest($1::bigint[]) x (execution_id)"""
OPEN: Final = "select count(*) from noetl.wait w where w.status = 'open'"
RUNNING: Final = "select exists (select from noetl.execution x where noetl.is_live(x.status))"


async def measure(bench: Bench) -> list[Row]:
    """Measure signals a second: sent by one statement, and delivered to as many waits."""
    count = bench.scaled(10_000, 1_000)
    sent, delivered, probes = [], [], []
    for _ in range(ROUNDS):
        async with bench.database() as database:
            probes.append(await database.probe())
            await database.register("signals", PLAYBOOK)
            async with database.daemon():
                executions = await database.start("signals", many=count)
                await _until(database, OPEN, count)
                began = time.perf_counter()
                await database.connection.execute(SEND, executions)
                committed = time.perf_counter()
                await _until(database, RUNNING, wanted=False)
                sent.append(count / (committed - began))
                delivered.append(count / (time.perf_counter() - committed))
    kept = tuple(probes)
    return [
        Row(figure="signals", what="sent by one statement", unit="/s", values=tuple(sent), bar=at_least(5_000),
            probes=kept),
        Row(figure="signals", what="delivered to as many waits", unit="/s", values=tuple(delivered),
            bar=at_least(3_000), probes=kept),
    ]  # fmt: skip


async def _until(database: Database, query: str, wanted: object) -> None:
    """Wait until a query gives this value."""
    for _ in range(10_000):
        if await database.connection.fetchval(query) == wanted:
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(query)
