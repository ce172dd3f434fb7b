"""Checks an edited playbook, and compares recorded executions with it."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Final

from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.service.check import CheckedFile, with_calls
from noetl_broker.service.comparisons import Comparisons, compared_paths
from noetl_broker.service.histories import read_histories
from noetl_broker.store.admin import executions, list_pages
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.connect.connection import Connection

FILE: Final = "playbook.yaml"  # the name of a text in findings


async def check_text(connection: Connection, content: str, rules: PlaybookRules) -> CheckedFile:
    """Check a text as a registration does, with the step types and the playbooks of the catalog."""
    file = CheckedFile(FILE, content.encode(errors="surrogatepass"), ())
    [found] = await with_calls(connection, [file], replace(rules, any_step_type=False))
    return found


async def back_test(
    connection: Connection,
    checked: CheckedFile,
    which: Filter,
    rules: PlaybookRules,
    *,
    limit: int,
    ways_only: bool = False,
) -> Comparisons:
    """Compare the newest executions with a text that has no errors; without a path in the filter, those of its path."""
    playbook = compile_playbook(checked.source, file=FILE, rules=rules.of_registered())
    chosen: list[int] = []
    for path in compared_paths(playbook, which.path):
        found = await list_pages.page_executions(connection, replace(which, path=path), limit=limit)
        chosen += [row["execution_id"] for row in found.items]
    ids = await executions.with_turns(connection, sorted(chosen, reverse=True)[:limit])
    comparisons = Comparisons(playbook, ways_only=ways_only)
    async with aclosing(read_histories(connection, ids, rules)) as parts:
        async for part in parts:
            comparisons.take(part)
    return comparisons
