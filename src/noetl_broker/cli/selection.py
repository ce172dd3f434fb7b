"""The executions that a command acts on: ids, `--all`, or filters that mean the same in every command."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import click

from noetl_broker.cli.arguments import ExecutionId, PlaybookPath
from noetl_broker.errors import OperatorFault
from noetl_broker.playbook.plain_values import LARGEST_VERSION
from noetl_broker.service.bulk import STATUSES
from noetl_broker.service.spans import parse_since, parse_span, parse_until
from noetl_broker.store.admin.executions import Filter

Body = Callable[..., int | None]


class TimeSpan(click.ParamType[float]):
    """A time span as people write it: 90s, 30min, 2h30m, 7d, 2w. Gives seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the span."""
        seconds = parse_span(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a time span; write 90s, 30min, 2h30m, 7d or 2w", param, ctx)
        return seconds


class Since(click.ParamType[datetime | float]):
    """A time span before now, or a moment in ISO 8601 (UTC without an offset). `end`: a date includes its day."""

    name = "since"

    def __init__(self, *, end: bool = False) -> None:
        """Read the time as the beginning of a span, or as its end."""
        self._parse = parse_until if end else parse_since

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | float:
        """Give the seconds, or the moment."""
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TimeText(click.ParamType[str]):
    """A time as `Since` reads it, left as text: its zone is known later."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the text."""
        Since().convert(value, param, ctx)
        return str(value)


FILTERS = (
    click.option(
        "--path", type=PlaybookPath(), metavar="PATH", help="Only those of this playbook; * stands for any characters."
    ),
    click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only those in this status."),
    click.option("--error", metavar="TEXT", help="Only those with this text in their error; * as in --path."),
    click.option("--step", metavar="STEP", help="Only executions that failed in this step."),
    click.option(
        "--since",
        type=Since(),
        metavar="TIME",
        help="Only executions that changed since: 90s, 30min, 2h30m, 7d or 2w ago, or 2026-01-31T08:00 (UTC).",
    ),
)


# `--version` of `retry` and `fork` names the version that they continue on.
OF_VERSION = click.option(
    "--of-version", type=click.IntRange(1, LARGEST_VERSION), metavar="N", help="Only those of this version."
)
VERSION = click.option(
    "--of-version",
    "--version",
    type=click.IntRange(1, LARGEST_VERSION),
    metavar="N",
    help="Only those of this version.",
)

# `replay --until` names an event, so that command has all filters but this one.
UNTIL = click.option(
    "--until",
    type=Since(end=True),
    metavar="TIME",
    help="Only executions that started until then; as in --since, and a date includes that day.",
)


def filters(body: Body, *, until: bool = True, version: bool = True) -> Body:
    """Give a command the filters; its body takes them as `which`.

    `until`: with `--until`; `version`: `--of-version` is `--version`, too.
    """
    has_until = until

    @functools.wraps(body)
    def run(
        *arguments: Any,
        path: str | None,
        status: str | None,
        error: str | None,
        step: str | None,
        since: datetime | float | None,
        of_version: int | None,
        **own: Any,
    ) -> int | None:
        until = own.pop("until") if has_until else None
        which = Filter(path=path, status=status, error=error, step=step, since=since, until=until, version=of_version)
        return body(*arguments, which=which, **own)

    made: Body = run
    options = (*FILTERS, *((UNTIL,) if until else ()), VERSION if version else OF_VERSION)
    for option in reversed(options):
        made = option(made)
    return made


class Selection(NamedTuple):
    """The executions that a call names: these ids, or all that pass the filter.

    `named` is false where the call says neither ids, nor a filter, nor `--all`.
    """

    ids: tuple[int, ...] = ()
    which: Filter = Filter()
    named: bool = True

    def require(self) -> None:
        """Raises OperatorFault if the call names no executions: a command never takes all of them by default."""
        if not self.named:
            name = click.get_current_context().info_name
            raise OperatorFault(f"{name} needs the id of an execution, a filter (see {name} --help) or --all")


def selection(
    *, several: bool = False, required: bool = True, until: bool = True, version: bool = True
) -> Callable[[Body], Body]:
    """Give a command an ID (`several`: many), the filters and `--all`; its body takes them as `chosen`.

    `required`: refuse a call that names no executions. `until` and `version` as of `filters`.
    """

    def decorate(body: Body) -> Body:
        @functools.wraps(body)
        def run(
            *arguments: Any,
            execution_id: tuple[int, ...] | int | None,
            which: Filter,
            everything: bool,
            **own: Any,
        ) -> int | None:
            ids = execution_id if isinstance(execution_id, tuple) else () if execution_id is None else (execution_id,)
            by_filter = everything or which != Filter()
            if ids and by_filter:
                name = click.get_current_context().info_name
                what = "ids" if several else "one ID"
                raise OperatorFault(f"{name} takes either {what} or filters (or --all), not both")
            chosen = Selection(ids, which, named=bool(ids) or by_filter)
            if required:
                chosen.require()
            return body(*arguments, chosen=chosen, **own)

        made = filters(run, until=until, version=version)
        made = click.option("--all", "everything", is_flag=True, help="All of them, as far as filters allow.")(made)
        metavar, number = ("[ID]...", -1) if several else ("[ID]", 1)
        return click.argument("execution_id", metavar=metavar, nargs=number, required=False, type=ExecutionId())(made)

    return decorate
