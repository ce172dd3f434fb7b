"""The checks of `doctor`: each finding is caused on a real Postgres, and has a remedy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from noetl_broker import embedded_postgres
from noetl_broker.embedded_postgres.server import EmbeddedPostgres
from noetl_broker.errors import DatabaseFault
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.admin.doctor_checks import DoctorFinding, Thresholds
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.migrations import create_roles, migrate
from tests.brokers import drain, execute, register, running, start
from tests.chaos.silent_proxy import SilentProxy
from tests.postgres import Database, named
from tests.roles import login, logins
from tests.sessions import put_job, session

# Low limits, so that the tests need not wait.
AT_ONCE = replace(Thresholds(), unread_seconds=0, lease_seconds=0, job_seconds=0, snapshot_seconds=0, dead_rows=1000)
ONE_STEP = """
    workflow:
      - {step: start, next: fetch}
      - {step: fetch, type: python, code: "def main(): ...", next: end}
      - {step: end}
    """


async def problems(database: Database, limits: Thresholds | None = None, *, but: tuple[str, ...] = ("brokers",)) -> str:
    """Give the problems that `examine` finds, one a line; each has a reason and a remedy. No broker runs here."""
    found = await examine(database, limits)
    assert [finding.check for finding in found if finding.state != "ok" and not (finding.why and finding.do)] == []
    return "\n".join(_line(finding) for finding in found if finding.state == "problem" and finding.check not in but)


def _line(finding: DoctorFinding) -> str:
    return f"{finding.check}: {finding.says}"


async def test_doctor_finds_no_problem_with_a_running_broker(database: Database) -> None:
    """Except for the settings of the tests' own server."""
    async with logins(database) as all_logins, running(all_logins.broker):
        found = await examine(all_logins.broker)
    assert [finding.check for finding in found if finding.state != "ok"] == ["durability"]


@pytest.mark.parametrize(
    "statement, problem",
    [
        ("delete from noetl.schema_version where version > 3", "schema: the schema is at version 3 ("),
        ("insert into noetl.schema_version values (99, '0099_x.sql', '')", "schema: the schema is at version 99"),
        ("update noetl.schema_version set checksum = '' where version = 2",
         "schema: migration 0002_shared_functions.sql was"),
        ("drop schema noetl cascade", "schema: the database has no noetl schema of ours"),
        ("alter table noetl.event disable trigger noetl_receive_events", "triggers: the trigger noetl_receive_events"),
        ("insert into noetl.dead_letter values (7, 1, 'the audit table is full')",
         "dead letters: 1 set aside of 1 execution, the latest: the audit table is full"),
        ("alter table noetl.inbox set (autovacuum_enabled = off)", "bloat: autovacuum is switched off for noetl.inbox"),
    ],
)  # fmt: skip
async def test_doctor_finds_the_one_thing_that_a_statement_breaks(
    database: Database, statement: str, problem: str
) -> None:
    """It finds nothing else."""
    problem = named(problem)
    await execute(database, statement)
    found = await problems(database)
    assert (found[: len(problem)], found.count("\n")) == (problem, 0)


async def test_a_login_without_any_right_is_a_problem(database: Database) -> None:
    """The other checks run, and the remedy names the rights."""
    async with login(database, "no_role") as no_role:
        found = await examine(no_role)
    assert {"connection": "ok", "listen": "ok", "schema": "problem"}.items() <= {one[:2] for one in found}
    [schema] = [one for one in found if one.state == "problem"]
    assert schema.says.startswith("this login may not see it: ")
    assert named("in the role noetl_operator") in str(schema.do)


async def test_an_operator_needs_no_right_of_a_broker(database: Database) -> None:
    """It makes every check; the rights are those of the group of brokers."""
    async with logins(database) as as_role:
        found = await examine(as_role.operator)
    assert [one for one in found if "right" in one.says] == []
    assert [one.facts["role"] for one in found if one.check == "rights"] == [named("noetl_broker")]


async def test_unread_mail_is_a_problem(database: Database) -> None:
    """The lag is the age of the oldest event."""
    await register(database, ONE_STEP)
    await start(database, count=3)
    await execute(database, "update noetl.event set created_at = created_at - interval '3 h 10 s'")
    assert (await problems(database)).startswith("mail: 3 unread, the oldest for 3 h 0 min (execution ")


