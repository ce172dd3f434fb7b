"""Pools: which jobs a worker leases, in which order; the list of workers; jobs that no worker serves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from noetl_broker.explain.unserved import unserved_text
from noetl_broker.service.action import Caller, Role
from noetl_broker.service.health import list_workers
from noetl_broker.service.models.base import Given
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.admin.overview import list_unserved
from tests.brokers import drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import Session, pooled_session, put_job, refused, session

LEASE = "select node_name from noetl.lease_jobs('w', $1, 60, null, $2)"
ONE = "select node_name from noetl.complete_and_lease($1, 'w', 1, '1', 60, null, $2)"
MANY = """
select node_name
from noetl.complete_jobs_and_lease('w', array[$1::bigint], array[1], null, 9, 60, null, $2)
where yours is null"""


async def leased(own: Session[Any], most: int, *pools: str) -> list[str]:
    """Lease jobs of these pools; return their steps."""
    return [row["node_name"] for row in await own.fetch(LEASE, most, pools)]


async def test_a_job_is_leased_by_workers_of_its_pool_alone(database: Database) -> None:
    """By each of the three calls, whatever its priority."""
    async with session(database) as own:
        first = await put_job(own, "first")
        assert await leased(own, 9, "default") == ["first"]
        await put_job(own, "gpu", pool="gpu", priority=9)
        assert await leased(own, 9, "default") + await leased(own, 9, "far", "default") == []
        assert [row["node_name"] for row in await own.fetch(ONE, first, ["default"])] == [None]
        assert await own.fetch(MANY, first, ["default"]) == []
        assert await leased(own, 9, "gpu") == ["gpu"]


@pytest.mark.parametrize("call", [ONE, MANY])
async def test_the_end_of_a_job_leases_the_next_of_several_pools(database: Database, call: str) -> None:
    """As lease_jobs does."""
    async with session(database) as own:
        first = await put_job(own, "first", pool="gpu")
        assert await leased(own, 1, "gpu") == ["first"]
        await put_job(own, "plain")
        await put_job(own, "far", pool="far", priority=9)
        await put_job(own, "gpu", pool="gpu", priority=7)
        found = [row["node_name"] for row in await own.fetch(call, first, ["default", "gpu"])]
        assert found == ["gpu", "plain"][: len(found)]
        assert len(found) == (1 if call == ONE else 2)


async def test_priority_counts_over_all_pools(database: Database) -> None:
    """Then the age. Jobs that other sessions have locked are skipped, also if these are many."""
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    async with session(database) as own, session(database) as other:
        for number in range(30):
            await put_job(own, f"locked{number:02}", pool="gpu", priority=9, available_at=early)
        await put_job(own, "low", pool="gpu", priority=1, available_at=early)
        await put_job(own, "late", pool="gpu", available_at=late)
        await put_job(own, "early", available_at=early)
        await put_job(own, "far", pool="far", priority=9)
        async with other.transaction():
            assert len(await leased(other, 30, "gpu")) == 30
            assert await leased(own, 1, "gpu", "default") == ["early"]
            assert await leased(own, 9, "default", "gpu", "gpu") == ["late", "low"]
    async with session(database) as own:
        for node, pool, priority in (("b", "gpu", 5), ("c", "default", 4), ("a", "default", 6), ("d", "gpu", 3)):
            await put_job(own, node, pool=pool, priority=priority)
        assert await leased(own, 3, "gpu", "default") == ["a", "b", "c"]


@pytest.mark.parametrize("pools", [None, [], [None]])
async def test_a_lease_without_a_pool_is_refused(database: Database, pools: Sequence[str | None] | None) -> None:
    """Null does not mean all pools: a job of a pool that nobody names would go to any worker."""
    async with session(database) as own, refused("NB400", "must name a pool"):
        await own.fetch(LEASE, 1, pools)


async def test_a_retry_and_an_undo_keep_the_pool(database: Database) -> None:
    """The rendered one, in the row of the queue."""
    await register(
        database,
        """
workload: {size: big}
workflow:
  - {step: start, next: a}
  - step: a
    type: python
    code: x
    pool: "{{ workload.size }}"
    retry: 2
    compensate: {type: python, code: y}
    next: b
  - {step: b, type: python, code: z}
