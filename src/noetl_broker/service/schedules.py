"""Schedules: list, put, pause, resume, delete, next moments, backfill."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any, NamedTuple

from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.playbook.cron import Timing, read_cron
from noetl_broker.service import paging
from noetl_broker.service.action import Caller, Cost, Role, action
from noetl_broker.service.bulk import RATE, Acted, act_at_rate
from noetl_broker.service.field_errors import FieldFault
from noetl_broker.service.models import schedules as models
from noetl_broker.service.models.base import Listed, PageOfPaths
from noetl_broker.service.spans import parse_since, parse_until
from noetl_broker.service.typed_json import json_text
from noetl_broker.service.where import Do, chained, whole
from noetl_broker.store.admin import list_pages
from noetl_broker.store.admin import schedules as store
from noetl_broker.store.admin.schedules import ScheduleSpec
from noetl_broker.store.connect.bucket_connections import Answer, BucketConnections, Place, Work
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.store.connect.places import routed
from noetl_broker.template.durations import parse_duration
from noetl_broker.text import moment

SHOWN_MOMENTS = 3  # with one schedule
MOST_MOMENTS = 100_000  # that one backfill looks at
LOOKS_BACK = tuple(timedelta(minutes=minutes) for minutes in (1, 60, 1_440, 46_080, 576_000))  # for past moments


class Backfill(NamedTuple):
    """Past moments of a schedule: all moments, and the moments without an execution."""

    name: str
    timing: Timing
    moments: list[datetime]
    missing: list[datetime]

    def texts(self) -> list[str]:
        """The moments without an execution, on the clock of the schedule's zone."""
        return [store.moment_text(self.timing, at) for at in self.missing]


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


def _why_none(row: Mapping[str, Any], at: datetime) -> str:
    """Why a past moment has no execution, as far as the schedule knows: it remembers its last pause."""
    if at > row["since_at"]:
        return "not yet"
    paused, resumed = row["paused_at"], row["resumed_at"]
    if paused is not None and paused <= at and (row["paused"] or resumed is None or at < resumed):
        return "skipped: the schedule was paused"
    return "skipped: it was too late, or an earlier pause"


