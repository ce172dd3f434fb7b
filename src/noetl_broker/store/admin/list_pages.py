"""Pages of lists for the HTTP API and the console: each begins after the last row of the one before, and is bounded.

A page may hold fewer rows than asked for, or none, while more follow: its filter found no more among the rows it read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.broker.state.state import CANCELLED, FAILED, is_live
from noetl_broker.playbook.keys import LARGEST_VERSION
from noetl_broker.store.admin.approvals import in_order
from noetl_broker.store.admin.executions import Entry, Filter, as_reader, like
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.queries import sql

READ = 25_000  # rows that one page reads at most: 20 to 50 ms
BYTES_READ = 4 << 20  # of events or signals, as stored: their values are compressed
LETTERS_READ = 2_000  # their executions are read, too
SEARCHED = 10_000  # the newest executions, in which a text is searched
NEWEST = 1_000  # executions among which a page first looks for a tag
COMMON = 50_000  # executions with a tag, for which its index is not asked
FOUND = 10_000  # executions with a tag, whose ids are read at once
LARGEST = 2**63 - 1
LARGEST_TURN = 2**31 - 1
LAST_NODE = "~"  # after every node_id, which begins with a digit

Key = tuple[Any, ...]  # where the next page begins


class Page(NamedTuple):
    """Rows of a list, and the key after which the next page begins (None: there are no more)."""

    items: list[Entry]
    next: Key | None


async def page_executions(
    connection: Connection,
    which: Filter,
    *,
    text: str | None = None,
    with_values: bool = True,
    limit: int,
    after: Key | None = None,
    read: int = READ,
) -> Page:
    """Executions, the newest first, among at most `read` of them; `left_undone` counts what an end left.

    `text`: a part of id, path or step of the error; `with_values`: also of idempotency key, type or message of the
    error, and of workloads of up to 2,000 bytes. It may hold `*`.

    With `text` or an error in the filter, only the newest 10,000 executions are searched; with an error, of those that
    failed or were cancelled. Where an index finds the executions of a tag or a key, all of them are searched. A login
    that may only read the views of noetl_reader gets no `error`.
    """
    try:
        return await _page_executions(connection, which, text, after, limit, read, with_values=with_values)
    except asyncpg.InsufficientPrivilegeError:
        if text is not None or which.error is not None or which.step is not None or which.key is not None:
            raise  # no view has errors or keys
        before = None if after is None else after[0]
        rows = await as_reader(connection.fetch(*which.call("list_executions_for_readers", limit + 1, before)))
        if rows is None:
            raise
        return _page(rows, limit, "execution_id")


async def _page_executions(
    connection: Connection,
    which: Filter,
    text: str | None,
    after: Key | None,
    limit: int,
    read: int,
    *,
    with_values: bool,
) -> Page:
    since, until, latest = await _moments(connection, which)
    before = min(after[0] if after else LARGEST, LARGEST if latest is None else latest)
    asked = replace(which, since=since, until=until)
    pattern = None if text is None else like(text, anywhere=True)

    async def read_page(kind: str, read: int, oldest: int = 0, ids: list[int] | None = None) -> Page:
        own = (pattern, kind, before, read, limit + 1, oldest, with_values, ids)
        return _page(await connection.fetch(*asked.call("page_executions", *own)), limit, "execution_id")

    kind = _kind(which)
    if which.tags or _is_whole(which.key):
        if which.tags and (page := await read_page(kind, min(read, NEWEST))).next:
            return page  # a tag of many, which the newest have
        ids = await _find_indexed(connection, which)
        if ids is not None:
            return await read_page("found", read, ids=ids)
    oldest = 0
    if (text is not None or which.error is not None) and not which.tags:
        read = min(read, SEARCHED)
        oldest = await connection.fetchval(sql("page_executions_end"), kind, LARGEST, SEARCHED) or 0
    page = await read_page(kind, read, oldest)
    if page.next is None:
        end = await connection.fetchval(sql("page_executions_end"), kind, before, read)
        return page._replace(next=None if end is None or end <= oldest else (end,))
    return page


def _is_whole(key: str | None) -> bool:
    return key is not None and "*" not in key


async def _find_indexed(connection: Connection, which: Filter) -> list[int] | None:
    """The executions that a key or tags choose by their indexes, of any age; None if more than FOUND have them.

    The index reads all rows of a tag, so it is not asked where the planner expects more than COMMON.
    """
    tags = dump_json(which.tags or {})
    if _is_whole(which.key):
        statement, given = "find_by_key", which.key
    else:
        statement, given = "find_tagged", tags
        [plan] = await connection.fetchval(sql("plan_tagged"), tags)
        if plan["Plan"]["Plan Rows"] > COMMON:
            return None
    async with connection.transaction():
        await connection.execute(sql("bitmaps_alone"))
        rows = await connection.fetch(sql(statement), given, FOUND + 1)
    return None if len(rows) > FOUND else [row["execution_id"] for row in rows]


async def _moments(connection: Connection, which: Filter) -> tuple[datetime | None, datetime | None, int | None]:
    """The moments of a filter, and an id after which no execution started until then, if one is known."""
    if which.since is None and which.until is None:
        return None, None, None
    row = await connection.fetchrow(*which.call("moments_of_filter"))
    return (None, None, None) if row is None else tuple(row)


def _kind(which: Filter) -> str:
    """The index that a page of executions reads."""
    if which.status is not None and is_live(which.status):
        return "live"
    failed = which.status in {FAILED, CANCELLED} or (
        which.status is None and (which.error is not None or which.step is not None)
    )
    return "failed" if failed else "all"


async def page_playbooks(
    connection: Connection, *, path: str | None = None, limit: int, after: Key | None = None
) -> Page:
    """The latest version of each path, by path; `paused`: its new executions are queued. `path` may hold `*`."""
    rows = await connection.fetch(sql("page_playbooks"), _pattern(path), *(after or ("",)), limit + 1)
    return _page(rows, limit, "path")


async def page_versions(connection: Connection, path: str, *, limit: int, after: Key | None = None) -> Page:
    """The versions of a path, the latest first."""
    rows = await connection.fetch(sql("page_versions"), path, *(after or (LARGEST_VERSION,)), limit + 1)
    return _page(rows, limit, "version")


async def page_events(connection: Connection, execution_id: int, *, limit: int, after: Key | None = None) -> Page:
    """The events of an execution by id, each with the columns of `noetl.event`; fewer where they have large values."""
    begin = after or (0,)
    fitting = await connection.fetchval(sql("page_events_fitting"), execution_id, *begin, limit, BYTES_READ)
    limit = max(fitting, 1)  # the first event may have come meanwhile
    rows = await connection.fetch(sql("page_events"), execution_id, *begin, limit + 1)
    return _page(rows, limit, "event_id")


async def page_jobs(connection: Connection, execution_id: int, *, limit: int, after: Key | None = None) -> Page:
    """The jobs of an execution by node, also those that are done."""
    rows = await connection.fetch(sql("page_jobs"), execution_id, *(after or ("",)), limit + 1)
    return _page(rows, limit, "node_id")


async def page_items(
    connection: Connection, execution_id: int, *, status: str | None = None, limit: int, after: Key | None = None
) -> Page:
    """The iterator items of an execution by visit and index, with their children; `status`: only those with it."""
    rows = await connection.fetch(sql("page_items"), execution_id, *(after or ("", -1)), limit + 1, status)
    return _page(rows, limit, "node_id", "index")


async def page_undos(connection: Connection, execution_id: int, *, limit: int, after: Key | None = None) -> Page:
    """What an execution has to undo, in the order in which it is undone."""
    begin = after or (LARGEST_TURN, LARGEST_TURN, LAST_NODE)
    rows = await connection.fetch(sql("page_undos"), execution_id, *begin, limit + 1)
    return _page(rows, limit, "turn", "item", "node_id")


async def page_left_undone(connection: Connection, *, limit: int, after: Key | None = None) -> Page:
    """Executions that ended and left something undone, the newest first, with the numbers of visits and items."""
    rows = await connection.fetch(sql("page_left_undone"), *(after or (LARGEST,)), limit + 1)
    return _page(rows, limit, "execution_id")


async def page_approvals(
    connection: Connection,
    *,
    path: str | None = None,
    approver: str | None = None,
    for_caller: tuple[str | None, str | None] = (None, None),
    limit: int,
    after: Key | None = None,
) -> Page:
    """What waits for a person, in the order of executions; `key` is that of the start, for a login that may read it.

    `for_caller`: only what this name with this role may decide.
    """
    place = after or (0, "")
    rows = await connection.fetch(sql("page_approvals"), _pattern(path), approver, *place, limit + 1, *for_caller)
    keys: dict[int, str | None] = {}
    with suppress(asyncpg.InsufficientPrivilegeError):  # an approver reads the view alone
        of_starts = await connection.fetch(sql("keys_of_executions"), [row["execution_id"] for row in rows])
        keys = {row["execution_id"]: row["idempotency_key"] for row in of_starts}
    found = [in_order(row) | {"key": keys.get(row["execution_id"])} for row in rows]
    return _page(found, limit, "execution_id", "node_id")


async def page_signals(
    connection: Connection,
    *,
    name: str | None = None,
    key: str | None = None,
    execution_id: int | None = None,
    limit: int,
    after: Key | None = None,
) -> Page:
    """The signals that are kept, the newest first; fewer where they have large payloads."""
    begin = after or (LARGEST,)
    which = (name, key, execution_id, *begin)
    limit = max(await connection.fetchval(sql("page_signals_fitting"), *which, limit, READ, BYTES_READ), 1)
    rows = await connection.fetch(sql("page_signals"), *which, limit + 1, READ)
    page = _page(rows, limit, "signal_id")
    return page if page.next else page._replace(next=await _end(connection, "page_signals_end", begin, READ))


async def page_schedules(
    connection: Connection, *, path: str | None = None, limit: int, after: Key | None = None
) -> Page:
    """The schedules by name."""
    rows = await connection.fetch(sql("page_schedules"), _pattern(path), *(after or ("",)), limit + 1)
    return _page(rows, limit, "name")


async def page_dead_letters(
    connection: Connection,
    *,
    path: str | None = None,
    reason: str | None = None,
    limit: int,
    after: Key | None = None,
) -> Page:
    """The dead letters, those of the newest executions first. `reason`: a part of it."""
    begin = after or (LARGEST, LARGEST)
    text = None if reason is None else like(reason, anywhere=True)
    rows = await connection.fetch(sql("page_dead_letters"), _pattern(path), text, *begin, limit + 1, LETTERS_READ)
    page = _page(rows, limit, "execution_id", "event_id")
    if page.next:
        return page
    return page._replace(next=await _end(connection, "page_dead_letters_end", begin, LETTERS_READ))


async def list_workers(connection: Connection) -> list[Entry]:
    """Who holds leases: their number, those that expired, the last heartbeat, and the types of their jobs."""
    return [dict(row) for row in await connection.fetch(sql("list_workers"))]


async def page_leases(
    connection: Connection, *, worker_id: str | None = None, limit: int, after: Key | None = None
) -> Page:
    """The leases of a worker, or of all, in the order of their end."""
    rows = await connection.fetch(sql("page_leases"), worker_id, *(after or (0, 0)), limit + 1)
    return _page(rows, limit, "until_microseconds", "queue_id")


def _pattern(path: str | None) -> str | None:
    return None if path is None else like(path)


def _page(rows: list[Any], limit: int, *keys: str) -> Page:
    """The page of rows, of which one more than `limit` was asked for."""
    items = [dict(row) for row in rows[:limit]]
    return Page(items, _key(items[-1], keys) if len(rows) > limit else None)


def _key(row: Mapping[str, Any], keys: tuple[str, ...]) -> Key:
    return tuple(row[key] for key in keys)


async def _end(connection: Connection, statement: str, begin: Key, read: int) -> Key | None:
    """The key of the last row that a page read; None if it read the last of all."""
    row = await connection.fetchrow(sql(statement), *begin, read)
    return None if row is None else tuple(row)