""",
    )
    await start(database)
    await drain(database)
    lease = "select {} from noetl.lease_jobs('w', 1, 60, null, '{{{}}}')"
    fails = "noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}', node_name = 'a')"
    await rows(database, lease.format(fails, "big"))
    await drain(database)
    await execute(database, "update noetl.queue set available_at = '-infinity' where status = 'retry'")
    assert await rows(database, "select status, pool from noetl.queue") == [("retry", "big")]
    await rows(database, lease.format("noetl.complete_job(queue_id, 'w', attempts)", "big"))
    await drain(database)
    await rows(database, lease.format(fails, "default"))
    await drain(database)
    assert await rows(database, "select node_name, pool from noetl.queue where status = 'queued'") == [
        ("a!undo", "big")
    ]


async def test_a_worker_is_listed_until_a_minute_after_its_last_word(database: Database) -> None:
    """Beside the workers that hold leases and did not announce themselves."""

    async def listed() -> list[tuple[Any, ...]]:
        async with pooled_session(database) as own:
            found = await list_workers(own, Caller(role=Role.OPERATOR, name="token:t"), Given())
        return [(row["worker_id"], row["pools"], row["types"], row["slots"], row["leases"]) for row in found["items"]]

    async with session(database) as own:
        await put_job(own, "gpu", pool="gpu")
        await own.execute("select noetl.announce_worker('mine', '{gpu,default}', '{python}', 4)")
        await own.execute("select noetl.lease_jobs('other', 1, pools => '{gpu}')")
        other = ("other", ["gpu"], ["python"], None, 1)
        assert await listed() == [("mine", ["gpu", "default"], ["python"], 4, 0), other]
        await own.execute("update noetl.worker set seen = seen - interval '61 s'")
        assert await listed() == [other]
        await own.execute("select noetl.announce_worker('mine', slots => 2)")
        assert await listed() == [("mine", ["default"], None, 2, 0), other]
        await own.execute("select noetl.announce_worker('mine', stops => true)")
        assert await listed() == [other]
        async with refused("NB400", "announce_worker of "):
            await own.execute("select noetl.announce_worker('', '{gpu}')")


async def test_a_job_that_no_worker_serves_is_named_after_a_minute(database: Database) -> None:
    """A worker that announced its type and pool serves it; so does whoever leased such a job within five minutes."""

    async def found() -> list[str]:
        async with pooled_session(database) as own:
            return [unserved_text(row | {"seconds": row["seconds"] // 60 * 60}) for row in await list_unserved(own)]

    age = "update noetl.queue set available_at = clock_timestamp() - interval '%s' where status = 'queued'"
    async with session(database) as own:
        for number in range(2):
            await put_job(own, f"gpu{number}", pool="gpu", limit_name="api", limit_key="k")
        await put_job(own, "plain")
        await own.execute("select noetl.announce_worker('plain')")
        await own.execute(age % "59 s")
        assert await found() == []
        await own.execute(age % "185 s")
        text = "no worker serves python in pool gpu; 2 jobs wait, the oldest for 3 min 0 s"
        text += "; they hold slots of the throttle api"
        assert await found() == [text]
        [problem] = [one.says for one in await examine(database) if one.check == "jobs" and "no worker" in one.says]
        assert problem[:50] == text[:50]
        await own.execute("select noetl.announce_worker('gpu', '{gpu}', '{http}')")
        assert await found() == [text]
        await own.execute("select noetl.announce_worker('gpu', '{gpu}', '{http,python}')")
        assert await found() == []
        await own.execute("delete from noetl.worker")
        await own.execute("select noetl.complete_job(queue_id, 'w', 1) from noetl.lease_jobs('w', 1, pools => '{gpu}')")
        assert [one[:24] for one in await found()] == ["no worker serves python;"]
        await own.execute("update noetl.queue set last_heartbeat = last_heartbeat - interval '301 s'")
        assert len(await found()) == 2
        assert await value(database, "select sum(jobs) from noetl.unserved_jobs()") == 2
        await put_job(own, "long", pool="gpu", priority=9)
        assert await leased(own, 1, "gpu") == ["long"]
        await own.execute("update noetl.queue set last_heartbeat = clock_timestamp() - interval '301 s'")
        assert [one[:24] for one in await found()] == ["no worker serves python;"]
