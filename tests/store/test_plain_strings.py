"""With `standard_conforming_strings = off` a backslash in a string is an escape."""

from __future__ import annotations

from pathlib import Path

import noetl_broker.store.queries
from noetl_broker.store.connect.migrations import compat_noetl, migrate, migrations
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, start, value
from tests.postgres import Database
from tests.store import test_reaper

STATEMENTS = sorted(Path(noetl_broker.store.queries.__file__).with_name("sql").glob("*/*.sql"))
TEXTS = {
    **{m.name: m.text for m in (*migrations(), compat_noetl())},
    **{f.name: f.read_text(encoding="utf-8") for f in STATEMENTS},
}


async def turn_off(database: Database) -> None:
    """Turn the setting off for all new sessions."""
    await execute(database, f"alter database {database.name} set standard_conforming_strings = off")


def test_our_sql_has_no_backslash() -> None:
    """`[0-9]` and `[.]` mean the same with both settings."""
    assert [name for name, text in TEXTS.items() if "\\" in text] == []


async def test_a_cancelled_job_is_not_requeued_without_conforming_strings(database: Database) -> None:
    """The reaper finds it by the id of its node."""
    await turn_off(database)
    await test_reaper.test_the_job_of_a_cancelled_item_is_not_requeued(database)


async def test_migrate_and_verify_work_without_conforming_strings(empty_database: Database) -> None:
    """`verify` reads the limits of a playbook from its text."""
    await turn_off(empty_database)
    assert await migrate(empty_database) == [migration.name for migration in migrations()]
    await register(empty_database, test_reaper.ONE_STEP, metadata="max_visits: 99")
    await start(empty_database)
    await drain(empty_database)
    await complete_jobs(empty_database)
    await drain(empty_database)
    assert await value(empty_database, "select status from noetl.execution") == "COMPLETED"
    await execute(empty_database, """update noetl.execution set rules = (rules::jsonb || '{"max_visits": 1}')::json""")
    assert await broken_invariants(empty_database) == {}
