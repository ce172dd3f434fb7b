"""docs/scaling.md: its commands and statements run, and defaults and table names are those of the program."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from noetl_broker.cli.run import LANES, LANES_OF_SEVERAL
from noetl_broker.embedded_postgres.binaries import find_bin_folder
from noetl_broker.settings import Settings
from tests.cli.conftest import execute, rows
from tests.docs.shell import blocks, run_script
from tests.periods import LONG_AGO, ended_in, partitions
from tests.postgres import Database
from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
[SIZE] = blocks(PAGE, "sql")
DRY_RUN, BY_HAND = blocks(PAGE)
[RESTORE] = re.findall(r"`(noetl-broker archive --restore \d+)`", PAGE)
PERIOD = RESTORE.split()[-1]  # the page's; the test has one that is over on any day


def test_the_statement_gives_the_size_of_an_execution(database: Database) -> None:
    """On disk, with indexes."""
    asyncio.run(ended_in(database, LONG_AGO))
    [(size,)] = rows(database, SIZE)
    assert re.fullmatch(r"\d+ (kB|MB)", size)


def test_a_period_is_archived_restored_and_dropped(database: Database, tmp_path: Path) -> None:
    """With the commands of the page."""
    asyncio.run(ended_in(database, LONG_AGO))
    execute(database, "update noetl.execution set ended_at = ended_at - interval '91 days'")
    leave = DRY_RUN.replace(" --dry-run", "")
    assert "would leave" in run_script(DRY_RUN, tmp_path, database).stdout
    assert "left now" in run_script(leave, tmp_path, database).stdout
    back = run_script(RESTORE.replace(PERIOD, LONG_AGO), tmp_path, database).stdout
    assert back == f"period {LONG_AGO} is back, 12 tables\n"
    run_script(leave, tmp_path, database)
    for program in ("pg_dump", "psql"):
        assert BY_HAND.count(f"{program} ") == 1
    by_hand = BY_HAND.replace(PERIOD, LONG_AGO).replace(", …", "")
    here = re.sub(r"^(\w+)", rf"{find_bin_folder()}/\1 --dbname '{database.dsn}'", by_hand, flags=re.MULTILINE)
    run_script(here, tmp_path, database)
    assert (tmp_path / "archive.dump").read_bytes().startswith(b"PGDMP")
    left = asyncio.run(partitions(database, "noetl_archive", LONG_AGO))
    assert left == [
        "iteration",
        "log",
        "queue",
        "signal_taken",
        "transition",
        "undo",
        "wait",
        "workbook",
        "workflow",
        "workload",
    ]


def test_the_defaults_are_those_of_the_program() -> None:
    """Days of a period, and connections of a process."""
    fields = Settings.model_fields
    assert f"A period has `period_days` days ({fields['period_days'].default})" in PAGE
    by_default = f"({LANES + 4} by default, {LANES_OF_SEVERAL + 4} where `--processes` starts several)"
    assert f"`lanes` + 4 for each process {by_default}" in PAGE


async def test_the_page_lists_the_partitioned_tables(database: Database) -> None:
    """In the section about periods."""
    [named] = re.findall(r"The tables of history \((.*?)\)", PAGE, re.DOTALL)
    [(period,)] = await asyncio.to_thread(rows, database, "select min(name) from noetl.period")
    assert sorted(re.findall(r"`(\w+)`", named)) == await partitions(database, "noetl_history", period)
