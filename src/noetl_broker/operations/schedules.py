"""Schedules as documents: their next moments, and the past moments that a backfill starts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any, NamedTuple

from noetl_broker.errors import BrokerError, DatabaseFault, OperatorFault
from noetl_broker.operations.bulk import Acted
from noetl_broker.operations.spans import parse_since, parse_until
from noetl_broker.playbook.cron import Timing
from noetl_broker.store.admin import schedules as store
from noetl_broker.store.connect.connection import Connection
from noetl_broker.text import moment

MOST_MOMENTS = 100_000  # that one backfill looks at


class Backfill(NamedTuple):
    """Past moments of a schedule: all moments, and the moments without an execution."""

    name: str
    timing: Timing
    moments: list[datetime]
    missing: list[datetime]


@contextlib.contextmanager
def operator_faults() -> Iterator[None]:
    """Raise OperatorFault for a bad timing, or a bad time."""
    try:
        yield
    except ValueError as error:
        raise OperatorFault(str(error)) from error


def next_moments(row: Mapping[str, Any], count: int) -> list[str]:
    """The moments of a schedule after now; moments that are due now are not listed."""
    with operator_faults():
        timing = store.timing_of(row)
    return [store.moment_text(timing, at) for at in islice(timing.moments(row["now"]), count)]


def schedule_as_document(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for programs: spans in seconds."""
    return {
        key: value.total_seconds() if isinstance(value, timedelta) else value
        for key, value in row.items()
        if key not in {"now", "due_at", "since_at"}
    }


async def plan_backfill(connection: Connection, name: str, since: str, until: str | None) -> Backfill:
    """The moments of a schedule between two times as people write them; `until` None: now.

    A time without an offset is of the schedule's zone; a date as `until` includes that day. Raises OperatorFault.
    """
    row = await store.find_schedule(connection, name)
    now: datetime = row["now"]
    with operator_faults():
        timing = store.timing_of(row)
        zone = timing.local(now).tzinfo or UTC
        begin = _moment(parse_since(since, zone), now)
        end = now if until is None else min(_moment(parse_until(until, zone), now), now)
    wanted = takewhile(lambda at: at <= end, timing.moments(begin - timedelta(microseconds=1)))
    moments = [*islice(wanted, MOST_MOMENTS + 1)]
    if len(moments) > MOST_MOMENTS:
        message = f"the schedule {name} has more than {MOST_MOMENTS:,} moments from {moment(begin)}"
        raise OperatorFault(f"{message} to {moment(end)}; give a later --from, or an earlier --to")
    there = await store.started_moments(connection, name, moments)
    return Backfill(name, timing, moments, [at for at in moments if at not in there])


async def start_missing(
    connection: Connection,
    backfill: Backfill,
    *,
    rate: float,
    on_each: Callable[[str, BrokerError | None], None] = lambda _at, _fault: None,
) -> Acted:
    """Start the missing executions of moments, `rate` a second. `on_each` is called after each, with its fault."""
    acted = Acted([], [])
    began = time.monotonic()
    for number, moment_at in enumerate(backfill.missing):
        await asyncio.sleep(max(0.0, number / rate - (time.monotonic() - began)))
        at, fault = store.moment_text(backfill.timing, moment_at), None
        try:
            execution_id, is_new = await store.start_scheduled(connection, backfill.name, moment_at, backfill.timing)
            acted.done.append({"at": at, "execution_id": execution_id, "new": is_new})
        except DatabaseFault:
            raise
        except BrokerError as error:
            fault = error
            acted.failed.append({"at": at, "message": str(fault)})
        on_each(at, fault)
    return acted


def _moment(given: datetime | float, now: datetime) -> datetime:
    """A moment that was given as such, or as a span before now."""
    return given if isinstance(given, datetime) else now - timedelta(seconds=given)
