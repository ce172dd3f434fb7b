"""One action on many executions: a preview of what it will do with each, then the action on exactly these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Annotated, Final, Literal, NamedTuple

from fastapi import APIRouter, Depends, Query, Response

from noetl_broker.broker.state.state import FAILED
from noetl_broker.console.access import Operator
from noetl_broker.console.pages.executions import FilterQuery
from noetl_broker.console.pages.form_values import read_id, read_version
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Posted, SentForm, Shown
from noetl_broker.console.services import LongWork, Rules
from noetl_broker.errors import OperatorFault
from noetl_broker.playbook import PlaybookRules
from noetl_broker.service.bulk import (
    MOST_COUNTED,
    RATE,
    Acted,
    BulkAction,
    Group,
    act_on_each,
    action_of,
    find_executions,
    find_left_out,
    group_executions,
    preview_groups,
    why_left_out,
)
from noetl_broker.service.models.actions import MOST_TREATED
from noetl_broker.service.models.base import LONGEST_TEXT, MOST_ROWS
from noetl_broker.service.models.values import GivenId
from noetl_broker.service.recoveries import OnVersion, preview_outlook
from noetl_broker.store.admin import executions, list_pages
from noetl_broker.store.admin.executions import Entry
from noetl_broker.store.connect.connection import Connection

router = APIRouter()

Acting = Literal["retry", "fork", "pause", "resume", "cancel", "reevaluate"]
MOST_GROUPS: Final = 20  # that a preview lists
MOST_PLANNED: Final = 8  # groups whose example is planned
MOST_COMPARED: Final = 12  # executions that a preview of a fork, or on another version, plans one by one
LISTED: Final = 100  # executions that a preview names


class Wording(NamedTuple):
    """How an action is called, what it does with each execution, and what was done."""

    verb: str
    does: str
    done: str
    picture: str
    kind: str = "primary"
    takes_reason: bool = False


WORDINGS: Final[Mapping[str, Wording]] = {
    "retry": Wording(
        "Retry",
        "Each starts a new execution at the step that failed. The new one takes over the results so far; the old one"
        " stays as it is. A second retry of the same execution starts nothing.",
        "started again",
        "retry",
    ),
    "fork": Wording(
        "Fork",
        "Each starts a new execution at the step that you choose, with the results from before it. The old one stays as"
        " it is. A second fork of the same execution from that step starts nothing.",
        "forked",
        "fork",
    ),
    "pause": Wording(
        "Pause", "Each starts no further job until it is resumed. Jobs that a worker has leased go on to their end.",
        "asked to pause", "pause", takes_reason=True,
    ),
    "resume": Wording("Resume", "Each goes on where it was paused, with its children.", "asked to go on", "resume"),
    "cancel": Wording(
        "Cancel",
        "Each ends as CANCELLED, with its children. Jobs that no worker has begun are cancelled. A cancel cannot be"
        " undone; a fork starts again from any step.",
        "asked to end", "cancel", "danger", takes_reason=True,
    ),
    "reevaluate": Wording(
        "Reevaluate",
        "The broker reads the events again that it set aside. Events that it still cannot decide on come back as dead"
        " letters.",
        "given back to the broker",
        "retry",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview: `chosen` executions match, the action takes `batch` of them now, and `left_out` has the others."""

    batch: list[Entry]
    chosen: int
    acted: int  # that the action is for, in this batch and later ones
    left_out: dict[str, list[int]] = field(default_factory=dict)

    @property
    def after(self) -> int | None:
        """Where the next batch begins; None if this is the last."""
        return self.batch[-1]["execution_id"] if self.acted > len(self.batch) else None


class On(NamedTuple):
    """The fields of a retry or a fork; an empty text is ignored."""

    version: str = ""
    from_step: str = ""
    or_from_start: bool = False

    def request(self, action: Acting, rules: PlaybookRules, *, reason: str | None = None) -> BulkAction:
        """The action. Raises OperatorFault for a bad version, or where a fork has no step."""
        text, on = self.version.strip(), None
        if text:
            number = None if text == "latest" else read_version(text)
            on = OnVersion(number, rules, or_from_start=self.or_from_start)
        if action == "fork" and not self.from_step.strip():
            raise OperatorFault("choose the step from which each starts")
        return BulkAction(action, rules, reason, self.from_step.strip() or None, on)


