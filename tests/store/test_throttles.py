"""Throttles of jobs in the database: who gets a slot, when, and who waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from noetl_broker.store.admin.throttles import list_keys, list_throttles
from noetl_broker.store.connect.connection import Connection, call, connect
from tests.postgres import Database
from tests.sessions import listen, refused, session

ADD = """
with jobs as (
  insert into noetl.queue (execution_id, node_id, node_name, node_type, action, priority)
  select noetl.next_id(), 'a', 's', 'own', '{}', $2::int
  from generate_series(1, $1::int)
  returning execution_id, queue_id
)
select array_agg(execution_id), array_agg(queue_id) from jobs
"""


class Queue:
    """Jobs with throttles, and a worker."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self.connection = connection

    async def add(
        self, count: int, name: str = "api", key: str = "k", *, priority: int = 5, **numbers: Any
    ) -> list[int]:
        """Queue jobs in one transaction, as a turn does; give their queue ids."""
        async with self.connection.transaction():
            executions, jobs = await self.connection.fetchrow(ADD, count, priority)  # type: ignore[misc] # one row
            columns = [[numbers.get(column)] * count for column in ("concurrency", "rate", "burst")]
            await self.connection.execute(
                "select noetl.throttle_jobs($1, $2, $3, $4, $5::int[], $6::float8[], $7::int[])",
                executions, ["a"] * count, [name] * count, [key] * count, *columns,
            )  # fmt: skip
        return list(jobs)

    async def lease(self, most: int = 100) -> list[asyncpg.Record]:
        """Lease what is ready."""
        return await self.connection.fetch(
            "select queue_id, attempts, available_at, last_heartbeat from noetl.lease_jobs('w', $1)", most
        )

    async def end(self, leased: Sequence[asyncpg.Record]) -> None:
        """Complete leased jobs."""
        for job in leased:
            assert await self.connection.fetchval(
                "select noetl.complete_job($1, 'w', $2)", job["queue_id"], job["attempts"]
            )

    async def fail(self, job: asyncpg.Record) -> None:
        """Fail a leased job."""
        error = {"message": "no"}
        await self.connection.fetchval(
            "select noetl.fail_job($1, 'w', $2, $3)", job["queue_id"], job["attempts"], error
        )

    async def statuses(self, name: str = "api") -> dict[str, int]:
        """How many jobs of a throttle have each status."""
        found = await self.connection.fetch("select status from noetl.queue where limit_name = $1", name)
        return dict(Counter(row["status"] for row in found))

    async def work(self) -> int:
        """Work on requests that are due, as a broker does; give the number of slots."""
        return int(await self.connection.fetchval("select released from noetl.release_requested(100)"))

    async def requests(self) -> list[tuple[str, str | None]]:
        """The requests that are left."""
        return [
            (row["name"], row["key"])
            for row in await self.connection.fetch("select name, key from noetl.release_request")
        ]


@pytest.fixture
async def connections(database: Database) -> AsyncIterator[Sequence[Connection]]:
    """Two sessions."""
    made = [await connect(database, name="test") for _ in range(2)]
    yield made
    for one in made:
        await one.close()


@pytest.fixture
def queue(connections: Sequence[Connection]) -> Queue:
    """The queue in a session."""
    return Queue(connections[0])


@pytest.fixture
def other(connections: Sequence[Connection]) -> Queue:
    """The same queue in another session."""
    return Queue(connections[1])


async def test_as_many_jobs_as_there_are_slots_are_ready(queue: Queue) -> None:
    """The others are held. Each end readies the next one in its transaction."""
    await queue.add(5, concurrency=2)
    assert await queue.statuses() == {"queued": 2, "held": 3}
    leased = await queue.lease()
    assert (len(leased), await queue.lease()) == (2, [])
    await queue.end(leased[:1])
    assert await queue.statuses() == {"done": 1, "leased": 1, "queued": 1, "held": 2}


async def test_keys_do_not_wait_for_each_other(queue: Queue) -> None:
    """Nor do throttles of another name."""
    await queue.add(3, key="a", concurrency=1)
    await queue.add(3, key="b", concurrency=1)
    await queue.add(3, name="other", key="a", concurrency=1)
    assert len(await queue.lease()) == 3


