"""What the bell costs those who write, and whether it can be missed.

32 writers (pgbench) insert one event a transaction; evaluation is paused, a listener reads. `gated` is the trigger as
it is, with a broker that wakes at a ring and sleeps again when there is no unread mail and the gate lets it: nobody
reads the mail here, so all ring until it is awake, and from then on find the gate free; `sleepy` is one that does not
look for mail and sleeps whenever the gate lets it: each time many writers ring before it is awake;
`always` is a broker that never wakes, so that every commit rings; `off` the trigger without the bell, the inbox kept;
`none` no trigger at all.
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
from noetl_broker.daemon.sleeper import POLL_SECONDS
from noetl_broker.store.bell import Bell

ROUNDS: Final = 7  # short ones, there and back: what the machine does meanwhile falls on all modes alike
WRITERS: Final = 32
SWEEP_SECONDS: Final = 30  # the daemon looks by itself no earlier, so a missed ring cannot hide
STALL_SECONDS: Final = 10.0
SCRIPT: Final = "insert into noetl.event (execution_id, event_type) values (:client_id, 'note');\n"
RINGS: Final = re.compile(r"\n  if found and not pg_try_advisory_xact_lock_shared.*?end if;", re.DOTALL)
SILENT: Final = """
    create trigger silent after insert on noetl.event referencing new table as arrived
    for each statement execute function noetl.receive_silently();
    alter table noetl.event disable trigger silent"""
# Which trigger stands in each mode.
TRIGGERS: Final = {
    "gated": ("enable trigger noetl_receive_events", "disable trigger silent"),
    "sleepy": ("enable trigger noetl_receive_events", "disable trigger silent"),
    "always": ("enable trigger noetl_receive_events", "disable trigger silent"),
    "off": ("disable trigger noetl_receive_events", "enable trigger silent"),
    "none": ("disable trigger noetl_receive_events", "disable trigger silent"),
}


async def measure(bench: Bench) -> list[Row]:
    """Commits a second in each mode, and stalls."""
    rates: dict[str, list[float]] = {mode: [] for mode in TRIGGERS}
    probes = []
    async with bench.database() as database:
        await _add_silent_trigger(database)
        for place in range(ROUNDS):
            probes.append(await database.probe())
            for mode in list(rates)[:: -1 if place % 2 else 1]:
                rates[mode].append(await _write(database, mode, seconds=bench.scaled(5, 1)))
    beside = {mode: sorted(found)[ROUNDS // 2] for mode, found in rates.items()}
    pairs = (
        ("gated", "off", at_least(0.95)),
        ("sleepy", "off", at_least(0.95)),
        ("gated", "none", at_least(0.7)),
        ("gated", "always", None),
    )
    rows = [
        Row(figure="the bell", what=f"commits/s, {mode} ÷ {other}", unit="×",
            values=ratios(rates[mode], rates[other]), bar=bar, beside=beside if place == 0 else {},
            probes=tuple(probes))
        for place, (mode, other, bar) in enumerate(pairs)
    ]  # fmt: skip
    return [*rows, await _race(bench)]


async def _add_silent_trigger(database: Database) -> None:
    """The trigger as it is, but for the lines that ring."""
    told = await database.connection.fetchval("select pg_get_functiondef('noetl.receive_events'::regproc)")
    silent, cut = RINGS.subn("", told.replace("noetl.receive_events", "noetl.receive_silently"))
    if cut != 1:
        raise RuntimeError("the trigger rings in another way than this benchmark knows")
    await database.connection.execute(f"{silent};\n{SILENT}")


async def _write(database: Database, mode: str, *, seconds: int) -> float:
    for change in TRIGGERS[mode]:
        await database.connection.execute(f"alter table noetl.event {change}")
    await database.connection.execute("truncate noetl.event, noetl.inbox")
    bell = Bell(database.dsn)
    await bell.connect()
    if mode in {"gated", "sleepy", "always"}:
        await bell.take_gate()
    listener = asyncio.create_task(_listen(bell, database, mode)) if mode in {"gated", "sleepy"} else None
    try:
        return await _pgbench(database, seconds)
    finally:
        if listener is not None:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener
        await bell.close()


async def _listen(bell: Bell, database: Database, mode: str) -> None:
    """A broker without its turns: awake after each ring, asleep again when it can be.

    It looks for that as a daemon does which has nothing else to do.
    """
    unread = "select exists (select from noetl.inbox)"
    while True:
        await bell.rung.wait()
        bell.rung.clear()
        await bell.release_gate()
        pause = POLL_SECONDS[0]
        while (mode == "gated" and await database.connection.fetchval(unread)) or not await bell.take_gate():
            await asyncio.sleep(pause)
            pause = min(pause * 2, POLL_SECONDS[1])


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
