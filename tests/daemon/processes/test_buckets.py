"""One `run` serves all buckets of an installation; a bucket that fails is named, and stops no other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from noetl_broker.daemon import service as service_module
from noetl_broker.daemon.databases import Databases
from noetl_broker.daemon.metrics.database import Observers
from noetl_broker.daemon.metrics.registry import REAPED, SIGNALS_DELIVERED, TIMERS_FIRED
from noetl_broker.daemon.service import Service
from noetl_broker.store.connect import installation as installations
from noetl_broker.store.connect.buckets import bucket_of_text, buckets_of
from tests.brokers import PATIENCE_SECONDS, complete_jobs, options, register, running, start, until_ended, value
from tests.brokers import execute as execute_once
from tests.chaos.under_load import leave_core
from tests.cli.conftest import Command, execute, read_until, rows
from tests.daemon.processes.test_health_port import free_port, on_port
from tests.daemon.processes.test_several_databases import INSERT, PLAYBOOK, run_an_execution
from tests.health_port import request
from tests.postgres import Database, psycopg_connect
from tests.roles import login
from tests.sessions import blocked, session

COUNT = 4
LIVE = "select exists (select from noetl.execution where noetl.is_live(status))"
PER_BUCKET = """
    select application_name, count(*)
    from pg_stat_activity
    where datname = current_database() and application_name ~ '^noetl-broker (run|bell|watch)'
    group by application_name"""
BUSY = """
workflow:
- {step: start, next: [pause, told, work]}
- {step: pause, type: wait, for: 0.1s, next: both}
- {step: told, type: wait, signal: go, key: all, next: both}
- {step: work, type: own, throttle: {name: api, concurrency: 2}, next: both}
- {step: both, join: all, next: end}
- {step: end}
"""


TAKES = "workflow:\n- {step: start, next: told}\n- {step: told, type: wait, signal: told, key: all, since: 1h}\n"
SAME = "insert into noetl.signal (signal_id, name, key, expires_at) select $1, 'a', '', now()"
CUT = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"


@pytest.fixture
def served(lone_command: Command, installation: Database) -> Command:
    """Give the command line on an installation whose buckets have a playbook."""
    for bucket in buckets_of(installation, COUNT):
        rows(bucket, INSERT, PLAYBOOK)
    lone_command.environment |= {"NOETL_BROKER_DSN": installation.dsn, "NOETL_BROKER_SWEEP_SECONDS": "0.1"}
    lone_command.environment |= {"NOETL_BROKER_SCHEMA": installation.schema}
    return lone_command


def name_of(installation: Database, number: int) -> str:
    """Give the name of a bucket in logs and metrics."""
    return f"{installation.dsn.rpartition('@')[2]}/{installation.schema}_{number}"


@pytest.mark.parametrize("processes", [1, 2])
def test_one_run_serves_all_buckets(served: Command, installation: Database, processes: int) -> None:
    """With `--processes` each process does. The health port shows each bucket."""
    port = free_port()
    process = served.start("run", "--processes", processes, **on_port(port))
    read_until(process, "all processes are ready" if processes > 1 else "all databases are ready")
    for bucket in buckets_of(installation, COUNT):
        run_an_execution(bucket)
    ready = asyncio.run(request(port, "/ready")).document
    names = [name_of(installation, number) for number in range(COUNT)]
    assert (ready["not_ready"], [*ready["databases"]]) == ([], names)
    assert [[*found] for found in ready["processes"].values()] == [names] * processes
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("commits", [True, False])
async def test_a_killed_run_copies_each_signal_once(served: Command, installation: Database, *, commits: bool) -> None:
    """It is killed while it writes copies; the server may still commit them. Another run goes on."""
    for bucket in buckets_of(installation, COUNT):
        await register(bucket, TAKES, version=2)
        await start(bucket)
    process = served.start("run")
    read_until(process, "all databases are ready")
    home = bucket_of_text("told\x1fall", COUNT)
    async with session(installation.bucket((home + 1) % COUNT)) as own:
        same = own.transaction()
        await same.start()
        async with session(installation) as sender, sender.transaction():
            sent = await sender.fetchval("select noetl.send_signal('told', 'all', '7')")
            await own.execute(SAME, sent)  # the insert of the copy waits for its end
        await blocked(own)
        await becomes(installation.bucket(home), "select count(*) < 2 from noetl.signal_copy")  # the others are done
        process.kill()
        process.wait(PATIENCE_SECONDS)
        if not commits:
            await own.execute(CUT)
        await same.rollback()
    process = served.start("run")
    for bucket in buckets_of(installation, COUNT):
        await until_ended(bucket)
        assert rows(bucket, "select result, (select count(*) from noetl.signal) from noetl.execution") == [(7, 1)]
    await becomes(installation.bucket(home), "select not exists (select from noetl.signal_copy)")
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0


def test_drain_drains_all_buckets(served: Command, installation: Database) -> None:
    """And prints the counts of each."""
    for number, bucket in enumerate(buckets_of(installation, COUNT)):
        rows(bucket, "select noetl.start_execution('story') from generate_series(1, %s)", number)
    answer = served.run("run", "--drain", "--json")
    assert answer.returncode == 0
    assert [(found["database"], found["turns"]) for found in json.loads(answer.stdout)] == [
        (name_of(installation, number), number) for number in range(COUNT)
    ]


def test_an_installation_that_does_not_answer_yet_delays_no_other_schema(
    served: Command, installation: Database
) -> None:
    """Its buckets are found later; the supervisor is told that the start goes on."""
    fourth = replace(installation, schema=installation.bucket(3).schema)
    execute(installation, f"alter schema {installation.schema} rename to away")
    execute(installation, f"create schema {installation.schema}")
    process = served.start("run", "--schema", fourth.schema, "--schema", installation.schema)
    read_until(process, "a database is not served")
    run_an_execution(fourth)
    execute(installation, f"drop schema {installation.schema}")
    execute(installation, f"alter schema away rename to {installation.schema}")
    read_until(process, "all databases are ready")
    run_an_execution(installation.bucket(1))
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0


async def becomes(bucket: Database, statement: str) -> None:
    """Ask again and again until a statement is true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await value(bucket, statement):
            await leave_core()


