"""Playbooks of the catalog: list, versions, source, graph, difference, check, back-test, pause of a path."""

from __future__ import annotations

from difflib import unified_diff
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, StrictBool

from noetl_broker.console.access import Operator, Role, Viewer
from noetl_broker.console.api.bulk import Which
from noetl_broker.console.api.execution_actions import LONGEST_TEXT, Given, Nothing, WithReason
from noetl_broker.console.images import IMAGES, Form, drawn
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import LongWork, Pooled, Rules, ShortWork
from noetl_broker.console.values import Facts, Id, Moment
from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.errors import OperatorFault
from noetl_broker.operations.back_tests import back_test as compare
from noetl_broker.operations.back_tests import check_text
from noetl_broker.operations.check import CheckedFile
from noetl_broker.operations.pictures import without_values
from noetl_broker.playbook.diagnostics import Finding
from noetl_broker.playbook.plain_values import LARGEST_VERSION
from noetl_broker.store.admin import catalog, executions, list_pages
from noetl_broker.store.connect.connection import Connection

router = APIRouter(prefix="/playbooks", tags=["playbooks"])

MOST_COMPARED = 1_000  # executions of one back-test
LONGEST_SOURCE = 1 << 20  # characters
PathOf = Annotated[str, Query(min_length=1, max_length=LONGEST_TEXT, examples=["examples/weather"])]
VersionOf = Annotated[int | None, Query(ge=1, le=LARGEST_VERSION, description="default: the latest")]


class PlaybookView(BaseModel):
    """A version of a playbook."""

    path: str
    version: int
    catalog_id: Id
    name: str | None
    created_at: Moment


class Latest(PlaybookView):
    """The latest version of a path."""

    paused: bool = Field(description="its new executions are queued")


class Source(BaseModel):
    """The text of a version."""

    path: str
    version: int
    content: str


class DifferenceView(BaseModel):
    """A unified diff of two versions; empty where they are equal."""

    path: str
    version: int
    other: int
    diff: str


class Text(Given):
    """The text of a playbook that is edited."""

    content: str = Field(max_length=LONGEST_SOURCE)
    strict: StrictBool = Field(default=False, description="warnings are errors")


class Findings(BaseModel):
    """Whether it could be registered, and what is wrong."""

    valid: bool
    findings: list[Finding]


class BackTest(Given):
    """An edited playbook, and the executions to compare with; without filters, the newest of its path."""

    content: str = Field(max_length=LONGEST_SOURCE)
    which: Which | None = None
    limit: int = Field(100, ge=1, le=MOST_COMPARED, description="executions, the newest first")
    ways_only: StrictBool = Field(default=False, description="other inputs of a job are not a difference")


class BackTested(BaseModel):
    """How many executions go the same way, and where the others diverge. With `findings` alone: it has errors."""

    findings: list[Finding] = Field(default_factory=list)
    path: str | None = None
    executions: int = 0
    same: int = 0
    still_running: int = 0
    parting: int = 0
    groups: list[Facts] = Field(default_factory=list)
    notes: list[dict[str, Any]] = Field(default_factory=list)
    unreadable: list[dict[str, Any]] = Field(default_factory=list)


class PathPaused(BaseModel):
    """Whether new executions of a path are queued now, and whether that changed; `admitted`: queued ones that run."""

    path: str
    paused: bool
    changed: bool
    admitted: int = 0


@router.get("", response_model=Listed[Latest])
async def list_playbooks(
    _caller: Viewer,
    connections: Pooled,
    page: Paging,
    path: Annotated[str | None, Query(max_length=LONGEST_TEXT, description="* stands for any characters")] = None,
) -> Any:
    """List the playbooks by path, each with its latest version."""
    async with connections.borrow() as connection:
        return page.document(await list_pages.page_playbooks(connection, path=path, **page.arguments(str)))


@router.get("/versions", response_model=Listed[PlaybookView])
async def list_versions(_caller: Viewer, connections: Pooled, page: Paging, path: PathOf) -> Any:
    """List the versions of a playbook, the latest first."""
    async with connections.borrow() as connection:
        found = await list_pages.page_versions(connection, path, **page.arguments(int))
        if not found.items and page.cursor is None:
            await catalog.find(connection, path, None)
    return page.document(found)


