"""The commands `schedule put`, `list`, `show`, `next`, `pause`, `resume`, `delete` and `backfill`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import SCHEDULE_NAME
from noetl_broker.cli.bulk import BulkOptions, acting, bulk_options
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Face, command_of, face, service, session_of
from noetl_broker.commands import ActionEntry
from noetl_broker.service.models import schedules as models
from noetl_broker.service.models.base import PageOfPaths

SHOWN_MOMENTS = 3
NOTHING_MADE_UP = "catch_up: 0, so moments that pass while no broker runs are not made up"
NAME: Mapping[str, click.ParamType[Any]] = {"name": SCHEDULE_NAME}
BACKFILL = Face(
    models.BackfillRequest,
    ("name",),
    names={"since": "--from", "until": "--to"},
    helps={"since": "From this moment, or so long ago.  [required]", "until": "Until this moment; default: now."},
    hides=frozenset({"preview", "limit"}),
    types=NAME,
)


@click.group(
    "schedule",
    epilog="\b\nExamples:\n  noetl-broker schedule list\n  noetl-broker schedule put --help",
)
def schedule() -> None:
    """Start playbooks at given times: put, list, pause and backfill schedules.

    Each of these commands takes --dsn, --schema, --json, --config and --debug. A playbook may declare schedules of its
    own under metadata.schedule; `register` puts them.
    """


@face(
    "put",
    "schedules.put_schedule",
    Face(
        models.ScheduleRequest,
        ("name", "path"),
        helps={
            "cron": "Five fields, six with seconds first, or @daily and the like.",
            "every": "A span between starts in place of --cron: 15m, 2h.",
            "timezone": "The IANA time zone of --cron. [default: UTC]",
            "payload": "A JSON object, or @FILE with one (@- is stdin).",
            "tags": "What lists find each of its executions by, such as customer=7.",
            "priority": "Of the jobs of each, where neither step nor playbook says one.",
            "jitter": "Delay each start by a part of this; default: 0s.",
            "catch_up": "Of moments that passed while no broker ran, skip those later than this; 0: all. Default: 1h.",
            "overlap": "If an earlier execution lives: skip the start, queue it, cancel the other, or allow both. "
            "[default: skip]",
        },
    ),
    example=(
        "noetl-broker schedule put nightly examples/weather --cron '0 2 * * *' --timezone Europe/Berlin\n"
        'noetl-broker schedule put often examples/weather --every 15m --payload \'{"city": "Paris"}\''
    ),
)
def put(_call: Call, asked: models.ScheduleRequest, answer: Any) -> None:
    """Make a schedule, or change it.

    NAME names it, PATH is the playbook that it starts. Another timing counts from now; a paused schedule stays paused.
    """
    output.say(f"{asked.name}: {answer['when']}{'' if answer['changed'] else ' (unchanged)'}")
    if not asked.catch_up:
        output.say(NOTHING_MADE_UP)
    _say_next(answer)


@face("list", "schedules.list_schedules", Face(PageOfPaths), example="noetl-broker schedule list")
def list_schedules(_call: Call, _asked: PageOfPaths, rows: Any) -> None:
    """List schedules, with what went wrong last."""
    columns: output.Columns = {
        "name": "name", "path": "path", "when": "when", "next": lambda row: _local(row, row["next_at"]),
        "last": lambda row: _local(row, row["last_at"]), "started": "started", "skipped": "skipped", "state": _state,
    }  # fmt: skip
    output.Rows.of(rows, columns).show()


@face(
    "show",
    "schedules.show_schedule",
    Face(models.OneSchedule, ("name",), types=NAME),
    example="noetl-broker schedule show nightly",
)
def show(_call: Call, asked: models.OneSchedule, row: Any) -> None:
    """Show one schedule and its next moments."""
    output.say(f"{asked.name}: {row['when']}")
    version = "the latest version" if row["version"] is None else f"version {row['version']}"
    output.say(f"starts {row['path']}, {version}, with {output.compact_json(row['payload'], longest=200)}")
    output.say(f"jitter: {output.span(row['jitter'])}")
    output.say(f"catch_up: {output.span(row['catch_up'])}" if row["catch_up"] else NOTHING_MADE_UP)
    if row["declared_in"] is not None:
        output.say(f"declared in the playbook {row['declared_in']}")
    given = [f"{name}={value}" for name, value in (row["tags"] or {}).items()]
    given += [] if row["priority"] is None else [f"priority {row['priority']}"]
    if given:
        output.say(f"each start has: {', '.join(given)}")
    last = "never" if row["last_at"] is None else f"{_local(row, row['last_at'])}, {row['last_execution_id']}"
    skipped = f"skipped {row['skipped']} moments (too late, or during a pause)"
    output.say(f"started {row['started']} times, {skipped}; last: {last}")
    output.say(f"state: {_state(row)}")
    if not row["paused"]:
        _say_next(row)


@face(
    "next",
    "schedules.list_moments",
    Face(models.NextRequest, ("name",), types=NAME, helps={"count": "How many moments. [default: 5]"}),
    part="next",
    example="noetl-broker schedule next nightly --count 10",
)
def show_next(_call: Call, _asked: models.NextRequest, answer: Any) -> None:
    """Print the next moments of a schedule."""
    for moment in answer["next"]:
        output.say(moment)


CHANGES = {
    "pause": ActionEntry(
        "Pause a schedule.", "schedules.pause_schedule", "schedules.OneSchedule", ("name",),
        "schedule {name} is paused", otherwise="schedule {name} is paused already",
        details="Its moments pass without a start, and are counted as skipped.",
        example="noetl-broker schedule pause nightly",
    ),
    "resume": ActionEntry(
        "End the pause of a schedule.", "schedules.resume_schedule", "schedules.OneSchedule", ("name",),
        "schedule {name} goes on", otherwise="schedule {name} is not paused",
        details="Moments of the pause are not made up; `backfill` starts them.",
        example="noetl-broker schedule resume nightly",
    ),
    "delete": ActionEntry(
        "Delete a schedule. Executions that it started stay.", "schedules.delete_schedule", "schedules.OneSchedule",
        ("name",), "schedule {name} is deleted",
        details="A schedule that a playbook declares is refused: remove it from the playbook, and register that.",
        example="noetl-broker schedule delete nightly",
    ),
}  # fmt: skip


@command(
    "backfill",
    example=(
        "noetl-broker schedule backfill nightly --from 2026-11-01          # counts the moments\n"
        "noetl-broker schedule backfill nightly --from 2026-11-01 --yes    # starts them"
    ),
)
@BACKFILL.given_to
@bulk_options
def backfill(call: Call, *, bulk: BulkOptions, **given: Any) -> int:
    """Start missing executions of past moments.

    Looks at each moment from --from to --to, oldest first. Uses the schedule as it is now: timing, payload and version.
    A moment that has its execution is skipped. Moments after now are left to the schedule. A time without an offset is
    of the schedule's zone; a date as --to includes that day.
    """
    asked = BACKFILL.read(given)

    async def backfill_on(connection: Any) -> int:
        given = asked.name, asked.since, asked.until, call.settings.keep_keys
        plan = await service("schedules").plan_backfill(connection, *given)
        first = plan._replace(missing=plan.missing[: bulk.limit])
        if not bulk.yes or not plan.missing:
            _preview(call, plan, first)
            return 0
        with acting(len(first.missing)) as on_each:
            acted = await service("schedules").start_missing(connection, first, rate=bulk.rate, on_each=on_each)
        started = sum(entry["new"] for entry in acted.done)
        return bulk.show(call, acted, f"{started} of {output.executions(len(plan.missing))} started")

    async def ask() -> int:
        async with session_of(call) as place:
            return int(await service("schedules").at_schedule(place, asked.name, backfill_on))

    return asyncio.run(ask())


pause, resume, delete = (command_of(name, entry, NAME) for name, entry in CHANGES.items())
for _command in (put, list_schedules, show, show_next, pause, resume, delete, backfill):
    schedule.add_command(_command)


def _preview(call: Call, plan: Any, first: Any) -> None:
    """Say what is missing, and which moments would be started first."""
    moments, missing, texts = plan.moments, plan.missing, first.texts()
    if call.printed({"moments": len(moments), "found": len(missing), "done": [], "at": texts}):
        return
    output.say(f"{len(moments)} moments, {len(moments) - len(missing)} of them have their execution")
    if missing:
        shown = texts if len(texts) <= SHOWN_MOMENTS * 2 else [*texts[:SHOWN_MOMENTS], "…", *texts[-SHOWN_MOMENTS:]]
        for text in shown:
            output.say(f"  {text}")
        output.say(f"{output.executions(len(texts))} would be started; nothing was done, --yes does it")


def _local(row: Mapping[str, Any], at: datetime | None) -> str:
    """A moment on the clock of the schedule's zone; in UTC if there is no such zone."""
    if at is None:
        return ""
    try:
        return at.astimezone(ZoneInfo(row["timezone"])).isoformat().replace("+00:00", "Z")
    except (ValueError, OSError, KeyError):
        return output.moment(at)


def _state(row: Mapping[str, Any]) -> str:
    if row["error"] is not None:
        return str(row["error"])
    if row["paused"]:
        return "paused"
    if row["path_paused_at"] is None:
        return ""
    return "its playbook is paused" + (f": {row['path_pause_reason']}" if row["path_pause_reason"] else "")


def _say_next(answer: Mapping[str, Any]) -> None:
    if moments := answer["next"]:
        output.say(f"next: {', '.join(moments)}")