@contextmanager
def broken(installation: Database, fault: str) -> Iterator[None]:
    """Take bucket 2 away."""
    bucket = installation.bucket(2)
    with psycopg_connect(bucket) as holder:
        if fault == "locked":
            holder.execute("lock table noetl.inbox, noetl.schema_version in access exclusive mode")
        elif fault == "dropped":  # a drop would wait for the broker's locks
            execute(bucket, f"alter schema {bucket.schema} rename to gone")
        else:
            execute(
                installation, f"revoke all on all tables in schema {bucket.schema} from {installation.schema}_broker"
            )
        yield


@pytest.mark.parametrize("fault, since", [(f, s) for f in ("locked", "dropped", "revoked") for s in ("start", "later")])
async def test_a_bucket_that_fails_stops_no_other(
    served: Command, installation: Database, fault: str, since: str
) -> None:
    """The log and /ready name it."""
    port, name = free_port(), name_of(installation, 2)
    await installations.create_roles(installation)
    async with login(installation, "broker", f"{installation.schema}_broker") as broker:
        served.environment["NOETL_BROKER_DSN"] = broker.dsn
        with ExitStack() as taken:
            if since == "start":
                taken.enter_context(broken(installation, fault))
            process = served.start("run", **on_port(port))
            if since == "later":
                read_until(process, "all databases are ready")
                taken.enter_context(broken(installation, fault))
            line = json.loads(
                read_until(process, f'"database": "[^"]*{installation.schema}_2".*"level": "(warn|error)')
            )
            for number in (0, 1, 3):
                run_an_execution(installation.bucket(number))
            ready = (await request(port, "/ready")).document
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert line["database"] == name
    assert {name in problem for problem in ready["not_ready"]} == {True}
    assert len(ready["not_ready"]) > 0


async def test_a_bucket_has_at_most_four_connections(installation: Database) -> None:
    """Of one process: the listener, the lane, what works beside it, and the health port's."""
    for bucket in buckets_of(installation, COUNT):
        await register(bucket, BUSY)
    ready, stopping = asyncio.Event(), asyncio.Event()
    databases = Databases({"i": Service(options(installation), stopping)}, stopping, on_ready=ready.set)
    observers = Observers({"i": installation})
    running = asyncio.create_task(databases.run())
    await asyncio.wait_for(ready.wait(), PATIENCE_SECONDS)
    for bucket in buckets_of(installation, COUNT):
        await start(bucket, count=20)
    await observers.collect()
    connected = dict(rows(installation, PER_BUCKET))
    stopping.set()
    await asyncio.wait_for(running, PATIENCE_SECONDS)
    await observers.close()
    per_bucket = [
        {name.split()[1]: count for name, count in connected.items() if name.endswith(f" {bucket.schema}")}
        for bucket in buckets_of(installation, COUNT)
    ]
    assert [found["watch"] for found in per_bucket] == [1] * COUNT
    assert {sum(found.values()) for found in per_bucket} <= {3, 4}


async def test_nothing_beside_the_lane_needs_a_second_connection(
    installation: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one connection for all, each gets its turn: nobody keeps one while it waits for another."""
    monkeypatch.setattr(service_module, "BESIDE_LANES_OF_BUCKET", 0)
    bucket = installation.bucket(bucket_of_text("often", COUNT))  # the home of the schedule
    await register(bucket, BUSY)
    async with running(bucket, lanes=1, sweep_seconds=0.2, reap_seconds=0.05) as service:
        await start(bucket, count=5)
        await execute_once(bucket, "select noetl.put_schedule('often', 'story', every => '1 second', catch_up => '0')")
        await becomes(bucket, "select count(*) >= 6 from noetl.execution")
        await execute_once(bucket, "select noetl.delete_schedule('often')")
        lose = "update noetl.queue set lease_until = clock_timestamp() where status = 'leased'"
        await becomes(bucket, "select count(*) = 1 from noetl.lease_jobs('gone', 1)")
        await execute_once(bucket, lose)
        await execute_once(bucket, "select noetl.send_signal('go', 'all', '{}')")
        while await value(bucket, LIVE):
            await complete_jobs(bucket)
        counted = service.metrics
    assert counted.get(REAPED, "requeued") == 1
    assert counted.get(TIMERS_FIRED) == counted.get(SIGNALS_DELIVERED) >= 6
