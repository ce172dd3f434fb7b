"""`doctor`: each thing that it finds is made true on a real Postgres, and is told with what to do about it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from noetl_broker.errors import DatabaseFault
from noetl_broker.store import embedded
from noetl_broker.store.embedded import EmbeddedPostgres
from noetl_broker.store.examining import examine
from noetl_broker.store.findings import Finding, Limits
from noetl_broker.store.migrate import create_roles, migrate
from noetl_broker.store.pool import connect
from tests.brokers import execute, register, running, start
from tests.chaos.swallow import Swallower
from tests.cli.conftest import Command
from tests.postgres import Database
from tests.roles import login, logins
from tests.sessions import put_job, session

# From where on the tests do not wait for something to become old.
AT_ONCE = replace(Limits(), unread_seconds=0, lease_seconds=0, job_seconds=0, snapshot_seconds=0, dead_rows=1000)
ONE_STEP = """
    workflow:
      - {step: start, next: fetch}
      - {step: fetch, type: python, code: "def main(): ...", next: end}
      - {step: end}
    """


async def problems(database: Database, limits: Limits | None = None, *, but: tuple[str, ...] = ("brokers",)) -> str:
    """What `examine` finds wrong, one a line, each of them with a reason and a remedy; no broker runs here."""
    found = await examine(database.dsn, limits)
    assert [finding.check for finding in found if finding.state != "ok" and not (finding.why and finding.do)] == []
    return "\n".join(_line(finding) for finding in found if finding.state == "problem" and finding.check not in but)


def _line(finding: Finding) -> str:
    return f"{finding.check}: {finding.says}"


async def test_all_is_well_where_a_broker_runs_with_its_own_login(database: Database) -> None:
    """But for what the tests' own server is switched to."""
    async with logins(database) as all_logins, running(all_logins.broker):
        found = await examine(all_logins.broker.dsn)
    assert [finding.check for finding in found if finding.state != "ok"] == ["durability"]


def test_a_problem_is_told_with_its_reason_and_its_remedy_and_is_1(command: Command) -> None:
    """A line for each thing that was looked at, and two more where it is not well."""
    answer = command("doctor")
    assert answer.exit_code == 1
    told = answer.stdout.partition("no broker is connected to this database\n")[2]
    assert [line.split()[0] for line in told.splitlines()[:2]] == ["why", "do"]
    assert answer.stdout.splitlines()[-1] == "1 problem, 2 notices"


async def test_notices_alone_are_0(database: Database, command: Command) -> None:
    """A superuser and a server that does not sync are told, and keep no broker from working."""
    async with running(database):
        answer = await asyncio.to_thread(command.run, "doctor", "--json")
    told = json.loads(answer.stdout)
    assert (answer.returncode, told["problems"], told["notices"]) == (0, 0, 2)
    assert {"database", "check", "state", "says", "why", "do", "facts"} == set(told["findings"][0])


def test_no_connection_at_all_is_69(lone_command: Command) -> None:
    """There is nothing more to look at."""
    answer = lone_command("doctor", "--dsn", "postgresql://127.0.0.1:1/nowhere")
    assert (answer.exit_code, answer.stderr.count("\n")) == (69, 1)


def test_each_of_several_databases_is_looked_at(command: Command, database: Database) -> None:
    """One that cannot be reached is a problem of its own."""
    answer = command("doctor", "--dsn", "postgresql://127.0.0.1:1/nowhere", "--dsn", database.dsn)
    lines = answer.stdout.splitlines()
    first, second = (place for place, line in enumerate(lines) if line.endswith(":"))
    assert (lines[first], lines[first + 1].split()[:2]) == ("127.0.0.1:1/nowhere:", ["problem", "connection"])
    assert (lines[second + 1].split()[:2], answer.exit_code) == (["ok", "connection"], 1)


def test_a_misspelled_variable_is_told_with_the_one_that_was_meant(command: Command) -> None:
    """Nothing else would say that it changes nothing."""
    answer = command.run("doctor", "--json", NOETL_BROKER_SWEEP_SECOND="3")
    [finding] = [finding for finding in json.loads(answer.stdout)["findings"] if finding["check"] == "settings"]
    assert (finding["state"], finding["facts"]["meant"]) == ("notice", "NOETL_BROKER_SWEEP_SECONDS")


