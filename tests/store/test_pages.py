"""Pages of executions: each row once, whatever the filter, and a bounded number of rows read."""

from __future__ import annotations

from typing import Any

from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.list_pages import Key, page_executions
from tests.brokers import execute
from tests.postgres import Database
from tests.sessions import session

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
    pages: list[list[int]] = []
    after: Key | None = None
    async with session(database) as connection:
        while True:
            page = await page_executions(connection, which, after=after, **options)
            pages.append([row["version"] for row in page.items])
            after = page.next
            if after is None:
                return pages


async def test_pages_hold_each_execution_once_and_read_a_bounded_number_of_rows(database: Database) -> None:
    """The newest first; a full last page has no next. One may be empty while a match follows."""
    await execute(database, EXECUTIONS)
    assert await walk(database, Filter(), limit=3) == [[6, 5, 4], [3, 2, 1]]
    assert await walk(database, Filter(path="rare"), limit=3, read=2) == [[], [], [1], []]
    assert await walk(database, Filter(status="FAILED"), limit=3, read=2) == [[4, 1], []]


async def test_each_filter_finds_its_executions(database: Database) -> None:
    """Whatever index the page reads."""
    await execute(database, EXECUTIONS)
    for which, found in (
        (Filter(status="FAILED"), [4, 1]),
        (Filter(status="RUNNING"), [2]),
        (Filter(status="COMPLETED", path="oft*"), [6, 5, 3]),
        (Filter(step="load"), [4, 1]),
        (Filter(error="valueerror: no 1"), [1]),
        (Filter(since=3600.0), [6, 5, 4, 3, 2]),
        (Filter(until=3600.0), [1]),
        (Filter(since=3600.0, until=419.0), [3, 2]),
    ):
        pages = await walk(database, which, limit=2)
        assert [number for page in pages for number in page] == found, which


async def test_a_text_is_searched(database: Database) -> None:
    """Upper and lower case are one; messages are searched only with values."""
    await execute(database, EXECUTIONS)
    for text, with_values, found in (("RAR", False, [1]), ("valueerror: no 4", True, [4]), ("no 4", False, [])):
        assert await walk(database, Filter(), text=text, with_values=with_values, limit=9) == [found]
