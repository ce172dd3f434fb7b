"""Sums of executions by hour, playbook and step: written for hours that are over, and read with what came since.

A sum is a row of `noetl.figure`. No turn writes it. A page reads sums, and at most READ executions beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

READ = 10_000  # newest executions that a page reads
SUMMED = 10_000_000  # executions of one hour
SAMPLED = 1_000  # executions of one version in one hour, whose steps are read for a sum
SHOWN = 200  # the same for a page
HOUR, KEPT = timedelta(hours=1), timedelta(days=60)


class Figures(NamedTuple):
    """What is known of a time.

    `rows` are as in `noetl.figure`. `missing` are hours whose executions are neither summed nor read.
    `live` counts live executions up to 10,000.
    """

    since: datetime
    until: datetime
    read_at: datetime
    rows: list[Mapping[str, Any]]
    missing: list[datetime]
    live: int


class Asked(NamedTuple):
    """Which sums: of all playbooks, or of one path; `since` and `until` are moments or seconds before now."""

    since: datetime | float
    until: datetime | None = None
    path: str | None = None
    version: int | None = None


async def load_figures(connection: Connection, asked: Asked, *, before: timedelta) -> Figures:
    """The sums of a time, in whole hours, with steps if it is one path.

    `before`: rows without a step begin so much earlier.
    """
    moment, seconds = (asked.since, None) if isinstance(asked.since, datetime) else (None, asked.since)
    bounds = await connection.fetchrow(sql("bounds_of_figures"), moment, seconds, READ, asked.path)
    assert bounds is not None  # noqa: S101 - the statement gives one row
    read_at = bounds["read_at"]
    since, until = whole_hour(max(bounds["since"], read_at - KEPT)), min(asked.until or read_at, read_at)
    fetch_until = max(until, since)
    listed = await connection.fetch(
        sql("list_figures"), since - before, fetch_until, asked.path or "", asked.version, asked.path is not None, since
    )
    rows: list[Mapping[str, Any]] = [dict(row) for row in listed]
    known = {row["hour"] for row in await connection.fetch(sql("summed_hours"), since, fetch_until)}
    read_since = max(bounds["summed_until"] or since, since)
    if fetch_until > read_since and bounds["first_at"] is not None:
        whole_since = bounds["whole_since"]
        read_since = read_since if whole_since is None else max(read_since, whole_since)
        steps = 0 if asked.path is None else SHOWN
        read = await connection.fetch(sql("read_figures"), read_since, fetch_until, READ, steps, asked.path)
        rows += [row for row in map(dict, read) if _fits(row, asked)]
    first = whole_hour(max(since, bounds["first_at"] or read_at))
    hours = (first + HOUR * number for number in range(int((fetch_until - first) / HOUR) + 1))
    missing = [hour for hour in hours if hour not in known and hour < min(read_since, fetch_until)]
    return Figures(since, until, read_at, rows, missing, bounds["live"])


def whole_hour(moment: datetime) -> datetime:
    """The begin of the hour of a moment."""
    return moment.replace(minute=0, second=0, microsecond=0)


def _fits(row: Mapping[str, Any], asked: Asked) -> bool:
    return row["path"] == (asked.path or "") and asked.version in {None, row["version"]}


async def sum_due_hours(connection: Connection, *, most: int) -> int:
    """Sum hours that are over, the newest first, each in its transaction; returns how many. One session does it."""
    summed = 0
    async with connection.transaction():
        due = [row["at"] for row in await connection.fetch(sql("due_hours"), most)]
    for hour in due:
        async with connection.transaction():
            if not await connection.fetchval(sql("lock_figures")):
                return summed
            await connection.execute(sql("sum_figures"), hour, hour + HOUR, SUMMED, SAMPLED, None)
            await connection.execute(sql("mark_summed"), hour)
        summed += 1
    return summed


async def delete_old_figures(connection: Connection) -> None:
    """Delete sums that are older than 61 days."""
    await connection.execute(sql("delete_old_figures"))
