"""One action on many executions: a preview that counts them, or the action on each, at a limited rate."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.cli.output import progress_bar
from noetl_broker.cli.selection import Body
from noetl_broker.errors import EXIT_FAILED, BrokerError
from noetl_broker.service import bulk as bulk_actions
from noetl_broker.service.bulk import Group, Treatment, preview_groups
from noetl_broker.store.connect.connection import Connection

MOST = 1_000_000  # executions that one call treats
MOST_PLANNED = 1_000  # executions that a preview looks at one by one
GROUPS_SHOWN = 10


class BulkOptions(NamedTuple):
    """Whether to act (`yes`) or to count, how many executions a second at most, and how many in all."""

    yes: bool
    rate: float
    limit: int


def bulk_options(body: Body) -> Body:
    """Give a command `--yes`, `--rate` and `--limit`; its body takes them as `bulk`."""

    @functools.wraps(body)
    def run(*arguments: Any, yes: bool, rate: float, limit: int, **own: Any) -> int | None:
        return body(*arguments, bulk=BulkOptions(yes, rate, limit), **own)

    made = click.option(
        "--rate",
        type=click.FloatRange(0.01, 10_000),
        default=50.0,
        show_default=True,
        help="How many a second at most.",
    )(run)
    made = click.option("--limit", type=click.IntRange(1, MOST), default=MOST, help="How many at most.")(made)
    return click.option("--yes", is_flag=True, help="Do it; without this, count them and do nothing.")(made)


MakeGroups = Callable[[Callable[[], object]], Awaitable[Sequence[Group]]]  # it calls its argument after each execution


class GroupPreview(NamedTuple):
    """The content of a preview: `groups` makes the groups; None: they are made by path and reason.

    `left_out`: so many match, but a retry or a fork continues them already. `remedy`: what to do where the action
    cannot be done.
    """

    groups: MakeGroups | None = None
    left_out: int | None = None
    remedy: str | None = None


BY_REASON = GroupPreview()


def make_groups_with(connection: Connection, request: Treatment, found: Sequence[dict[str, Any]]) -> MakeGroups:
    """The groups of a retry or a fork, which looks at executions one by one."""

    def make(on_each: Callable[[], object]) -> Awaitable[Sequence[Group]]:
        return preview_groups(connection, request, found, most_planned=MOST_PLANNED, on_each=on_each)

    return make


async def act_on_each(
    call: Call,
    found: Sequence[dict[str, Any]],
    action: Callable[[int], Awaitable[dict[str, Any]]],
    bulk: BulkOptions,
    *,
    what: str,
    none: str,
    preview: GroupPreview = BY_REASON,
) -> int:
    """Count the executions that were found, or act on each. Gives the exit code.

    `what` names the action, `none` says that nothing was found. An execution on which the action fails is reported, and
    the others go on.
    """
    if not found and not call.as_json:
        output.say(f"{none}; {_left_out(preview.left_out)}" if preview.left_out else none)
        return 0
    if not bulk.yes:
        able = await _preview(call, found, what, preview)
        if call.as_json or not able or not output.can_ask():
            return 0
        if not click.confirm(f"Do it for {output.executions(able)}?"):
            return 0
    with progress_bar(len(found)) as advance:

        def on_each(fault: BrokerError | None) -> None:
            if fault is not None:
                output.note(f"noetl-broker: {fault}")
            advance(1)

        acted = await bulk_actions.act_on_each(found, action, rate=bulk.rate, on_each=on_each)
    if call.as_json:
        output.show_json({"found": len(found), **acted._asdict()})
    else:
        output.say(f"{what}: {len(acted.done)} of {output.executions(len(found))}")
    return EXIT_FAILED if acted.failed else 0


def _left_out(count: int) -> str:
    be, those = ("is", "it") if count == 1 else ("are", "them")
    return f"{output.executions(count)} {be} left out, because a retry or a fork continues {those} already"


async def _preview(call: Call, found: Sequence[dict[str, Any]], what: str, preview: GroupPreview) -> int:
    """Show what would be done; gives for how many it can be done."""
    if preview.groups is None:
        groups: Sequence[Group] = bulk_actions.group_executions(found)
    else:
        with progress_bar(min(len(found), MOST_PLANNED)) as advance:
            groups = await preview.groups(lambda: advance(1))
    if call.as_json:
        counts = {"found": len(found)} | ({} if preview.left_out is None else {"left_out": preview.left_out})
        output.show_json({**counts, "done": [], "groups": [group._asdict() for group in groups]})
        return len(found)
    _show_groups(call, groups)
    if preview.left_out:
        output.say(_left_out(preview.left_out))
    able = len(found) - sum(group.executions for group in groups if group.goes_on is False)
    _show_able(what, able, len(found), preview.remedy)
    return able


def _show_able(what: str, able: int, found: int, remedy: str | None) -> None:
    """For how many executions it can be done, and what to do about the others."""
    if not able:
        output.say(f"it cannot be done for any of them: {output.executions(found)}; nothing was done")
    elif able < found:
        output.say(f"it cannot be done for {output.executions(found - able)}")
    if able < found and remedy is not None:
        output.say(remedy)
    if able and not output.can_ask():
        count = f"{able} of {output.executions(found)}" if able < found else output.executions(found)
        output.say(f"{what}: {count}; nothing was done, --yes does it")


def _show_groups(call: Call, groups: Sequence[Group]) -> None:
    columns = ["executions", "path", "version", "step", "reason", "for example"]
    rows = [
        [group.executions, group.path, group.version, group.step, group.reason, group.example]
        for group in groups[:GROUPS_SHOWN]
    ]
    if any(group.outlook is not None for group in groups):
        columns.append("what it will do")
        for row, group in zip(rows, groups, strict=False):
            row.append(call.with_schema(group.outlook or "not previewed"))
    output.show_table(columns, rows, folding=frozenset({"path"}))
    if len(groups) > GROUPS_SHOWN:
        output.say(f"… and {len(groups) - GROUPS_SHOWN} more groups")
    output.say()
    for path, version in dict.fromkeys((group.path, group.latest) for group in groups if group.latest is not None):
        count = sum(group.executions for group in groups if group.path == path and group.latest is not None)
        of = "1 execution is" if count == 1 else f"{count:,} executions are"
        output.say(f"{of} of another version of {path}; its latest is {version}: --version latest continues on it")
