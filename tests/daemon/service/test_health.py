"""The health port of a daemon: when it is live and ready, and its metrics."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from noetl_broker.daemon.databases import Databases
from noetl_broker.daemon.http.health import BrokerStatus, Health
from noetl_broker.daemon.http.server import HttpServer
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.daemon.metrics.database import DatabaseMetrics, Observers
from noetl_broker.daemon.metrics.process_status import status_of
from noetl_broker.daemon.metrics.registry import METRICS
from noetl_broker.daemon.metrics.values import MetricValues, merge_all
from noetl_broker.daemon.service import Service
from tests.brokers import (
    PATIENCE_SECONDS,
    complete_jobs,
    drain,
    execute,
    options,
    register,
    running,
    start,
    until_ended,
    value,
)
from tests.chaos.under_load import leave_core
from tests.health_port import request, samples
from tests.postgres import Database
from tests.roles import logins

ONE_STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
ENDLESS = """
workflow:
- {step: start, next: a}
- {step: a, next: [{when: "{{ true }}", step: b}]}
- {step: b, type: python, code: x, next: [{when: "{{ true }}", step: b}]}
"""
NOWHERE = "postgresql://127.0.0.1:1/nowhere"


@asynccontextmanager
async def port_of(service: Service) -> AsyncIterator[int]:
    """Give the port of a daemon in this process."""

    async def census() -> BrokerStatus:
        return BrokerStatus({"broker": status_of({"db": service})}, {})

    observers = Observers({"db": service.options.database})
    port = HttpServer(Health(census, observers, sweep_seconds=service.options.sweep_seconds).routes)
    try:
        yield await port.open("127.0.0.1", 0)
    finally:
        await port.close()
        await observers.close()


async def test_a_working_broker_is_live_and_ready_and_a_stopping_one_is_not_ready(database: Database) -> None:
    """So that no load balancer counts on it."""
    async with running(database) as service, port_of(service) as port:
        live, ready = await request(port, "/live"), await request(port, "/ready")
        service.stopping.set()
        stopping = await request(port, "/ready")
    assert (live.status, live.document["stuck"]) == (200, [])
    assert (ready.status, ready.document["not_ready"]) == (200, [])
    assert (stopping.status, stopping.document["not_ready"][-1]) == (503, "broker: db: evaluator: it stops")


async def test_a_broker_without_its_database_is_live_and_not_ready(database: Database) -> None:
    """A restart would not help; the answer names the reason."""
    service = Service(options(database))
    async with port_of(service) as port:
        live, ready = await request(port, "/live"), await request(port, "/ready")
    assert (live.status, ready.status) == (200, 503)
    assert ready.document["not_ready"] == [
        "broker: db: database: it has not been reached yet",
        "broker: db: schema: it is checked when the database answers",
        "broker: db: listener: it is not connected; mail is found by polling",
        "broker: db: evaluator: it does not take turns yet",
    ]


async def test_a_database_that_does_not_answer_is_named() -> None:
    """Other databases do not wait for it; its metrics are missing."""
    observer = DatabaseMetrics(Database(dsn=NOWHERE))
    gone = await observer.collect()
    assert gone.values == {"database_up": {(): 0.0}, "verify_failures_total": {(): 0.0}}
    assert "the database cannot be reached" in (observer.trouble or "")


async def test_a_stuck_main_loop_is_not_live(database: Database) -> None:
    """After its longest sleep and the watchdog's time."""
    service = Service(options(database, sweep_seconds=5.0))
    service.progress_at = time.monotonic() - 36.0
    async with port_of(service) as port:
        live = await request(port, "/live")
    assert (live.status, live.document["live"], live.document["stuck"]) == (503, False, ["broker: db"])


async def test_a_broker_whose_turns_keep_failing_is_not_ready(database: Database) -> None:
    """The answer names the reason, though the database answers. It is ready again when turns succeed."""
    await register(database, ONE_STEP)
    await execute(
        database,
        """
        create function public.fail() returns trigger language plpgsql as $$
        begin
          raise exception using errcode = '53100', message = 'could not extend file';
        end $$""",
    )
    await execute(
        database,
        "create trigger fail after insert on noetl.turn for each statement execute function public.fail()",
    )
    async with running(database) as service, port_of(service) as port, asyncio.timeout(PATIENCE_SECONDS):
        before = await request(port, "/ready")
        await start(database)
        while not service.metrics.by_label(metric.FAULTS):
            await leave_core()
        during = await request(port, "/ready")
        await execute(database, "drop trigger fail on noetl.turn")
        while not service.metrics.total(metric.TURNS) or service.trouble is not None:
            await leave_core()
        after = await request(port, "/ready")
    assert (before.status, during.status, after.status) == (200, 503, 200)
    assert during.document["not_ready"] == ["broker: db: database: the server's disk is full"]


