"""Tags: what a start, a playbook and a family write, and what a list finds by them."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.store.admin import list_pages
from noetl_broker.store.admin.executions import Filter, search_executions
from noetl_broker.store.admin.list_pages import Key, page_executions
from noetl_broker.store.queries import sql
from tests.brokers import drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import refused, session

CALLS = """
workload: {customer: 7}
workflow:
- {step: start, next: call}
- {step: call, type: playbook, path: child}
"""
ENDS = """
workload: {part: a}
workflow:
- {step: start, next: end}
- {step: end}
"""
START = "select noetl.start_execution('story', '{}', null, null, $1::jsonb)"


async def tags_of(database: Database) -> dict[str, Any]:
    """Return the tags of the last execution of each path."""
    return dict(await rows(database, "select path, tags from noetl.execution order by execution_id"))


async def test_a_start_writes_its_tags_as_text(database: Database) -> None:
    """One start or many. Without tags the row has none, and enters no index of them."""
    await register(database, ENDS)
    given = {"tags": {"customer": 7, "rush": True, "rate": 1.5, "region": "eu", "empty": ""}}
    written = {"customer": "7", "rush": "true", "rate": "1.5", "region": "eu", "empty": ""}
    await execute(database, START, given)
    assert await tags_of(database) == {"story": written}
    await execute(database, "select noetl.start_executions('story', '{\"{}\"}', null, null, $1::jsonb)", given)
    assert await tags_of(database) == {"story": written}
    without: tuple[Any, ...] = ({}, {"tags": {}}, {"tags": None}, None)
    for none in without:
        await execute(database, START, none)
        assert await tags_of(database) == {"story": None}
    await drain(database)
    assert await value(database, "select count(*) from noetl.execution where tags = $1::jsonb", written) == 2


@pytest.mark.parametrize(
    "options,message",
    [
        ({"tags": {"Customer": 7}}, "the tag Customer has a wrong name"),
        ({"tags": {"": 7}}, "the tag  has a wrong name"),
        ({"tags": {"customer": None}}, "the tag customer is a JSON null; it must be text"),
        ({"tags": {"customer": [7]}}, "the tag customer is a JSON array; it must be text"),
        ({"tags": {"customer": "x" * 257}}, "the tag customer has 257 characters; the limit is 256"),
        ({"tags": {f"t{number}": 1 for number in range(17)}}, "17 tags are too many; the limit is 16"),
        ({"tags": ["customer"]}, "the tags are a JSON array, not an object"),
        ({"tag": {"customer": 7}}, "a start has no option tag"),
    ],
    ids=["upper", "empty", "null", "array", "long", "many", "no-object", "unknown"],
)
async def test_a_wrong_tag_is_named(database: Database, options: Any, message: str) -> None:
    """Nothing starts."""
    await register(database, ENDS)
    async with refused("NB400", message):
        await execute(database, START, options)
    assert await value(database, "select count(*) from noetl.execution") == 0


async def test_a_repeated_start_keeps_the_tags_of_the_first(database: Database) -> None:
    """They are no part of what its idempotency key means."""
    await register(database, ENDS)
    keyed = "select noetl.start_execution('story', '{}', null, 'k', $1::jsonb)"
    first = await value(database, keyed, {"tags": {"a": 1}})
    assert await value(database, keyed, {"tags": {"a": 2}}) == first
    assert await tags_of(database) == {"story": {"a": "1"}}


async def test_a_family_has_the_tags_of_its_parent(database: Database) -> None:
    """A child and an alarm have their own too, which win. A fork keeps all. An end in the first turn writes them."""
    metadata = 'tags: {customer: "{{ workload.customer }}"}, on_failure: {path: alarm}'
    await register(database, CALLS, metadata=metadata)
    await register(database, ENDS, path="child", metadata='tags: {part: "{{ workload.part }}", region: child}')
    await register(database, ENDS, path="alarm")
    execution_id = await value(database, START, {"tags": {"region": "eu"}})
    await drain(database)
    parent = {"customer": "7", "region": "eu"}
    assert await tags_of(database) == {"story": parent, "child": {"customer": "7", "part": "a", "region": "child"}}
    plan = '{"visits": {}, "results": [], "anew": true}'
    await execute(database, "select noetl.fork_execution($1, $2::text::jsonb)", execution_id, plan)
    assert (await tags_of(database))["story"] == parent
    [other] = await start(database, payload={"customer": 8})
    await execute(database, "select noetl.cancel_execution($1)", other)
    await register(database, CALLS.replace("path: child", "path: nowhere"), metadata=metadata, version=2)
    await start(database, payload={"customer": 9})
    await drain(database)
    assert (await tags_of(database))["alarm"] == {"customer": "9"}


async def test_a_schedule_gives_its_tags_to_what_it_starts(database: Database) -> None:
    """The same options change nothing; a wrong tag is refused when it is put."""
    await register(database, ENDS)
    put = "select noetl.put_schedule('s', 'story', every => '1 hour', options => $1::jsonb)"
    assert [await value(database, put, {"tags": {"job": "nightly"}}) for _ in range(2)] == [True, False]
    await execute(database, "select noetl.start_scheduled('s', '2030-01-01T00:00Z', 'x', false)")
    assert await tags_of(database) == {"story": {"job": "nightly"}}
    async with refused("NB400", "the tag Job has a wrong name"):
        await execute(database, put, {"tags": {"Job": 1}})
    async with refused("NB400", "its options have a bucket_key"):
        await execute(database, put, {"bucket_key": "b"})


async def fill(database: Database) -> None:
    """Make 60 executions: 1 to 10 are old, every third is of the region eu, 7 and 21 are of a customer."""
    await execute(
        database,
        """
        insert into noetl.catalog (path, version, content) values ('often', 1, 'x');
        insert into noetl.execution (execution_id, path, version, status, idempotency_key, tags)
        select n, 'often', n, case when n % 2 = 0 then 'FAILED' else 'COMPLETED' end, 'order ' || n,
          nullif(jsonb_strip_nulls(jsonb_build_object(
            'region', case when n % 3 = 0 then 'eu' end, 'customer', case when n in (7, 21) then '7' end,
            'year', case when n <= 10 then '2020' end
          )), '{}')
        from generate_series(1, 60) n;
        insert into noetl.start_key (idempotency_key, path, execution_id)
        select idempotency_key, path, execution_id from noetl.execution
        """,
    )


async def walk(database: Database, which: Filter, **options: Any) -> list[int]:
    """Return the numbers of the executions of all pages."""
    found: list[int] = []
    after: Key | None = None
    async with session(database) as connection:
        while True:
            page = await page_executions(connection, which, after=after, limit=3, **options)
            found += [row["version"] for row in page.items]
            if page.next is None:
                return found
            after = page.next


@pytest.mark.parametrize("found", [10_000, 5], ids=["by-index", "by-pages"])
async def test_a_list_finds_all_with_a_tag_or_a_key(
    database: Database, monkeypatch: pytest.MonkeyPatch, found: int
) -> None:
    """Whether its index gives all ids, or there are too many of them. A rare one is found beyond a page's rows."""
    await fill(database)
    monkeypatch.setattr(list_pages, "FOUND", found)
    monkeypatch.setattr(list_pages, "NEWEST", 2)
    for which, numbers in (
        (Filter(tags={"region": "eu"}), [*range(60, 0, -3)]),
        (Filter(tags={"region": "eu"}, status="FAILED"), [*range(60, 0, -6)]),
        (Filter(tags={"customer": "7"}), [21, 7]),
        (Filter(tags={"customer": "7", "region": "eu"}), [21]),
        (Filter(tags={"customer": "8"}), []),
        (Filter(tags={"year": "2020"}), [*range(10, 0, -1)]),
        (Filter(tags={"customer": "7"}, key="order 2*"), [21]),
        (Filter(key="order 7"), [7]),
        (Filter(key="order 7", tags={"region": "eu"}), []),
        (Filter(key="*r 5*", status="FAILED"), [58, 56, 54, 52, 50]),
    ):
        assert await walk(database, which, read=7) == numbers, which
        async with session(database) as connection:
            some = await search_executions(connection, which, statuses=["FAILED", "COMPLETED"], limit=100)
        assert [row["version"] for row in some] == numbers[::-1], which


async def test_a_tag_is_found_by_its_index(database: Database) -> None:
    """Also where the planner believes that most rows have it."""
    await fill(database)
    await execute(database, "analyze noetl.execution")
    async with session(database) as own, own.transaction():
        await own.execute(sql("bitmaps_alone"))
        asked = sql("find_tagged").replace("$1", '\'{"region": "eu"}\'').replace("$2", "10001")
        plan = "\n".join(row[0] for row in await own.fetch(f"explain {asked}"))
    assert "Bitmap Index Scan on execution_tags" in plan
