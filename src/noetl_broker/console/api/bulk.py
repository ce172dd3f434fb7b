"""One action on many executions: a preview that counts them, or the action on a bounded number."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from noetl_broker.console.access import Operator
from noetl_broker.console.api.execution_actions import (
    LONGEST_TEXT,
    Given,
    OnVersion,
    OrFromStart,
    Version,
    is_given,
    on_version,
)
from noetl_broker.console.api.executions import Status
from noetl_broker.console.services import LongWork, Rules
from noetl_broker.console.values import GivenId, Id, Time
from noetl_broker.errors import OperatorFault
from noetl_broker.operations.bulk import act_on_each, find_executions, find_left_out
from noetl_broker.operations.bulk_actions import Request, action_of, preview_groups
from noetl_broker.operations.spans import parse_since, parse_until
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.connect.connection import Connection

router = APIRouter(prefix="/executions/bulk", tags=["executions"])

MOST_COUNTED = 10_000  # executions of a preview
MOST_TREATED = 500  # executions of one request
MOST_GROUPS = 100
MOST_PLANNED = 200  # executions that a preview looks at one by one
RATE = 10_000.0  # a second: the number of executions bounds a request

Acting = Literal["cancel", "pause", "resume", "retry", "fork", "reevaluate"]


_FILTER = is_given("path", "status", "error", "step", "since", "until", "version")
_ALL: dict[str, Any] = {"required": ["all"], "properties": {"all": {"const": True}}}


class Which(Given):
    """Which executions; at least one filter, or `all`."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_FILTER, _ALL]})

    path: str | None = Field(None, max_length=LONGEST_TEXT, description="* stands for any characters")
    status: Status | None = None
    error: str | None = Field(None, max_length=LONGEST_TEXT)
    step: str | None = Field(None, max_length=LONGEST_TEXT, description="where it failed")
    since: Time | None = None
    until: Time | None = None
    version: Version | None = Field(None, description="of this version of their playbook")
    all: StrictBool = False

    def as_filter(self) -> Filter:
        """The filter; raises OperatorFault where it names nothing: an action never takes all by default."""
        since = None if self.since is None else parse_since(self.since)
        until = None if self.until is None else parse_until(self.until)
        which = Filter(
            path=self.path,
            status=self.status,
            error=self.error,
            step=self.step,
            since=since,
            until=until,
            version=self.version,
        )
        if which == Filter() and not self.all:
            raise OperatorFault('the filter names no executions: give a filter, or "all": true')
        return which


class BulkRequest(Given):
    """What to do with which executions."""

    which: Which
    preview: StrictBool = Field(default=True, description="count them and do nothing; false: do it")
    limit: int = Field(100, ge=1, le=MOST_TREATED, description="executions of one request; `next` goes on")
    after: GivenId | None = Field(None, description="`next` of the request before")
    reason: str | None = Field(None, max_length=LONGEST_TEXT, description="of cancel and pause")
    from_step: str | None = Field(None, alias="from", max_length=LONGEST_TEXT, description="of fork")
    version: OnVersion = None
    or_from_start: OrFromStart = False


class GroupView(BaseModel):
    """Executions of one version, step and reason, without the numbers and ids in which their reasons differ."""

    path: str | None
    version: int | None
    step: str | None
    reason: str
    executions: int
    example: Id
    latest: int | None = Field(None, description="the latest version of the path, where it is newer")
    outlook: str | None = Field(None, description="what the action will do; null: not previewed")
    goes_on: bool | None = Field(None, description="false: the action cannot be done")


class Done(BaseModel):
    """An execution that was treated."""

    execution_id: Id
    requested: bool | None = None
    version: int | None = Field(None, description="another version on which it goes on")
    anew: str | None = Field(None, description="why it starts from the start on that version")
    recovered_as: Id | None = None
    put_back: int | None = None


class Failed(BaseModel):
    """An execution on which the action failed."""

    execution_id: Id
    message: str


class Treated(BaseModel):
    """A preview: `found`, at most 10,000, and `groups`. Or what was done, oldest first, and where to go on."""

    found: int
    left_out: int = Field(0, description="of a preview: they match, but a retry or a fork continues them")
    groups: list[GroupView] = Field(default_factory=list)
    done: list[Done] = Field(default_factory=list)
    failed: list[Failed] = Field(default_factory=list)
    next: Id | None = Field(None, description="`after` of the next request; null: there are no more")


@router.post("/{action}", response_model=Treated)
async def act_on_many(_caller: Operator, work: LongWork, rules: Rules, action: Acting, bulk: BulkRequest) -> Any:
    """Cancel, pause, resume, retry, fork or reevaluate many executions, or count them by a preview.

    `retry` takes failed executions that nothing recovered before and that have no parent; `fork` does so too, but
    `which` can have another status. `reevaluate` takes those with dead letters. A preview of a fork, or of a retry with
    `version`, plans each of the first 200.
    """
    which = bulk.which.as_filter()
    if (bulk.from_step is None) == (action == "fork"):
        raise OperatorFault("`from` is the step to fork from: give it with fork, and only there")
    if bulk.version is not None and action not in {"retry", "fork"}:
        raise OperatorFault("`version` is that on which a retry or a fork goes on: give it with these only")
    on = on_version(bulk.version, rules, or_from_start=bulk.or_from_start)
    request = Request(action, rules, reason=bulk.reason, from_step=bulk.from_step, on=on)
    most = MOST_COUNTED if bulk.preview else bulk.limit

    async def act(connection: Connection) -> dict[str, Any]:
        found = await find_executions(connection, action, which, limit=most, after=bulk.after or 0)
        if bulk.preview:
            groups = await preview_groups(connection, request, found, most_planned=MOST_PLANNED)
            left_out = await find_left_out(connection, action, which, limit=MOST_COUNTED) or []
            return {
                "found": len(found),
                "left_out": len(left_out),
                "groups": [group._asdict() for group in groups[:MOST_GROUPS]],
            }
        acted = await act_on_each(found, action_of(connection, request), rate=RATE)
        following = found[-1]["execution_id"] if len(found) == most else None
        return {"found": len(found), **acted._asdict(), "next": following}

    return await work.run(act)
