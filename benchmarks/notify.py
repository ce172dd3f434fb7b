"""What notifications cost those who write, and whether one can be missed.

32 writers (pgbench) insert one event a transaction. No broker decides; a listener stands for it:

| mode | trigger | listener |
|---|---|---|
| gated | as it is | wakes, polls while there is mail, and sleeps when it can take the gate; the mail stays |
| sleepy | as it is | ignores the mail and sleeps when it can take the gate, so many writers notify each time |
| always | as it is | never wakes, so each commit notifies |
| off | without notifications, with the inbox | none |
| none | none | none |
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
from noetl_broker.daemon.idle import POLL_SECONDS
from noetl_broker.store.connect.listener import Listener

ROUNDS: Final = 7  # short, in alternating order: other load on the machine affects all modes
WRITERS: Final = 32
SWEEP_SECONDS: Final = 30  # the daemon polls no earlier, so a missed notification shows
STALL_SECONDS: Final = 10.0
SCRIPT: Final = "insert into noetl.event (execution_id, event_type) values (:client_id, 'note');\n"
NOTIFIES: Final = re.compile(r"\n  if found and not pg_try_advisory_xact_lock_shared.*?end if;", re.DOTALL)
SILENT: Final = """
    create trigger silent after insert on noetl.event referencing new table as arrived
    for each statement execute function noetl.receive_silently();
    alter table noetl.event disable trigger silent"""
# The trigger of each mode.
TRIGGERS: Final = {
    "gated": ("enable trigger noetl_receive_events", "disable trigger silent"),
    "sleepy": ("enable trigger noetl_receive_events", "disable trigger silent"),
    "always": ("enable trigger noetl_receive_events", "disable trigger silent"),
    "off": ("disable trigger noetl_receive_events", "enable trigger silent"),
    "none": ("disable trigger noetl_receive_events", "disable trigger silent"),
}


async def measure(bench: Bench) -> list[Row]:
    """Return commits a second in each mode, and stalls."""
    rates: dict[str, list[float]] = {mode: [] for mode in TRIGGERS}
    probes = []
    async with bench.database() as database:
        await _add_silent_trigger(database)
        for index in range(ROUNDS):
            probes.append(await database.probe())
            for mode in list(rates)[:: -1 if index % 2 else 1]:
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
            values=ratios(rates[mode], rates[other]), bar=bar, beside=beside if index == 0 else {},
            probes=tuple(probes))
        for index, (mode, other, bar) in enumerate(pairs)
    ]  # fmt: skip
    return [*rows, await _race(bench)]


async def _add_silent_trigger(database: Database) -> None:
    """Add a copy of the trigger without the lines that notify."""
    source = await database.connection.fetchval("select pg_get_functiondef('noetl.receive_events'::regproc)")
    silent, cut = NOTIFIES.subn("", source.replace("noetl.receive_events", "noetl.receive_silently"))
    if cut != 1:
        raise RuntimeError("the source of the trigger has changed: adapt NOTIFIES")
    await database.connection.execute(f"{silent};\n{SILENT}")


async def _write(database: Database, mode: str, *, seconds: int) -> float:
    for change in TRIGGERS[mode]:
        await database.connection.execute(f"alter table noetl.event {change}")
    await database.connection.execute("truncate noetl.event, noetl.inbox")
    listener = Listener(database.target)
    await listener.connect()
    if mode in {"gated", "sleepy", "always"}:
        await listener.take_gate()
    listening = asyncio.create_task(_listen(listener, database, mode)) if mode in {"gated", "sleepy"} else None
    try:
        return await _pgbench(database, seconds)
    finally:
        if listening is not None:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
        await listener.close()


async def _listen(listener: Listener, database: Database, mode: str) -> None:
    """Wait for notifications as a broker without turns: awake after each, asleep again when possible.

    It polls as an idle daemon does.
    """
    unread = "select exists (select from noetl.inbox)"
    while True:
        await listener.notified.wait()
        listener.notified.clear()
        await listener.release_gate()
        pause = POLL_SECONDS[0]
        while (mode == "gated" and await database.connection.fetchval(unread)) or not await listener.take_gate():
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
    output, errors = await process.communicate(SCRIPT.encode())
    found = re.search(r"tps = ([\d.]+)", output.decode())
    if found is None:
        raise RuntimeError(f"pgbench: {errors.decode()[-500:]}")
    return float(found[1])


async def _race(bench: Bench) -> Row:
    """Commit around the moment when the daemon goes to sleep, and count the stalls."""
    chance = random.Random(1)  # noqa: S311 - pauses, no secrets
    notified = asyncio.Event()
    stalls, slowest = 0, 0.0
    commits = bench.scaled(10_000, 200)
    async with bench.database() as database, database.daemon(sweep_seconds=str(SWEEP_SECONDS)):
        await database.register("leaf", leaf("leaf"))
        await database.connection.add_listener("noetl_end", lambda *_: notified.set())
        for _ in range(commits):
            notified.clear()
            began = time.perf_counter()
            await database.start("leaf", {"i": 1})
            async with asyncio.timeout(SWEEP_SECONDS * 2):
                await notified.wait()
            waited = time.perf_counter() - began
            stalls += waited > STALL_SECONDS
            slowest = max(slowest, waited)
            await asyncio.sleep(chance.uniform(0, 0.004))
    return Row(
        figure="the bell", what=f"stalls, {commits:,} commits against sleep", unit="", values=(float(stalls),),
        bar=at_most(0), beside={"slowest ms": slowest * 1000},
    )  # fmt: skip
