"""docs/reference/security.md: each role has exactly the rights of the table."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

from noetl_broker.errors import PermissionFault
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.migrations import check_rights, create_roles, missing_operator_rights
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    value,
)
from tests.docs.pages import read_page, table_rows
from tests.postgres import Database
from tests.roles import ROLES, login, logins
from tests.sessions import session

# For doctor, which people call with the broker's login; no daemon reads it.
OF_PEOPLE = {"select on noetl.pending_approvals"}
PAGE = read_page("security")

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

HELD_ON_PARTITIONS = """
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
      and has_table_privilege($1, c.oid, r.name)
"""
CHILD = """
    workflow:
      - {step: start, next: work}
      - {step: work, type: python, code: "def main(): ...", next: end}
      - {step: end}
    """
PARENT = """
    workflow:
      - {step: start, next: [call, each]}
      - {step: call, type: playbook, path: story, next: end}
      - step: each
        type: iterator
        collection: [1, 2]
        element: n
        distribute: true
        task: {type: python, args: {n: "{{ n }}"}, code: "def main(n): ..."}
        next: end
      - {step: end, result: "{{ each }}"}
    """


def _name(login: Database) -> str:
    return login.dsn.split("//")[1].partition(":")[0]


def _table() -> Iterator[tuple[str, list[str]]]:
    """Yield each object of the table of rights with its cells; a row may leave out its last cells."""
    for thing, *cells in table_rows(PAGE, "| in the schema"):
        yield thing.strip("`"), [*cells, *[""] * (len(ROLES) - len(cells))]


async def _promised(database: Database) -> dict[str, set[tuple[str, str, str]]]:
    """Return the rights of each role, with the names of Postgres."""
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
    [(kind, name)] = await rows(
        database, "select relkind::text, oid::regclass::text from pg_class where oid = $1::text::regclass", thing
    )
    return "sequence" if kind == "S" else "table", str(name)


async def test_each_role_has_exactly_the_rights_of_the_page(database: Database) -> None:
    """Object by object, with columns: `migrate --roles` revokes others and grants missing ones. PUBLIC has none."""
    await create_roles(database)
    await execute(database, "grant create on schema noetl to noetl_reader")
    await execute(database, "grant select (result), update on noetl.event to noetl_producer")
    start = "noetl.start_execution(text, jsonb, int, text, jsonb)"
    await execute(database, f"grant execute on function {start} to noetl_worker")
    await execute(database, "revoke insert on noetl.event from noetl_broker")
    await create_roles(database)
    held = {role: {*await rows(database, HELD, role)} for role in ROLES}
    assert held == await _promised(database)
    async with login(database, "no_role") as no_role:
        assert await rows(database, HELD, _name(no_role)) == []


async def test_only_the_owner_has_rights_on_partitions(database: Database) -> None:
    """Other roles read them through their tables; archived rows they cannot read."""
    await create_roles(database)
    assert await value(database, "select count(*) > 0 from pg_class where relnamespace = 'noetl_history'::regnamespace")
    assert {role: await rows(database, HELD_ON_PARTITIONS, role) for role in ROLES} == {role: [] for role in ROLES}


async def test_the_table_lists_everything_in_the_schema(database: Database) -> None:
    """A new table, view or function needs a row."""
    named = {(await _known(database, thing))[1] for thing, _ in _table()}
    there = {row[0] for row in await rows(database, THINGS)}
    assert named - {"noetl"} == there


async def test_a_broker_names_every_missing_right_at_its_start(database: Database) -> None:
    """So it does not fail later."""
    promised = await _promised(database)
    expected = {f"{right} on {name}" for kind, name, right in promised["noetl_broker"] if kind != "schema"}
    assert expected > OF_PEOPLE
    async with login(database, "poor_of") as poor:
        await execute(database, f"grant usage on schema noetl to {_name(poor)}")
        connection = await connect(poor, name="test")
        try:
            await check_rights(connection)
            message = ""
        except PermissionFault as fault:
            message = str(fault)
        finally:
            await connection.close()
    missing = re.findall(r"(select|insert|update|delete|usage|execute) on (noetl\.\w+(?:\([^)]*\))?)", message)
    assert {f"{right} on {(await _known(database, thing))[1]}" for right, thing in missing} == expected - OF_PEOPLE


async def test_doctor_names_every_right_that_an_operator_lacks(database: Database) -> None:
    """By the file that grants them."""
    promised = await _promised(database)
    expected = {f"{right} on {name}" for kind, name, right in promised["noetl_operator"] if kind != "schema"}
    async with login(database, "poor_of") as poor, session(database) as connection:
        missing = await missing_operator_rights(connection, _name(poor))
    found = [each.partition(" on ") for each in missing]
    assert {f"{right} on {(await _known(database, thing))[1]}" for right, _, thing in found} == expected


@pytest.mark.parametrize("page, role", [("run", "broker"), ("recover", "operator"), ("security", "broker")])
async def test_the_logins_of_the_pages_have_their_role(database: Database, page: str, role: str) -> None:
    """The statements of the pages make them."""
    await create_roles(database)
    name = f"{role}_1_of_{database.name}"
    [statement] = [line for line in read_page(page).splitlines() if line.startswith(f"create role {role}_1 ")]
    await execute(database, statement.replace(f"{role}_1", name))
    try:
        assert await value(database, "select pg_has_role($1, $2, 'usage')", name, f"noetl_{role}")
    finally:
        await execute(database, f"drop role {name}")


async def test_a_broker_runs_families_with_the_rights_of_its_role(database: Database) -> None:
    """It runs executions with children and items, ends one, cancels one, and verifies them."""
    await register(database, CHILD)
    await register(database, PARENT, path="family")
    done, cancelled = await start(database, "family", count=2)
    # A broker that lacks a right retries for ever.
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        logins(database) as those,
        running(those.broker, reap_seconds=0.1),
    ):
        await drain(those.broker)
        await execute(database, "select noetl.cancel_execution($1)", cancelled)
        await drain(those.broker)
        while await value(database, "select count(*) from noetl.execution where noetl.is_live(status)"):
            await complete_jobs(database, 1)
            await drain(those.broker)
        assert await broken_invariants(those.broker) == {}
    statement = (
        "select coalesce(parent_execution_id, execution_id), status, result from noetl.execution order by 1, path"
    )
    assert await rows(database, statement) == [
        (done, "COMPLETED", [1, 1]),
        (done, "COMPLETED", 1),
        (cancelled, "CANCELLED", None),
        (cancelled, "CANCELLED", None),
    ]
