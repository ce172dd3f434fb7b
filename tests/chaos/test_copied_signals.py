"""Signals are copied while connections are cut: each execution takes each of its signals once, and in order."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from noetl_broker.store.connect.buckets import buckets_of
from noetl_broker.store.connect.installation import migrate
from tests.brokers import broken_invariants, rows, start, until_ended, value
from tests.chaos.sampling import LONG
from tests.installations import register_everywhere, serving
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

BUCKETS = 8 if LONG else 4
KEYS = 100 if LONG else 10
EACH = 5  # signals of a key, and waits of an execution
EXECUTIONS = 4  # of each key
SENDERS = 4
STEPS = "".join(
    f"- {{step: w{n}, type: wait, signal: told, key: '{{{{ workload.key }}}}', since: 1h, next: {following}}}\n"
    for n, following in enumerate([*(f"w{n}" for n in range(1, EACH)), "end"])
)
TAKEN = "{{ [" + ", ".join(f"w{n}" for n in range(EACH)) + "] }}"
BODY = f"workflow:\n- {{step: start, next: w0}}\n{STEPS}- {{step: end, result: '{TAKEN}'}}\n"
CUT = """
    select pg_terminate_backend(pid)
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and query like any(array[
      '%with origins as%', '%.signal_copy%'
    ])
    order by random()
    limit 2"""


async def send(installation: Database, keys: list[str]) -> None:
    """Send the signals of these keys, one after the other; each transaction stays open for a moment."""
    async with session(installation) as own:
        for number, key in itertools.product(range(EACH), keys):
            async with own.transaction():
                await own.execute("select noetl.send_signal('told', $1, to_jsonb($2::int))", key, number)
                await asyncio.sleep(random.choice((0, 0, 0.005)))


async def cut(installation: Database, stopping: asyncio.Event) -> int:
    """Cut connections that read, write or delete copies; return how many."""
    count = 0
    async with session(installation) as own:
        while not stopping.is_set():
            count += len(await own.fetch(CUT))
            await asyncio.sleep(random.uniform(0.01, 0.1))
    return count


@pytest.fixture
async def buckets(empty_database: Database) -> list[Database]:
    """Return the buckets of an installation."""
    await migrate(empty_database, BUCKETS)
    return buckets_of(empty_database, BUCKETS)


async def test_each_execution_takes_each_signal_once_and_in_order(
    empty_database: Database, buckets: list[Database]
) -> None:
    """By two daemons, while four send and connections of the copiers are cut."""
    await register_everywhere(empty_database, BODY, BUCKETS)
    keys, stopping = [str(n) for n in range(KEYS)], asyncio.Event()
    async with serving(empty_database, BUCKETS), serving(empty_database, BUCKETS):
        for number, key in enumerate(keys * EXECUTIONS):
            await start(buckets[number * 3 % BUCKETS], payload={"key": key})
        cutting = asyncio.create_task(cut(empty_database, stopping))
        await asyncio.gather(*(send(empty_database, keys[n::SENDERS]) for n in range(SENDERS)))
        for one in buckets:
            await until_ended(one)
        stopping.set()
        assert await cutting > 0
    for one in buckets:
        assert await rows(one, "select distinct result from noetl.execution") == [([*range(EACH)],)]
        assert await value(one, "select count(*) from noetl.signal_taken") == await value(
            one, "select count(*) * $1 from noetl.execution", EACH
        )
        assert await value(one, "select count(*) from noetl.signal_copy") == 0
        assert await value(one, "select count(*) from noetl.signal") == KEYS * EACH
        assert await broken_invariants(one) == {}