@pytest.mark.parametrize(
    "statement, problem",
    [
        ("delete from noetl.schema_version where version > 3", "schema: the schema is at version 3, this"),
        ("insert into noetl.schema_version values (99, '0099_x.sql', '')", "schema: the schema is at version 99"),
        ("update noetl.schema_version set checksum = '' where version = 2", "schema: migration 0002_mail.sql was"),
        ("drop schema noetl cascade", "schema: the database has no noetl schema of ours"),
        ("alter table noetl.event disable trigger noetl_receive_events", "triggers: the trigger noetl_receive_events"),
        ("insert into noetl.dead_letter values (7, 1, 'the audit table is full')",
         "dead letters: 1 set aside of 1 execution, the latest: the audit table is full"),
        ("alter table noetl.inbox set (autovacuum_enabled = off)", "bloat: autovacuum is switched off for noetl.inbox"),
    ],
)  # fmt: skip
async def test_what_one_statement_spoils_is_found(database: Database, statement: str, problem: str) -> None:
    """And nothing else is."""
    await execute(database, statement)
    found = await problems(database)
    assert (found[: len(problem)], found.count("\n")) == (problem, 0)


async def test_a_login_that_may_see_nothing_is_found(database: Database) -> None:
    """The rest of what can be looked at is told, and what to do about the rights."""
    async with login(database, "stranger_of") as stranger:
        found = await examine(stranger.dsn)
    assert {"connection": "ok", "listen": "ok", "schema": "problem"}.items() <= {one[:2] for one in found}
    [schema] = [one for one in found if one.state == "problem"]
    assert schema.says.startswith("this login may not see it: ")
    assert "in the role noetl_broker" in str(schema.do)


async def test_mail_that_nobody_reads_is_found(database: Database) -> None:
    """The lag is the age of the oldest event."""
    await register(database, ONE_STEP)
    await start(database, count=3)
    await execute(database, "update noetl.event set created_at = created_at - interval '3 h 10 s'")
    assert (await problems(database)).startswith("mail: 3 unread, the oldest for 3 h 0 min (execution ")


async def test_a_lease_that_nobody_takes_back_is_found(database: Database) -> None:
    """A broker would have done so within a second or two."""
    async with session(database) as own:
        await put_job(own)
        await own.execute("select from noetl.lease_jobs('w1', 1, 60)")
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '2 h 10 s'")
    assert "leases: 1 lease ran out up to 2 h 0 min ago, and no broker" in await problems(database)


async def test_a_clock_of_the_server_that_stepped_back_is_found(database: Database) -> None:
    """A problem as long as no broker has seen it, a notice for a week after that."""
    await execute(database, "insert into noetl.clock (seen_at) values (clock_timestamp() + interval '2 h 10 s')")
    found = await problems(database)
    assert found == "clock steps: the server's clock is 2 h 0 min behind a time that brokers have seen on it"
    await execute(database, "select noetl.mind_clock(1000)")
    [notice] = [one for one in await examine(database.dsn) if one.check == "clock steps"]
    assert (notice.state, notice.says[:45]) == ("notice", "the server's clock stepped back by 2 h 0 min,")
    await execute(database, "update noetl.clock set stepped_at = stepped_at - interval '8 days'")
    assert [one for one in await examine(database.dsn) if one.check == "clock steps"] == []


async def test_jobs_that_no_worker_takes_are_found_by_their_type(database: Database) -> None:
    """Each with how long the oldest has waited."""
    async with session(database) as own:
        await put_job(own, "a", node_type="dbt")
        await put_job(own, "b", node_type="dbt")
        await own.execute("update noetl.queue set available_at = clock_timestamp() - interval '2 h 10 s'")
    found = await problems(database)
    assert found == "jobs: 2 jobs of type dbt wait for a worker, the oldest for 2 h 0 min"


async def test_dead_rows_and_who_keeps_them_are_found(database: Database) -> None:
    """A snapshot that stands open, and what vacuum may not take away because of it."""
    async with session(database) as reader, session(database) as own:
        await reader.execute("begin isolation level repeatable read; select 1")
        await own.execute(
            "insert into noetl.inbox (execution_id, event_id) select 1, g from generate_series(1, 3000) g"
        )
        await own.execute("delete from noetl.inbox")
        await own.execute("select pg_stat_force_next_flush()")
        found = await problems(database, AT_ONCE)
    assert "bloat: noetl.inbox has 3000 dead rows beside 0 live ones" in found
    assert "snapshots: process " in found
    assert "idle in transaction) has a transaction open for " in found


async def test_a_listener_that_hears_nothing_is_found(database: Database) -> None:
    """As behind a transaction pooler: LISTEN is answered well, and no notification ever comes."""
    async with Swallower(database, deaf=b"noetl-broker doctor") as wire:
        found = await problems(wire.database, replace(Limits(), probe_seconds=0.3))
    assert found == "listen: a notification was not heard within 0.3 s"


