"""What the bell costs those who write, and whether it can be missed.

32 writers (pgbench) insert one event each; nothing evaluates, a listener reads. `gated` is the trigger as it
is, with a broker that wakes at a ring and goes back to sleep as soon as the gate lets it; `always` a broker that never
wakes, so that every commit rings; `off` the trigger without the bell, the inbox kept; `none` no trigger at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench, Database
from benchmarks.playbooks import leaf
from benchmarks.results import Row, at_least, at_most, ratios
from noetl_broker.store.bell import Bell

ROUNDS: Final = 3
WRITERS: Final = 32
SWEEP_SECONDS: Final = 30  # the daemon looks by itself no earlier, so a missed ring cannot hide
STALL_SECONDS: Final = 10.0
SCRIPT: Final = "insert into noetl.event (execution_id, event_type) values (:client_id, 'note');\n"
SILENT: Final = """
    create function public.silent() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    as $$
    begin
      insert into noetl.inbox (execution_id, event_id)
      select execution_id, event_id from arrived
      where coalesce(lower(event_type), '') not in ('action_started', 'step_result');
      return null;
    end
    $$;
    create trigger silent after insert on noetl.event referencing new table as arrived
    for each statement execute function public.silent();
    alter table noetl.event disable trigger silent"""
# Which trigger stands in each mode.
TRIGGERS: Final = {
    "gated": ("enable trigger noetl_receive_events", "disable trigger silent"),
    "always": ("enable trigger noetl_receive_events", "disable trigger silent"),
    "off": ("disable trigger noetl_receive_events", "enable trigger silent"),
    "none": ("disable trigger noetl_receive_events", "disable trigger silent"),
}


async def measure(bench: Bench) -> list[Row]:
    """Commits a second in each mode, and stalls."""
    rates: dict[str, list[float]] = {mode: [] for mode in TRIGGERS}
    probes = []
    async with bench.database() as database:
        await database.connection.execute(SILENT)
        for _ in range(ROUNDS):
            probes.append(await database.probe())
            for mode, found in rates.items():
                found.append(await _write(database, mode, seconds=bench.scaled(10, 2)))
    beside = {mode: sorted(found)[ROUNDS // 2] for mode, found in rates.items()}
    pairs = (("off", at_least(0.95)), ("none", at_least(0.7)), ("always", None))
    rows = [
        Row(figure="the bell", what=f"commits/s, gated ÷ {other}", unit="×",
            values=ratios(rates["gated"], rates[other]), bar=bar, probes=tuple(probes),
            beside=beside if other == "off" else {})
        for other, bar in pairs
    ]  # fmt: skip
    return [*rows, await _race(bench)]


async def _write(database: Database, mode: str, *, seconds: int) -> float:
    for change in TRIGGERS[mode]:
        await database.connection.execute(f"alter table noetl.event {change}")
    await database.connection.execute("truncate noetl.event, noetl.inbox")
    bell = Bell(database.dsn)
    await bell.connect()
    if mode in {"gated", "always"}:
        await bell.take_gate()
    listener = asyncio.create_task(_listen(bell)) if mode == "gated" else None
    try:
        return await _pgbench(database, seconds)
    finally:
        if listener is not None:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener
        await bell.close()


async def _listen(bell: Bell) -> None:
    """A broker without its turns: awake after each ring, asleep again when it can have the gate."""
    while True:
        await bell.rung.wait()
        bell.rung.clear()
        await bell.release_gate()
        while not await bell.take_gate():  # noqa: ASYNC110 - nobody tells when a gate is free
            await asyncio.sleep(0.01)


async def _pgbench(database: Database, seconds: int) -> float:
    postgres = database.bench.postgres
    process = await asyncio.create_subprocess_exec(
        str(postgres.bin_folder / "pgbench"), "--no-vacuum", "--client", str(WRITERS), "--time", str(seconds),
        "--file", "/dev/stdin", "--host", postgres.host, "--port", str(postgres.port), "--username", postgres.user,
        "--protocol", "prepared", Path(database.dsn).name,
        env=os.environ | {"PGPASSWORD": postgres.password},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, complaints = await process.communicate(SCRIPT.encode())
    found = re.search(r"tps = ([\d.]+)", told.decode())
    if found is None:
        raise RuntimeError(f"pgbench: {complaints.decode()[-500:]}")
    return float(found[1])


async def _race(bench: Bench) -> Row:
    """One writer commits just as the daemon falls asleep, at a random moment around it."""
    chance = random.Random(1)  # noqa: S311 - pauses, no secrets
    rung = asyncio.Event()
    stalls, slowest = 0, 0.0
    commits = bench.scaled(10_000, 200)
    async with bench.database() as database, database.daemon(sweep_seconds=str(SWEEP_SECONDS)):
        await database.register("leaf", leaf("leaf"))
        await database.connection.add_listener("noetl_end", lambda *_: rung.set())
        for _ in range(commits):
            rung.clear()
            began = time.perf_counter()
            await database.start("leaf", {"i": 1})
            async with asyncio.timeout(SWEEP_SECONDS * 2):
                await rung.wait()
            waited = time.perf_counter() - began
            stalls += waited > STALL_SECONDS
            slowest = max(slowest, waited)
            await asyncio.sleep(chance.uniform(0, 0.004))
    return Row(
        figure="the bell", what=f"stalls, {commits:,} commits against sleep", unit="", values=(float(stalls),),
        bar=at_most(0), beside={"slowest ms": slowest * 1000},
    )  # fmt: skip
