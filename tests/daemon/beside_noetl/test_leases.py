"""Beside a NoETL server: its worker leases for 60 s without heartbeats, so an expired lease need not be lost."""

from __future__ import annotations

import pytest

from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.reaper import Reaper
from noetl_broker.store.connect.connection import create_pool
from tests.brokers import drain, execute, rows, value
from tests.noetl import STEP, Job, NoETL, ended, verify_faults
from tests.postgres import Database

RUNTIME = """
create table noetl.runtime (
  runtime_id bigint primary key, name text not null, kind text not null, status text not null,
  heartbeat timestamptz not null default now(), updated_at timestamptz not null default now()
);
insert into noetl.runtime (runtime_id, name, kind, status)
values (1, 'server', 'server_api', 'ready'), (2, 'one', 'worker_pool', 'ready'), (3, 'two', 'worker_pool', 'ready')"""
OFFLINE = "update noetl.runtime set status = 'offline', updated_at = now() - make_interval(secs => $2) where name = $1"
RAN_OUT = "update noetl.queue set lease_until = clock_timestamp() - make_interval(secs => $1)"
STATUS = "select status, attempts, lost_leases from noetl.queue"


async def leased(noetl: NoETL, database: Database, *, pool: str | None = "one") -> Job:
    """Give a job that a worker of this pool has leased and started; the lease expired 10 s ago."""
    await execute(database, RUNTIME)
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(database)
    job = await noetl.lease()
    assert job is not None
    await noetl.report(job, "action_started")
    if pool is not None:
        await execute(
            database,
            """update noetl.event set meta = jsonb_build_object('worker_pool', $1::text)
            where event_type = 'action_started'""",
            pool,
        )
    await execute(database, RAN_OUT, 10.0)
    return job


async def reap(database: Database, *, grace: float = 900.0) -> dict[str, int]:
    """Run one check of a daemon's reaper."""
    pool = await create_pool(database, name="reaper", size=1, hot=True)
    try:
        reaper = Reaper(
            pool,
            MetricValues.of_service(),
            max_lost_leases=5,
            missing_event_seconds=30.0,
            foreign_lease_grace_seconds=grace,
        )
        return {name: rows for name, rows in (await reaper.run()).items() if rows}
    finally:
        pool.terminate()


async def test_an_expired_lease_is_not_lost_while_its_worker_lives(noetl: NoETL, noetl_database: Database) -> None:
    """A job of 75 s runs once, and its answer counts."""
    job = await leased(noetl, noetl_database)
    assert await reap(noetl_database) == {}
    assert await rows(noetl_database, STATUS) == [("leased", 1, 0)]
    await noetl.complete(job, {"n": 1})
    await drain(noetl_database)
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]
    assert await verify_faults(noetl) == {}


async def test_an_expired_lease_is_lost_when_its_pool_is_offline(noetl: NoETL, noetl_database: Database) -> None:
    """For half a minute: after a restart of the server each pool is offline until its next heartbeat."""
    await leased(noetl, noetl_database)
    for pool, seconds, found in (("two", 31.0, {}), ("one", 5.0, {}), ("one", 31.0, {"requeued": 1})):
        await execute(noetl_database, OFFLINE, pool, seconds)
        assert await reap(noetl_database) == found


async def test_a_lease_without_a_pool_is_lost_when_the_last_pool_is_offline(
    noetl: NoETL, noetl_database: Database
) -> None:
    """A worker names its pool only if a variable does."""
    await leased(noetl, noetl_database, pool=None)
    for pool, found in (("one", {}), ("two", {"requeued": 1})):
        await execute(noetl_database, OFFLINE, pool, 31.0)
        assert await reap(noetl_database) == found


async def test_an_expired_lease_is_lost_when_its_pool_has_no_heartbeat(noetl: NoETL, noetl_database: Database) -> None:
    """After one minute, as that server does."""
    await leased(noetl, noetl_database)
    await execute(noetl_database, "update noetl.runtime set heartbeat = now() - interval '61 s' where name = 'one'")
    assert await reap(noetl_database) == {}
    await execute(noetl_database, "delete from noetl.runtime where kind = 'server_api'")
    assert await reap(noetl_database) == {"requeued": 1}


@pytest.mark.parametrize("has_pools", [True, False])
async def test_an_expired_lease_is_lost_after_the_grace(
    noetl: NoETL, noetl_database: Database, *, has_pools: bool
) -> None:
    """The pool may live while the process of the job does not. Older servers have no table of pools."""
    await leased(noetl, noetl_database)
    if not has_pools:
        await execute(noetl_database, "drop table noetl.runtime")
    assert await reap(noetl_database, grace=11.0) == {}
    assert await reap(noetl_database, grace=9.0) == {"requeued": 1}
    assert await rows(noetl_database, STATUS) == [("queued", 1, 1)]


@pytest.mark.parametrize("trigger", ["enable", "disable"])
async def test_a_lease_of_an_earlier_execution_is_not_changed(
    noetl: NoETL, noetl_database: Database, trigger: str
) -> None:
    """That server requeues no lease. The lease may also be older than `migrate`."""
    await noetl.register(STEP)
    await execute(noetl_database, f"alter table noetl.queue {trigger} trigger noetl_receive_job")
    await execute(
        noetl_database,
        """insert into noetl.queue (execution_id, catalog_id, node_id, action, context)
        select 5, c.catalog_id, '5:a', '{}', '{}' from noetl.catalog c""",
    )
    assert await noetl.lease() is not None
    await execute(noetl_database, RAN_OUT, 10.0)
    assert await reap(noetl_database, grace=9.0) == {}


async def test_a_lease_of_our_own_worker_is_lost_when_it_expires(noetl: NoETL, noetl_database: Database) -> None:
    """Also for a job that a NoETL worker had before."""
    await leased(noetl, noetl_database)
    await reap(noetl_database, grace=9.0)
    assert await value(noetl_database, "select attempts from noetl.lease_jobs('ours', 1, 60)") == 2
    await execute(noetl_database, RAN_OUT, 1.0)
    assert await reap(noetl_database) == {"requeued": 1}


async def test_a_late_answer_after_a_lost_lease_counts_once(noetl: NoETL, noetl_database: Database) -> None:
    """The first answer counts, and no other worker gets the job any more."""
    job = await leased(noetl, noetl_database)
    await reap(noetl_database, grace=9.0)
    await noetl.complete(job, {"n": 1})
    await drain(noetl_database)
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]
    assert await noetl.lease() is None
    assert await verify_faults(noetl) == {}