async def test_the_highest_priority_goes_first_then_the_oldest(queue: Queue) -> None:
    """Of the held ones."""
    [first, old] = await queue.add(2, concurrency=1)
    [urgent] = await queue.add(1, priority=9)
    order = []
    while leased := await queue.lease():
        order += [job["queue_id"] for job in leased]
        await queue.end(leased)
    assert order == [first, urgent, old]


async def test_a_failed_job_gives_its_slot_and_asks_again_at_its_moment(queue: Queue) -> None:
    """It holds none meanwhile."""
    [first, second] = await queue.add(2, concurrency=1)
    [job] = await queue.lease()
    await queue.fail(job)
    retry = (
        "update noetl.queue set status = 'retry', available_at = clock_timestamp() + $2::interval where queue_id = $1"
    )
    await queue.connection.execute(retry.replace("$2::interval", "interval '1 hour'"), first)
    assert (await queue.statuses(), await queue.requests()) == ({"held": 1, "queued": 1}, [("api", "k")])
    await queue.end(await queue.lease())
    assert (await queue.work(), await queue.statuses()) == (0, {"held": 1, "done": 1})
    await queue.connection.execute("update noetl.queue set available_at = now() where queue_id = $1", first)
    await queue.connection.execute("update noetl.release_request set due_at = now()")
    assert (await queue.work(), second != first) == (1, True)
    assert [job["queue_id"] for job in await queue.lease()] == [first]


async def test_a_lost_lease_asks_for_a_slot_again(queue: Queue) -> None:
    """Behind those that wait longer."""
    [first, second] = await queue.add(2, concurrency=1)
    await queue.lease()
    await queue.connection.execute(
        "update noetl.queue set lease_until = now() - interval '1 minute' where queue_id = $1", first
    )
    await queue.connection.execute("select noetl.reap(100, 5)")
    assert [job["queue_id"] for job in await queue.lease()] == [second]


async def test_a_cancelled_job_frees_its_slot(queue: Queue) -> None:
    """Also one that nobody leased."""
    [first, second] = await queue.add(2, concurrency=1)
    await queue.connection.execute("update noetl.queue set status = 'cancelled' where queue_id = $1", first)
    assert [job["queue_id"] for job in await queue.lease()] == [second]


async def test_a_slot_that_another_transaction_may_give_is_left_to_a_broker(queue: Queue, other: Queue) -> None:
    """Nobody waits: whoever finds the key locked leaves a work."""
    await queue.add(4, concurrency=2)
    [one, two] = await queue.lease()
    async with queue.connection.transaction():
        await queue.end([one])
        await other.end([two])
        assert await other.requests() == [("api", "k")]
    assert (await other.statuses())["queued"] == 1
    assert (await other.work(), await other.statuses()) == (1, {"done": 2, "queued": 2})


async def test_no_more_jobs_begin_than_the_rate_allows(queue: Queue) -> None:
    """In any window of time at most burst + rate × time. The next one becomes available when the bucket has room."""
    rate, burst, count = 100.0, 3, 12
    await queue.add(count, rate=rate, burst=burst)
    begun: list[datetime] = []
    while len(begun) < count:
        begun += [job["last_heartbeat"] for job in await queue.lease()]
    windows = [
        (slot, (begun[last] - begun[first]).total_seconds())
        for first in range(count)
        for last in range(first, count)
        for slot in (last - first + 1,)
    ]
    assert [(jobs, seconds) for jobs, seconds in windows if jobs > burst + rate * seconds + 1e-6] == []


async def test_one_lease_of_several_jobs_counts_each_of_them(queue: Queue) -> None:
    """The next one waits as long as the whole burst demands."""
    await queue.add(4, rate=1.0, burst=2)
    first = await queue.lease()
    assert (len(first), await queue.lease()) == (2, [])
    [available] = await queue.connection.fetch(
        "select min(available_at) as at from noetl.queue where status = 'queued'"
    )
    assert (available["at"] - first[0]["last_heartbeat"]).total_seconds() >= 1.0


