"""The cost of a transition in commits, round trips, WAL and dead tuples; the memory at a large backlog."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from benchmarks.bench import SETTINGS, Bench, Database
from benchmarks.drain import complete
from benchmarks.playbooks import STEPS, chain, leaf
from benchmarks.results import Row, at_most
from noetl_broker import embedded_postgres

ROUNDS: Final = 3
COUNTING: Final = {"shared_preload_libraries": "pg_stat_statements"}
CALLS: Final = """
    select coalesce(sum(s.calls), 0)::float8 as calls, coalesce(sum(s.wal_bytes), 0)::float8 as wal,
      coalesce(sum(s.calls) filter (where s.query ~* '^commit'), 0)::float8 as commits
    from pg_stat_statements s
    join pg_database d on d.oid = s.dbid and d.datname = current_database()
    where s.toplevel and s.query !~ '(exists [(]select from noetl.inbox|complete_job|pg_stat)'"""
# An updated or deleted row version is dead until vacuum removes it. Index entries are not counted.
DEAD: Final = """
    select (pg_stat_clear_snapshot() is null)::int::float8
      + coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 as dead
    from pg_stat_user_tables
    where schemaname = 'noetl'"""
UNITS: Final = {"commits": "", "round trips": "", "WAL": "bytes", "dead tuples": ""}


async def measure(bench: Bench) -> list[Row]:
    """Measure per turn of the drain, by the server's counters; on another server, because counting slows it."""
    rounds: list[dict[str, float]] = []
    with embedded_postgres.start(settings=SETTINGS | COUNTING) as counting:
        for _ in range(ROUNDS):
            async with replace(bench, postgres=counting).database() as database:
                rounds.append(await _counted(database, bench.scaled(2_000, 300)))
    rows = [
        Row(figure="cost", what=f"{name} a transition", unit=unit, values=tuple(found[name] for found in rounds))
        for name, unit in UNITS.items()
    ]
    return [*rows, await _memory(bench)]


async def _counted(database: Database, executions: int) -> dict[str, float]:
    await database.connection.execute("create extension pg_stat_statements")
    await database.register("ten", chain("ten"))
    totals = dict.fromkeys(UNITS, 0.0)
    async with database.daemon():
        await database.start("ten", many=executions)
        await database.until_read()
        for _ in range(STEPS):
            # The worker completes jobs: its transaction is not counted.
            async with database.connection.transaction():
                await complete(database)
                await database.connection.fetchval("select pg_stat_statements_reset()")
            await database.until_read()
            row = (await database.connection.fetch(CALLS))[0]
            totals["commits"] += row["commits"]
            totals["round trips"] += row["calls"]
            totals["WAL"] += row["wal"]
    # A backend reports its counts at its end at the latest; the daemon has ended.
    dead = (await database.connection.fetch(DEAD))[0]["dead"]
    turns = executions * STEPS
    worker = executions * STEPS * 2  # a lease and an end rewrite the row of the job
    return {name: total / turns for name, total in totals.items()} | {"dead tuples": (dead - worker) / turns}


async def _memory(bench: Bench) -> Row:
    backlog = bench.scaled(1_000_000, 20_000)
    peaks = []
    async with bench.database() as database:
        await database.register("leaf", leaf("leaf"))
        await database.connection.execute(
            "select count(noetl.start_execution('leaf', '{}')) from generate_series(1, $1::int)", backlog, timeout=None
        )
        for _ in range(ROUNDS):
            async with database.daemon() as daemon:
                await asyncio.sleep(bench.scaled(15, 3))
                peaks.append(daemon.peak_bytes() / 1e6)
    return Row(
        figure="cost", what=f"memory at a backlog of {backlog:,}", unit="MB", values=tuple(peaks), bar=at_most(300)
    )
