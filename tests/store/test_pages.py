"""Pages of executions: each row once, whatever the filter, and a bounded number of rows read."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.store.executions import Filter
from noetl_broker.store.pages import Key, page_executions
from tests.brokers import execute
from tests.postgres import Database
from tests.sessions import pooled_session

# The executions 1 to 6, of which one started a day ago, some failed, and one runs.
EXECUTIONS = """
insert into noetl.execution (execution_id, path, version, status, started_at, ended_at, error)
select noetl.first_id_at(started_at) + i, case when i = 1 then 'rare' else 'often' end, i, status, started_at,
  case when status <> 'RUNNING' then started_at end,
  case when status = 'FAILED' then jsonb_build_object('step', 'load', 'type', 'ValueError', 'message', 'no ' || i) end
from (
  select i, case when i in (1, 4) then 'FAILED' when i = 2 then 'RUNNING' else 'COMPLETED' end as status,
    clock_timestamp() - case when i = 1 then interval '1 day' else interval '10 minutes' - i * interval '1 minute' end
      as started_at
  from generate_series(1, 6) i
) made
"""


async def walk(database: Database, which: Filter, **options: Any) -> list[list[int]]:
    """Return the numbers of the executions of each page."""
    await execute(database, EXECUTIONS)
    pages: list[list[int]] = []
    after: Key | None = None
    async with pooled_session(database) as connection:
        while True:
            page = await page_executions(connection, which, after=after, **options)
            pages.append([row["version"] for row in page.items])
            after = page.next
            if after is None:
                return pages


async def test_pages_hold_each_execution_once(database: Database) -> None:
    """The newest first; a full last page has no next."""
    assert await walk(database, Filter(), limit=3) == [[6, 5, 4], [3, 2, 1]]


async def test_a_page_reads_a_bounded_number_of_rows(database: Database) -> None:
    """It may be empty while a match follows."""
    assert await walk(database, Filter(path="rare"), limit=3, read=2) == [[], [], [1], []]


@pytest.mark.parametrize(
    "which, found",
    [
        (Filter(status="FAILED"), [4, 1]),
        (Filter(status="RUNNING"), [2]),
        (Filter(status="COMPLETED", path="oft*"), [6, 5, 3]),
        (Filter(step="load"), [4, 1]),
        (Filter(error="valueerror: no 1"), [1]),
        (Filter(since=3600.0), [6, 5, 4, 3, 2]),
        (Filter(until=3600.0), [1]),
        (Filter(since=3600.0, until=390.0), [3, 2]),
    ],
)
async def test_each_filter_finds_its_executions(database: Database, which: Filter, found: list[int]) -> None:
    """Whatever index the page reads."""
    pages = await walk(database, which, limit=2)
    assert [number for page in pages for number in page] == found


@pytest.mark.parametrize(
    "text, with_values, found", [("RAR", False, [1]), ("valueerror: no 4", True, [4]), ("no 4", False, [])]
)
async def test_a_text_is_searched(database: Database, text: str, with_values: Any, found: list[int]) -> None:
    """Upper and lower case are one; messages are searched only with values."""
    assert await walk(database, Filter(), text=text, with_values=with_values, limit=9) == [found]