async def test_a_pooler_is_found_by_its_greeting(database: Database) -> None:
    """It greets with a number of its own, and another process does the work."""
    async with Swallower(database, greets_as=77) as wire:
        found = await problems(wire.database)
    assert found.startswith("pooler: a pooler stands between here and the server: it greets as process 77 and works as")


async def test_a_pooler_that_refuses_our_settings_is_named() -> None:
    """PgBouncer's answer to what it does not know, before there is a session."""
    refusal = b"SFATAL\0C08P01\0Munsupported startup parameter: statement_timeout\0\0"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(b"E" + (len(refusal) + 4).to_bytes(4, "big") + refusal)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(
            DatabaseFault, match="a pooler in between refuses our session, connect to the server itself"
        ):
            await examine(f"postgresql://somebody@127.0.0.1:{port}/any?sslmode=disable")


async def test_a_clock_that_is_wrong_is_found(database: Database) -> None:
    """The database's clock is 70 minutes behind ours."""
    late = (
        "create function late.clock_timestamp() returns timestamptz begin atomic select now() - interval '70 min'; end"
    )
    await execute(database, f"create schema late; {late}")
    await execute(database, f"alter database {database.name} set search_path = late, pg_catalog")
    found = await problems(database)
    assert re.match(r"clock: this machine's clock is (4199|42\d\d)\.\d s ahead of the database's", found)


async def test_a_database_that_is_set_to_read_only_is_found(database: Database) -> None:
    """No turn could be written."""
    await execute(database, f"alter database {database.name} set default_transaction_read_only = on")
    assert f"but the database {database.name} is set to read only" in await problems(database)


async def test_a_long_way_is_a_notice(database: Database) -> None:
    """It bounds how fast a step follows a step."""
    found = await examine(database.dsn, replace(Limits(), slow_trip_seconds=0))
    assert [finding.state for finding in found if finding.check == "connection"] == ["notice"]


async def test_rights_that_an_upgrade_did_not_grant_are_found(database: Database) -> None:
    """Asked as the owner, who may do everything: the brokers' role may not."""
    await create_roles(database.dsn)
    await execute(database, "revoke insert on noetl.turn from noetl_broker")
    assert await problems(database) == "rights: the role noetl_broker lacks insert on noetl.turn"


async def test_a_login_without_rights_is_told_what_it_lacks(database: Database) -> None:
    """And what it may not look at, so that nobody takes it for well."""
    async with login(database, "guest") as guest:
        name = guest.dsn.partition("://")[2].partition(":")[0]
        await execute(database, f"grant usage on schema noetl to {name}")
        await execute(database, f"grant select on noetl.schema_version to {name}")
        found = await examine(guest.dsn)
    said = [_line(finding) for finding in found if finding.state != "ok"]
    assert any(line.startswith(f"rights: the role {name} lacks select on noetl.catalog") for line in said)
    assert "mail: this login may not look: permission denied for table inbox" in said


@pytest.fixture(scope="module")
def narrow_server() -> Iterator[EmbeddedPostgres]:
    """Yield a Postgres with room for few connections and few notifications, and without vacuum."""
    settings = {"max_notify_queue_pages": "64", "max_prepared_transactions": "2", "max_connections": "10",
                "autovacuum": "off", "fsync": "off"}  # fmt: skip
    with embedded.start(settings=settings) as postgres:
        yield postgres


async def test_a_server_that_is_too_narrow_is_found(narrow_server: EmbeddedPostgres) -> None:
    """No vacuum, hardly a connection left, a queue that fills up, and a transaction that somebody has forgotten."""
    database = Database(name="postgres", dsn=narrow_server.dsn())
    await migrate(database.dsn)
    others = [await connect(database.dsn, name="test") for _ in range(5)]
    stranger, writer = others[:2]
    try:
        await stranger.execute("set idle_in_transaction_session_timeout = 0; set transaction_timeout = 0; listen other")
        await stranger.execute("begin; select 1")
        while await writer.fetchval("select pg_notification_queue_usage()") < 0.2:
            await writer.execute("select pg_notify('other', repeat('x', 3000) || g) from generate_series(1, 4) g")
        await writer.execute("begin; select pg_current_xact_id(); prepare transaction 'forgotten'")
        found = await problems(database, replace(AT_ONCE, connections_share=0.5))
        await writer.execute("rollback prepared 'forgotten'")
    finally:
        await asyncio.gather(*(other.close() for other in others))
    wanted = (
        "vacuum: autovacuum is off",
        "connections: ",
        "snapshots: the prepared transaction forgotten of postgres is open for",
        "notify queue: 2",
    )
    assert [beginning for beginning in wanted if beginning not in found] == []
