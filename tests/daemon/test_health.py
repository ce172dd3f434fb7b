"""The health port beside a daemon on a database: when it is live, when it is ready, what it counts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from noetl_broker.daemon.figures import METRICS, enter
from noetl_broker.daemon.fleet import Fleet
from noetl_broker.daemon.health import Census, Health
from noetl_broker.daemon.observer import Observer
from noetl_broker.daemon.port import Port
from noetl_broker.daemon.report import account_of
from noetl_broker.daemon.service import Service
from tests.asking import ask, figures
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
    """The port of a daemon that runs in this process."""

    async def census() -> Census:
        return Census({"broker": account_of({"db": service})}, {})

    observer = Observer(service.options.dsn)
    port = Port(Health(census, {"db": observer}, sweep_seconds=service.options.sweep_seconds).routes)
    try:
        yield await port.open("127.0.0.1", 0)
    finally:
        await port.close()
        await observer.close()


async def test_a_broker_that_serves_is_live_and_ready(database: Database) -> None:
    """Nothing is named that would be lacking."""
    async with running(database) as service, port_of(service) as port:
        live, ready = await ask(port, "/live"), await ask(port, "/ready")
    assert (live.status, live.document["stuck"]) == (200, [])
    assert (ready.status, ready.document["not_ready"]) == (200, [])


async def test_a_broker_that_has_not_reached_its_database_is_live_and_not_ready(database: Database) -> None:
    """Killing it would not help; what is lacking is named."""
    service = Service(options(database))
    async with port_of(service) as port:
        live, ready = await ask(port, "/live"), await ask(port, "/ready")
    assert (live.status, ready.status) == (200, 503)
    assert ready.document["not_ready"] == [
        "broker: db: database: it has not been reached yet",
        "broker: db: schema: it is not looked at before the database answers",
        "broker: db: listener: it is not connected; mail is found by looking again",
        "broker: db: evaluator: it has not begun to take turns",
    ]


async def test_a_database_that_does_not_answer_is_named() -> None:
    """Beside others that do: it keeps nobody waiting, and its other figures are missing."""
    observer = Observer(NOWHERE)
    gone = await observer.look()
    assert gone.values == {"database_up": {(): 0.0}, "verify_failures_total": {(): 0.0}}
    assert "the database cannot be reached" in (observer.trouble or "")


async def test_a_main_loop_that_does_not_get_on_is_not_live(database: Database) -> None:
    """Longer than it may sleep and the watchdog has patience for."""
    service = Service(options(database, sweep_seconds=5.0))
    service.progress_at = time.monotonic() - 36.0
    async with port_of(service) as port:
        live = await ask(port, "/live")
    assert (live.status, live.document["live"], live.document["stuck"]) == (503, False, ["broker: db"])


async def test_a_broker_whose_turns_fail_again_and_again_is_not_ready(database: Database) -> None:
    """What the server lacks is named, though it answers whoever looks; and it is ready when the turns are taken."""
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
        before = await ask(port, "/ready")
        await start(database)
        while not service.counters.faults:
            await execute(database, "select")
        during = await ask(port, "/ready")
        await execute(database, "drop trigger fail on noetl.turn")
        while not service.counters.turns:
            await execute(database, "select")
        after = await ask(port, "/ready")
    assert (before.status, during.status, after.status) == (200, 503, 200)
    assert during.document["not_ready"] == ["broker: db: database: the server's disk is full"]


async def test_a_broker_that_stops_is_not_ready(database: Database) -> None:
    """So that nobody counts on it any more."""
    async with running(database) as service, port_of(service) as port:
        service.stopping.set()
        ready = await ask(port, "/ready")
    assert (ready.status, ready.document["not_ready"]) == (503, ["broker: db: evaluator: it stops"])


async def test_turns_are_counted_by_event_and_outcome(database: Database) -> None:
    """A duplicate is one of them; a type that a stranger made up is "other"."""
    await register(database, ONE_STEP)
    async with running(database) as service, port_of(service) as port:
        [execution_id] = await start(database)
        while not await complete_jobs(database, {"ok": True}):
            pass
        await until_ended(database)
        for event_type in ("execution_start", "Made_Up"):
            await execute(
                database, "insert into noetl.event (execution_id, event_type) values ($1, $2)", execution_id, event_type
            )
        while service.counters.turns < 4:
            await execute(database, "select")
        found = await figures(port)
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


async def test_every_metric_of_the_table_is_there_from_the_start(database: Database) -> None:
    """But those whose labels nobody knows beforehand: which events come, which faults."""
    async with running(database) as service:
        observer = Observer(database.dsn)
        await observer.verify_once(60.0)
        ledger = {"db": await observer.look()}
        enter(ledger, account_of({"db": service}).ledger)
        await observer.close()
    found = [figures.values | figures.histograms for figures in ledger.values()]
    shown = {name for each in found for name, samples in each.items() if samples}
    assert {metric.name for metric in METRICS} - shown == {"turns_total", "faults_total", "process_restarts_total"}


async def test_the_role_of_a_broker_suffices_for_looking(database: Database) -> None:
    """At the figures and at the invariants; its rights are those of deploy/roles.sql."""
    async with logins(database) as as_role:
        observer = Observer(as_role.broker.dsn)
        await observer.verify_once(60.0)
        found = (await observer.look()).values
        await observer.close()
    assert (observer.trouble, found["database_up"], found["broken_invariants"]["I1",]) == (None, {(): 1.0}, 0.0)


async def test_a_limit_that_ends_an_execution_is_counted(database: Database) -> None:
    """By its name."""
    await register(database, ENDLESS, metadata=", max_visits: 3")
    await start(database)
    hit = Counter((await drain(database)).counters.limits)
    while await complete_jobs(database):
        hit.update((await drain(database)).counters.limits)
    assert +hit == {"max_visits": 1}


async def test_a_limit_that_ends_a_child_is_not_counted_again_for_its_parent(database: Database) -> None:
    """The parent's error has the type of its child's, and went past no limit itself."""
    await register(database, ENDLESS, metadata=", max_visits: 3", path="child")
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: playbook, path: child}]")
    await start(database)
    hit = Counter((await drain(database)).counters.limits)
    while await complete_jobs(database):
        hit.update((await drain(database)).counters.limits)
    assert await value(database, "select error ->> 'type' from noetl.execution where path = 'story'") == "max_visits"
    assert +hit == {"max_visits": 1}


async def test_what_waits_is_told_by_the_database(database: Database) -> None:
    """Mail, jobs and executions, and how long the oldest of them waited; they are there without any broker."""
    await register(database, ONE_STEP)
    observer = Observer(database.dsn)
    empty = (await observer.look()).values
    await observer.close()
    await start(database, count=2)
    await drain(database)
    await complete_jobs(database, most=1)
    await execute(database, "update noetl.event set created_at = created_at - interval '1 hour'")
    observer = Observer(database.dsn)
    found = (await observer.look()).values
    await observer.close()
    assert (empty["unread_mail"], empty["oldest_unread_seconds"]) == ({(): 0.0}, {(): 0.0})
    assert (found["unread_mail"], found["executions_running"]) == ({(): 1.0}, {(): 2.0})
    assert found["jobs"] == {("waiting",): 1.0, ("delayed",): 0.0, ("leased",): 0.0}
    assert 3600 <= found["oldest_unread_seconds"][()] < 3700
    assert 0 < found["oldest_waiting_job_seconds"][()] < 100


async def test_leases_that_nobody_takes_back_are_told(database: Database) -> None:
    """Until the reaper of a daemon does, which is counted."""
    await register(database, ONE_STEP)
    await start(database)
    await drain(database)
    await execute(database, "select noetl.lease_jobs('w', 1, 60)")
    await execute(database, "update noetl.queue set lease_until = clock_timestamp() - interval '1 minute'")
    observer = Observer(database.dsn)
    overdue = (await observer.look()).values["leases_overdue"]
    await observer.close()
    async with running(database, reap_seconds=0.05) as service, port_of(service) as port:
        while not service.counters.reaped["requeued"]:
            await execute(database, "select")
        found = await figures(port)
    assert (overdue, found["reaped_total", "requeued"], found["leases_overdue",]) == ({(): 1.0}, 1, 0)


async def test_answers_that_came_too_late_are_told(database: Database) -> None:
    """Refused, they leave no row; the same answer again from the same worker is not one of them."""
    await register(database, ONE_STEP)
    await start(database)
    await drain(database)
    await execute(database, "select noetl.lease_jobs('w')")
    for attempt in (2, 1, 1):
        await execute(database, "select noetl.complete_job(queue_id, 'w', $1) from noetl.queue", attempt)
    observer = Observer(database.dsn)
    found = (await observer.look()).values
    await observer.close()
    assert found["stale_answers_total"] == {(): 1.0}


async def test_mail_that_nobody_rang_for_is_counted(database: Database) -> None:
    """The look after `sweep_seconds` found it. Mail that somebody rang for is not, however old it says to be."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    async with running(database, sweep_seconds=0.5) as service:
        await until_it_slept(database, service)
        await execute(
            database,
            """
            insert into noetl.event (execution_id, event_type, created_at)
            values ($1, 'execution_start', clock_timestamp() - interval '1 hour')""",
            execution_id,
        )
        while service.counters.turns < 1:
            await execute(database, "select")
        rung = service.counters.swept
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not service.counters.swept:  # mail that came while it was still on its way to sleep is no such mail
                await until_it_slept(database, service)
                await execute(
                    database,
                    """
                    insert into noetl.inbox (execution_id, event_id)
                    select execution_id, max(event_id) from noetl.event group by execution_id""",
                )
                await until_it_slept(database, service)
    assert rung == 0