@router.get("/source", response_model=Source)
async def show_source(_caller: Operator, connections: Pooled, path: PathOf, version: VersionOf = None) -> Any:
    """Show the text of a version. It may hold values, so a viewer does not see it."""
    async with connections.borrow() as connection:
        found = await catalog.find(connection, path, version)
    return {"path": found.path, "version": found.version, "content": found.content}


@router.get("/graph", response_class=Response, responses=IMAGES)
async def draw_playbook(
    caller: Viewer,
    work: ShortWork,
    rules: Rules,
    path: PathOf,
    version: VersionOf = None,
    form: Form = "svg",
) -> Response:
    """Draw a playbook. A viewer gets no conditions."""

    async def draw(connection: Connection) -> Response:
        found = await catalog.find(connection, path, version)
        picture = picture_of_playbook(found.compile(rules), found.version)
        return drawn(picture if caller.role is Role.OPERATOR else without_values(picture), form)

    return await work.run(draw)


@router.get("/difference", response_model=DifferenceView)
async def compare_versions(
    _caller: Operator,
    work: ShortWork,
    path: PathOf,
    version: Annotated[int, Query(ge=1, le=LARGEST_VERSION)],
    other: Annotated[int, Query(ge=1, le=LARGEST_VERSION)],
) -> Any:
    """Show what differs between two versions, as a unified diff."""
    names = f"version {version}", f"version {other}"

    async def diff(connection: Connection) -> str:
        before, after = [await catalog.find(connection, path, each) for each in (version, other)]
        return "\n".join(unified_diff(before.content.splitlines(), after.content.splitlines(), *names, lineterm=""))

    return {"path": path, "version": version, "other": other, "diff": await work.run(diff)}


@router.post("/validate", response_model=Findings)
async def validate(_caller: Operator, work: ShortWork, rules: Rules, text: Text) -> Any:
    """Check the text of a playbook with the step types and the playbooks of the catalog. Registers nothing."""

    async def check(connection: Connection) -> CheckedFile:
        return await check_text(connection, text.content, rules, strict=text.strict)

    checked = await work.run(check)
    return {"valid": not checked.errors, "findings": checked.findings}


@router.post("/back-test", response_model=BackTested)
async def back_test(_caller: Operator, work: LongWork, rules: Rules, test: BackTest) -> Any:
    """Compare recorded executions with an edited playbook: which would go another way, where, and why."""
    which = executions.Filter() if test.which is None else test.which.as_filter()

    async def run(connection: Connection) -> dict[str, Any]:
        checked = await check_text(connection, test.content, rules)
        if checked.errors:
            return {"findings": checked.findings}
        comparisons = await compare(connection, checked, which, rules, limit=test.limit, ways_only=test.ways_only)
        return comparisons.as_document()

    return await work.run(run)


@router.post("/pause", response_model=PathPaused)
async def pause_path(_caller: Operator, connections: Pooled, path: PathOf, given: WithReason | None = None) -> Any:
    """Queue the new executions of a playbook. Running executions are not paused."""
    reason = None if given is None else given.reason
    async with connections.borrow() as connection:
        changed = await executions.pause_path(connection, _one(path), reason)
    return {"path": path, "paused": True, "changed": changed}


@router.post("/resume", response_model=PathPaused)
async def resume_path(_caller: Operator, work: LongWork, path: PathOf, _given: Nothing | None = None) -> Any:
    """Let the new executions of a playbook run again, and admit queued executions, the oldest first."""
    one = _one(path)
    changed, admitted = await work.run(lambda connection: executions.resume_path(connection, one))
    return {"path": path, "paused": False, "changed": changed, "admitted": admitted}


def _one(path: str) -> str:
    """A path without a pattern; raises OperatorFault."""
    if "*" in path:
        raise OperatorFault(f"{path} is a pattern: name one playbook; /executions/bulk/pause pauses executions")
    return path
