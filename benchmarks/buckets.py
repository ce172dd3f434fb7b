"""Buckets beside one plain schema: a turn, and the lease and end of a job; what `run` costs with many idle buckets.

A turn is the processor time of the daemon and the server. Batches are equal: the plain schema gets as many mails at a
time as each bucket. So each claim takes as many. Both take turns: plain, buckets, buckets, plain.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Final

from benchmarks.bench import POLL_SECONDS, Bench, Connection, Database
from benchmarks.playbooks import RESULT, STEPS, chain
from benchmarks.processes import running_seconds, tree_memory
from benchmarks.results import Row, at_most
from noetl_broker.store.connect import dsn as store
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.installation import migrate

PLAIN: Final = "noetl"
NAME: Final = "parts"
COUNTS: Final = (4, 16)
IDLE: Final = (1, 4, 16, 32)
BATCH: Final = 50  # mails of a claim, at most
MAILS: Final = 150  # at a time
ROUNDS: Final = 3
WARM_UP: Final = 3  # steps until each session has its plans
LEASE: Final = "select queue_id, attempts from noetl.lease_jobs('worker', 1, 600)"
END: Final = "select noetl.complete_job($1, 'worker', $2, $3)"
BLOCK: Final = 50  # jobs of one schema, before those of the other
START: Final = "select count(noetl.start_execution('ten')) from generate_series(1, $1::int)"
COMPLETE: Final = """
    with leased as materialized (select queue_id, attempts from noetl.lease_jobs('worker', $1, 600))
    select count(noetl.complete_job(queue_id, 'worker', attempts, $2)) from leased"""
CLAIMS: Final = "select count(*)::float8 / count(distinct xmin::text) from noetl.turn"
SETTLING_SECONDS: Final = 30.0  # until the first scans of a new daemon are paid for
MEGABYTE: Final = 1e6


async def measure(bench: Bench) -> list[Row]:
    """Measure turns, jobs, and idle daemons."""
    return [*await _turns(bench), await _jobs(bench), *await _idle(bench)]


async def _turns(bench: Bench) -> list[Row]:
    rows = []
    for count in COUNTS:
        ratios, claims, plain = [], [], []
        for _ in range(bench.scaled(ROUNDS, 1)):
            runs = [await _turn(bench, count, in_buckets=which) for which in (False, True, True, False)]
            ratios.append((runs[1][0] + runs[2][0]) / (runs[0][0] + runs[3][0]))
            claims.append((runs[1][1] + runs[2][1]) / (runs[0][1] + runs[3][1]))
            plain.append(runs[0][0])
        beside = {"mails of a claim ÷ plain": statistics.median(claims), "plain µs": statistics.median(plain)}
        rows.append(
            Row(figure="buckets", what=f"{count} buckets ÷ one plain schema, a turn", unit="×", values=tuple(ratios),
                bar=at_most(1.10), beside=beside)
        )  # fmt: skip
    return rows


async def _turn(bench: Bench, count: int, *, in_buckets: bool) -> tuple[float, float]:
    """Return the processor microseconds of a turn, and the mails of a claim.

    Each bucket gets as many mails at a time as the plain schema gets, which then gets them `count` times. All buckets
    work at the same time: what they do while they are idle costs as much a second, and is counted too.
    """
    mails = bench.scaled(MAILS, BATCH)
    async with bench.database() as database:
        schemas = await _schemas(database, count if in_buckets else None)
        pids = [connection.get_server_pid() for connection in schemas]
        for connection in schemas:
            await register_ten(connection)
        async with database.daemon(batch_size=str(BATCH), schema=NAME if in_buckets else PLAIN) as daemon:
            share = schemas if in_buckets else schemas * count
            for connection in share:
                await connection.execute(START, mails)
                await until_read([connection])
            before = 0.0
            for step in range(STEPS):
                if step == WARM_UP:
                    before = daemon.seconds() + _server_seconds(bench, pids)
                for connection in share:
                    completed = await connection.fetchval(COMPLETE, mails, RESULT)
                    if completed != mails:
                        raise RuntimeError(f"{completed} jobs were there, not {mails}")
                    if not in_buckets:
                        await until_read([connection])
                await until_read(schemas)
            seconds = daemon.seconds() + _server_seconds(bench, pids) - before
        claims = statistics.mean([await connection.fetchval(CLAIMS) for connection in schemas])
        for connection in schemas:
            await connection.close()
    return seconds / (mails * count * (STEPS - WARM_UP)) * 1e6, claims


async def _schemas(database: Database, buckets: int | None) -> list[Connection]:
    """Return a connection to each bucket of a new installation, or to the plain schema."""
    targets = [database.target]
    if buckets:
        installation = store.Database(dsn=database.dsn, schema=NAME)
        await migrate(installation, buckets)
        targets = [installation.bucket(number) for number in range(buckets)]
    return [await connect(target, name="benchmark") for target in targets]


async def register_ten(connection: Connection) -> None:
    """Register the playbook that START starts."""
    await connection.execute(
        "insert into noetl.catalog (path, version, name, content) values ('ten', 1, 'ten', $1)", chain("ten")
    )


async def until_read(schemas: list[Connection]) -> None:
    """Wait until the inboxes are empty."""
    for connection in schemas:
        while await connection.fetchval("select exists (select from noetl.inbox)"):  # noqa: ASYNC110 - in the database
            await asyncio.sleep(POLL_SECONDS)


def _server_seconds(bench: Bench, pids: list[int]) -> float:
    return bench.server_seconds(but=0) - sum(running_seconds(pid) for pid in pids)


async def _jobs(bench: Bench) -> Row:
    """Lease and end of a job in a bucket's schema, over those in a plain schema of the same database."""
    count = bench.scaled(1_000, 200)
    async with bench.database() as database:
        plain, *buckets = [database.connection, *await _schemas(database, COUNTS[0])]
        bucket = buckets[0]
        for connection, schema in ((plain, PLAIN), (bucket, NAME)):
            await register_ten(connection)
            async with database.daemon(schema=schema):
                await connection.execute(START, count)
                await until_read([connection])
        for connection in (plain, bucket):
            await _lease_and_end(connection, BLOCK)  # warm-up
        ratios = []
        for _ in range((count - BLOCK) // (2 * BLOCK)):
            times = [await _lease_and_end(one, BLOCK) for one in (plain, bucket, bucket, plain)]
            ratios.append((times[1] + times[2]) / (times[0] + times[3]))
        for connection in buckets:
            await connection.close()
    return Row(figure="buckets", what="lease and end of a job, bucket ÷ plain", unit="×", values=tuple(ratios),
               bar=at_most(1.05))  # fmt: skip


async def _lease_and_end(connection: Connection, count: int) -> float:
    """Return the processor seconds of the session."""
    before = running_seconds(connection.get_server_pid())
    for _ in range(count):
        [job] = await connection.fetch(LEASE)
        await connection.fetchval(END, job["queue_id"], job["attempts"], RESULT)
    return running_seconds(connection.get_server_pid()) - before


async def _idle(bench: Bench) -> list[Row]:
    """Processor time and memory of an idle `run` with its server."""
    rows = []
    for count in IDLE if not bench.quick else IDLE[:2]:
        async with bench.database() as database:
            buckets = await _schemas(database, count if count > 1 else None)
            for connection in buckets:
                await connection.close()
            async with database.daemon(schema=NAME if count > 1 else PLAIN) as daemon:
                await asyncio.sleep(bench.scaled(int(SETTLING_SECONDS), 1))
                values = []
                for _ in range(ROUNDS):
                    before, began = daemon.seconds() + bench.server_seconds(but=0), time.perf_counter()
                    await asyncio.sleep(bench.scaled(20, 2))
                    spent = daemon.seconds() + bench.server_seconds(but=0) - before
                    values.append(spent / (time.perf_counter() - began) * 100)
                postmaster = int((bench.postgres.folder / "data" / "postmaster.pid").read_text().split()[0])
                beside = {
                    "daemon MB": tree_memory(daemon.process.pid) / MEGABYTE,
                    "server MB": tree_memory(postmaster) / MEGABYTE,
                }
        what = "idle plain schema" if count == 1 else f"idle, {count} buckets"
        rows.append(
            Row(figure="buckets", what=f"{what}, of a core", unit="%", values=tuple(values),
                bar=at_most(15) if count == max(IDLE) else None, beside=beside)
        )  # fmt: skip
    return rows
