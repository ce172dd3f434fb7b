"""Migrations: applied once each, under a lock, refused where they do not fit, and granting nothing to everybody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noetl_broker.errors import PermissionFault, SchemaFault
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.findings import Rules
from noetl_broker.store import catalog
from noetl_broker.store.examining import examine
from noetl_broker.store.migrate import SERVED_VERSIONS, check_version, migrate, migrations, status
from noetl_broker.store.pool import connect
from noetl_broker.store.session import session
from tests.brokers import broken_invariants, complete_jobs, drain, execute, rows, start, value
from tests.postgres import Database
from tests.roles import login
from tests.store import noetl_server

TABLES = ("catalog", "workload", "event", "workflow", "workbook", "transition", "queue")
NAMES = [migration.name for migration in migrations()]


async def test_an_empty_database_gets_everything(empty_database: Database) -> None:
    """All files in their order, and the schema is one that this program serves."""
    assert await migrate(empty_database.dsn) == NAMES
    connection = await connect(empty_database.dsn, name="test")
    await check_version(connection)
    await connection.close()


async def test_a_second_migrate_does_nothing(database: Database) -> None:
    """No file is applied twice."""
    before = await rows(database, "select version, name, checksum, applied_at from noetl.schema_version order by 1")
    assert await migrate(database.dsn) == []
    assert (
        await rows(database, "select version, name, checksum, applied_at from noetl.schema_version order by 1")
        == before
    )


async def test_each_file_can_be_applied_again(database: Database) -> None:
    """`--sql` prints them for people who apply them by hand, perhaps twice."""
    for migration in migrations():
        await execute(database, migration.text)


async def test_migrates_at_the_same_time_apply_each_file_once(empty_database: Database) -> None:
    """The lock lets one work; the others find nothing left to do."""
    applied = await asyncio.gather(*(migrate(empty_database.dsn) for _ in range(4)))
    assert sorted(applied) == [[], [], [], NAMES]


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(database: Database) -> None:
    """What the database has is not what the file says; nothing is applied."""
    await execute(database, "update noetl.schema_version set checksum = 'other' where version = 2")
    with pytest.raises(SchemaFault, match=r"0002_mail\.sql was changed"):
        await migrate(database.dsn)


async def test_a_database_ahead_of_the_program_is_refused(database: Database) -> None:
    """By migrate, and by a daemon at its start: each says what to do."""
    await execute(
        database, "insert into noetl.schema_version (version, name, checksum) values (999, '0999_new.sql', 'x')"
    )
    with pytest.raises(SchemaFault, match=r"0999_new\.sql, which this program does not know"):
        await migrate(database.dsn)
    connection = await connect(database.dsn, name="test")
    with pytest.raises(SchemaFault, match="at version 999, this program serves up to"):
        await check_version(connection)
    await connection.close()


@pytest.mark.parametrize(
    "deed, sentence",
    [
        ("select 1", "has no noetl schema of ours"),
        ("create schema noetl; create table noetl.event (execution_id bigint)", "has no noetl schema of ours"),
    ],
)
async def test_a_database_without_our_schema_is_refused(empty_database: Database, deed: str, sentence: str) -> None:
    """An empty one, and one of a NoETL server that nobody has migrated."""
    await execute(empty_database, deed)
    connection = await connect(empty_database.dsn, name="test")
    with pytest.raises(SchemaFault, match=sentence):
        await check_version(connection)
    await connection.close()


@pytest.mark.parametrize("behind,serves", [(0, True), (1, False)])
async def test_a_newer_schema_serves_a_program_that_its_migrations_say_it_serves(
    database: Database, behind: int, *, serves: bool
) -> None:
    """Each of those that the program does not know; of one that says nothing, only programs that know it."""
    last = SERVED_VERSIONS[-1]
    statement = "insert into noetl.schema_version (version, name, checksum, serves_from) values ($1, $2, 'x', $3)"
    await execute(database, statement, last + 1, "additive.sql", last)
    await execute(database, statement, last + 2, "another.sql", last + behind)
    connection = await connect(database.dsn, name="test")
    try:
        if serves:
            await check_version(connection)
        else:
            with pytest.raises(SchemaFault, match=f"at version {last + 2}, this program serves up to {last}"):
                await check_version(connection)
    finally:
        await connection.close()


async def test_a_database_behind_the_program_is_refused(database: Database) -> None:
    """A daemon does not migrate by itself."""
    await execute(database, "delete from noetl.schema_version where version > 1")
    connection = await connect(database.dsn, name="test")
    with pytest.raises(SchemaFault, match="at version 1, this program needs"):
        await check_version(connection)
    await connection.close()


async def test_status_tells_what_is_applied(empty_database: Database) -> None:
    """Before, in between, after, and on a database that is ahead."""
    assert [(entry.name, entry.pending) for entry in await status(empty_database.dsn)] == [(n, True) for n in NAMES]
    assert await value(empty_database, "select to_regnamespace('noetl')::text") is None
    await migrate(empty_database.dsn)
    await execute(empty_database, "delete from noetl.schema_version where version = $1", SERVED_VERSIONS[-1])
    await execute(empty_database, "insert into noetl.schema_version (version, name, checksum) values (999, 'new', 'x')")
    told = await status(empty_database.dsn)
    *known, last = [migration.version for migration in migrations()]
    expected = [*((version, False) for version in known), (last, True), (999, False)]
    assert [(entry.version, entry.pending) for entry in told] == expected


async def test_this_program_serves_the_schema_that_it_ships() -> None:
    """Whoever adds a migration says in the same change which versions the program works with."""
    assert migrations()[-1].version == SERVED_VERSIONS[-1]
    versions = [migration.version for migration in migrations()]
    assert versions == sorted(set(versions))


async def test_a_database_in_another_encoding_is_refused_before_anything_is_done(empty_database: Database) -> None:
    """By migrate, by whoever needs the schema, and by doctor; the remedy that they name works."""
    name = f"{empty_database.name}_latin1"
    latin = Database(name=name, dsn=empty_database.dsn.replace(empty_database.name, name))
    anew = Database(name=f"{name}_utf8", dsn=f"{latin.dsn}_utf8")
    await execute(empty_database, f"create database {name} template template0 encoding 'LATIN1' locale 'C'")
    refused = f"the database {name} is in LATIN1, which cannot hold all that is written to it"
    try:
        with pytest.raises(SchemaFault, match=f"{refused}; make one in UTF8: ") as told:
            await migrate(latin.dsn)
        assert await value(latin, "select to_regnamespace('noetl')::text") is None
        with pytest.raises(SchemaFault, match=refused):
            async with session(latin.dsn, name="test"):
                pass
        assert [(one.check, one.says) for one in await examine(latin.dsn) if one.state == "problem"] == [
            ("schema", refused),
        ]  # fmt: skip
        await execute(empty_database, str(told.value).partition(": ")[2].replace("NAME", anew.name))
        assert await migrate(anew.dsn) == NAMES
    finally:
        for made in (latin, anew):
            await execute(empty_database, f"drop database if exists {made.name}")


async def test_a_file_that_fails_leaves_nothing_of_itself(empty_database: Database) -> None:
    """One transaction per file: those before it stay, and migrate goes on from there."""
    await execute(empty_database, "create schema noetl; create view noetl.inbox as select 1 as one")
    with pytest.raises(Exception, match="adopts"):
        await migrate(empty_database.dsn)
    assert await rows(empty_database, "select version from noetl.schema_version") == [(1,)]
    assert await value(empty_database, "select to_regprocedure('noetl.as_json(text)')::text") is None
    await execute(empty_database, "drop view noetl.inbox")
    assert await migrate(empty_database.dsn) == NAMES[1:]


async def test_a_role_without_rights_is_told_so(empty_database: Database) -> None:
    """Not a traceback of the driver."""
    role = f"poor_{empty_database.name}"
    await execute(empty_database, f"create role {role} login password 'poor'")
    try:
        server = empty_database.dsn.partition("@")[2]
        with pytest.raises(PermissionFault, match="may not change the schema"):
            await migrate(f"postgresql://{role}:poor@{server}")
    finally:
        await execute(empty_database, f"drop role {role}")


@pytest.mark.parametrize("before", ["select 1", noetl_server.TABLES], ids=["empty", "of a NoETL server"])
async def test_the_owner_of_the_database_needs_no_other_rights(empty_database: Database, before: str) -> None:
    """It migrates, and what runs with its rights does what it must: on a managed server nobody is a superuser."""
    async with login(empty_database, "owner") as owner:
        await execute(empty_database, f"alter database {owner.name} owner to owner_{owner.name}")
        try:
            await execute(owner, before)
            assert await migrate(owner.dsn) == NAMES
            text = (
                "{apiVersion: noetl.io/v1, kind: Playbook, metadata: {path: story}, "
                "workflow: [{step: start, next: a}, {step: a, type: http, url: u}]}"
            )
            async with session(owner.dsn, name="test") as connection:
                await catalog.register(connection, [(compile_playbook(text, rules=Rules()), text)])
            [execution] = await start(owner)
            await drain(owner)
            assert await complete_jobs(owner) == 1
            await drain(owner)
            assert await broken_invariants(owner) == {}
            assert await rows(owner, "select execution_id, status from noetl.execution") == [(execution, "COMPLETED")]
        finally:
            await execute(empty_database, f"alter database {owner.name} owner to current_user")


async def test_nothing_is_granted_to_everybody(database: Database) -> None:
    """Functions are PUBLIC's by default: each must have been taken away; tables and the schema are nobody's."""
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


async def test_what_runs_with_the_owners_rights_looks_up_nothing_in_the_callers_schemas(database: Database) -> None:
    """A SECURITY DEFINER function without a search_path of its own would run whatever the caller puts in its way."""
    loose = """
        select p.oid::regprocedure::text
        from pg_proc p
        where p.pronamespace = 'noetl'::regnamespace and p.prosecdef
          and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, pg_temp']
    """
    assert await rows(database, loose) == []


async def test_a_function_that_writes_events_is_not_the_broker_whatever_its_caller_says(database: Database) -> None:
    """The setting by which events of the broker are no mail is the session's: a function takes and gives it back."""
    loose = """
        select p.oid::regprocedure::text
        from pg_proc p
        where p.pronamespace = 'noetl'::regnamespace and p.prosecdef
          and p.prosrc ~* 'insert\\s+into\\s+noetl\\.event'
          and p.prosrc !~ 'set_config[(]''noetl.writer'', ''(worker)?'', .*set_config[(]''noetl.writer'', writer, true'
    """
    assert await rows(database, loose) == []


