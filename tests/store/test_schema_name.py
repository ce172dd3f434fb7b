"""The name of the schema: rendered SQL, refused names, and names that derive from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from noetl_broker.errors import OperatorFault
from noetl_broker.store.connect.connection import create_pool
from noetl_broker.store.connect.dsn import Database as AnyDatabase
from noetl_broker.store.connect.migrations import create_roles, migrate
from noetl_broker.store.connect.schema_name import rendered, with_schema
from tests.brokers import rows
from tests.postgres import Database
from tests.sessions import listen, session

ROLES = ("approver", "author", "broker", "operator", "producer", "reader", "worker")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("select noetl.next_id() from noetl.event", "select orders.next_id() from orders.event"),
        ("'noetl'::regnamespace, 'noetl_history'", "'orders'::regnamespace, 'orders_history'"),
        ("listen noetl_job; pg_notify('noetl_event', '')", "listen orders_job; pg_notify('orders_event', '')"),
        ("grant usage on schema noetl to noetl_broker", "grant usage on schema orders to orders_broker"),
        ("hint = 'noetl-broker executions lists them'", "hint = 'noetl-broker executions lists them'"),
        ("pg_try_advisory_lock(hashtext('noetl.lock'), 1)", "pg_try_advisory_lock(hashtext('orders.lock'), 1)"),
        ("where a.application_name = 'noetl-broker bell'", "where a.application_name = 'noetl-broker bell orders'"),
        ('listen "noetl_2_event"', 'listen "noetl_2_event"'),
        ("create schema if not exists noetl; on noetl to", "create schema if not exists orders; on orders to"),
        ("of a NoETL server, a noetl2 or my_noetl", "of a NoETL server, a noetl2 or my_noetl"),
    ],
)
def test_sql_text_is_rendered_for_a_schema(text: str, expected: str) -> None:
    """Hints that name the program stay."""
    assert rendered(text, "orders") == expected
    assert rendered(text, "noetl") == text


def test_a_name_may_contain_a_word_of_the_text() -> None:
    """It is not rendered again. Roles are those of the installation."""
    text = "select from noetl.event; grant usage on schema noetl to noetl_broker; 'noetl', 'noetl_event'"
    for name in ("noetl_0", "noetl_event", "my_noetl"):
        expected = f"select from {name}.event; grant usage on schema {name} to orders_broker; '{name}', '{name}_event'"
        assert rendered(text, name, "orders") == expected


@pytest.mark.parametrize(
    "name",
    [
        *("", "Orders", "2nd", "my-orders", "a b", "ordé", '"x"', "x" * 33, "a\n"),
        *("orders_history", "orders_archive", "pg_x", "information_schema"),
    ],
)
def test_an_invalid_schema_name_is_refused(name: str) -> None:
    """The error names it and the allowed form."""
    with pytest.raises(OperatorFault, match="has no valid name"):
        AnyDatabase(schema=name)


def test_commands_in_a_text_name_a_renamed_schema() -> None:
    """Once each; names of connections and the default schema stay as they are."""
    text = "run noetl-broker migrate --roles, or noetl-broker explain 7; noetl-broker has noetl-broker bell"
    named = (
        "run noetl-broker migrate --roles --schema orders, or noetl-broker explain --schema orders 7;"
        " noetl-broker has noetl-broker bell"
    )
    assert with_schema(text, "orders") == with_schema(named, "orders") == named
    assert with_schema(text, "noetl") == text


async def test_migrate_refuses_a_reserved_word_as_schema(empty_database: Database) -> None:
    """The server knows its reserved words."""
    with pytest.raises(OperatorFault, match="cannot be named order, a word of SQL"):
        await migrate(replace(empty_database, schema="order"))


async def test_a_renamed_schema_holds_all_objects(empty_database: Database) -> None:
    """A name may begin with `noetl`. The schema `noetl` stays empty. Sessions and channels have its name."""
    database = replace(empty_database, schema="noetl_2")
    await migrate(database)
    assert await migrate(database) == []
    await create_roles(database)
    found = await rows(database, "select nspname::text from pg_namespace where nspname ~ '^noet' order by nspname")
    assert found == [("noetl_2",), ("noetl_2_archive",), ("noetl_2_history",)]
    roles = await rows(database, "select rolname::text from pg_roles where rolname ~ '^noet._2' order by rolname")
    assert [role for (role,) in roles] == [f"noetl_2_{name}" for name in ROLES]
    for name in ROLES:
        await rows(database, f"drop owned by noetl_{name}")
        await rows(database, f"drop role noetl_{name}")
    pool = await create_pool(database, name="test", size=1)
    async with session(database) as own, pool.acquire() as other:
        next_notification = await listen(own)
        await other.execute("select pg_notify('noetl_event', 'ours')")
        assert await next_notification() == "ours"
        assert await other.fetchval("select count(*) from noetl.event") == 0
    await pool.close()


@pytest.mark.parametrize(
    "lock",
    [
        "select (noetl.lock_slots(array['story'], array['k']))[1]",
        "select noetl.try_lock_throttle('api', 'k')",
        "select pg_try_advisory_xact_lock_shared(hashtext('noetl.lock'), 1)",
    ],
)
async def test_a_lock_in_one_schema_holds_nobody_up_in_another(empty_database: Database, lock: str) -> None:
    """Of slots, throttles, and the gate: two schemas of a database may have the same playbooks and keys."""
    first, second = (replace(empty_database, schema=schema) for schema in ("orders", "bills"))
    for database in (first, second):
        await migrate(database)
    exclusive = lock.replace("_shared", "")
    async with session(first) as one, session(first) as same, session(second) as other, one.transaction():
        assert await one.fetchval(exclusive)
        assert not await same.fetchval(lock)
        assert await other.fetchval(lock)
