"""docs/how-to/troubleshoot.md: its statements run, and `explain` and `doctor` print what it shows."""

from __future__ import annotations

import itertools
import re

from tests.brokers import running
from tests.chaos.under_load import until
from tests.docs.pages import code_blocks, read_page
from tests.docs.runner import PageRun
from tests.postgres import Database

PAGE = read_page("troubleshoot")
STATEMENTS = code_blocks(PAGE, "sql")
WEATHER = next(block for block in code_blocks(PAGE, "yaml") if block.startswith("workload: {limit"))
GET = "noetl.complete_job(queue_id, 'w1', attempts, '{\"temp\": 31, \"ok\": false}')"
LOG = "noetl.complete_job(queue_id, 'w1', attempts, '1')"


def answer(reader: PageRun, step: str, call: str) -> None:
    """Lease the job of a step, and end it by a call of a function."""
    types = f"(select array_agg(node_type) from noetl.queue where node_name = '{step}')"
    reader.sql(f"select {call} from noetl.lease_jobs('w1', 1, 60, {types})")


def test_an_execution_that_waits_is_explained_as_shown(reader: PageRun) -> None:
    """It waits at a join; a condition was false. The statements find its job, its turns and that condition."""
    reader.register(WEATHER, "examples/weather")
    execution = reader.start("examples/weather")
    answer(reader, "get", GET)
    answer(reader, "log", LOG)
    reader.sql("select noetl.lease_jobs('w7', 1, 3600, array['http'])")
    reader.calls_of(PAGE)
    reader.ids = itertools.repeat(execution)
    checks, shown = reader.calls.pop(0)
    assert checks == "noetl-broker doctor"
    reader.shown("noetl-broker explain")
    reader.shown("noetl-broker explain")
    reader.shown("noetl-broker explain")
    assert reader.calls == []
    found = [reader.sql(statement.replace(":id", execution))[0] for statement in STATEMENTS]
    inbox, [job], [state], turns, conditions, dead_letters, gate = found
    assert (inbox, dead_letters, gate) == ([], [], [])
    assert (job[0], job[2], state[0], [turn[0] for turn in turns]) == ("news", "leased", 3, [1, 2, 3])
    assert ("{{ get.temp > limit and get.ok }}", "false", "[]") in [row[1:] for row in conditions]
    printed = _checks(reader.command("doctor").stdout)
    assert [check for check in printed if check in _checks(shown)] == [
        each for each in _checks(shown) if each != "pooler"
    ], printed


def _checks(printed: str) -> list[str]:
    """Return the names of what `doctor` checks, in order, each once."""
    found = re.findall(r"^(?:ok|notice|problem) +(\w+(?: \w+)*?)(?:  |$)", printed, re.MULTILINE)
    return [*dict.fromkeys(found)]


async def test_the_statement_about_sleeping_brokers_finds_one(database: Database) -> None:
    """A sleeping broker holds the gate."""
    [statement] = [statement for statement in STATEMENTS if "pg_locks" in statement]
    names = f"select application_name from ({statement.strip().removesuffix(';')}) s"
    async with running(database):
        await until(database, f"select 'noetl-broker bell' in ({names})")