async def test_turns_are_counted_by_event_and_outcome(database: Database) -> None:
    """Duplicates too; an unknown event type counts as "other"."""
    await register(database, ONE_STEP)
    async with running(database) as service, port_of(service) as port:
        [execution_id] = await start(database)
        while not await complete_jobs(database, {"ok": True}):
            await leave_core()
        await until_ended(database)
        for event_type in ("execution_start", "Made_Up"):
            await execute(
                database, "insert into noetl.event (execution_id, event_type) values ($1, $2)", execution_id, event_type
            )
        while service.metrics.total(metric.TURNS) < 4:
            await leave_core()
        found = await samples(port)
    turns = {labels[1:]: count for labels, count in found.items() if labels[0] == "turns_total"}
    assert turns == {
        ("execution_start", "decided"): 1,
        ("action_completed", "decided"): 1,
        ("execution_start", "duplicate"): 1,
        ("other", "unknown_type"): 1,
    }
    assert (found["executions_ended_total", "COMPLETED"], found["mail_wait_seconds_count",]) == (1, 4)
    batches = found["batches_total",]
    assert (found["transaction_seconds_count",], found["evaluation_seconds_count",]) == (batches, batches)
    assert found["evaluation_seconds_sum",] <= found["transaction_seconds_sum",]


async def test_every_metric_is_exported_from_the_start(database: Database) -> None:
    """Except those with unpredictable labels: event types, SQLSTATEs, paths that are asked for."""
    async with running(database) as service:
        observer = DatabaseMetrics(database)
        await observer.verify_once(60.0)
        ledger = {"db": await observer.collect()}
        merge_all(ledger, status_of({"db": service}).all_metrics)
        await observer.close()
    found = [figures.values | figures.histograms for figures in ledger.values()]
    exported = {name for each in found for name, samples in each.items() if samples}
    assert {metric.name for metric in METRICS} - exported == {
        *("turns_total", "faults_total", "process_restarts_total"),
        *("path_starts_total", "path_ends_total", "path_seconds"),
    }


async def test_the_role_of_a_broker_suffices_for_metrics_and_verification(database: Database) -> None:
    """With the rights of deploy/roles.sql."""
    async with logins(database) as as_role:
        observer = DatabaseMetrics(as_role.broker)
        await observer.verify_once(60.0)
        found = (await observer.collect()).values
        await observer.close()
    assert (observer.trouble, found["database_up"], found["broken_invariants"]["I1",]) == (None, {(): 1.0}, 0.0)


async def test_a_limit_that_ends_an_execution_is_counted_once(database: Database) -> None:
    """By its name. The parent's error has the type of its child's error, but the parent exceeded no limit."""
    await register(database, ENDLESS, metadata="max_visits: 3", path="child")
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: playbook, path: child}]")
    await start(database)
    hit = Counter((await drain(database)).metrics.by_label(metric.LIMITS_HIT))
    while await complete_jobs(database):
        hit.update((await drain(database)).metrics.by_label(metric.LIMITS_HIT))
    assert await value(database, "select error ->> 'type' from noetl.execution where path = 'story'") == "max_visits"
    assert +hit == {"max_visits": 1}


async def test_waiting_mail_jobs_and_executions_are_gauges(database: Database) -> None:
    """With the age of the oldest. They exist without a broker."""
    await register(database, ONE_STEP)
    observer = DatabaseMetrics(database)
    empty = (await observer.collect()).values
    await observer.close()
    await start(database, count=2)
    await drain(database)
    await complete_jobs(database, limit=1)
    await execute(database, "update noetl.event set created_at = created_at - interval '1 hour'")
    observer = DatabaseMetrics(database)
    found = (await observer.collect()).values
    await observer.close()
    assert (empty["unread_mail"], empty["oldest_unread_seconds"]) == ({(): 0.0}, {(): 0.0})
    assert (found["unread_mail"], found["executions_running"]) == ({(): 1.0}, {(): 2.0})
    assert found["jobs"] == {("waiting",): 1.0, ("delayed",): 0.0, ("leased",): 0.0, ("throttled",): 0.0}
    assert 3600 <= found["oldest_unread_seconds"][()] < 3700
    assert 0 < found["oldest_waiting_job_seconds"][()] < 100


async def test_overdue_leases_are_a_gauge(database: Database) -> None:
    """Until the reaper of a daemon requeues them, which is counted."""
    await register(database, ONE_STEP)
    await start(database)
    await drain(database)
    await execute(database, "select noetl.lease_jobs('w', 1, 60)")
    await execute(database, "update noetl.queue set lease_until = clock_timestamp() - interval '1 minute'")
    observer = DatabaseMetrics(database)
    overdue = (await observer.collect()).values["leases_overdue"]
    await observer.close()
    async with running(database, reap_seconds=0.05) as service, port_of(service) as port:
        while not service.metrics.get(metric.REAPED, "requeued"):
            await leave_core()
        found = await samples(port)
    assert (overdue, found["reaped_total", "requeued"], found["leases_overdue",]) == ({(): 1.0}, 1, 0)