async def test_a_later_lease_fills_the_bucket_of_its_key_further(queue: Queue) -> None:
    """Each key has a bucket of its own."""
    for key in ("a", "b"):
        await queue.add(3, key=key, rate=1.0, burst=3)
    for _ in range(6):
        await queue.lease(1)
    full = await queue.connection.fetch(
        "select extract(epoch from full_at - clock_timestamp())::float8 as left from noetl.throttle_bucket"
    )
    assert [row["left"] > 2.0 for row in full] == [True, True]


async def test_workers_are_told_when_the_next_job_is_due(queue: Queue, database: Database) -> None:
    """A job of a full bucket is due at once."""
    async with session(database) as listener:
        heard = await listen(listener, "noetl_job")
        await queue.add(3, rate=0.02)
        assert await heard() == ""
        await queue.lease()
        assert 1 < float(await heard()) <= 50


async def test_the_row_rules_and_the_playbook_only_makes_it(queue: Queue) -> None:
    """Other numbers of later jobs change nothing. More slots are released at once."""
    await queue.add(1, concurrency=1)
    await queue.add(5, concurrency=5)
    assert await queue.statuses() == {"queued": 1, "held": 5}
    assert await call(queue.connection, "put_throttle", "api", 3, None, None) is False
    assert (await queue.work(), await queue.statuses()) == (2, {"queued": 3, "held": 3})


async def test_fewer_slots_take_none_away(queue: Queue) -> None:
    """Jobs that run end, and nobody gets a slot until there is one."""
    await queue.add(4, concurrency=3)
    leased = await queue.lease()
    await call(queue.connection, "put_throttle", "api", 1, None, None)
    await queue.work()
    await queue.end(leased[:2])
    assert await queue.statuses() == {"done": 2, "leased": 1, "held": 1}
    await queue.end(leased[2:])
    assert await queue.statuses() == {"done": 3, "queued": 1}


async def test_a_deleted_limit_lets_its_jobs_run(queue: Queue) -> None:
    """All that were held."""
    await queue.add(4, concurrency=1)
    assert [await call(queue.connection, "delete_throttle", "api") for _ in range(2)] == [True, False]
    await queue.work()
    assert await queue.statuses() == {"queued": 4}


async def test_the_sweep_gives_a_slot_that_nobody_gave(queue: Queue) -> None:
    """As after a crash between two commits of a broker."""
    await queue.add(3, concurrency=1)
    await queue.connection.execute("update noetl.limit set concurrency = 2")
    swept = await queue.connection.fetchrow("select * from noetl.sweep_throttles(10, null, null)")
    assert (tuple(swept or ())[:2], await queue.statuses()) == ((1, None), {"queued": 2, "held": 1})


async def test_limits_are_listed_with_their_jobs(queue: Queue) -> None:
    """And the keys of one, with most held jobs first."""
    await queue.add(3, key="a", concurrency=1)
    await queue.add(1, key="b", concurrency=1)
    await queue.lease(1)
    [limit] = await list_throttles(queue.connection)
    assert {name: limit[name] for name in ("name", "keys", "leased", "ready", "held")} == {
        "name": "api", "keys": 2, "leased": 1, "ready": 1, "held": 2,
    }  # fmt: skip
    assert [(row["key"], row["held"]) for row in await list_keys(queue.connection, "api", most=10)] == [
        ("a", 2),
        ("b", 0),
    ]


@pytest.mark.parametrize(
    "numbers, match",
    [
        ({"concurrency": 0}, "throttle api: concurrency 0"),
        ({"burst": 3, "concurrency": 1}, "a burst needs a rate|burst 3"),
        ({}, "neither a concurrency nor a rate"),
    ],
)
async def test_wrong_numbers_are_refused(queue: Queue, numbers: dict[str, int], match: str) -> None:
    """With the value."""
    released = {"concurrency": None, "rate": None, "burst": None, **numbers}
    async with refused("NB400", match):
        await call(queue.connection, "put_throttle", "api", *released.values())
