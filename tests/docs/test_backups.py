"""The backups of docs/how-to/recover.md can be taken and restored, and brokers continue from them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

from noetl_broker.embedded_postgres.binaries import find_bin_folder
from tests.brokers import broken_invariants, drain, running, start, until_ended, value
from tests.chaos.under_load import finish_all, prepare
from tests.docs.pages import code_blocks, read_page
from tests.docs.runner import PageRun
from tests.periods import drop_periods
from tests.postgres import Database, psycopg_connect

WHOLE, DATA = [block for block in code_blocks(read_page("recover"), "sh") if "pg_dump" in block]
COUNTED = ("event", "inbox", "execution", "turn", "queue", "catalog", "workflow", "transition", "workload")
AFTER_MIGRATE = re.compile(r"(?=^PGOPTIONS)", re.MULTILINE)


@pytest.fixture
def restored(database: Database) -> Iterator[Database]:
    """Yield a database that does not exist yet, and drop it afterwards."""
    name = f"restored_{database.name}"
    yield Database(name=name, dsn=f"{database.dsn.rpartition('/')[0]}/{name}")
    with psycopg_connect(database, autocommit=True) as connection:
        connection.execute(f"drop database if exists {name} with (force)")


async def _at_work(database: Database) -> None:
    """Make executions that ended, that run, and that no broker has read."""
    await prepare(database)
    async with running(database):
        await start(database, count=5)
        await finish_all(database)
    await start(database, count=3)
    await drain(database)
    await start(database, count=2)


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


@pytest.mark.parametrize("commands", [WHOLE, DATA], ids=["whole", "data alone"])
async def test_a_dump_can_be_restored(reader: PageRun, database: Database, restored: Database, commands: str) -> None:
    """The whole into an empty database; data alone into a schema without the dump's partitions."""
    await _at_work(database)
    before, *after = AFTER_MIGRATE.split(_here(commands, database, restored))
    reader.decides = False
    await asyncio.to_thread(reader.run, before)
    if after:
        await drop_periods(restored)
        await asyncio.to_thread(reader.run, *after)
    await _goes_on(database, restored)
