"""Migrations are applied once, under a lock, refused where they do not fit, and grant nothing to PUBLIC."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from noetl_broker import __version__
from noetl_broker.errors import PermissionFault, SchemaFault
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store import queries
from noetl_broker.store.admin import catalog
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.migrations import (
    SERVED_VERSIONS,
    check_version,
    compat_noetl,
    migrate,
    migrations,
    status,
)
from noetl_broker.store.connect.session import session
from tests import sessions
from tests.brokers import broken_invariants, complete_jobs, drain, execute, rows, start, value
from tests.postgres import SCHEMA, Database, named
from tests.roles import login
from tests.store import noetl_server

TABLES = ("catalog", "workload", "event", "workflow", "workbook", "transition", "queue")
NAMES = [migration.name for migration in migrations()]


async def test_concurrent_migrates_apply_each_file_once(empty_database: Database) -> None:
    """In their order: all wait for a session that has the lock. Then the program serves the schema."""
    assert [(entry.name, entry.pending) for entry in await status(empty_database)] == [(n, True) for n in NAMES]
    assert await value(empty_database, "select to_regnamespace('noetl')::text") is None
    async with sessions.session(empty_database) as holder:
        await holder.execute(queries.sql("lock_migrations"))
        migrates = [asyncio.create_task(migrate(empty_database)) for _ in range(4)]
        await sessions.blocked(holder, sessions=4)
    assert sorted(await asyncio.gather(*migrates)) == [[], [], [], NAMES]
    async with session(empty_database, name="test") as connection:
        await check_version(connection)


async def test_no_file_is_applied_twice_and_each_may_be(database: Database) -> None:
    """`--sql` prints them for people who may apply them twice."""
    applied = "select version, name, checksum, applied_at from noetl.schema_version order by 1"
    before = await rows(database, applied)
    assert await migrate(database) == []
    assert await rows(database, applied) == before
    for migration in (*migrations(), compat_noetl()):
        await execute(database, migration.text)


async def test_a_file_that_changed_after_it_was_applied_is_refused(database: Database) -> None:
    """Nothing is applied."""
    await execute(database, "update noetl.schema_version set checksum = 'other' where version = 2")
    with pytest.raises(SchemaFault, match=r"0002_shared_functions\.sql was changed"):
        await migrate(database)


async def test_a_newer_database_is_refused(database: Database) -> None:
    """By `migrate` and by a daemon at its start, with the remedy. `status` lists its files."""
    await execute(database, "delete from noetl.schema_version where version = $1", SERVED_VERSIONS[-1])
    await execute(
        database, "insert into noetl.schema_version (version, name, checksum) values (999, '0999_new.sql', 'x')"
    )
    *known, last = [migration.version for migration in migrations()]
    expected = [*((version, False) for version in known), (last, True), (999, False)]
    assert [(entry.version, entry.pending) for entry in await status(database)] == expected
    with pytest.raises(SchemaFault, match=r"is at version 999, this noetl-broker .*; migrate with the newer program"):
        await migrate(database)
    with pytest.raises(SchemaFault, match=r"at version 999, this .*; upgrade the program"):
        await checked(database)


async def checked(database: Database) -> None:
    """Check the version as a daemon does at its start."""
    connection = await connect(database, name="test")
    try:
        await check_version(connection)
    finally:
        await connection.close()


async def test_a_database_without_our_schema_is_refused(empty_database: Database) -> None:
    """An empty one, and one of a NoETL server before `migrate`."""
    for deed in ("select 1", "create schema noetl; create table noetl.event (execution_id bigint)"):
        await execute(empty_database, deed)
        with pytest.raises(SchemaFault, match=f"has no {SCHEMA} schema of ours"):
            await checked(empty_database)


async def test_a_newer_schema_names_the_programs_that_it_serves(database: Database) -> None:
    """Every unknown migration must serve this version of the program."""
    last = SERVED_VERSIONS[-1]
    statement = "insert into noetl.schema_version (version, name, checksum, serves_from) values ($1, $2, 'x', $3)"
    await execute(database, statement, last + 1, "additive.sql", last)
    await execute(database, statement, last + 2, "another.sql", last)
    await checked(database)
    await execute(database, "update noetl.schema_version set serves_from = $1 where version = $1", last + 1)
    with pytest.raises(SchemaFault, match=f"at version {last + 2}, this noetl-broker .* serves {last}; upgrade"):
        await checked(database)


async def test_an_older_database_is_refused(database: Database) -> None:
    """A daemon does not migrate."""
    await execute(database, "delete from noetl.schema_version where version > 1")
    with pytest.raises(
        SchemaFault,
        match=rf"at version 1 \(noetl-broker {__version__}\), this noetl-broker .*; run noetl-broker migrate",
    ):
        await checked(database)


def test_the_program_serves_its_own_schema() -> None:
    """A new migration also changes the list of served versions."""
    assert migrations()[-1].version == SERVED_VERSIONS[-1]
    versions = [migration.version for migration in migrations()]
    assert versions == sorted(set(versions))


async def test_a_database_in_another_encoding_is_refused(empty_database: Database) -> None:
    """`migrate`, every session and `doctor` refuse it. Their remedy works."""
    name = f"{empty_database.name}_latin1"
    latin = Database(name=name, dsn=empty_database.dsn.replace(empty_database.name, name))
    anew = Database(name=f"{name}_utf8", dsn=f"{latin.dsn}_utf8")
    await execute(empty_database, f"create database {name} template template0 encoding 'LATIN1' locale 'C'")
    refused = f"the database {name} is in LATIN1, which cannot hold all that is written to it"
    try:
        with pytest.raises(SchemaFault, match=f"{refused}; make one in UTF8: ") as raised:
            await migrate(latin)
        assert await value(latin, "select to_regnamespace('noetl')::text") is None
        with pytest.raises(SchemaFault, match=refused):
            async with session(latin, name="test"):
                pass
        assert [(one.check, one.says) for one in await examine(latin) if one.state == "problem"] == [
            ("schema", refused),
        ]  # fmt: skip
        await execute(empty_database, str(raised.value).partition(": ")[2].replace("NAME", anew.name))
        assert await migrate(anew) == NAMES
    finally:
        for made in (latin, anew):
            await execute(empty_database, f"drop database if exists {made.name} with (force)")


async def test_a_failed_file_is_rolled_back(empty_database: Database) -> None:
    """Each file is one transaction. `migrate` continues from the failed one."""
    await execute(empty_database, "create schema noetl; create view noetl.period as select 1 as one")
    with pytest.raises(Exception, match="period"):
        await migrate(empty_database)
    failed = NAMES.index("0025_partitions.sql")
    assert await value(empty_database, "select max(version) from noetl.schema_version") == failed
    assert await value(empty_database, "select to_regclass('noetl.archived')::text") is None
    await execute(empty_database, "drop view noetl.period")
    assert await migrate(empty_database) == NAMES[failed:]


async def test_the_noetl_file_is_applied_beside_a_noetl_server_only(database: Database) -> None:
    """Our own queue does not need its triggers."""
    assert await value(database, "select to_regclass('noetl.ended_job')::text") is None
    await execute(database, "create table noetl.resource (name varchar primary key, meta jsonb)")
    assert [entry.name for entry in await status(database) if entry.pending] == ["compat_noetl.sql"]
    assert await migrate(database) == ["compat_noetl.sql"]
    assert await migrate(database) == []
    trigger = "select count(*) from pg_trigger where tgname = 'noetl_receive_job' and tgparentid = 0"
    assert await value(database, trigger) == 1


async def test_migrate_names_a_missing_right(empty_database: Database) -> None:
    """It shows no traceback of the driver."""
    role = f"poor_{empty_database.name}"
    await execute(empty_database, f"create role {role} login password 'poor'")
    try:
        server = empty_database.dsn.partition("@")[2]
        with pytest.raises(PermissionFault, match="may not change the schema"):
            await migrate(replace(empty_database, dsn=f"postgresql://{role}:poor@{server}"))
    finally:
        await execute(empty_database, f"drop role {role}")


@pytest.mark.parametrize(
    "before, names",
    [("select 1", NAMES), (noetl_server.TABLES, [*NAMES, "compat_noetl.sql"])],
    ids=["empty", "of a NoETL server"],
)
async def test_the_owner_of_the_database_can_migrate(empty_database: Database, before: str, names: list[str]) -> None:
    """Managed servers give no superuser rights. Our functions work for this owner too."""
    async with login(empty_database, "owner") as owner:
        await execute(empty_database, f"alter database {owner.name} owner to owner_{owner.name}")
        try:
            await execute(owner, before)
            assert await migrate(owner) == names
            text = (
                "{apiVersion: noetl.io/v1, kind: Playbook, metadata: {path: story}, "
                "workflow: [{step: start, next: a}, {step: a, type: http, url: u}]}"
            )
            async with session(owner, name="test") as connection:
                await catalog.register(connection, [(compile_playbook(text, rules=PlaybookRules()), text)])
            [execution] = await start(owner)
            await drain(owner)
            assert await complete_jobs(owner) == 1
            await drain(owner)
            assert await broken_invariants(owner) == {}
            assert await rows(owner, "select execution_id, status from noetl.execution") == [(execution, "COMPLETED")]
        finally:
            await execute(empty_database, f"alter database {owner.name} owner to current_user")


async def test_functions_are_safe_from_their_callers(database: Database) -> None:
    """Nothing is granted to PUBLIC, which Postgres does by default.

    A `security definer` function has its own search path: else a caller could put its own functions in their way.
    One that writes events resets the writer, so no caller passes its events off as the broker's, which are no mail.
    """
    granted = """
        select p.oid::regprocedure::text as thing, a.privilege_type
        from pg_proc p
        cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        where p.pronamespace = 'noetl'::regnamespace and a.grantee = 0
        union all
        select c.oid::regclass::text, a.privilege_type
        from pg_class c
        cross join lateral aclexplode(c.relacl) a
        where c.relnamespace = 'noetl'::regnamespace and a.grantee = 0
        union all
        select 'schema', a.privilege_type
        from pg_namespace n
        cross join lateral aclexplode(n.nspacl) a
        where n.nspname = 'noetl' and a.grantee = 0
    """
    assert await rows(database, granted) == []
    no_path = """
        select p.oid::regprocedure::text
        from pg_proc p
        where p.pronamespace = 'noetl'::regnamespace and p.prosecdef
          and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, pg_temp']
    """
    assert await rows(database, no_path) == []
    no_reset = """
        select p.oid::regprocedure::text
        from pg_proc p
        where p.pronamespace = 'noetl'::regnamespace and p.prosecdef
          and p.prosrc ~* 'insert\\s+into\\s+noetl\\.event'
          and p.prosrc !~ 'set_config[(]''noetl.writer'', ''(worker)?'', true[)]'
    """
    assert await rows(database, no_reset) == []


async def test_migrate_adds_columns_and_changes_no_row(empty_database: Database) -> None:
    """Types and defaults stay, and no row is rewritten."""
    await execute(empty_database, noetl_server.TABLES)
    await execute(empty_database, noetl_server.HISTORY)
    before = await columns(empty_database)
    names: dict[str, list[str]] = {table: [] for table in TABLES}
    for table, name in before:
        names[table].append(name)
    stood = await rows_of_the_server(empty_database, names)
    await migrate(empty_database)
    after = await columns(empty_database)
    changed = {key for key in before if after.get(key) != before[key]}
    assert changed == {("event", "event_id")}  # it had no default
    assert await rows_of_the_server(empty_database, names) == stood
    assert await migrate(empty_database) == []


async def test_triggers_for_a_noetl_server_are_on_its_tables_only(database: Database, noetl_database: Database) -> None:
    """Both databases have the triggers of the inbox and of throttled jobs. Others on queue and catalog cost time."""
    triggers = """
        select t.tgrelid::regclass::text, t.tgname
        from pg_trigger t
        where not t.tgisinternal
          and t.tgparentid = 0 -- a partition has copies of its table's
        order by 1, 2"""
    everywhere = [
        (named("noetl.event"), named(f"noetl_{name}"))
        for name in ("check_digits", "check_producer", "fill_catalog_id", "receive_events")
    ] + [(named("noetl.queue"), named("noetl_watch_throttled"))]
    assert await rows(database, triggers) == everywhere
    assert await rows(noetl_database, triggers) == sorted([
        (named("noetl.catalog"), named("noetl_know_kind")),
        *everywhere,
        (named("noetl.event"), named("noetl_show_status")),
        (named("noetl.queue"), named("noetl_receive_job")),
    ])  # fmt: skip


async def columns(database: Database) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return type, default and nullability of each column of the tables of the server."""
    statement = """
        select table_name, column_name, data_type, column_default, is_nullable
        from information_schema.columns
        where table_schema = 'noetl' and table_name = any($1)
    """
    return {(table, name): tuple(rest) for table, name, *rest in await rows(database, statement, TABLES)}


async def rows_of_the_server(database: Database, names: dict[str, list[str]]) -> dict[str, list[Any]]:
    """Return the rows of each table of the server, without added columns."""
    found = {}
    for table, own in names.items():
        picked = ", ".join(f'"{name}"' for name in sorted(own))
        found[table] = await rows(database, f"select xmin::text, {picked} from noetl.{table} order by {picked}")
    return found
