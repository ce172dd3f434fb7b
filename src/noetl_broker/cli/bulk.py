"""Commands that act on one execution, or on many: a preview that counts them, or the action at a limited rate."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Answer, Face, ask, is_not_requested, service, session_of
from noetl_broker.cli.output import progress_bar
from noetl_broker.cli.rights import OPERATOR
from noetl_broker.cli.selection import Body, Selection, selection
from noetl_broker.errors import EXIT_FAILED, BrokerError, OperatorFault
from noetl_broker.service.models.actions import BulkOrErase, Treatment

if TYPE_CHECKING:
    from noetl_broker.service.bulk import Acted

MOST = 1_000_000  # executions that one call treats
MOST_PLANNED = 1_000  # executions that a preview looks at one by one
GROUPS_SHOWN = 10
TREATMENT = Face(Treatment)


class BulkOptions(NamedTuple):
    """Whether to act (`yes`) or to count, how many executions a second at most, and how many in all."""

    yes: bool
    rate: float
    limit: int

    def refuse(self, without: str, remedy: str) -> None:
        """Raise OperatorFault if one of them is given, because the call acts on no executions."""
        for option, value, default in zip(self._fields, self, NO_BULK, strict=True):
            if value != default:
                raise OperatorFault(f"--{option} is for executions, and {without} names none; add {remedy}")

    def show(self, call: Call, acted: Acted, sentence: str) -> int:
        """Print what was done; gives the exit code."""
        if not call.printed({"found": len(acted.done) + len(acted.failed), **acted._asdict()}):
            output.say(sentence)
        return EXIT_FAILED if acted.failed else 0


NO_BULK = BulkOptions(yes=False, rate=50.0, limit=MOST)


def bulk_options(body: Body, *, rate: float = NO_BULK.rate) -> Body:
    """Give a command `--yes`, `--rate` (with this default) and `--limit`; its body takes them as `bulk`."""

    @functools.wraps(body)
    def run(*arguments: Any, yes: bool, rate: float, limit: int, **own: Any) -> int | None:
        return body(*arguments, bulk=BulkOptions(yes, rate, limit), **own)

    made = click.option(
        "--rate",
        type=click.FloatRange(0.01, 10_000),
        default=rate,
        show_default=True,
        help="How many a second at most.",
    )(run)
    made = click.option("--limit", type=click.IntRange(1, MOST), default=NO_BULK.limit, help="How many at most.")(made)
    return click.option("--yes", is_flag=True, help="Do it; without this, count them and do nothing.")(made)


@contextmanager
def acting(count: int) -> Iterator[Callable[[Any, BrokerError | None], None]]:
    """A progress bar; yields what is called after each with what it was, and its fault, which is printed."""
    with progress_bar(count) as advance:

        def on_each(of: Any, fault: BrokerError | None) -> None:
            if fault is not None:
                output.note(f"noetl-broker: {f'{of}: ' if isinstance(of, str) else ''}{fault}")
            advance(1)

        yield on_each


class Many(NamedTuple):
    """A bulk action in words: `executions are cancelled`, `be cancelled`; `remedy` if it cannot be done.

    `asks`: ids are previewed too.
    """

    action: BulkOrErase
    what: str
    none: str
    remedy: str | None = None
    asks: bool = False
    rate: float = NO_BULK.rate


async def act_on_many(
    call: Call, chosen: Selection, bulk: BulkOptions, many: Many, asked: Treatment, **more: Any
) -> int:
    """Count the executions that a call names, or act on each. Gives the exit code.

    An execution on which the action fails is reported, and the others go on. `more` is what only the command line
    gives to the action.
    """
    acts, where = service("bulk"), import_module("noetl_broker.store.connect.places")
    async with session_of(call) as connection:
        found, left_out = await _find(connection, chosen, many, limit=bulk.limit)
        wanted = acts.BulkAction(asked, call.playbook_rules, **more)
        if not found and not call.as_json:
            output.say(f"{many.none}; {_left_out(len(left_out))}" if left_out else many.none)
            return 0
        if not bulk.yes and (many.asks or not chosen.ids):
            with progress_bar(min(len(found), MOST_PLANNED) if wanted.is_planned else None) as advance:
                rows = {each["execution_id"]: each for each in found}

                async def preview(one: Any, ids: list[int]) -> list[Any]:
                    of = [rows[each] for each in ids]
                    planned: list[Any] = await acts.preview_groups(
                        one, wanted, of, most_planned=MOST_PLANNED, on_each=lambda: advance(1)
                    )
                    return planned

                groups = [
                    group for part in await where.in_their_buckets(connection, [*rows], preview) for group in part
                ]
            if asked.version is None or asked.or_from_start:
                many = many._replace(remedy=None)
            able = _preview(call, many, groups, len(found), None if left_out is None else len(left_out))
            if call.as_json or not able or not output.can_ask():
                return 0
            if not click.confirm(f"Do it for {output.executions(able)}?"):
                return 0
        with acting(len(found)) as on_each:

            async def act(one: Any, ids: list[int]) -> Any:
                return await acts.act_on_executions(one, wanted, ids, bulk.rate, on_each)

            ids = [each["execution_id"] for each in found]
            of_buckets = await where.in_their_buckets(connection, ids, act)
        acted: Acted = acts.Acted(
            [each for part in of_buckets for each in part.done], [each for part in of_buckets for each in part.failed]
        )
        count = sum(one.get("requested", True) for one in acted.done)
        ended = len(acted.done) - count if chosen.ids else 0
        rest = f"; {output.executions(ended)} had ended before" if ended else ""
        others = sum(max(one.get("executions", 1) - 1, 0) for one in acted.done)
        rest += f", with {others} that belong to them" if others else ""
        code = bulk.show(call, acted, f"{many.what}: {count} of {output.executions(len(found))}{rest}")
        return EXIT_FAILED if ended else code


async def _find(place: Any, chosen: Selection, many: Many, *, limit: int) -> tuple[Sequence[Answer], list[int] | None]:
    """The executions that a call names, and those that the action leaves out, if it leaves out any."""
    if chosen.ids:
        named = {each: {"execution_id": each, "path": None, "reason": None} for each in chosen.ids}
        if many.asks:
            for rows in await import_module("noetl_broker.store.connect.places").in_their_buckets(
                place, chosen.ids, import_module("noetl_broker.store.admin.executions").list_chosen
            ):
                named |= {row["execution_id"]: row for row in rows}
        return [*named.values()], None
    acts, which = service("bulk"), service("executions").filter_of(chosen.which)
    in_turn = import_module("noetl_broker.store.connect.places").in_turn
    parts = await in_turn(place, lambda one: acts.find_executions(one, many.action, which, limit=limit))
    left = await in_turn(place, lambda one: acts.find_left_out(one, many.action, which, limit=MOST))
    found = [each for part in parts for each in part][:limit]
    return found, None if None in left else [each for part in left for each in part]


def bulk_command(
    name: str,
    one: str,
    said: Face,
    many: Many,
    *,
    example: str,
    role: str = OPERATOR,
    several: bool = False,
    fails: Callable[[Answer], bool] = is_not_requested,
    version: bool = True,
    on_path: Callable[[Call, str, Mapping[str, Any]], None] | None = None,
) -> Callable[[Callable[[Call, Any, Any], None]], click.Command]:
    """Make a command of a function that prints what became of one execution.

    `one` is the action on one execution. With filters, or several ids, the command acts on many. `on_path` acts where
    --path stands alone.
    """

    def decorate(show: Callable[[Call, Any, Any], None]) -> click.Command:
        def body(call: Call, *, chosen: Selection, bulk: BulkOptions, **given: Any) -> int:
            if on_path is not None and (path := chosen.path_alone) is not None:
                bulk.refuse(f"--path {path} alone", f"--status to {name} executions")
                on_path(call, path, given)
                return 0
            if len(chosen.ids) != 1 or many.asks:
                wanted = TREATMENT.read({**given, "action": many.action})
                return asyncio.run(act_on_many(call, chosen, bulk, many, wanted))
            asked = said.read({**given, "execution_id": chosen.ids[0]})
            answer = ask(call, one, asked)
            if not call.printed(answer):
                show(call, asked, answer)
            return EXIT_FAILED if fails(answer) else 0

        said._replace(hides=said.hides | {"execution_id"}).given_to(body)
        made = selection(several=several, version=version)(bulk_options(body, rate=many.rate))
        made.__doc__ = show.__doc__
        return command(name, example=example, role=role)(made)

    return decorate


def _left_out(count: int) -> str:
    be, those = ("is", "it") if count == 1 else ("are", "them")
    return f"{output.executions(count)} {be} left out, because a retry or a fork continues {those} already"


def _preview(call: Call, many: Many, groups: Sequence[Any], found: int, left_out: int | None) -> int:
    """Show what would be done; gives for how many it can be done."""
    counts = {"found": found} | ({} if left_out is None else {"left_out": left_out})
    if call.printed({**counts, "done": [], "groups": [group.model_dump() for group in groups]}):
        return found
    _show_groups(call, groups)
    if left_out:
        output.say(_left_out(left_out))
    able: int = found - sum(group.executions for group in groups if group.goes_on is False)
    if not able:
        output.say(f"it cannot be done for any of them: {output.executions(found)}; nothing was done")
    elif able < found:
        output.say(f"it cannot be done for {output.executions(found - able)}")
    if able < found and many.remedy is not None:
        output.say(many.remedy)
    if able and not output.can_ask():
        count = f"{able} of {output.executions(found)}" if able < found else output.executions(found)
        output.say(f"{many.what}: {count}; nothing was done, --yes does it")
    return able


def _show_groups(call: Call, groups: Sequence[Any]) -> None:
    fields = {name: attrgetter(name) for name in ("executions", "path", "version", "step", "reason")}
    columns: dict[str, Callable[[Any], Any]] = {**fields, "for example": attrgetter("example")}
    if any(group.outlook is not None for group in groups):
        columns["what it will do"] = lambda group: call.with_schema(group.outlook or "not previewed")
    output.Rows.of(groups[:GROUPS_SHOWN], columns, frozenset({"path"})).show()
    if len(groups) > GROUPS_SHOWN:
        output.say(f"… and {len(groups) - GROUPS_SHOWN} more groups")
    output.say()
    for path, version in dict.fromkeys((group.path, group.latest) for group in groups if group.latest is not None):
        count = sum(group.executions for group in groups if group.path == path and group.latest is not None)
        of = "1 execution is" if count == 1 else f"{count:,} executions are"
        output.say(f"{of} of another version of {path}; its latest is {version}: --version latest continues on it")