async def test_a_schedule_that_no_broker_moves_or_that_fails_is_a_problem(database: Database) -> None:
    """A schedule alone is none."""
    await execute(database, "insert into noetl.catalog (path, version, content) values ('x', 1, 'x')")
    await execute(database, "select noetl.put_schedule('nightly', 'x', '@daily')")
    assert await problems(database) == ""
    await execute(database, "update noetl.start_schedule set due_at = '-infinity', updated_at = '2026-01-01 05:00Z'")
    overdue = "schedules: 1 schedule, 0 paused, 1 overdue, the first since 2026-01-01 05:00:00"
    assert (await problems(database)).startswith(overdue)
    await execute(
        database, "update noetl.start_schedule set due_at = 'infinity', error = 'bad minute', error_at = now()"
    )
    assert await problems(database) == "schedules: 1 schedule, 0 paused, 1 with an error, such as nightly: bad minute"


async def test_queued_executions_of_no_paused_playbook_are_a_problem(database: Database) -> None:
    """Those of a paused one wait for a person."""
    await register(database, ONE_STEP)
    await execute(database, "select noetl.pause_path('story')")
    await start(database, count=2)
    await drain(database)
    assert await problems(database) == ""
    await execute(database, "select noetl.resume_path('story')")
    expected = "pauses: 0 executions paused, 2 queued, 2 of playbooks that are not paused"
    assert await problems(database) == expected


async def test_approvals_that_wait_are_no_problem(database: Database) -> None:
    """The oldest and the next timeout are told; without an approval there is no line."""
    await register(database, "workflow: [{step: start, next: ask}, {step: ask, type: approval, timeout: 1d}]")
    await start(database, count=2)
    assert [one for one in await examine(database) if one.check == "approvals"] == []
    await drain(database)
    [found] = [one for one in await examine(database) if one.check == "approvals"]
    since, due = found.facts["since"], found.facts["times_out_at"]
    oldest = f"2 approvals wait for a person, the oldest since {since:%Y-%m-%d %H:%M:%S}"
    assert (found.state, found.says) == ("ok", f"{oldest}; the next times out at {due:%Y-%m-%d %H:%M:%S}")


async def test_an_expired_lease_is_a_problem(database: Database) -> None:
    """A broker would have requeued the job within two seconds."""
    async with session(database) as own:
        await put_job(own)
        await own.execute("select from noetl.lease_jobs('w1', 1, 60)")
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '2 h 10 s'")
    assert "leases: 1 lease ran out up to 2 h 0 min ago, and no broker" in await problems(database)


async def test_a_server_clock_that_stepped_back_is_found(database: Database) -> None:
    """A problem until a broker has seen it, then a notice for a week."""
    await execute(database, "insert into noetl.clock (seen_at) values (clock_timestamp() + interval '2 h 10 s')")
    found = await problems(database)
    assert found == "clock steps: the server's clock is 2 h 0 min behind the latest time that brokers saw on it"
    await execute(database, "select noetl.mind_clock(1000)")
    [notice] = [one for one in await examine(database) if one.check == "clock steps"]
    assert (notice.state, notice.says[:45]) == ("notice", "the server's clock stepped back by 2 h 0 min,")
    await execute(database, "update noetl.clock set stepped_at = stepped_at - interval '8 days'")
    assert [one for one in await examine(database) if one.check == "clock steps"] == []


async def test_jobs_without_a_worker_are_found_by_type(database: Database) -> None:
    """With the waiting time of the oldest job."""
    async with session(database) as own:
        await put_job(own, "a", node_type="dbt")
        await put_job(own, "b", node_type="dbt")
        await own.execute("update noetl.queue set available_at = clock_timestamp() - interval '2 h 10 s'")
    found = await problems(database)
    assert found == "jobs: no worker serves dbt; 2 jobs wait, the oldest for 2 h 0 min"


async def test_dead_rows_and_the_transaction_that_keeps_them_are_found(database: Database) -> None:
    """An open snapshot, and the rows that vacuum cannot remove because of it."""
    async with session(database) as reader, session(database) as own:
        await reader.execute("begin isolation level repeatable read; select 1")
        await own.execute(
            "insert into noetl.inbox (execution_id, event_id) select 1, g from generate_series(1, 3000) g"
        )
        await own.execute("delete from noetl.inbox")
        await own.execute("select pg_stat_force_next_flush()")
        found = await problems(database, AT_ONCE)
    assert named("bloat: noetl.inbox has 3000 dead rows beside 0 live ones") in found
    assert "snapshots: process " in found
    assert "idle in transaction) has a transaction open for " in found


