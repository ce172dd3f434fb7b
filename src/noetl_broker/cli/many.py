"""Many executions at once: filters that choose them, a preview that counts them, and a pace."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import ExecutionId
from noetl_broker.cli.frame import Call
from noetl_broker.cli.progress import bar
from noetl_broker.errors import EXIT_FAILED, BrokerError, DatabaseFault, OperatorFault
from noetl_broker.store.recovery import Wish

MOST = 1_000_000  # executions that one call brings back
GROUPS_SHOWN = 10
REASON_SHOWN = 80  # characters
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d)")
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


class Since(click.ParamType[datetime | float]):
    """A time span before now (30 min, 2h, 3d), or a moment in ISO 8601 (UTC where it has no zone)."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | float:
        """Give the seconds, or the moment."""
        found = _SPAN.fullmatch(str(value).strip().lower())
        if found is not None:
            return float(found[1]) * _SECONDS[found[2]]
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a span (30 min, 2h, 3d) nor a moment (2026-11-24T03:00)", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


PATH = click.option("--path", metavar="PATH", help="Only those of this playbook; * stands for any characters.")
REASON = click.option("--reason", metavar="TEXT", help="Only those whose reason has this in it; * as above.")
SINCE = click.option("--since", type=Since(), metavar="SPAN", help="Only those since then: 30min, 2h, 3d, or a moment.")
FAILED_STEP = click.option("--failed-step", metavar="STEP", help="Only those that failed in this step.")
ALL = click.option("--all", "everything", is_flag=True, help="All of them, without a filter.")
YES = click.option("--yes", is_flag=True, help="Do it; without this their number is shown, and nothing is done.")
RATE = click.option(
    "--rate", type=click.FloatRange(0.01, 10_000), default=50.0, show_default=True, help="How many a second at most."
)
ONE = click.argument("execution_id", metavar="[ID]", required=False, type=ExecutionId())

Body = Callable[..., int | None]


class Manner(NamedTuple):
    """How many are treated: `yes`: really; at most `rate` a second."""

    yes: bool
    rate: float


def wished(*, failed_step: bool = False) -> Callable[[Body], Body]:
    """Give a command the filters, and hand them to its body as one `wish`."""

    def decorate(body: Body) -> Body:
        @functools.wraps(body)
        def run(
            call: Call,
            *,
            path: str | None,
            reason: str | None,
            since: datetime | float | None,
            failed_step: str | None = None,
            **own: Any,
        ) -> int | None:
            wish = Wish(path=path, reason=reason, since=since, failed_step=failed_step)
            return body(call, wish=wish, **own)

        made: Body = run
        for option in reversed((PATH, REASON, SINCE, *((FAILED_STEP,) if failed_step else ()))):
            made = option(made)
        return made

    return decorate


def one_or_many(body: Body) -> Body:
    """Give a command an ID or filters, a preview and a pace: a `manner`, and for many an `execution_id` of None."""

    @functools.wraps(body)
    def run(
        call: Call, *, execution_id: int | None, wish: Wish, everything: bool, yes: bool, rate: float, **own: Any
    ) -> int | None:
        _choose(execution_id, wish, everything=everything)
        return body(call, execution_id=execution_id, wish=wish, manner=Manner(yes, rate), **own)

    made: Body = run
    for option in (RATE, YES, ALL, ONE):
        made = option(made)
    return made


def _choose(execution_id: int | None, wish: Wish, *, everything: bool) -> None:
    """Raises OperatorFault where neither one nor many are named, or both."""
    name = click.get_current_context().info_name
    filtered = wish != Wish()
    if execution_id is not None and (filtered or everything):
        raise OperatorFault(f"{name} takes the id of one execution, or filters for many: not both")
    if execution_id is None and filtered == everything:
        raise OperatorFault(f"{name} takes the id of an execution, or filters for many (see {name} --help), or --all")


async def treat(
    call: Call,
    found: Sequence[dict[str, Any]],
    one: Callable[[int], Awaitable[dict[str, Any]]],
    manner: Manner,
    *,
    what: str,
) -> int:
    """Show how many there are, or treat each, none faster than the rate; `what` says what happens to them.

    One that cannot be treated is told, and the others go on; gives the exit code.
    """
    if not manner.yes:
        _preview(call, found, what)
        return 0
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    began = time.monotonic()
    with bar(len(found)) as advance:
        for number, entry in enumerate(found):
            await asyncio.sleep(max(0.0, number / manner.rate - (time.monotonic() - began)))
            execution_id = entry["execution_id"]
            try:
                done.append({"execution_id": execution_id, **await one(execution_id)})
            except DatabaseFault:
                raise
            except BrokerError as fault:
                failed.append({"execution_id": execution_id, "message": str(fault)})
                output.note(f"noetl-broker: {fault}")
            advance(1)
    if call.as_json:
        output.show_json({"found": len(found), "done": done, "failed": failed})
    else:
        output.say(f"{what}: {len(done)} of {_counted(len(found))}")
    return EXIT_FAILED if failed else 0


def _preview(call: Call, found: Sequence[dict[str, Any]], what: str) -> None:
    groups = Counter((entry["path"], entry.get("step"), (entry["reason"] or "")[:REASON_SHOWN]) for entry in found)
    if call.as_json:
        rows = [
            {"path": path, "step": step, "reason": reason, "executions": count}
            for (path, step, reason), count in groups.most_common()
        ]
        output.show_json({"found": len(found), "done": [], "groups": rows})
        return
    if found:
        output.show_table(
            ("executions", "path", "step", "reason"),
            [(count, *group) for group, count in groups.most_common(GROUPS_SHOWN)],
        )
        if len(groups) > GROUPS_SHOWN:
            output.say(f"… and {len(groups) - GROUPS_SHOWN} more groups")
        output.say()
    again = "; nothing was done, --yes does it" if found else ""
    output.say(f"{what}: {_counted(len(found))}{again}")


def _counted(number: int) -> str:
    return f"{number} execution" if number == 1 else f"{number} executions"
