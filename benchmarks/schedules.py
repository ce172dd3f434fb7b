"""Schedules: how late their executions start, when many have the same moment each second."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from benchmarks.bench import Bench
from benchmarks.playbooks import HEAD
from benchmarks.results import Row, at_most, percentile

SCHEDULES: Final = 50
PLAYBOOK: Final = HEAD.format(path="nightly") + "workflow:\n- {step: start}\n"
PUT: Final = """
    select noetl.put_schedule('every second ' || n, 'nightly', cron => '* * * * * *')
    from generate_series(1, $1::int) n"""
STOP: Final = "select noetl.pause_schedule(s.name) from noetl.start_schedule s"
LATE: Final = """
    select extract(epoch from e.created_at - (x.workload #>> '{schedule,at}')::timestamptz)::float8 * 1000 as ms,
      x.workload #>> '{schedule,at}' as moment
    from noetl.execution x
    join noetl.event e on e.execution_id = x.execution_id and e.event_type = 'execution_start'
    where x.status = 'COMPLETED'"""


async def measure(bench: Bench) -> list[Row]:
    """Measure the lateness of starts: the time from the moment of a schedule to the event that starts its execution."""
    halves, tails, probes = [], [], []
    for _ in range(bench.scaled(3, 1)):
        async with bench.database() as database:
            probes.append(await database.probe())
            await database.register("nightly", PLAYBOOK)
            async with database.daemon():
                await database.connection.execute(PUT, SCHEDULES)
                await asyncio.sleep(bench.scaled(10, 3))
                await database.connection.execute(STOP)
                await database.until_read()
            rows = await database.connection.fetch(LATE)
            moments = Counter(row["moment"] for row in rows)
            wrong = {moment: count for moment, count in moments.items() if count != SCHEDULES}
            if not moments or wrong:
                raise RuntimeError(f"not {SCHEDULES} executions are completed of each moment: {wrong}")
            late = [row["ms"] for row in rows]
            halves.append(percentile(late, 0.5))
            tails.append(percentile(late, 0.99))
    return [
        Row(figure="schedules", what=f"lateness p99, {SCHEDULES} starts each second", unit="ms", values=tuple(tails),
            bar=at_most(100), beside={"p50": percentile(halves, 0.5)}, probes=tuple(probes))
    ]  # fmt: skip