async def test_listen_without_notifications_is_found(database: Database) -> None:
    """Behind a transaction pooler, LISTEN succeeds and no notification arrives."""
    async with SilentProxy(database, deaf=b"noetl-broker doctor") as proxy:
        found = await problems(proxy.database, replace(Thresholds(), probe_seconds=0.3))
    assert found == "listen: a notification was not heard within 0.3 s"


async def test_a_pooler_is_found_by_its_greeting(database: Database) -> None:
    """Its process id is not that of the server's process."""
    async with SilentProxy(database, greets_as=77) as proxy:
        found = await problems(proxy.database)
    assert found.startswith("pooler: a pooler stands between here and the server: it greets as process 77 and works as")


async def test_a_pooler_that_refuses_our_settings_is_named() -> None:
    """PgBouncer refuses unknown settings before there is a session."""
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
            await examine(Database(dsn=f"postgresql://somebody@127.0.0.1:{port}/any?sslmode=disable"))


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
    """No turn can be written."""
    await execute(database, f"alter database {database.name} set default_transaction_read_only = on")
    assert f"but the database {database.name} is set to read only" in await problems(database)


async def test_a_slow_connection_is_a_notice(database: Database) -> None:
    """It limits how fast steps follow each other."""
    found = await examine(database, replace(Thresholds(), slow_trip_seconds=0))
    assert [finding.state for finding in found if finding.check == "connection"] == ["notice"]


async def test_rights_that_an_upgrade_did_not_grant_are_found(database: Database) -> None:
    """The owner, who may do everything, asks: the brokers' role lacks them."""
    await create_roles(database)
    await execute(database, "revoke insert on noetl.turn from noetl_broker")
    assert await problems(database) == named("rights: the role noetl_broker lacks insert on noetl.turn")


async def test_rights_that_operators_lack_are_found(database: Database) -> None:
    """A table that they read, and a function with commas in its arguments."""
    await create_roles(database)
    await execute(database, "revoke select on noetl.log from noetl_operator")
    await execute(database, "revoke execute on function noetl.pause_path(text, text, text) from noetl_operator")
    assert await problems(database) == named(
        "rights: the role noetl_operator lacks select on noetl.log, execute on noetl.pause_path(text, text, text)"
    )


async def test_missing_rights_of_a_login_are_named(database: Database) -> None:
    """Checks that it may not run are problems, too."""
    async with login(database, "guest") as guest:
        name = guest.dsn.partition("://")[2].partition(":")[0]
        await execute(database, f"grant usage on schema noetl to {name}")
        await execute(database, f"grant select on noetl.schema_version to {name}")
        found = await examine(guest)
    problem_lines = [_line(finding) for finding in found if finding.state != "ok"]
    assert any(
        line.startswith(named(f"rights: the role {name} lacks select on noetl.catalog")) for line in problem_lines
    )
    assert "mail: this login lacks the right: permission denied for table inbox" in problem_lines


@pytest.fixture(scope="module")
def narrow_server() -> Iterator[EmbeddedPostgres]:
    """Yield a Postgres with few connections, a small notification queue and no vacuum."""
    settings = {"max_notify_queue_pages": "64", "max_prepared_transactions": "2", "max_connections": "10",
                "autovacuum": "off", "fsync": "off"}  # fmt: skip
    with embedded_postgres.start(settings=settings) as postgres:
        yield postgres


async def test_a_server_with_too_few_connections_is_found(narrow_server: EmbeddedPostgres) -> None:
    """No vacuum, hardly a free connection, a full notification queue, and a forgotten transaction."""
    database = Database(name="postgres", dsn=narrow_server.dsn())
    await migrate(database)
    others = [await connect(database, name="test") for _ in range(5)]
    listener, writer = others[:2]
    try:
        await listener.execute("set idle_in_transaction_session_timeout = 0; set transaction_timeout = 0; listen other")
        await listener.execute("begin; select 1")
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
