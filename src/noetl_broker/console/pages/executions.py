"""The list of executions: filters, text search over the newest ones, and many chosen for one action."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Response

from noetl_broker.console.access import refuse_hidden_filter
from noetl_broker.console.pages.form_values import read_version
from noetl_broker.console.pages.screen import Paging, Shown
from noetl_broker.console.services import Pooled
from noetl_broker.errors import OperatorFault
from noetl_broker.service import paging
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.executions import ExecutionView
from noetl_broker.service.spans import parse_since, parse_until
from noetl_broker.store.admin import executions, list_pages
from noetl_broker.store.admin.overview import list_positions

router = APIRouter()

STATUSES: Final = ("RUNNING", "QUEUED", "PAUSED", "COMPENSATING", "FAILED", "COMPLETED", "CANCELLED")
SINCE: Final = (("", "any time"), ("15min", "15 minutes"), ("1h", "1 hour"), ("1d", "1 day"), ("7d", "7 days"))
# The actions on executions in a status.
ACTIONS: Final = {
    "RUNNING": ("fork", "pause", "cancel"),
    "QUEUED": ("pause", "cancel"),
    "PAUSED": ("fork", "resume", "cancel"),
    "COMPENSATING": (),
    "FAILED": ("retry", "fork"),
    "COMPLETED": ("fork",),
    "CANCELLED": ("fork",),
}
EVERY_ACTION: Final = ("retry", "fork", "pause", "resume", "cancel")
Text = Annotated[str, Query(max_length=LONGEST_TEXT)]


class FilterQuery:
    """The filters as the page's address has them; an empty text filters nothing."""

    def __init__(
        self,
        *,
        path: Text = "",
        status: Text = "",
        error: Text = "",
        step: Text = "",
        since: Text = "",
        until: Text = "",
        of_version: Text = "",
        text: Text = "",
    ) -> None:
        self.fields = {"path": path, "status": status, "error": error, "step": step, "since": since, "until": until}
        self.fields["of_version"] = of_version
        self.text = text.strip()
        self.faults: dict[str, str] = {}

    def filter(self) -> executions.Filter:
        """The filter for the store; what is wrong stands in `faults` and filters nothing."""
        given: dict[str, Any] = {name: value.strip() or None for name, value in self.fields.items()}
        for name, parse in (("since", parse_since), ("until", parse_until)):
            try:
                given[name] = None if given[name] is None else parse(given[name])
            except ValueError as error:
                self.faults[name], given[name] = str(error), None
        version = given.pop("of_version")
        try:
            given["version"] = None if version is None else read_version(version)
        except OperatorFault as error:
            self.faults["of_version"] = str(error)
        return executions.Filter(**given)

    @property
    def is_open(self) -> bool:
        """Whether a filter is set that stands in the folded part."""
        return any(self.fields[name] for name in ("error", "step", "until", "of_version")) or bool(self.faults)

    @property
    def is_set(self) -> bool:
        """Whether anything is filtered."""
        return bool(self.text) or any(self.fields.values())


@router.get("/executions")
async def list_executions(
    screen: Shown, connections: Pooled, page: Paging, asked: Annotated[FilterQuery, Depends()]
) -> Response:
    """Executions, the newest first."""
    refuse_hidden_filter(screen.caller, "errors", asked.fields["error"] or None)
    which = asked.filter()
    async with connections.borrow() as connection:
        found = await list_pages.page_executions(
            connection, which, text=asked.text or None, with_values=screen.may_act, **paging.place(page, int)
        )
        ids = [row["execution_id"] for row in found.items if row["status"] != "COMPLETED"]
        positions = await list_positions(connection, ids) if ids else {}
    listed = paging.listed(found)
    return screen.render(
        "executions.html",
        title="Executions",
        changes="all",
        items=[screen.seen(ExecutionView, row) for row in listed["items"]],
        next=listed["next"],
        positions=positions,
        asked=asked,
        statuses=STATUSES,
        actions=ACTIONS.get(asked.fields["status"], EVERY_ACTION),
        since=SINCE,
        searched=list_pages.SEARCHED,
    )
