"""The backups of docs/recover.md can be taken and restored, and brokers continue from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from noetl_broker.embedded_postgres.binaries import find_bin_folder
from tests.brokers import broken_invariants, running, start, until_ended, value
from tests.chaos.under_load import finish_all, prepare
from tests.docs.pages import code_blocks, read_page
from tests.docs.shell import run_script
from tests.periods import copy_periods, drop_periods
from tests.postgres import Database

WHOLE, DATA = [block for block in code_blocks(read_page("recover"), "sh") if "pg_dump" in block]
COUNTED = ("event", "inbox", "execution", "turn", "queue", "catalog", "workflow", "transition", "workload")
AFTER_MIGRATE = re.compile(r"(?=^PGOPTIONS)", re.MULTILINE)


@pytest.fixture
def restored(database: Database, maintenance: psycopg.Connection) -> Iterator[Database]:
    """Yield a database that does not exist yet, and drop it afterwards."""
    name = f"restored_{database.name}"
    yield Database(name=name, dsn=f"{database.dsn.rpartition('/')[0]}/{name}")
    maintenance.execute(f"drop database if exists {name} with (force)".encode())


async def _at_work(database: Database) -> None:
    """Make executions that ended, that run, and that no broker has read."""
    await prepare(database)
    async with running(database):
        await start(database, count=5)
        await finish_all(database)
        await start(database, count=3)
        await finish_all_but_jobs(database)
    await start(database, count=2)


async def finish_all_but_jobs(database: Database) -> None:
    """Wait until the inbox is empty."""
    while await value(database, "select count(*) from noetl.inbox"):
        pass


def _here(commands: str, database: Database, restored: Database) -> str:
    """Return the commands of the page for the databases of this test."""
    folder, where = find_bin_folder(), database.dsn.rpartition("/")[0]
    commands = commands.replace("postgresql://owner:…@host/other", restored.dsn)
    commands = re.sub(r"^createdb \w+", f"psql --dbname {database.dsn} --command 'create database {restored.name}'",
                      commands, flags=re.MULTILINE)  # fmt: skip
    commands = re.sub(r"--dbname (restored|other)", f"--dbname {restored.dsn}", commands)
    commands = re.sub(r"(\.dump) noetl$", rf"\1 {where}/{database.name}", commands, flags=re.MULTILINE)
    return re.sub(r"(pg_dump|pg_restore|psql) --", rf"{folder}/\1 --", commands)


async def _goes_on(database: Database, restored: Database) -> None:
    """Assert that all rows are there, and that a broker ends each execution once."""
    for table in COUNTED:
        count = f"select count(*) from noetl.{table}"
        assert (table, await value(restored, count)) == (table, await value(database, count))
    async with running(restored):
        await start(restored)
        while await value(restored, "select count(*) from noetl.execution where status = 'COMPLETED'") < 11:
            await finish_all(restored)
        await until_ended(restored)
    assert await broken_invariants(restored) == {}


async def test_a_whole_dump_can_be_restored(database: Database, restored: Database, tmp_path: Path) -> None:
    """Into an empty database."""
    await _at_work(database)
    run_script(_here(WHOLE, database, restored), tmp_path)
    await _goes_on(database, restored)


async def test_a_dump_of_data_alone_can_be_restored(database: Database, restored: Database, tmp_path: Path) -> None:
    """The schema has none of the dump's partitions."""
    await _at_work(database)
    before, after = AFTER_MIGRATE.split(_here(DATA, database, restored))
    run_script(before, tmp_path)
    await drop_periods(restored)
    run_script(after, tmp_path)
    await _goes_on(database, restored)


async def test_disable_triggers_is_enough_for_the_same_partitions(
    database: Database, restored: Database, tmp_path: Path
) -> None:
    """Without `--load-via-partition-root`."""
    await _at_work(database)
    commands = _here(DATA, database, restored).replace("--load-via-partition-root ", "")
    before, after = AFTER_MIGRATE.split(commands)
    run_script(before, tmp_path)
    await copy_periods(database, restored)
    after = re.sub(r"^PGOPTIONS.*\n", "", after, flags=re.MULTILINE)
    run_script(after.replace("--data-only", "--data-only --disable-triggers"), tmp_path)
    await _goes_on(database, restored)


async def test_data_cannot_be_restored_with_triggers_on(database: Database, restored: Database, tmp_path: Path) -> None:
    """The restore ends with the error that the page names."""
    await _at_work(database)
    commands = _here(DATA, database, restored)
    with pytest.raises(AssertionError, match='duplicate key value violates unique constraint "inbox_pkey"'):
        run_script(re.sub(r"^PGOPTIONS.*$", "env \\\\", commands, flags=re.MULTILINE), tmp_path)
