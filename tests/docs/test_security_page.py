"""The page about security keeps its word: each role may do what its table says, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from noetl_broker.errors import PermissionFault
from noetl_broker.store.migrate import check_rights, create_roles
from noetl_broker.store.pool import connect
from tests.brokers import execute, rows, value
from tests.postgres import Database
from tests.roles import ROLES, login

# For people, whom the broker's role serves too; no daemon calls them.
OF_PEOPLE = {"execute on noetl.put_back(bigint)", "execute on noetl.fork_execution(bigint,jsonb,bigint,text)"}
PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")

# Every right that exists, on every thing that there is, asked of Postgres for one role.
HELD = """
    select case when c.relkind = 'S' then 'sequence' else 'table' end, c.oid::regclass::text, r.name
    from pg_class c
    cross join unnest(array[
      'select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger', 'usage'
    ]) r (name)
    where c.relnamespace = 'noetl'::regnamespace
      and case c.relkind
        when 'S' then r.name in ('select', 'update', 'usage') and has_sequence_privilege($1, c.oid, r.name)
        when 'i' then false
        when 'I' then false
        else r.name <> 'usage' and has_table_privilege($1, c.oid, r.name)
      end
    union all
    select 'column', c.oid::regclass || '.' || a.attname, r.name
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    cross join unnest(array['select', 'insert', 'update', 'references']) r (name)
    where c.relnamespace = 'noetl'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
      and not has_table_privilege($1, c.oid, r.name) and has_column_privilege($1, c.oid, a.attnum, r.name)
    union all
    select 'routine', p.oid::regprocedure::text, 'execute'
    from pg_proc p
    where p.pronamespace = 'noetl'::regnamespace and has_function_privilege($1, p.oid, 'execute')
    union all
    select 'schema', 'noetl', r.name
    from unnest(array['usage', 'create']) r (name)
    where has_schema_privilege($1, 'noetl', r.name)
"""
THINGS = """
    select c.oid::regclass::text
    from pg_class c
    where c.relnamespace = 'noetl'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      -- of an identity column
      and not exists (select from pg_depend d where d.objid = c.oid and d.objsubid = 0 and d.deptype = 'i')
    union all
    select p.oid::regprocedure::text
    from pg_proc p
    where p.pronamespace = 'noetl'::regnamespace
"""


def _table() -> Iterator[tuple[str, list[str]]]:
    """Give each thing of the table of rights with its cells."""
    lines = PAGE.split("\n| in the schema", 1)[1].split("\n\n")[0].splitlines()[2:]
    for line in lines:
        thing, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        yield thing.strip("`"), cells


async def _promised(database: Database) -> dict[str, set[tuple[str, str, str]]]:
    """Give what the page grants each role, named as Postgres names things."""
    promised: dict[str, set[tuple[str, str, str]]] = {role: set() for role in ROLES}
    for thing, cells in _table():
        kind, name = await _known(database, thing)
        for role, cell in zip(ROLES, cells, strict=True):
            columns = re.findall(r"`(\w+)`", cell)
            if columns:
                promised[role] |= {("column", f"{name}.{column}", cell.split()[0]) for column in columns}
            elif cell:
                promised[role] |= {(kind, name, right) for right in cell.split(", ")}
    return promised


async def _known(database: Database, thing: str) -> tuple[str, str]:
    if thing == "the schema itself":
        return "schema", "noetl"
    if "(" in thing:
        return "routine", str(await value(database, "select $1::text::regprocedure::text", thing))
    kind = await value(database, "select relkind::text from pg_class where oid = $1::text::regclass", thing)
    return "sequence" if kind == "S" else "table", thing


async def test_each_role_may_do_what_the_page_says_and_nothing_else(database: Database) -> None:
    """Role by thing by verb, with columns: no difference."""
    await create_roles(database.dsn)
    held = {role: {tuple(row) for row in await rows(database, HELD, role)} for role in ROLES}
    assert held == await _promised(database)


async def test_partitions_are_the_owners_alone(database: Database) -> None:
    """They are reached through their tables; what was archived is reached by nobody else."""
    await create_roles(database.dsn)
    statement = """
        select n.nspname, r.name
        from pg_namespace n
        cross join unnest(array['usage', 'create']) r (name)
        where n.nspname in ('noetl_history', 'noetl_archive') and has_schema_privilege($1, n.oid, r.name)
        union all
        select c.oid::regclass::text, r.name
        from pg_class c
        cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) r (name)
        where c.relnamespace in ('noetl_history'::regnamespace, 'noetl_archive'::regnamespace)
          and c.relkind in ('r', 'p')
          and has_table_privilege($1, c.oid, r.name)"""
    assert await value(database, "select count(*) > 0 from pg_class where relnamespace = 'noetl_history'::regnamespace")
    assert {role: await rows(database, statement, role) for role in ROLES} == {role: [] for role in ROLES}


async def test_everything_in_the_schema_stands_in_the_table(database: Database) -> None:
    """Whoever adds a table, a view or a function says who may use it."""
    named = {(await _known(database, thing))[1] for thing, _ in _table()}
    there = {row[0] for row in await rows(database, THINGS)}
    assert named - {"noetl"} == there


async def test_a_login_without_a_role_may_do_nothing(database: Database) -> None:
    """Nothing is granted to PUBLIC."""
    async with login(database, "stranger_of") as stranger:
        name = stranger.dsn.split("//")[1].partition(":")[0]
        assert await rows(database, HELD, name) == []


async def test_rights_that_the_page_does_not_name_are_taken_away(database: Database) -> None:
    """By the next `migrate --roles`, on tables, columns, functions and the schema; what it names comes back."""
    await create_roles(database.dsn)
    await execute(database, "grant create on schema noetl to noetl_reader")
    await execute(database, "grant select (result), update on noetl.event to noetl_producer")
    await execute(database, "grant execute on function noetl.start_execution(text, jsonb, int, text) to noetl_worker")
    await execute(database, "revoke insert on noetl.event from noetl_broker")
    await create_roles(database.dsn)
    held = {role: {tuple(row) for row in await rows(database, HELD, role)} for role in ROLES}
    assert held == await _promised(database)


async def test_a_daemon_asks_at_its_start_for_all_that_its_role_has(database: Database) -> None:
    """What it would miss later it names at once."""
    promised = await _promised(database)
    expected = {f"{right} on {name}" for kind, name, right in promised["noetl_broker"] if kind != "schema"}
    assert expected > OF_PEOPLE
    async with login(database, "poor_of") as poor:
        await execute(database, f"grant usage on schema noetl to {poor.dsn.split('//')[1].partition(':')[0]}")
        connection = await connect(poor.dsn, name="test")
        try:
            await check_rights(connection)
            told = ""
        except PermissionFault as fault:
            told = str(fault)
        finally:
            await connection.close()
    missing = re.findall(r"(select|insert|update|delete|usage|execute) on (noetl\.\w+(?:\([^)]*\))?)", told)
    assert {f"{right} on {(await _known(database, thing))[1]}" for right, thing in missing} == expected - OF_PEOPLE


def test_every_test_that_the_page_names_is_there() -> None:
    """A promise without its test is none."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))
    assert named
    assert [name for name in sorted(named) if not (Path(__file__).parents[2] / name).is_file()] == []
