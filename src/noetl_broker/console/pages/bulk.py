"""One action on many executions: a preview of what it will do with each, then the action on exactly these."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Final, Literal, NamedTuple

from fastapi import APIRouter, Depends, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.executions import FilterQuery
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Posted, SentForm, Shown
from noetl_broker.errors import OperatorFault
from noetl_broker.service import bulk as service
from noetl_broker.service.bulk import MOST_COMPARED, MOST_COUNTED, MOST_EXAMPLES
from noetl_broker.service.field_errors import FieldFault
from noetl_broker.service.models.actions import MOST_TREATED, Bulk
from noetl_broker.service.models.base import LONGEST_TEXT, MOST_ROWS
from noetl_broker.service.models.values import GivenId

router = APIRouter()

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


class On(NamedTuple):
    """The fields of a retry or a fork; an empty text is ignored."""

    version: str = ""
    from_step: str = ""
    or_from_start: bool = False

    def given(self) -> dict[str, Any]:
        """The fields of the request."""
        version = self.version.strip()
        anew = {"or_from_start": True} if version and self.or_from_start else {}
        return {"version": version, "from_step": self.from_step.strip(), **anew}


class BulkQuery:
    """The request in the address: an action on the executions of `ids`, or on all that match the filters."""

    def __init__(
        self,
        *,
        action: Bulk,
        ids: Annotated[list[GivenId] | None, Query(alias="id", max_length=MOST_ROWS)] = None,
        scope: Annotated[Literal["all", ""], Query()] = "",
        after: GivenId = 0,
        version: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
        from_step: Annotated[str, Query(alias="from", max_length=LONGEST_TEXT)] = "",
        or_from_start: bool = False,
    ) -> None:
        self.action = action
        self.on = On(version, from_step, or_from_start)
        self.ids = ids or []
        self.is_all = scope == "all"
        self.after = after


@router.get("/executions/act")
async def show_preview(
    screen: Shown,
    _caller: Operator,
    asked: Annotated[FilterQuery, Depends()],
    wanted: Annotated[BulkQuery, Depends()],
) -> Response:
    """The preview of an action: on the executions of `id`, or, with `scope`, on all that match."""
    action = wanted.action
    back = link("/dead-letters" if action == "reevaluate" else "/executions", **asked.fields, text=asked.text)
    if not wanted.is_all and not wanted.ids:
        return SentForm(screen, {}).done(back, "Choose executions first: no one was chosen.", kind="warn")
    which = {"which": asked.given(), "after": wanted.after} if wanted.is_all else {"ids": wanted.ids}
    chosen = {"action": action, "preview": True, **which}
    fault = None
    try:
        found = await screen.ask(service.act_on_chosen, **chosen, **wanted.on.given())
    except FieldFault as error:
        if [*error.errors] != ["version"]:
            raise
        fault = str(error)
        found = {**await screen.ask(service.act_on_chosen, **chosen), "ready": False}
    groups = found["groups"]
    return screen.render(
        "act.html",
        title=f"{WORDINGS[action].verb} executions",
        action=action,
        wording=WORDINGS[action],
        newer=dict.fromkeys((group.path, group.latest) for group in groups if group.latest is not None),
        on=wanted.on,
        ids=wanted.ids,
        fault=fault,
        back=back,
        is_all=wanted.is_all,
        asked=asked,
        listed=LISTED,
        planned=planned_of(wanted, len(found["found"].batch), len(groups)) if found["ready"] else None,
        most_counted=MOST_COUNTED,
        **found,
    )


def planned_of(wanted: BulkQuery, executions: int, groups: int) -> str | None:
    """The executions that the preview planned, in words; None if it planned all of them."""
    if wanted.action not in {"retry", "fork"} or executions <= 1:
        return None
    if wanted.action == "fork" or wanted.on.version.strip():
        return f"the oldest {MOST_COMPARED}" if executions > MOST_COMPARED else None
    return "the newest of each line" if groups <= MOST_EXAMPLES else f"the newest of the first {MOST_EXAMPLES} lines"


@router.post("/executions/act")
async def act(form: Posted) -> Response:
    """Act on the executions that the preview named, and show what became of each."""
    action, ids = form.text("action"), [*islice(dict.fromkeys(form.all("id")), MOST_TREATED)]
    if not ids:
        raise OperatorFault("the form names no executions: choose them on the list of executions")
    on = On(form.text("version"), form.text("from"), form.text("or_from_start") == "true")
    acted = await form.ask(service.act_on_chosen, action=action, ids=ids, **on.given())
    back, following = form.text("back", "/executions"), form.text("next")
    if not (acted["failed"] or acted["left_out"] or following) and action not in {"retry", "fork"}:
        return form.done(back, sentence(action, acted))
    return form.screen.render(
        "acted.html",
        title=sentence(action, acted),
        action=action,
        wording=WORDINGS[action],
        back=back,
        following=following,
        **acted,
    )


def sentence(action: str, acted: Mapping[str, Any]) -> str:
    """One sentence about the finished action."""
    count, failed = len(acted["done"]), len(acted["failed"])
    said = f"{count:,} execution{' was' if count == 1 else 's were'} {WORDINGS[action].done}"
    return f"{said}; {failed:,} could not be." if failed else f"{said}."
