"""The list of executions: filters, text search over the newest ones, and many chosen for one action."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response

from noetl_broker.console.pages.screen import Screen, Shown
from noetl_broker.service import executions as service
from noetl_broker.service import overview
from noetl_broker.service.bulk import actions_for
from noetl_broker.service.field_errors import FieldFault

router = APIRouter()

STATUSES: Final = ("RUNNING", "QUEUED", "PAUSED", "COMPENSATING", "FAILED", "COMPLETED", "CANCELLED")
SINCE: Final = (("", "any time"), ("15min", "15 minutes"), ("1h", "1 hour"), ("1d", "1 day"), ("7d", "7 days"))
FIELDS: Final = ("path", "status", "error", "step", "since", "until", "of_version", "key")
MOST_TAGS: Final = 16


class FilterQuery:
    """The filters as the page's address has them; an empty text filters nothing."""

    def __init__(self, request: Request) -> None:
        self.fields = Screen(request, None).asked(*FIELDS, "text")
        self.text = self.fields.pop("text")
        self.tags = [tag for tag in request.query_params.getlist("tag") if tag.strip()][: MOST_TAGS + 1]
        self.faults: dict[str, str] = {}

    def given(self) -> dict[str, Any]:
        """The filters for the service."""
        given: dict[str, Any] = {name.removeprefix("of_"): value for name, value in self.fields.items()}
        given |= {"text": self.text, "tag": self.tags}
        return {name: value for name, value in given.items() if value and name not in self.faults}

    @property
    def is_set(self) -> bool:
        """Whether anything is filtered."""
        return bool(self.text or self.tags) or any(self.fields.values())


@router.get("/executions")
async def list_executions(screen: Shown, asked: Annotated[FilterQuery, Depends()]) -> Response:
    """Executions, the newest first. A filter that is wrong filters nothing."""
    try:
        listed = await screen.rows(service.list_executions, **asked.given())
    except FieldFault as fault:
        asked.faults = dict(fault.errors)
        listed = await screen.rows(service.list_executions, **asked.given())
    ids = [row["execution_id"] for row in listed["items"] if row["status"] != "COMPLETED"]
    return screen.render(
        "executions.html",
        title="Executions",
        changes="all",
        positions=await screen.ask(overview.list_positions, execution_ids=ids) if ids else {},
        asked=asked,
        statuses=STATUSES,
        actions=actions_for(asked.fields["status"]),
        since=SINCE,
        searched=service.SEARCHED,
        **listed,
    )
