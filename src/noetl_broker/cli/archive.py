"""The command `archive`: moves periods of old history to the schema NAME_archive, and back."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.output import spinner
from noetl_broker.cli.rights import OWNER
from noetl_broker.cli.selection import TimeSpan
from noetl_broker.errors import OperatorFault
from noetl_broker.store.admin import archive as store
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.session import session


class ArchiveOutcome(NamedTuple):
    """The periods, each with its outcome; the executions outside of periods and their moved rows."""

    periods: list[tuple[store.Period, str]]
    executions: int
    rows: int


@command("archive", role=OWNER, example="noetl-broker archive --older-than 90d --dry-run")
@click.option("--older-than", type=TimeSpan(), metavar="SPAN", help="Archive periods that ended so long ago: 90d, 26w.")
@click.option(
    "--dry-run", is_flag=True, help="Change nothing; show what would be archived, and what prevents the rest."
)
@click.option("--restore", metavar="PERIOD", help="Bring an archived period back, such as 20261101.")
@click.option(
    "--examples",
    type=click.IntRange(0, 1000),
    default=3,
    show_default=True,
    help="How many executions to name for a period that is kept.",
)
def archive(call: Call, *, older_than: float | None, dry_run: bool, restore: str | None, examples: int) -> None:
    """Archive old history by whole periods; nothing is deleted.

    A period is archived when all its executions, their parents and their children ended at least SPAN ago. Its
    partitions are detached into the schema NAME_archive while brokers run. Tables without partitions (those of a NoETL
    server) are moved row by row. Needs the owner of the tables.
    """
    if restore is not None:
        if older_than is not None or dry_run:
            raise OperatorFault("archive takes either --restore or --older-than")
        period = asyncio.run(_restore(call, restore))
        if not call.printed({"restored": period.name, "tables": period.detached}):
            output.say(f"period {period.name} is back, {len(period.detached)} tables")
        return
    if older_than is None:
        raise OperatorFault("archive needs --older-than, for example --older-than 90d")
    with spinner("looking at old history" if dry_run else "archiving old history"):
        outcome = asyncio.run(_archive(call, older_than, dry_run=dry_run, examples=examples))
    if not call.printed(_as_json(outcome, dry_run=dry_run)):
        _show(outcome, dry_run=dry_run)


async def _restore(call: Call, name: str) -> store.Period:
    async with session(call.database, name="archive", command_timeout=None) as connection:
        await store.lock_archiving(connection)
        return await store.restore_period(connection, name)


async def _archive(call: Call, older_than: float, *, dry_run: bool, examples: int) -> ArchiveOutcome:
    async with session(call.database, name="archive", command_timeout=None) as connection:
        if not dry_run:
            await store.lock_archiving(connection)
        periods = await store.list_periods(connection, older_than, examples=examples)
        found = [await _archive_if_due(connection, period, older_than, dry_run=dry_run) for period in periods]
        executions = rows = 0
        async for batch in store.outside_periods(connection, older_than):
            moved = store.MovedCounts(len(batch), 0) if dry_run else await store.archive_rows(connection, batch)
            executions, rows = executions + moved.executions, rows + moved.rows
        return ArchiveOutcome(found, executions, rows)


async def _archive_if_due(
    connection: Connection, period: store.Period, older_than: float, *, dry_run: bool
) -> tuple[store.Period, str]:
    """Archive a period if it is due; gives it with its outcome."""
    if not period.is_due:
        return period, "archived" if period.archived_at else "kept" if period.is_old else "not old enough"
    if dry_run:
        return period, "would leave"
    blockers = await store.archive_period(connection, period, older_than)
    if blockers:
        return period._replace(blockers=blockers, held=len(blockers)), "kept"
    return period, "left now"


def _as_json(outcome: ArchiveOutcome, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "periods": [
            {
                "period": period.name,
                "from": period.begins_at,
                "until": period.ends_at,
                "outcome": word,
                "archived_at": period.archived_at,
                "executions": period.executions,
                "rows": period.rows,
                "bytes": period.bytes,
                "partitions": len(period.attached) + len(period.detached),
                "kept_by": period.held,
                "examples": [blocker._asdict() for blocker in period.blockers],
            }
            for period, word in outcome.periods
        ],
        "outside_periods": {"executions": outcome.executions, "rows": outcome.rows},
    }


def _show(outcome: ArchiveOutcome, *, dry_run: bool) -> None:
    columns = ("period", "from", "until", "partitions", "executions", "rows", "bytes", "outcome")
    lines = [
        (
            period.name, period.begins_at.date().isoformat(), period.ends_at.date().isoformat(),
            len(period.attached) + len(period.detached), period.executions, period.rows, period.bytes,
            f"kept by {period.held}" if word == "kept" else word,
        )
        for period, word in outcome.periods
    ]  # fmt: skip
    output.Rows(columns, lines).show()
    for period, _ in outcome.periods:
        for execution_id, reason in period.blockers:
            output.say(f"{period.name} execution {execution_id}: {reason}")
    if outcome.executions:
        did = "would move" if dry_run else f"{outcome.rows} rows moved"
        output.say(f"outside of periods: {output.executions(outcome.executions)}, {did}")
