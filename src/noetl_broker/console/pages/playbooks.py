"""Pages of playbooks: the list, graph, source, versions, differences; pause and resume of a path."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.opened_playbook import Opened, WhichPlaybook, compiled, open_playbook, show_part
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Paging, Posted, Screen, Shown, picture
from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.svg import render_svg
from noetl_broker.playbook.plain_values import LARGEST_VERSION
from noetl_broker.playbook.source_lines import compare_texts, lines_with_findings
from noetl_broker.service import executions
from noetl_broker.service import playbooks as service
from noetl_broker.service.check import check_source
from noetl_broker.service.images import without_values
from noetl_broker.service.models.base import LONGEST_TEXT, Paged

router = APIRouter()

NEWEST: Final = 8  # executions beside the graph


@router.get("/playbooks")
async def show_playbooks(
    screen: Shown, page: Paging, named: WhichPlaybook, search: Annotated[str, Query(max_length=LONGEST_TEXT)] = ""
) -> Response:
    """The list, or with a path the graph of a playbook and its newest executions."""
    if not named.path:
        return await list_playbooks(screen, page, search.strip())
    opened = await open_playbook(screen, named)
    recent = await screen.rows(executions.list_executions, Paged(limit=NEWEST), path=named.path)
    playbook, fault = await compiled(screen, opened)
    drawn = None
    if playbook is not None:
        found = picture_of_playbook(playbook, opened.of.version)
        drawn = picture(await asyncio.to_thread(render_svg, found if screen.may_act else without_values(found)))
    no_graph = fault if screen.may_act else "This version cannot be read."
    return show_part(screen, opened, "graph", changes="all", drawn=drawn, no_graph=no_graph, recent=recent["items"])


async def list_playbooks(screen: Screen, page: Paged, search: str) -> Response:
    """The latest version of each path; a search without `*` finds a part of the path."""
    pattern = search if "*" in search or not search else f"*{search}*"
    listed = await screen.rows(service.list_playbooks, page, path=pattern)
    return screen.render("playbooks.html", title="Playbooks", search=search, **listed)


@router.get("/playbooks/source")
async def show_source(screen: Shown, _caller: Operator, named: WhichPlaybook) -> Response:
    """The text with line numbers; what lint finds stands beside its line."""
    opened = await open_playbook(screen, named)
    text, rules = opened.of.content, screen.asker.rules.of_registered()  # no type of its steps is refused
    checked = await asyncio.to_thread(check_source, opened.of.path, text.encode(errors="surrogatepass"), rules)
    lines = lines_with_findings(text, checked.findings)
    return show_part(screen, opened, "source", lines=lines, checked=checked)


@router.get("/playbooks/versions")
async def show_versions(screen: Shown, named: WhichPlaybook) -> Response:
    """All versions, the latest first."""
    return show_part(screen, await open_playbook(screen, named), "versions")


@router.get("/playbooks/difference")
async def show_difference(
    screen: Shown,
    _caller: Operator,
    named: WhichPlaybook,
    other: Annotated[int | None, Query(ge=1, le=LARGEST_VERSION)] = None,
) -> Response:
    """The differences between a version and another one, by default the version before."""
    opened = await open_playbook(screen, named)
    chosen = other or _before(opened)
    found = opened if chosen is None else await open_playbook(screen, named._replace(version=chosen))
    old, new = sorted((found.of, opened.of), key=lambda each: each.version)
    compared = await asyncio.to_thread(compare_texts, old.content, new.content)
    return show_part(screen, opened, "difference", other=chosen, old=old, new=new, compared=compared)


def _before(opened: Opened) -> int | None:
    """The version before the open version; for the first version, the next one."""
    numbers = [row["version"] for row in opened.versions]
    older = [number for number in numbers if number < opened.of.version]
    newer = [number for number in numbers if number > opened.of.version]
    return max(older) if older else min(newer) if newer else None


@router.post("/playbooks/pause")
async def pause(form: Posted) -> Response:
    """Queue the new executions of a path."""
    path = form.text("path")
    changed = (await form.ask(service.pause_path, path=path))["changed"]
    said = f"New executions of {path} are queued from now on." if changed else f"{path} was paused already."
    return form.done(link("/playbooks", path=path), said)


@router.post("/playbooks/resume")
async def resume(form: Posted) -> Response:
    """Let new executions of a path run again, and admit those that are queued."""
    path = form.text("path")
    answer = await form.ask(service.resume_path, path=path)
    admitted = answer["admitted"]
    queued = f"{admitted:,} queued execution{' goes' if admitted == 1 else 's go'} on."
    said = f"New executions of {path} run again; {queued}" if answer["changed"] else f"{path} was not paused."
    return form.done(link("/playbooks", path=path), said)