async def until_it_slept(database: Database, service: Service) -> None:
    """Wait until a daemon has found nothing, slept to the end and found nothing again: it sleeps behind the gate."""
    drains = service.counters.drains
    while service.counters.drains < drains + 2:
        await execute(database, "select")


async def test_faults_are_counted_by_sqlstate(database: Database) -> None:
    """Somebody holds the table of turns for longer than a lock is waited for."""
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
    assert (await drain(database)).counters.faults == {"40001": 2}


async def test_broken_invariants_are_a_gauge(database: Database) -> None:
    """0 for each that holds; somebody takes a turn away."""
    await register(database, ONE_STEP)
    await start(database)
    await drain(database)
    await execute(database, "delete from noetl.turn")
    observer = Observer(database.dsn)
    await observer.verify_once(60.0)
    found = (await observer.look()).values
    await observer.close()
    assert found["broken_invariants"]["I1",] > 0
    assert found["broken_invariants"]["I8",] == 0
    assert found["verified_executions"] == {(): 1.0}


async def test_a_broker_of_several_databases_is_live_while_one_cannot_be_served(
    database: Database, empty_database: Database
) -> None:
    """It tries again beside the others; to restart it would stop those as well."""
    stopping = asyncio.Event()
    services = {"good": Service(options(database), stopping), "empty": Service(options(empty_database), stopping)}
    fleet = Fleet(services, stopping)
    task = asyncio.create_task(fleet.run())
    while not (fleet.failed and services["good"].serving):
        await execute(database, "select")
    long_ago = services["empty"].progress_at = time.monotonic() - 1000.0
    while services["empty"].progress_at == long_ago:
        await execute(database, "select")
    account = account_of(services)
    stopping.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert account.reports["empty"].silent_seconds < 10
    assert "noetl-broker migrate" in account.reports["empty"].checks["database"]
    assert [*account.reports["good"].checks.values()] == ["ok"] * 4
