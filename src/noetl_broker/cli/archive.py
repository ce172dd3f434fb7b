"""The command `archive`: history of periods that are over leaves the tables for the schema noetl_archive."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import click

from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.progress import working
from noetl_broker.cli.verify import Span
from noetl_broker.errors import OperatorFault
from noetl_broker.store import archive as store
from noetl_broker.store.pool import Connection
from noetl_broker.store.session import session


class Outcome(NamedTuple):
    """The periods with what became of each, and of executions outside of any: how many, and how many rows moved."""

    periods: list[tuple[store.Period, str]]
    executions: int
    rows: int


@command("archive", example="noetl-broker archive --older-than 90d --dry-run")
@click.option("--older-than", type=Span(), metavar="SPAN", help="Periods that were over so long ago: 90d, 26w.")
@click.option("--dry-run", is_flag=True, help="Change nothing; show what would leave, and what keeps the rest back.")
@click.option("--restore", metavar="PERIOD", help="Bring a period back that was archived, such as 20261101.")
@click.option("--examples", type=click.IntRange(0, 1000), default=3, show_default=True, help="Executions named each.")
def archive(call: Call, *, older_than: float | None, dry_run: bool, restore: str | None, examples: int) -> None:
    """Take old history out of the tables, whole periods at a time; nothing is deleted.

    A period leaves when all its executions have ended, with their parents and children, SPAN ago or earlier. Its
    partitions are detached into the schema noetl_archive, beside brokers at work. What has no partition of a period (a
    NoETL server's own tables) is moved row by row. Needs the owner of the tables.
    """
    if restore is not None:
        if older_than is not None or dry_run:
            raise OperatorFault("archive takes either --restore or --older-than")
        period = asyncio.run(_restore(call, restore))
        if call.as_json:
            output.show_json({"restored": period.name, "tables": period.detached})
        else:
            output.say(f"period {period.name} is back, {len(period.detached)} tables")
        return
    if older_than is None:
        raise OperatorFault("archive needs --older-than, for example --older-than 90d")
    with working("looking at old history" if dry_run else "archiving old history"):
        outcome = asyncio.run(_archive(call, older_than, dry_run=dry_run, examples=examples))
    if call.as_json:
        output.show_json(_as_json(outcome, dry_run=dry_run))
    else:
        _tell(outcome, dry_run=dry_run)


async def _restore(call: Call, name: str) -> store.Period:
    async with session(call.dsn, name="archive", command_timeout=None) as connection:
        await store.be_alone(connection)
        return await store.restore_period(connection, name)


async def _archive(call: Call, older_than: float, *, dry_run: bool, examples: int) -> Outcome:
    async with session(call.dsn, name="archive", command_timeout=None) as connection:
        if not dry_run:
            await store.be_alone(connection)
        periods = await store.list_periods(connection, older_than, examples=examples)
        found = [await _leave(connection, period, older_than, dry_run=dry_run) for period in periods]
        executions = rows = 0
        async for batch in store.outside_periods(connection, older_than):
            moved = store.Moved(len(batch), 0) if dry_run else await store.archive_rows(connection, batch)
            executions, rows = executions + moved.executions, rows + moved.rows
        return Outcome(found, executions, rows)


async def _leave(
    connection: Connection, period: store.Period, older_than: float, *, dry_run: bool
) -> tuple[store.Period, str]:
    """Archive one period if it is due; give it with the word for what became of it."""
    if not period.is_due:
        return period, "archived" if period.archived_at else "kept" if period.is_old else "not old enough"
    if dry_run:
        return period, "would leave"
    holders = await store.archive_period(connection, period, older_than)
    if holders:
        return period._replace(holders=holders, held=len(holders)), "kept"
    return period, "left now"


def _as_json(outcome: Outcome, *, dry_run: bool) -> dict[str, Any]:
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
                "examples": [holder._asdict() for holder in period.holders],
            }
            for period, word in outcome.periods
        ],
        "outside_periods": {"executions": outcome.executions, "rows": outcome.rows},
    }


def _tell(outcome: Outcome, *, dry_run: bool) -> None:
    columns = ("period", "from", "until", "partitions", "executions", "rows", "bytes", "outcome")
    lines = [
        (
            period.name, period.begins_at.date().isoformat(), period.ends_at.date().isoformat(),
            len(period.attached) + len(period.detached), period.executions, period.rows, period.bytes,
            f"kept by {period.held}" if word == "kept" else word,
        )
        for period, word in outcome.periods
    ]  # fmt: skip
    output.show_table(columns, lines)
    for period, _ in outcome.periods:
        for execution_id, reason in period.holders:
            output.say(f"{period.name} execution {execution_id}: {reason}")
    if outcome.executions:
        did = "would move" if dry_run else f"{outcome.rows} rows moved"
        output.say(f"outside of periods: {outcome.executions} executions, {did}")