class BulkQuery:
    """The request in the address: an action on the executions of `ids`, or on all that match the filters."""

    def __init__(
        self,
        *,
        action: Acting,
        ids: Annotated[list[GivenId] | None, Query(alias="id", max_length=MOST_ROWS)] = None,
        scope: Annotated[Literal["all", ""], Query()] = "",
        after: GivenId | None = None,
        version: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
        from_step: Annotated[str, Query(alias="from", max_length=LONGEST_TEXT)] = "",
        or_from_start: bool = False,
    ) -> None:
        self.action: Acting = action
        self.on = On(version, from_step, or_from_start)
        self.ids = ids or []
        self.is_all = scope == "all"
        self.after = after or 0


@router.get("/executions/act")
async def show_preview(
    screen: Shown,
    _caller: Operator,
    work: LongWork,
    rules: Rules,
    asked: Annotated[FilterQuery, Depends()],
    wanted: Annotated[BulkQuery, Depends()],
) -> Response:
    """The preview of an action: on the executions of `id`, or, with `scope`, on all that match."""
    action = wanted.action
    back = link("/dead-letters" if action == "reevaluate" else "/executions", **asked.fields, text=asked.text)
    if not wanted.is_all and not wanted.ids:
        return SentForm(screen, {}).done(back, "Choose executions first: no one was chosen.", kind="warn")

    fault = None
    try:
        request = wanted.on.request(action, rules)
    except OperatorFault as error:
        request, fault = None, str(error)

    async def preview(connection: Connection) -> tuple[Preview, list[Group], list[str]]:
        if wanted.is_all:
            found = await preview_matching(connection, action, asked, after=wanted.after)
        else:
            found = preview_chosen(action, await executions.list_chosen(connection, wanted.ids), wanted.ids)
        if request is None:
            return found, group_executions(found.batch)[:MOST_GROUPS], await steps_of(connection, found.batch)
        groups = await preview_groups(connection, request, found.batch, most_planned=MOST_COMPARED)
        groups[:MOST_PLANNED] = [await with_outlook(connection, request, group) for group in groups[:MOST_PLANNED]]
        return found, groups[:MOST_GROUPS], await steps_of(connection, found.batch) if action == "fork" else []

    found, groups, steps = await work.run(preview)
    return screen.render(
        "act.html",
        title=f"{WORDINGS[action].verb} executions",
        action=action,
        wording=WORDINGS[action],
        found=found,
        groups=groups,
        newer=dict.fromkeys((group.path, group.latest) for group in groups if group.latest is not None),
        steps=steps,
        on=wanted.on,
        ids=wanted.ids,
        fault=fault,
        ready=request is not None,
        back=back,
        is_all=wanted.is_all,
        asked=asked,
        listed=LISTED,
        planned=planned_of(request, found.batch, groups),
        most_counted=MOST_COUNTED,
    )


def planned_of(request: BulkAction | None, batch: Sequence[Entry], groups: Sequence[Group]) -> str | None:
    """The executions that the preview planned, in words; None if it planned all of them."""
    if request is None or request.action not in {"retry", "fork"} or len(batch) <= 1:
        return None
    if request.action == "fork" or request.on is not None:
        return f"the oldest {MOST_COMPARED}" if len(batch) > MOST_COMPARED else None
    return (
        "the newest of each line"
        if len(groups) <= MOST_PLANNED
        else f"the newest of each of the first {MOST_PLANNED} lines"
    )


async def steps_of(connection: Connection, batch: Sequence[Entry]) -> list[str]:
    """The steps of the newest execution, from which forks may begin."""
    if not batch:
        return []
    details = await executions.load_execution_details(connection, batch[-1]["execution_id"])
    return [row["step"] for row in details["steps"]]


