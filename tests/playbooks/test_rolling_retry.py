"""The example import_orders fails without its table; then the commands of docs/how-to/cookbook.md retry all."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

from tests.brokers import rows, start, until_ended, value
from tests.cli.conftest import Command
from tests.playbooks.outside import prepare
from tests.playbooks.test_examples import everything_running
from tests.postgres import Database
from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "how-to" / "cookbook.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
[COMMANDS] = [block.splitlines() for block in BLOCKS if "noetl-broker retry" in block]


async def test_failed_executions_are_retried_after_the_fix(database: Database, tmp_path: Path) -> None:
    """Each goes on at its failed step: what was fetched is not fetched again."""
    command = Command(tmp_path, database.dsn)
    async with everything_running(database):
        for day in ("2026-11-26", "2026-11-27"):
            await start(database, "examples/import_orders", {"day": day})
        await until_ended(database)
        assert await value(database, "select count(*) from noetl.execution where status = 'FAILED'") == 2
        await prepare(database, "import_orders")
        for line in COMMANDS:
            answer = await asyncio.to_thread(command, *shlex.split(line)[1:])
            assert answer.exit_code == 0, answer.output
        await until_ended(database)
    assert await rows(database, "select day::text, amount from shop.sales order by day") == [
        ("2026-11-26", 42),
        ("2026-11-27", 42),
    ]
    assert await value(database, "select count(*) from noetl.queue where node_name = 'fetch'") == 2
