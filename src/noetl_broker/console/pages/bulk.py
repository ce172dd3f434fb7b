"""One action on many executions: a preview of what it will do with each, then the action on exactly these."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Depends, Response

from noetl_broker.console.pages.executions import FilterQuery
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Acting, Posted, SentForm
from noetl_broker.errors import OperatorFault
from noetl_broker.service import bulk as service
from noetl_broker.service.bulk import MOST_COMPARED, MOST_COUNTED, MOST_EXAMPLES
from noetl_broker.service.field_errors import FieldFault
from noetl_broker.service.models.actions import MOST_TREATED

router = APIRouter()

ON: Final = ("version", "from", "or_from_start")
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
    "erase": Wording(
        "Erase",
        "The values of each are erased, with those of what it started, of its forks and of its retries. Statuses, times"
        " and names of steps stay. Nothing brings the values back.",
        "erased", "cancel", "danger",
    ),
}  # fmt: skip


def on_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a retry or a fork, of an address or a form; without a version, nothing starts anew."""
    version = fields["version"].strip()
    anew = {"or_from_start": fields["or_from_start"]} if version else {}
    return {"version": version, "from_step": fields["from"].strip(), **anew}


@router.get("/executions/act")
async def show_preview(screen: Acting, asked: Annotated[FilterQuery, Depends()]) -> Response:
    """The preview of an action: on the executions of `id`, or, with `scope`, on all that match."""
    query, ids = screen.asked("action", "scope", "after", *ON), screen.request.query_params.getlist("id")
    action, is_all = query["action"], query["scope"] == "all"
    back = link(
        "/dead-letters" if action == "reevaluate" else "/executions", **asked.fields, tag=asked.tags, text=asked.text
    )
    if not is_all and not ids:
        return SentForm(screen, {}).done(back, "Choose executions first: no one was chosen.", kind="warn")
    which = {"which": asked.given(), "after": query["after"]} if is_all else {"ids": ids}
    chosen, fault = {"action": action, "preview": True, **which}, None
    try:
        found = await screen.ask(service.act_on_chosen, **chosen, **on_of(query))
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
        on=query,
        ids=ids,
        fault=fault,
        back=back,
        is_all=is_all,
        asked=asked,
        listed=LISTED,
        planned=planned_of(query, len(found["found"].batch), len(groups)) if found["ready"] else None,
        most_counted=MOST_COUNTED,
        **found,
    )


def planned_of(query: Mapping[str, str], executions: int, groups: int) -> str | None:
    """The executions that the preview planned, in words; None if it planned all of them."""
    if query["action"] not in {"retry", "fork", "erase"} or executions <= 1:
        return None
    if query["action"] != "retry" or query["version"]:
        return f"the oldest {MOST_COMPARED}" if executions > MOST_COMPARED else None
    return "the newest of each line" if groups <= MOST_EXAMPLES else f"the newest of the first {MOST_EXAMPLES} lines"


@router.post("/executions/act")
async def act(form: Posted) -> Response:
    """Act on the executions that the preview named, and show what became of each."""
    action, ids = form.text("action"), [*islice(dict.fromkeys(form.all("id")), MOST_TREATED)]
    if not ids:
        raise OperatorFault("the form names no executions: choose them on the list of executions")
    acted = await form.ask(service.act_on_chosen, action=action, ids=ids, **on_of(form.texts(*ON)))
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
