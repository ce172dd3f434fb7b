"""Where an action runs in an installation with buckets.

Each place is a function of the buckets, of what is done on a connection, and of the request. Without buckets, an action
runs on its connection, and nothing here is called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from heapq import merge
from itertools import chain
from typing import Any

from noetl_broker.errors import NotFoundFault
from noetl_broker.service import paging
from noetl_broker.store.connect.bucket_connections import BucketAnswers, BucketConnections
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.places import in_their_buckets

Do = Callable[[Connection, Any], Awaitable[Any]]
Where = Callable[[BucketConnections, Do, Any], Awaitable[Any]]
Row = Mapping[str, Any]


async def by_id(buckets: BucketConnections, do: Do, given: Any) -> Any:
    """In the bucket of the execution."""
    return await buckets.of_id(given.execution_id, lambda connection: do(connection, given))


async def in_any(buckets: BucketConnections, do: Do, given: Any) -> Any:
    """In the first bucket that answers: what it asks for is the same in all."""
    return await buckets.in_any(lambda connection: do(connection, given))


async def everywhere(buckets: BucketConnections, do: Do, given: Any) -> Any:
    """In all buckets, in one transaction. They answer the same."""
    return (await buckets.everywhere(lambda connection: do(connection, given)))[0]


async def of_ids(buckets: BucketConnections, do: Do, given: Any) -> Any:
    """In the buckets of the executions: their answers by id."""

    async def ask(connection: Connection, ids: list[int]) -> Any:
        return await do(connection, given.model_copy(update={"execution_ids": ids}))

    parts = await in_their_buckets(buckets, given.execution_ids, ask)
    return {key: value for part in parts for key, value in part.items()}


async def routed(buckets: BucketConnections, do: Do, given: Any) -> Any:
    """In the schema of the installation: it calls functions that route."""
    return await buckets.in_installation(lambda connection: do(connection, given))


async def whole(buckets: BucketConnections, do: Do, given: Any) -> Any:
    """Its function takes the buckets themselves."""
    return await do(buckets, given)  # type: ignore[arg-type] # the function says that it takes a Place


def collected(collect: Callable[[Sequence[Any], Any], Any]) -> Where:
    """In all buckets at once; `collect` makes one answer of theirs, for the request."""

    async def place(buckets: BucketConnections, do: Do, given: Any) -> Any:
        answers = await buckets.in_all(lambda connection: do(connection, given))
        return with_unanswered(collect([*answers.of.values()], given), answers)

    return place


def grouped(rows: Iterable[Row], *names: str, **join: Callable[[Any, Any], Any]) -> list[dict[str, Any]]:
    """One row for all rows with the same values of `names`; `join` says how two values of another column become one."""
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        if key in found:
            found[key] |= {name: add(found[key][name], row[name]) for name, add in join.items()}
        else:
            found[key] = dict(row)
    return [*found.values()]


def least(*values: Any) -> Any:
    """The lowest of values that may be missing."""
    return min((value for value in values if value is not None), default=None)


def most(*values: Any) -> Any:
    """The highest of values that may be missing."""
    return max((value for value in values if value is not None), default=None)


async def joined(buckets: BucketConnections, do: Do, given: Any) -> Any:
    """In all buckets at once: their lists, one after the other."""
    answers = await buckets.in_all(lambda connection: do(connection, given))
    rows = chain.from_iterable(part["items"] for part in answers.of.values())
    return with_unanswered({"items": [*rows]}, answers)


def merged(*keys: str, newest_first: bool = False) -> Where:
    """In all buckets at once: their pages, merged by the parts of the list's key that are numbers.

    Two buckets have no row of the same numbers, because an id is one of them.
    """

    async def place(buckets: BucketConnections, do: Do, given: Any) -> Any:
        answers = await buckets.in_all(lambda connection: do(connection, given))
        pages = [*answers.of.values()]
        return with_unanswered(_merge(pages, keys, given.limit, sign=-1 if newest_first else 1), answers)

    return place


def _merge(pages: Sequence[Row], keys: Sequence[str], limit: int, *, sign: int) -> dict[str, Any]:
    """One page of several. A page with `next` was read down to there; the merged page ends where the first one ends."""

    def order(key: Sequence[Any]) -> list[int]:
        return [sign * part for part in key if isinstance(part, int)]

    def key_of(row: Row) -> list[Any]:
        return [row[name] for name in keys]

    end = min((paging.key_of(page["next"]) for page in pages if page["next"] is not None), key=order, default=None)
    rows = merge(*(page["items"] for page in pages), key=lambda row: order(key_of(row)))
    shown = [row for row in rows if end is None or order(key_of(row)) <= order(end)]
    if len(shown) > limit:
        shown, end = shown[:limit], key_of(shown[limit - 1])
    return {"items": shown, "next": None if end is None else paging.cursor(end)}


def chained(key: str) -> Where:
    """In one bucket after the other: their pages by a name; sorted if all rows are on the first page."""

    async def place(buckets: BucketConnections, do: Do, given: Any) -> Any:
        first, inner = _read_chained(given.cursor, buckets.count)
        rows: list[Row] = []
        found: dict[str, Any] = {}
        for number in range(first, buckets.count):
            asked = given.model_copy(update={"limit": given.limit - len(rows), "cursor": inner})
            answers = await buckets.in_all(partial(do_with, do, asked), [number])
            inner = None
            for page in answers.of.values():
                found = {**page, **found} if rows else {**found, **page}  # what else it says is of the first with rows
                rows += page["items"]
                inner = page["next"]
            found = with_unanswered(found, answers)
            if inner is not None or (len(rows) >= given.limit and number + 1 < buckets.count):
                return found | {"items": rows, "next": f"{number}:{inner}" if inner else f"{number + 1}:"}
        if given.cursor is None:
            rows.sort(key=lambda row: row[key])
        return found | {"items": rows, "next": None}

    return place


async def do_with(do: Do, given: Any, connection: Connection) -> Any:
    """Do it for another request."""
    return await do(connection, given)


def _read_chained(cursor: str | None, count: int) -> tuple[int, str | None]:
    if cursor is None:
        return 0, None
    number, colon, inner = cursor.partition(":")
    if not colon or not number.isdigit() or int(number) >= count:
        raise NotFoundFault(f"the cursor {cursor!r:.80} is not one of this list; take `next` of the page before")
    return int(number), inner or None


def with_unanswered(answer: dict[str, Any], answers: BucketAnswers) -> dict[str, Any]:
    """The answer, with the buckets that did not answer, if there are any."""
    if not answers.unanswered:
        return answer
    named = [f"{schema}: {why}" for schema, why in answers.unanswered.items()]
    return answer | {"unanswered": [*answer.get("unanswered", ()), *named]}
