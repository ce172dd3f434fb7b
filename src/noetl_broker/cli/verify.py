"""The command `verify`: checks the invariants of stored executions."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.output import spinner
from noetl_broker.cli.selection import Selection, selection
from noetl_broker.errors import EXIT_FAILED
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.verify import Verdict, VerifyReport, VerifyScope
from noetl_broker.store.admin.verify import verify as verify_in
from noetl_broker.store.connect.session import session

RECENT_SECONDS = 600.0  # the default of --since


@command(
    "verify",
    example=("noetl-broker verify --since 1h\nnoetl-broker verify 58123456789012345 --deep"),
)
@selection(required=False)
@click.option("--deep", is_flag=True, help="Also replay the recorded turns; slow.")
@click.option(
    "--examples",
    type=click.IntRange(0, 1000),
    default=3,
    show_default=True,
    help="How many examples of each fault to print.",
)
def verify(call: Call, *, chosen: Selection, deep: bool, examples: int) -> int:
    """Check the invariants of stored executions.

    Checks every invariant in one snapshot, so a busy system raises no false alarm. By default it checks executions that
    changed in the last 10 minutes. With ID it checks that execution and its children. Whether executions can still
    move is checked for all that run. Exit 1 if an invariant is broken.
    """
    which = chosen.which if chosen.named else Filter(since=RECENT_SECONDS)
    scope = VerifyScope(chosen.ids[0] if chosen.ids else None, which)

    async def ask() -> VerifyReport:
        async with session(call.database, name="verify") as connection:
            return await verify_in(connection, scope, examples=examples, deep=call.playbook_rules if deep else None)

    began = time.monotonic()
    with spinner("checking the invariants"):
        report = asyncio.run(ask())
    seconds = time.monotonic() - began
    if call.as_json:
        output.show_json({
            "executions": report.executions,
            "running": report.running,
            "since_seconds": _seconds_since(which),
            "seconds": round(seconds, 3),
            "broken": report.broken,
            "invariants": [_as_json(verdict) for verdict in report.verdicts],
        })  # fmt: skip
    else:
        _show(report, seconds)
    return EXIT_FAILED if report.broken else 0


def _seconds_since(which: Filter) -> float | None:
    moment = which.since
    return (datetime.now(UTC) - moment).total_seconds() if isinstance(moment, datetime) else moment


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "invariant": verdict.check.invariant,
        "sentence": verdict.check.sentence,
        "broken": verdict.broken,
        "examples": [fault._asdict() for fault in verdict.examples],
    }


def _show(report: VerifyReport, seconds: float) -> None:
    rows = [(verdict.check.invariant, verdict.broken, verdict.check.sentence) for verdict in report.verdicts]
    output.show_table(("invariant", "broken", "what must hold"), rows)
    for verdict in report.verdicts:
        for execution_id, detail in verdict.examples:
            where = "" if execution_id is None else f" execution {execution_id}"
            output.say(f"{verdict.check.invariant}{where}: {output.cell(detail)}")
    sum_of_all = f"{report.broken} broken" if report.broken else "all hold"
    output.say(
        f"{output.executions(report.executions)}, {report.running} that run, {output.span(seconds)}: {sum_of_all}"
    )