async def test_refused_answers_are_counted(database: Database) -> None:
    """They leave no row. A repeated answer of the same worker does not count."""
    await register(database, ONE_STEP)
    await start(database)
    await drain(database)
    await execute(database, "select noetl.lease_jobs('w')")
    for attempt in (2, 1, 1):
        await execute(database, "select noetl.complete_job(queue_id, 'w', $1) from noetl.queue", attempt)
    observer = DatabaseMetrics(database)
    found = (await observer.collect()).values
    await observer.close()
    assert found["stale_answers_total"] == {(): 1.0}


async def test_mail_that_only_the_sweep_found_is_counted(database: Database) -> None:
    """Mail with a notification does not count, however old its time."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    async with running(database, sweep_seconds=600.0) as service:  # no sweep comes before the notification
        assert service.listener is not None
        while not service.listener.gate_held:
            await leave_core()
        await execute(
            database,
            """
            insert into noetl.event (execution_id, event_type, created_at)
            values ($1, 'execution_start', clock_timestamp() - interval '1 hour')""",
            execution_id,
        )
        while service.metrics.total(metric.TURNS) < 1:
            await leave_core()
        notified = service.metrics.total(metric.SWEPT_MAIL)
    async with running(database, sweep_seconds=0.5) as service:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not service.metrics.total(metric.SWEPT_MAIL):  # mail that came before it slept does not count
                await until_it_slept(service)
                await execute(
                    database,
                    """
                    insert into noetl.inbox (execution_id, event_id)
                    select execution_id, max(event_id) from noetl.event group by execution_id""",
                )
                await until_it_slept(service)
    assert notified == 0


async def until_it_slept(service: Service) -> None:
    """Wait until a daemon has found nothing, slept, and found nothing again: then it sleeps behind the gate."""
    drains = service.metrics.total(metric.DRAINS)
    while service.metrics.total(metric.DRAINS) < drains + 2:
        await leave_core()


async def test_faults_are_counted_by_sqlstate(database: Database) -> None:
    """Another session locks the table of turns for longer than the lock timeout."""
    await register(database, ONE_STEP)
    await execute(
        database,
        """
        create function public.fail() returns trigger language plpgsql as $$
        begin
          if nextval('public.tries') < 3 then raise exception using errcode = '40001', message = 'try again'; end if;
          return null;
        end $$""",
    )
    await execute(database, "create sequence public.tries")
    await execute(
        database,
        "create trigger fail after insert on noetl.turn for each statement execute function public.fail()",
    )
    await start(database)
    assert (await drain(database)).metrics.by_label(metric.FAULTS) == {"40001": 2}


async def test_broken_invariants_are_a_gauge(database: Database) -> None:
    """0 if it holds; an operator deletes a turn."""
    await register(database, ONE_STEP)
    await start(database)
    await drain(database)
    await execute(database, "delete from noetl.turn")
    observer = DatabaseMetrics(database)
    await observer.verify_once(60.0)
    found = (await observer.collect()).values
    await observer.close()
    assert found["broken_invariants"]["I1",] > 0
    assert found["broken_invariants"]["I8",] == 0
    assert found["verified_executions"] == {(): 1.0}


async def test_a_broker_is_live_while_one_of_its_databases_fails(database: Database, empty_database: Database) -> None:
    """It tries again; a restart would stop the other databases too."""
    stopping = asyncio.Event()
    services = {"good": Service(options(database), stopping), "empty": Service(options(empty_database), stopping)}
    fleet = Databases(services, stopping)
    task = asyncio.create_task(fleet.run())
    while not (fleet.failed and services["good"].serving):
        await leave_core()
    long_ago = services["empty"].progress_at = time.monotonic() - 1000.0
    while services["empty"].progress_at == long_ago:
        await leave_core()
    status = status_of(services)
    stopping.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert status.databases["empty"].silent_seconds < 10
    assert "noetl-broker migrate" in status.databases["empty"].checks["database"]
    assert [*status.databases["good"].checks.values()] == ["ok"] * 4


def test_the_times_of_several_processes_add_up() -> None:
    """Each bucket, and the sum of the seconds."""
    own, other = MetricValues.of_service(), MetricValues.of_service()
    for values in (own, other, other):
        values.observe(metric.TRANSACTION_TIME, 0.5)
    own.merge(other)
    *buckets, seconds = own.histograms[metric.TRANSACTION_TIME.name]
    assert (sum(buckets), max(buckets), seconds) == (3, 3, 1.5)
