"""The backups of docs/operations.md are taken and restored as the page says, and brokers go on from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from noetl_broker.store.binaries import find_bin_folder
from tests.brokers import broken_invariants, execute, rows, running, start, until_ended, value
from tests.chaos.under_load import finish_all, prepare
from tests.docs.shell import blocks, run_script
from tests.postgres import Database
from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
[SECTION] = re.findall(r"^## Backups\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
WHOLE, DATA = blocks(SECTION)
COUNTED = ("event", "inbox", "execution", "turn", "queue", "catalog", "workflow", "transition", "workload")
AFTER_MIGRATE = re.compile(r"(?=^PGOPTIONS)", re.MULTILINE)


@pytest.fixture
def restored(database: Database, maintenance: psycopg.Connection) -> Iterator[Database]:
    """Yield where the restored database will be, and drop it afterwards."""
    name = f"restored_{database.name}"
    yield Database(name=name, dsn=f"{database.dsn.rpartition('/')[0]}/{name}")
    maintenance.execute(f"drop database if exists {name} with (force)".encode())


async def _at_work(database: Database) -> None:
    """Have executions that ended, that run, and that nobody has read yet."""
    await prepare(database)
    async with running(database):
        await start(database, count=5)
        await finish_all(database)
        await start(database, count=3)
        await finish_all_but_jobs(database)
    await start(database, count=2)


async def finish_all_but_jobs(database: Database) -> None:
    """Wait until all mail is read."""
    while await value(database, "select count(*) from noetl.inbox"):
        pass


def _here(commands: str, database: Database, restored: Database) -> str:
    """The commands of the page on the databases of this test."""
    folder, where = find_bin_folder(), database.dsn.rpartition("/")[0]
    commands = commands.replace("postgresql://owner:…@host/other", restored.dsn)
    commands = re.sub(r"^createdb \w+", f"psql --dbname {database.dsn} --command 'create database {restored.name}'",
                      commands, flags=re.MULTILINE)  # fmt: skip
    commands = re.sub(r"--dbname (restored|other)", f"--dbname {restored.dsn}", commands)
    commands = re.sub(r"(\.dump) noetl$", rf"\1 {where}/{database.name}", commands, flags=re.MULTILINE)
    return re.sub(r"(pg_dump|pg_restore|psql) --", rf"{folder}/\1 --", commands)


async def _goes_on(database: Database, restored: Database) -> None:
    """All rows are there, and a broker finishes what was under way, once."""
    for table in COUNTED:
        count = f"select count(*) from noetl.{table}"
        assert (table, await value(restored, count)) == (table, await value(database, count))
    async with running(restored):
        await start(restored)
        while await value(restored, "select count(*) from noetl.execution where status = 'COMPLETED'") < 11:
            await finish_all(restored)
        await until_ended(restored)
    assert await broken_invariants(restored) == {}


async def test_a_dump_of_all_is_restored(database: Database, restored: Database, tmp_path: Path) -> None:
    """Into an empty database."""
    await _at_work(database)
    run_script(_here(WHOLE, database, restored), tmp_path)
    await _goes_on(database, restored)


async def test_a_dump_of_the_data_is_restored(database: Database, restored: Database, tmp_path: Path) -> None:
    """Into a schema that was migrated in another month: it has none of the partitions."""
    await _at_work(database)
    before, after = AFTER_MIGRATE.split(_here(DATA, database, restored))
    run_script(before, tmp_path)
    for (name,) in await rows(restored, "select name from noetl.period"):
        for (table,) in await rows(restored, PARTITIONS, name):
            await execute(restored, f"drop table noetl_history.{table}")
        await execute(restored, "delete from noetl.period where name = $1", name)
    run_script(after, tmp_path)
    await _goes_on(database, restored)


async def test_without_its_root_disable_triggers_is_enough(
    database: Database, restored: Database, tmp_path: Path
) -> None:
    """Where the schema has the same partitions."""
    await _at_work(database)
    commands = _here(DATA, database, restored).replace("--load-via-partition-root ", "")
    commands = re.sub(r"^PGOPTIONS.*\n", "", commands, flags=re.MULTILINE)
    run_script(commands.replace("--data-only", "--data-only --disable-triggers"), tmp_path)
    await _goes_on(database, restored)


async def test_data_with_triggers_is_refused(database: Database, restored: Database, tmp_path: Path) -> None:
    """As the page warns."""
    await _at_work(database)
    commands = _here(DATA, database, restored)
    with pytest.raises(AssertionError, match='duplicate key value violates unique constraint "inbox_pkey"'):
        run_script(re.sub(r"^PGOPTIONS.*$", "env \\\\", commands, flags=re.MULTILINE), tmp_path)


PARTITIONS = """
select c.relname::text
from pg_class c
where c.relnamespace = 'noetl_history'::regnamespace
  and c.relkind = 'r'
  and c.relname like '%\\_' || $1"""