async def test_migrate_adds_what_is_missing_and_changes_no_row(empty_database: Database) -> None:
    """Columns keep their types, rows are not even rewritten, and no default that was there is another one."""
    await execute(empty_database, noetl_server.TABLES)
    await execute(empty_database, noetl_server.HISTORY)
    before = await columns(empty_database)
    names: dict[str, list[str]] = {table: [] for table in TABLES}
    for table, name in before:
        names[table].append(name)
    stood = await as_it_stands(empty_database, names)
    await migrate(empty_database.dsn)
    after = await columns(empty_database)
    changed = {key for key in before if after.get(key) != before[key]}
    assert changed == {("event", "event_id")}  # it had no default at all
    assert await as_it_stands(empty_database, names) == stood
    assert await migrate(empty_database.dsn) == []


async def test_only_where_a_server_keeps_the_queue_its_rows_are_listened_to(empty_database: Database) -> None:
    """On its tables as on ours the inbox is filled; what listens to its queue and its catalog would cost ours time."""
    triggers = """
        select t.tgrelid::regclass::text, t.tgname
        from pg_trigger t
        where not t.tgisinternal
          and t.tgparentid = 0 -- a partition has copies of its table's
        order by 1, 2"""
    everywhere = [
        ("noetl.event", f"noetl_{name}")
        for name in ("check_digits", "check_producer", "fill_catalog_id", "receive_events")
    ]
    await migrate(empty_database.dsn)
    assert await rows(empty_database, triggers) == everywhere
    await execute(empty_database, "drop schema noetl cascade")
    await execute(empty_database, noetl_server.TABLES)
    await migrate(empty_database.dsn)
    assert await rows(empty_database, triggers) == [
        ("noetl.catalog", "noetl_know_kind"),
        *everywhere,
        ("noetl.event", "noetl_show_status"),
        ("noetl.queue", "noetl_receive_job"),
    ]


async def columns(database: Database) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Type, default and nullability of each column of the tables that are the server's."""
    statement = """
        select table_name, column_name, data_type, column_default, is_nullable
        from information_schema.columns
        where table_schema = 'noetl' and table_name = any($1)
    """
    return {(table, name): tuple(rest) for table, name, *rest in await rows(database, statement, TABLES)}


async def as_it_stands(database: Database, names: dict[str, list[str]]) -> dict[str, list[Any]]:
    """The rows of each of the server's tables, without columns that were added."""
    found = {}
    for table, own in names.items():
        picked = ", ".join(f'"{name}"' for name in sorted(own))
        found[table] = await rows(database, f"select xmin::text, {picked} from noetl.{table} order by {picked}")
    return found
