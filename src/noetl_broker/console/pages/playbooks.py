"""Pages of playbooks: the list, graph, source, versions, differences; pause and resume of a path."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.opened_playbook import Opened, WhichPlaybook, compiled, open_playbook, show_part
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Paging, Posted, Screen, SentForm, Shown, picture
from noetl_broker.console.services import LongWork, Pooled, Rules
from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.svg import render_svg
from noetl_broker.errors import OperatorFault
from noetl_broker.playbook import PlaybookRules
from noetl_broker.playbook.plain_values import LARGEST_VERSION
from noetl_broker.service import playbooks as service
from noetl_broker.service.check import CheckedFile, check_source
from noetl_broker.service.images import without_values
from noetl_broker.service.models.base import LONGEST_TEXT, Paged
from noetl_broker.service.models.executions import ExecutionView
from noetl_broker.service.source_lines import compare_texts, lines_with_findings
from noetl_broker.store.admin import catalog, executions, list_pages
from noetl_broker.store.admin.executions import Filter

router = APIRouter()

NEWEST: Final = 8  # executions beside the graph


@router.get("/playbooks")
async def show_playbooks(
    screen: Shown,
    connections: Pooled,
    rules: Rules,
    page: Paging,
    named: WhichPlaybook,
    search: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
) -> Response:
    """The list, or with a path the graph of a playbook and its newest executions."""
    if not named.path:
        return await list_playbooks(screen, page, search.strip())
    async with connections.borrow() as connection:
        opened = await open_playbook(screen, connection, named)
        recent = await list_pages.page_executions(connection, Filter(path=named.path), limit=NEWEST)
    playbook, fault = await compiled(opened.of, rules)
    drawn = None
    if playbook is not None:
        found = picture_of_playbook(playbook, opened.of.version)
        drawn = picture(await asyncio.to_thread(render_svg, found if screen.may_act else without_values(found)))
    return show_part(
        screen,
        opened,
        "graph",
        changes="all",
        drawn=drawn,
        fault=fault if screen.may_act else fault and "This version cannot be read.",
        recent=[screen.seen(ExecutionView, row) for row in recent.items],
    )


async def list_playbooks(screen: Screen, page: Paged, search: str) -> Response:
    """The latest version of each path; a search without `*` finds a part of the path."""
    pattern = search if "*" in search or not search else f"*{search}*"
    listed = await screen.rows(service.list_playbooks, page, path=pattern)
    return screen.render("playbooks.html", title="Playbooks", search=search, **listed)


@router.get("/playbooks/source")
async def show_source(
    screen: Shown, _caller: Operator, connections: Pooled, rules: Rules, named: WhichPlaybook
) -> Response:
    """The text with line numbers; what lint finds stands beside its line."""
    async with connections.borrow() as connection:
        opened = await open_playbook(screen, connection, named)
    checked = await asyncio.to_thread(_lint, opened.of, rules)
    lines = lines_with_findings(opened.of.content, checked.findings)
    return show_part(screen, opened, "source", lines=lines, checked=checked)


def _lint(version: catalog.Version, rules: PlaybookRules) -> CheckedFile:
    """The findings of a registered text: nothing in the catalog is refused for the types of its steps."""
    return check_source(version.path, version.content.encode(errors="surrogatepass"), rules.of_registered())


@router.get("/playbooks/versions")
async def show_versions(screen: Shown, connections: Pooled, named: WhichPlaybook) -> Response:
    """All versions, the latest first."""
    async with connections.borrow() as connection:
        return show_part(screen, await open_playbook(screen, connection, named), "versions")


@router.get("/playbooks/difference")
async def show_difference(
    screen: Shown,
    _caller: Operator,
    connections: Pooled,
    named: WhichPlaybook,
    other: Annotated[int | None, Query(ge=1, le=LARGEST_VERSION)] = None,
) -> Response:
    """The differences between a version and another one, by default the version before."""
    async with connections.borrow() as connection:
        opened = await open_playbook(screen, connection, named)
        chosen = other or _before(opened)
        found = opened.of if chosen is None else await catalog.find(connection, opened.of.path, chosen)
    old, new = sorted((found, opened.of), key=lambda each: each.version)
    compared = await asyncio.to_thread(compare_texts, old.content, new.content)
    return show_part(screen, opened, "difference", other=chosen, old=old, new=new, compared=compared)


def _before(opened: Opened) -> int | None:
    """The version before the open version; for the first version, the next one."""
    numbers = [row["version"] for row in opened.versions]
    older = [number for number in numbers if number < opened.of.version]
    newer = [number for number in numbers if number > opened.of.version]
    return max(older) if older else min(newer) if newer else None


@router.post("/playbooks/pause")
async def pause(form: Posted, connections: Pooled) -> Response:
    """Queue the new executions of a path."""
    path, reason = _one_path(form), form.text("reason").strip()
    async with connections.borrow() as connection:
        changed = await executions.pause_path(connection, path, reason or None)
    said = f"New executions of {path} are queued from now on." if changed else f"{path} was paused already."
    return form.done(link("/playbooks", path=path), said)


@router.post("/playbooks/resume")
async def resume(form: Posted, work: LongWork) -> Response:
    """Let new executions of a path run again, and admit those that are queued."""
    path = _one_path(form)
    changed, admitted = await work.run(lambda connection: executions.resume_path(connection, path))
    queued = f"{admitted:,} queued execution{' goes' if admitted == 1 else 's go'} on."
    said = f"New executions of {path} run again; {queued}" if changed else f"{path} was not paused."
    return form.done(link("/playbooks", path=path), said)


def _one_path(form: SentForm) -> str:
    path = form.text("path")
    if not path or "*" in path:
        raise OperatorFault(f"{path!r:.80} is not the path of one playbook")
    return path
