"""The command `archive`: moves periods of old history to the schema NAME_archive, and back."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.output import spinner
from noetl_broker.cli.rights import OWNER
from noetl_broker.errors import OperatorFault
from noetl_broker.service.spans import parse_span
from noetl_broker.store.admin import archive as store
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.session import schemas_of, session

Answer = TypeVar("Answer")


@command("archive", role=OWNER, example="noetl-broker archive --older-than 90d --dry-run")
@click.option("--older-than", metavar="SPAN", help="Archive periods that ended so long ago: 90d, 26w.")
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
def archive(call: Call, *, older_than: str | None, dry_run: bool, restore: str | None, examples: int) -> None:
    """Archive old history by whole periods; nothing is deleted.

    A period is archived when all its executions, their parents and their children ended at least SPAN ago. Its
    partitions are detached into the schema NAME_archive while brokers run. Tables without partitions (those of a NoETL
    server) are moved row by row. Needs the owner of the tables.
    """
    if restore is not None:
        if older_than is not None or dry_run:
            raise OperatorFault("archive takes either --restore or --older-than")
        for schema, period in asyncio.run(_in_each(call, lambda database: _restore(database, restore))).items():
            if not call.printed({"restored": period.name, "tables": period.detached}):
                output.say(f"{schema}period {period.name} is back, {len(period.detached)} tables")
        return
    if older_than is None:
        raise OperatorFault("archive needs --older-than, for example --older-than 90d")
    seconds = parse_span(older_than)
    if seconds is None:
        raise OperatorFault(f"--older-than: {older_than!r} is not a time span; write 90s, 30min, 2h30m, 7d or 2w")
    with spinner("looking at old history" if dry_run else "archiving old history"):
        archive_one = functools.partial(_archive, older_than=seconds, dry_run=dry_run, examples=examples)
        documents = asyncio.run(_in_each(call, archive_one))
    alone = documents.get("")
    if call.printed(alone or {"buckets": {name.removesuffix(": "): each for name, each in documents.items()}}):
        return
    for schema, document in documents.items():
        if schema:
            output.say(schema.rstrip())
        _show(document)


async def _in_each(call: Call, work: Callable[[Database], Awaitable[Answer]]) -> dict[str, Answer]:
    """Do it in the schema, or in one bucket after the other; the answers by what is said before each: `noetl_3: `."""
    found = await schemas_of(call.database, name="archive", command_timeout=None)
    return {"" if len(found) == 1 else f"{one.schema}: ": await work(one) for one in found}


async def _restore(database: Database, name: str) -> store.Period:
    async with session(database.for_tables(), name="archive", command_timeout=None) as connection:
        await store.lock_archiving(connection)
        return await store.restore_period(connection, name)


async def _archive(database: Database, *, older_than: float, dry_run: bool, examples: int) -> dict[str, Any]:
    async with session(database.for_tables(), name="archive", command_timeout=None) as connection:
        if not dry_run:
            await store.lock_archiving(connection)
        periods = await store.list_periods(connection, older_than, examples=examples)
        found = [
            _document(*await _archive_if_due(connection, period, older_than, dry_run=dry_run)) for period in periods
        ]
        executions = rows = 0
        async for batch in store.outside_periods(connection, older_than):
            moved = store.MovedCounts(len(batch), 0) if dry_run else await store.archive_rows(connection, batch)
            executions, rows = executions + moved.executions, rows + moved.rows
    return {"dry_run": dry_run, "periods": found, "outside_periods": {"executions": executions, "rows": rows}}


async def _archive_if_due(
    connection: Connection, period: store.Period, older_than: float, *, dry_run: bool
) -> tuple[store.Period, str]:
    """Archive a period if it is due; gives it with its outcome."""
    if period.dropped_at is not None:
        return period, "dropped"
    if not period.is_due:
        return period, "archived" if period.archived_at else "kept" if period.is_old else "not old enough"
    if dry_run:
        return period, "would leave"
    blockers = await store.archive_period(connection, period, older_than)
    if blockers:
        return period._replace(blockers=blockers, held=len(blockers)), "kept"
    return period, "left now"


def _document(period: store.Period, outcome: str) -> dict[str, Any]:
    return {
        "period": period.name,
        "from": period.begins_at,
        "until": period.ends_at,
        "outcome": outcome,
        "archived_at": period.archived_at,
        "executions": period.executions,
        "rows": period.rows,
        "bytes": period.bytes,
        "partitions": len(period.attached) + len(period.detached),
        "kept_by": period.held,
        "examples": [blocker._asdict() for blocker in period.blockers],
    }


COLUMNS: output.Columns = {
    "period": "period",
    "from": lambda period: period["from"].date().isoformat(),
    "until": lambda period: period["until"].date().isoformat(),
    **{name: name for name in ("partitions", "executions", "rows", "bytes")},
    "outcome": lambda period: f"kept by {period['kept_by']}" if period["outcome"] == "kept" else period["outcome"],
}


def _show(document: dict[str, Any]) -> None:
    output.Rows.of(document["periods"], COLUMNS).show()
    for period in document["periods"]:
        for blocker in period["examples"]:
            output.say(f"{period['period']} execution {blocker['execution_id']}: {blocker['reason']}")
    outside = document["outside_periods"]
    if outside["executions"]:
        did = "would move" if document["dry_run"] else f"{outside['rows']} rows moved"
        output.say(f"outside of periods: {output.executions(outside['executions'])}, {did}")
