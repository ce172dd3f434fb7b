"""The command `verify`: the invariants of the tables, over executions that changed lately, over all, or over one."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import ExecutionId
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.progress import working
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.store.session import session
from noetl_broker.store.verify import Report, Scope, Verdict
from noetl_broker.store.verify import verify as verify_in

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}  # seconds
SINCE = "10m"


class Span(click.ParamType[float]):
    """A time span such as 90s, 10m, 1h or 2d, back from the database's clock; in seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the span."""
        found = re.fullmatch(r"([0-9]{1,6})(s|m|min|h|d|w)", str(value))
        if found is None:
            self.fail(f"{value!r} is no time span; write 90s, 10m, 1h or 2d", param, ctx)
        return float(found[1]) * UNITS[found[2]]


@command(
    "verify",
    example=("noetl-broker verify --since 1h\nnoetl-broker verify 58123456789012345 --deep"),
)
@click.argument("execution_id", metavar="[ID]", required=False, type=ExecutionId())
@click.option("--since", type=Span(), metavar="SPAN", help=f"Executions that changed so lately: 90s, 1h.  [{SINCE}]")
@click.option("--all", "everything", is_flag=True, help="Every execution, however old.")
@click.option("--deep", is_flag=True, help="Also take the recorded turns again, as replay does; slow.")
@click.option("--examples", type=click.IntRange(0, 1000), default=3, show_default=True, help="How many of each.")
def verify(
    call: Call, *, execution_id: int | None, since: float | None, everything: bool, deep: bool, examples: int
) -> int:
    """Check that what must always hold does hold.

    Asks for every invariant in one snapshot, so a busy system raises no false alarm: over the executions that changed
    lately, over all, or over one with its children. Whether they can still move is asked of all that run. Exit 1 if
    any invariant is broken.
    """
    if (execution_id is not None) + (since is not None) + everything > 1:
        raise OperatorFault("verify takes one of an ID, --since and --all")
    if execution_id is None and not everything and since is None:
        since = Span().convert(SINCE, None, None)
    scope = Scope(execution_id, since)

    async def ask() -> Report:
        async with session(call.dsn, name="verify") as connection:
            return await verify_in(connection, scope, examples=examples, deep=call.playbook_rules if deep else None)

    began = time.monotonic()
    with working("holding the tables against the invariants"):
        report = asyncio.run(ask())
    seconds = time.monotonic() - began
    if call.as_json:
        output.show_json({
            "executions": report.executions,
            "running": report.running,
            "since_seconds": since,
            "seconds": round(seconds, 3),
            "broken": report.broken,
            "invariants": [_as_json(verdict) for verdict in report.verdicts],
        })  # fmt: skip
    else:
        _tell(report, seconds)
    return EXIT_FAILED if report.broken else 0


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "invariant": verdict.check.invariant,
        "sentence": verdict.check.sentence,
        "broken": verdict.broken,
        "examples": [fault._asdict() for fault in verdict.examples],
    }


def _tell(report: Report, seconds: float) -> None:
    rows = [(verdict.check.invariant, verdict.broken, verdict.check.sentence) for verdict in report.verdicts]
    output.show_table(("invariant", "broken", "what must hold"), rows)
    for verdict in report.verdicts:
        for execution_id, detail in verdict.examples:
            output.say(f"{verdict.check.invariant} execution {execution_id}: {output.cell(detail)}")
    sum_of_all = f"{report.broken} broken" if report.broken else "all hold"
    output.say(f"{report.executions} executions, {report.running} that run, {output.span(seconds)}: {sum_of_all}")