async def with_outlook(connection: Connection, request: BulkAction, group: Group) -> Group:
    """The group with what a retry of its example would begin with, unless it is known."""
    if request.action != "retry" or group.outlook is not None:
        return group
    outlook = await preview_outlook(connection, group.example, request.rules, request.on)
    return group._replace(outlook=outlook.says, goes_on=outlook.goes_on)


async def preview_matching(connection: Connection, action: Acting, asked: FilterQuery, *, after: int) -> Preview:
    """All that match the filters and that the action is for; a searched text chooses among the newest executions."""
    which = asked.filter()
    if asked.faults:
        raise OperatorFault("; ".join(asked.faults.values()))
    if asked.text:
        if action == "fork" and which.status is None:
            which = replace(which, status=FAILED)
        page = await list_pages.page_executions(connection, which, text=asked.text, limit=MOST_COUNTED)
        ids = [row["execution_id"] for row in page.items if row["execution_id"] > after]
        return preview_chosen(action, await executions.list_chosen(connection, ids), ids)
    found = await find_executions(connection, action, which, limit=MOST_COUNTED, after=after)
    left_out = await find_left_out(connection, action, which, limit=MOST_COUNTED)
    return Preview(
        found[:MOST_TREATED], len(found), len(found), {"was recovered already": left_out} if left_out else {}
    )


def preview_chosen(action: Acting, rows: Sequence[Entry], ids: Sequence[int]) -> Preview:
    """The preview of an action on chosen executions. It leaves out some, each with the reason."""
    left_out: defaultdict[str, list[int]] = defaultdict(list)
    known = {row["execution_id"] for row in rows}
    for execution_id in dict.fromkeys(ids):
        if execution_id not in known:
            left_out["does not exist"].append(execution_id)
    batch = []
    for row in rows:
        why = why_left_out(action, row)
        if why is None:
            batch.append(row)
        else:
            left_out[why].append(row["execution_id"])
    return Preview(batch[:MOST_TREATED], len(set(ids)), len(batch), dict(left_out))


@router.post("/executions/act")
async def act(form: Posted, work: LongWork, rules: Rules) -> Response:
    """Act on the executions that the preview named, and show what became of each."""
    action = _action_of(form)
    ids = _ids_of(form)
    on = On(form.text("version"), form.text("from"), form.text("or_from_start") == "true")
    request = on.request(action, rules, reason=form.text("reason").strip() or None)

    async def act_on_chosen(connection: Connection) -> tuple[list[Entry], Preview, Acted]:
        rows = await executions.list_chosen(connection, ids)
        preview = preview_chosen(action, rows, ids)
        return rows, preview, await act_on_each(preview.batch, action_of(connection, request), rate=RATE)

    rows, preview, acted = await work.run(act_on_chosen)
    back, following = form.text("back", "/executions"), form.text("next")
    if not (acted.failed or preview.left_out or following) and action not in {"retry", "fork"}:
        return form.done(back, sentence(action, acted))
    by_id = {row["execution_id"]: row for row in rows}
    return form.screen.render(
        "acted.html",
        title=sentence(action, acted),
        action=action,
        wording=WORDINGS[action],
        done=[(by_id[one["execution_id"]], one) for one in acted.done],
        failed=[(by_id[one["execution_id"]], one["message"]) for one in acted.failed],
        left_out=preview.left_out,
        back=back,
        following=following,
    )


def sentence(action: str, acted: Acted) -> str:
    """One sentence about the finished action."""
    count, failed = len(acted.done), len(acted.failed)
    said = f"{count:,} execution{' was' if count == 1 else 's were'} {WORDINGS[action].done}"
    return f"{said}; {failed:,} could not be." if failed else f"{said}."


def _action_of(form: SentForm) -> Acting:
    action = form.text("action")
    for known in ("retry", "fork", "pause", "resume", "cancel", "reevaluate"):
        if action == known:
            return known
    raise OperatorFault(f"there is no action {action!r:.80}: it is one of {', '.join(WORDINGS)}")


def _ids_of(form: SentForm) -> list[int]:
    ids = [read_id(text) for text in islice(dict.fromkeys(form.all("id")), MOST_TREATED)]
    if not ids:
        raise OperatorFault("the form names no executions: choose them on the list of executions")
    return ids