def schedule_as_document(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for programs: spans in seconds, and `when` it starts in words."""
    try:
        when = str(store.timing_of(row))
    except ValueError:
        when = f"{row['cron']} ({row['timezone']})"
    return {"when": when} | {
        key: value.total_seconds() if isinstance(value, timedelta) else value
        for key, value in row.items()
        if key not in {"now", "due_at", "since_at", "created_at"}
    }


async def plan_backfill(connection: Connection, name: str, since: str, until: str | None, keep_keys: str) -> Backfill:
    """The moments of a schedule between two times as people write them; `until` None: now.

    A time without an offset is of the schedule's zone; a date as `until` includes that day. Raises OperatorFault, also
    for moments older than `keep_keys`: whether these have started may be forgotten.
    """
    row = await store.find_schedule(connection, name)
    now: datetime = row["now"]
    with operator_faults():
        timing = store.timing_of(row)
        zone = timing.local(now).tzinfo or UTC
        begin = _moment(parse_since(since, zone), now)
        end = now if until is None else min(_moment(parse_until(until, zone), now), now)
    if end < begin:
        raise OperatorFault(
            f"the backfill would begin at {moment(begin)}, after its end at {moment(end)}: the end is now"
            " at the latest; begin earlier"
        )
    if begin < now - timedelta(seconds=parse_duration(keep_keys)):
        raise OperatorFault(
            f"the backfill would begin at {moment(begin)}, which is longer ago than the setting keep_keys, {keep_keys}:"
            " whether such moments have started may be forgotten; begin later"
        )
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
    by: str | None = None,
    on_each: Callable[[str, BrokerError | None], None] = lambda _at, _fault: None,
) -> Acted:
    """Start the missing executions of moments, `rate` a second. `by` starts them.

    `on_each` is called after each, with its fault.
    """
    moments = dict(zip(backfill.texts(), backfill.missing, strict=True))

    async def start(at: str) -> dict[str, Any]:
        started = await store.start_scheduled(connection, backfill.name, moments[at], backfill.timing, by)
        return dict(zip(("execution_id", "new"), started, strict=True))

    return await act_at_rate("at", moments, start, rate, on_each)


def _moment(given: datetime | float, now: datetime) -> datetime:
    """A moment that was given as such, or as a span before now."""
    return given if isinstance(given, datetime) else now - timedelta(seconds=given)


async def of_schedule(buckets: BucketConnections, do: Do, given: models.OneSchedule) -> Any:
    """In the bucket that has the schedule; in the first, if none has it."""
    return await at_schedule(buckets, given.name, lambda connection: do(connection, given))


async def at_schedule(place: Place, name: str, work: Work[Answer]) -> Answer:
    """For a function that takes a place: in the bucket that has the schedule; or on the connection."""
    if not isinstance(place, BucketConnections):
        return await work(place)
    return await place.in_bucket(await _bucket_with(place, name) or 0, work)


async def _bucket_with(buckets: BucketConnections, name: str) -> int | None:
    found = await buckets.in_all(lambda connection: store.has_schedule(connection, name))
    return next((number for number, has_it in found.of.items() if has_it), None)


@action(Role.VIEWER, Listed[models.ScheduleView], where=chained("name"))
async def list_schedules(connection: Connection, _caller: Caller, given: PageOfPaths) -> Any:
    """List schedules by name, with what went wrong last."""
    found = await list_pages.page_schedules(connection, path=given.path, **paging.place(given, str))
    return paging.listed(found._replace(items=[schedule_as_document(row) for row in found.items]))


@action(Role.VIEWER, models.Moments, where=of_schedule)
async def list_moments(connection: Connection, _caller: Caller, given: models.NextRequest) -> Any:
    """List the next moments of a schedule."""
    row = await store.find_schedule(connection, given.name)
    return {"name": given.name, "next": next_moments(row, given.count)}


@action(Role.VIEWER, models.ScheduleView, where=of_schedule)
async def show_schedule(connection: Connection, _caller: Caller, given: models.OneSchedule) -> Any:
    """Show one schedule."""
    row, following = await store.find_schedule(connection, given.name), list[str]()
    with contextlib.suppress(OperatorFault):  # its timing has none
        following = next_moments(row, SHOWN_MOMENTS)
    return schedule_as_document(row) | {"next": following}


@action(Role.VIEWER, dict[str, Any], where=of_schedule)
async def list_past_moments(connection: Connection, _caller: Caller, given: models.NextRequest) -> Any:
    """List the latest moments of a schedule with their executions, and the next; or say why its timing has none.

    A past moment without an execution says why. It looks back 400 days at most.
    """
    row = await store.find_schedule(connection, given.name)
    try:
        timing = store.timing_of(row)
    except ValueError as error:
        return {"past": [], "next": [], "fault": str(error)}
    now, found = row["now"], deque[datetime](maxlen=given.count)
    for span in LOOKS_BACK:
        begin = max(now - span, row["created_at"])
        wanted = takewhile(lambda at: at <= now, timing.moments(begin))
        found = deque(islice(wanted, MOST_MOMENTS), maxlen=given.count)
        if len(found) == given.count or begin == row["created_at"]:
            break
    started = await store.started_moments(connection, given.name, found)
    past = [
        {**started[at], "why": None} if at in started else {"moment": at, "why": _why_none(row, at)}
        for at in reversed(found)
    ]
    return {"past": past, "next": next_moments(row, given.count), "fault": None}


@action(Role.OPERATOR, models.ScheduleChange, where=whole)
async def put_schedule(connection: Place, caller: Caller, given: models.ScheduleRequest) -> Any:
    """Make a schedule, or change it. Another timing counts from now; a paused schedule stays paused."""
    try:
        cron = None if given.cron is None else read_cron(given.cron, given.timezone).text
    except ValueError as error:
        raise FieldFault({"cron": str(error)}, str(error)) from error
    spans = {name: timedelta(seconds=getattr(given, name)) for name in ("jitter", "catch_up")}
    every = None if given.every is None else timedelta(seconds=given.every)
    read = {"cron": cron, "every": every, "payload": json_text(given.payload), **spans}
    spec = ScheduleSpec(**given.model_dump() | read)
    changed = await routed(connection, lambda one: store.put_schedule(one, spec, caller.by))
    row = await at_schedule(connection, given.name, lambda one: store.find_schedule(one, given.name))
    when = schedule_as_document(row)["when"]
    return {"name": given.name, "changed": changed, "next": next_moments(row, 1), "when": when}


@action(Role.OPERATOR, models.ScheduleChange, where=of_schedule)
async def pause_schedule(connection: Connection, caller: Caller, given: models.OneSchedule) -> Any:
    """Pause a schedule: its moments pass without a start."""
    return {"name": given.name, "changed": await call(connection, "pause_schedule", given.name, caller.by)}


@action(Role.OPERATOR, models.ScheduleChange, where=of_schedule)
async def resume_schedule(connection: Connection, caller: Caller, given: models.OneSchedule) -> Any:
    """End the pause of a schedule; a backfill starts the moments that passed."""
    return {"name": given.name, "changed": await call(connection, "resume_schedule", given.name, caller.by)}


@action(Role.OPERATOR, models.ScheduleChange, where=of_schedule)
async def delete_schedule(connection: Connection, _caller: Caller, given: models.OneSchedule) -> Any:
    """Delete a schedule. Executions that it started stay; one that a playbook declares is refused."""
    await call(connection, "delete_schedule", given.name)
    return {"name": given.name, "changed": True}


@action(Role.OPERATOR, models.Backfilled, cost=Cost.LONG, where=of_schedule)
async def backfill_schedule(connection: Connection, caller: Caller, given: models.BackfillRequest) -> Any:
    """Start missing executions of past moments, oldest first, or count them by a preview."""
    plan = await plan_backfill(connection, given.name, given.since, given.until, caller.keep_keys)
    counts = {"moments": len(plan.moments), "found": len(plan.missing)}
    first = plan._replace(missing=plan.missing[: given.limit])
    if given.preview:
        return {**counts, "at": first.texts()}
    acted = await start_missing(connection, first, rate=RATE, by=caller.by)
    done = [{**entry, "execution_id": str(entry["execution_id"])} for entry in acted.done]
    return {**counts, "done": done, "failed": acted.failed}
