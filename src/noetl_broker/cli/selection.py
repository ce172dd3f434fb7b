"""The executions that a command acts on: ids, `--all`, or filters that mean the same in every command."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from noetl_broker.cli.arguments import ExecutionId
from noetl_broker.cli.face import Face
from noetl_broker.errors import OperatorFault
from noetl_broker.service.models.actions import Which

Body = Callable[..., int | None]
HELPS = {
    "path": "Only those of this playbook; * stands for any characters.",
    "status": "Only those in this status.",
    "error": "Only those with this text in their error; * as in --path.",
    "step": "Only executions that failed in this step.",
    "since": "Only executions that changed since: 90s, 30min, 2h30m, 7d or 2w ago, or 2026-01-31T08:00 (UTC).",
    "until": "Only executions that started until then; as in --since, and a date includes that day.",
    "version": "Only those of this version.",
    "tag": "Only those with this tag; given several times, those with all of these tags.",
    "key": "Only those that were started with this idempotency key; * as in --path.",
    "all": "All of them, as far as filters allow.",
}
# `--version` of `retry` and `fork` names the version that they continue on.
BOTH_NAMES = {"version": ("--of-version", "--version")}
FILTERS = Face(Which, names=BOTH_NAMES, helps=HELPS)


class Selection(NamedTuple):
    """The executions that a call names: these ids, or all that pass the filter.

    `named` is false where the call says neither ids, nor a filter, nor `--all`.
    """

    ids: tuple[int, ...] = ()
    which: Which = Which()
    named: bool = True

    def require(self) -> None:
        """Raises OperatorFault if the call names no executions: a command never takes all of them by default."""
        if not self.named:
            name = click.get_current_context().info_name
            raise OperatorFault(f"{name} needs the id of an execution, a filter (see {name} --help) or --all")

    @property
    def path_alone(self) -> str | None:
        """The path of a call that names nothing else; raises OperatorFault for a pattern."""
        path = self.which.path
        if self.ids or path is None or self.which != Which(path=path):
            return None
        if "*" in path:
            name = click.get_current_context().info_name
            status = "running" if name == "pause" else "paused"
            raise OperatorFault(
                f"--path {path} alone names the new executions of one playbook, and {path} is a pattern; "
                f"add --status {status} to {name} executions"
            )
        return path


def selection(
    *, several: bool = False, required: bool = True, until: bool = True, version: bool = True, ids: bool = True
) -> Callable[[Body], Body]:
    """Give a command an ID (`several`: many), the filters and `--all`; its body takes them as `chosen`.

    `required`: refuse a call that names no executions. `until`: with `--until`. `version`: `--of-version` is
    `--version`, too. Without `ids`, the command takes filters alone.
    """
    said = FILTERS._replace(
        names=BOTH_NAMES if version else {"version": ("--of-version",)},
        hides=frozenset({*(() if until else ("until",)), *(() if ids else ("all",))}),
    )

    def decorate(body: Body) -> Body:
        @functools.wraps(body)
        def run(*arguments: Any, execution_id: tuple[int, ...] | int | None = None, **own: Any) -> int | None:
            given = {name: own.pop(f"filter_{name}", None) for name in Which.model_fields}
            named = execution_id if isinstance(execution_id, tuple) else () if execution_id is None else (execution_id,)
            by_filter = any(value not in (None, ()) for value in given.values())
            if named and by_filter:
                name = click.get_current_context().info_name
                what = "ids" if several else "one ID"
                raise OperatorFault(f"{name} takes either {what} or filters (or --all), not both")
            chosen = Selection(named, said.read(given), named=bool(named) or by_filter)
            if required:
                chosen.require()
            return body(*arguments, chosen=chosen, **own)

        made: Body = said.given_to(run, prefix="filter_")
        if not ids:
            return made
        metavar, number = ("[ID]...", -1) if several else ("[ID]", 1)
        return click.argument("execution_id", metavar=metavar, nargs=number, required=False, type=ExecutionId())(made)

    return decorate
