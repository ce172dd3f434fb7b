"""The commands `schedule put`, `list`, `show`, `next`, `pause`, `resume`, `delete` and `backfill`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import VERSION_OF_PLAYBOOK, Duration, PlaybookPath, ScheduleName
from noetl_broker.cli.bulk import BulkOptions, bulk_options
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.output import progress_bar
from noetl_broker.cli.selection import TimeText
from noetl_broker.cli.start_cancel import read_payload
from noetl_broker.errors import EXIT_FAILED, BrokerError
from noetl_broker.playbook.cron import TimingError, read_cron
from noetl_broker.playbook.schedules import OVERLAP
from noetl_broker.service.schedules import (
    Backfill,
    next_moments,
    operator_faults,
    plan_backfill,
    schedule_as_document,
    start_missing,
)
from noetl_broker.store.admin import schedules as store
from noetl_broker.store.admin.schedules import ScheduleSpec
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.session import session

SHOWN_MOMENTS = 3
NOTHING_MADE_UP = "catch_up: 0, so moments that pass while no broker runs are not made up"
schedule_name = click.argument("name", type=ScheduleName())


@click.group(
    "schedule",
    epilog="\b\nExamples:\n  noetl-broker schedule list\n  noetl-broker schedule put --help",
)
def schedule() -> None:
    """Start playbooks at given times: put, list, pause and backfill schedules.

    Each of these commands takes --dsn, --schema, --json, --config and --debug. A playbook may declare schedules of its
    own under metadata.schedule; `register` puts them.
    """


@command(
    "put",
    example=(
        "noetl-broker schedule put nightly examples/weather --cron '0 2 * * *' --timezone Europe/Berlin\n"
        'noetl-broker schedule put often examples/weather --every 15m --payload \'{"city": "Paris"}\''
    ),
)
@click.argument("name")
@click.argument("path", type=PlaybookPath())
@click.option("--cron", metavar="TEXT", help="Five fields, six with seconds first, or @daily and the like.")
@click.option("--every", type=Duration(), help="A span between starts in place of --cron: 15m, 2h.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="The IANA time zone of --cron.")
@click.option("--payload", default="{}", metavar="JSON", help="A JSON object, or @FILE with one (@- is stdin).")
@VERSION_OF_PLAYBOOK
@click.option("--jitter", type=Duration(), default="0s", help="Delay each start by a part of this; default: 0s.")
@click.option(
    "--catch-up",
    type=Duration(),
    default="1h",
    help="Of moments that passed while no broker ran, skip those later than this; 0: all. Default: 1h.",
)
@click.option(
    "--overlap",
    type=click.Choice(OVERLAP),
    default=OVERLAP[0],
    show_default=True,
    help="If an earlier execution lives: skip the start, queue it, cancel the other, or allow both.",
)
def put(call: Call, *, name: str, path: str, cron: str | None, payload: str, **options: Any) -> None:
    """Make a schedule, or change it.

    NAME names it, PATH is the playbook that it starts. Another timing counts from now; a paused schedule stays paused.
    """
    if cron is not None:
        with operator_faults():
            cron = read_cron(cron, options["timezone"]).text
    spec = ScheduleSpec(name=name, path=path, cron=cron, payload=read_payload(payload), **options)

    async def ask(connection: Connection) -> None:
        changed = await store.put_schedule(connection, spec)
        row = await store.find_schedule(connection, name)
        if call.as_json:
            output.show_json({"name": name, "changed": changed, "next": next_moments(row, 1)})
        else:
            output.say(f"{name}: {_describe(row)}{'' if changed else ' (unchanged)'}")
            if not row["catch_up"]:
                output.say(NOTHING_MADE_UP)
            _say_next(row, 1)

    _with_session(call, "put", ask)


@command("list", example="noetl-broker schedule list")
def list_schedules(call: Call) -> None:
    """List schedules, with what went wrong last."""

    async def ask(connection: Connection) -> None:
        rows = await store.list_schedules(connection)
        if call.as_json:
            output.show_json([schedule_as_document(row) for row in rows])
            return
        columns = ("name", "path", "when", "next", "last", "started", "skipped", "state")
        output.show_table(
            columns,
            [
                (
                    row["name"], row["path"], _describe(row), _local(row, row["next_at"]), _local(row, row["last_at"]),
                    row["started"], row["skipped"], _state(row),
                )
                for row in rows
            ],
        )  # fmt: skip

    _with_session(call, "list", ask)


@command("show", example="noetl-broker schedule show nightly")
@schedule_name
def show(call: Call, *, name: str) -> None:
    """Show one schedule and its next moments."""

    async def ask(connection: Connection) -> None:
        row = await store.find_schedule(connection, name)
        if call.as_json:
            output.show_json(schedule_as_document(row) | {"next": next_moments(row, SHOWN_MOMENTS)})
            return
        output.say(f"{name}: {_describe(row)}")
        version = "the latest version" if row["version"] is None else f"version {row['version']}"
        output.say(f"starts {row['path']}, {version}, with {output.compact_json(row['payload'], longest=200)}")
        output.say(f"jitter: {output.span(row['jitter'].total_seconds())}")
        output.say(f"catch_up: {output.span(row['catch_up'].total_seconds())}" if row["catch_up"] else NOTHING_MADE_UP)
        if row["declared_in"] is not None:
            output.say(f"declared in the playbook {row['declared_in']}")
        last = "never" if row["last_at"] is None else f"{_local(row, row['last_at'])}, {row['last_execution_id']}"
        skipped = f"skipped {row['skipped']} moments (too late, or during a pause)"
        output.say(f"started {row['started']} times, {skipped}; last: {last}")
        output.say(f"state: {_state(row)}")
        if not row["paused"]:
            _say_next(row, SHOWN_MOMENTS)

    _with_session(call, "show", ask)


@command("next", example="noetl-broker schedule next nightly --count 10")
@schedule_name
@click.option("--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many moments.")
def show_next(call: Call, *, name: str, count: int) -> None:
    """Print the next moments of a schedule."""

    async def ask(connection: Connection) -> None:
        moments = next_moments(await store.find_schedule(connection, name), count)
        if call.as_json:
            output.show_json(moments)
            return
        for moment in moments:
            output.say(moment)

    _with_session(call, "next", ask)


@command("pause", example="noetl-broker schedule pause nightly")
@schedule_name
def pause(call: Call, *, name: str) -> None:
    """Pause a schedule.

    Its moments pass without a start, and are counted as skipped.
    """
    _change(call, name, "pause", store.pause_schedule, ("is paused", "is paused already"))


@command("resume", example="noetl-broker schedule resume nightly")
@schedule_name
def resume(call: Call, *, name: str) -> None:
    """End the pause of a schedule.

    Moments of the pause are not made up; `backfill` starts them.
    """
    _change(call, name, "resume", store.resume_schedule, ("goes on", "is not paused"))


@command("delete", example="noetl-broker schedule delete nightly")
@schedule_name
def delete(call: Call, *, name: str) -> None:
    """Delete a schedule. Executions that it started stay.

    A schedule that a playbook declares is refused: remove it from the playbook, and register that.
    """

    async def act(connection: Connection, name: str) -> bool:
        await store.delete_schedule(connection, name)
        return True

    _change(call, name, "delete", act, ("is deleted", ""))


@command(
    "backfill",
    example=(
        "noetl-broker schedule backfill nightly --from 2026-11-01          # counts the moments\n"
        "noetl-broker schedule backfill nightly --from 2026-11-01 --yes    # starts them"
    ),
)
@schedule_name
@click.option(
    "--from", "since", type=TimeText(), required=True, metavar="TIME", help="From this moment, or so long ago."
)
@click.option("--to", "until", type=TimeText(), metavar="TIME", help="Until this moment; default: now.")
@bulk_options
def backfill(call: Call, *, name: str, since: str, until: str | None, bulk: BulkOptions) -> int:
    """Start missing executions of past moments.

    Looks at each moment from --from to --to, oldest first. Uses the schedule as it is now: timing, payload and version.
    A moment that has its execution is skipped. Moments after now are left to the schedule. A time without an offset is
    of the schedule's zone; a date as --to includes that day.
    """

    async def ask(connection: Connection) -> int:
        found = await plan_backfill(connection, name, since, until)
        if not bulk.yes or not found.missing:
            _preview(call, found)
            return 0
        return await _start_each(call, connection, found, bulk)

    return _with_session(call, "backfill", ask) or 0


for _command in (put, list_schedules, show, show_next, pause, resume, delete, backfill):
    schedule.add_command(_command)


async def _start_each(call: Call, connection: Connection, backfill: Backfill, bulk: BulkOptions) -> int:
    """Start the executions of moments at the rate of the call. Gives the exit code."""
    with progress_bar(len(backfill.missing)) as advance:

        def on_each(at: str, fault: BrokerError | None) -> None:
            if fault is not None:
                output.note(f"noetl-broker: {at}: {fault}")
            advance(1)

        acted = await start_missing(connection, backfill, rate=bulk.rate, on_each=on_each)
    if call.as_json:
        output.show_json({"found": len(backfill.missing), **acted._asdict()})
    else:
        output.say(f"{sum(entry['new'] for entry in acted.done)} of {output.executions(len(backfill.missing))} started")
    return EXIT_FAILED if acted.failed else 0


def _preview(call: Call, backfill: Backfill) -> None:
    moments, missing = backfill.moments, backfill.missing
    texts = [store.moment_text(backfill.timing, moment) for moment in missing]
    if call.as_json:
        output.show_json({"moments": len(moments), "found": len(missing), "done": [], "at": texts})
        return
    output.say(f"{len(moments)} moments, {len(moments) - len(missing)} of them have their execution")
    if missing:
        shown = texts if len(texts) <= SHOWN_MOMENTS * 2 else [*texts[:SHOWN_MOMENTS], "…", *texts[-SHOWN_MOMENTS:]]
        for text in shown:
            output.say(f"  {text}")
        output.say(f"{output.executions(len(missing))} would be started; nothing was done, --yes does it")


def _change(
    call: Call,
    name: str,
    word: str,
    act: Callable[[Connection, str], Awaitable[bool]],
    sentences: tuple[str, str],
) -> None:
    """Change a schedule, and say the first sentence, or the second if there was nothing to change."""

    async def ask(connection: Connection) -> None:
        changed = await act(connection, name)
        if call.as_json:
            output.show_json({"name": name, "changed": changed})
        else:
            output.say(f"schedule {name} {sentences[0 if changed else 1]}")

    _with_session(call, word, ask)


def _with_session(call: Call, word: str, ask: Callable[[Connection], Awaitable[int | None]]) -> int | None:
    """Ask on a connection; gives the exit code."""

    async def run() -> int | None:
        async with session(call.database, name=f"schedule {word}") as connection:
            return await ask(connection)

    return asyncio.run(run())


def _describe(row: Mapping[str, Any]) -> str:
    """When a schedule starts, in words."""
    try:
        return str(store.timing_of(row))
    except TimingError:
        return f"{row['cron']} ({row['timezone']})"


def _local(row: Mapping[str, Any], at: datetime | None) -> str:
    """A moment on the clock of the schedule's zone."""
    if at is None:
        return ""
    try:
        return store.moment_text(store.timing_of(row), at)
    except TimingError:
        return output.moment(at)


def _state(row: Mapping[str, Any]) -> str:
    if row["error"] is not None:
        return str(row["error"])
    if row["paused"]:
        return "paused"
    if row["path_paused_at"] is None:
        return ""
    return "its playbook is paused" + (f": {row['path_pause_reason']}" if row["path_pause_reason"] else "")


def _say_next(row: Mapping[str, Any], count: int) -> None:
    if moments := next_moments(row, count):
        output.say(f"next: {', '.join(moments)}")
