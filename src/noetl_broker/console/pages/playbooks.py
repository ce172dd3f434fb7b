"""Pages of playbooks: the list, and the parts of one, from its graph to the form that starts it; pause and resume."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Response

from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.schema_form import Input, inputs_of_workload, read_inputs, with_errors
from noetl_broker.console.pages.screen import Acting, Authored, Authoring, Posted, Screen, SentForm, Shown, picture
from noetl_broker.console.pages.source_lines import compare_texts, lines_with_findings
from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.svg import render_svg
from noetl_broker.diagram.without_values import without_values
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.playbook import Playbook, PlaybookError
from noetl_broker.service import executions
from noetl_broker.service import playbooks as service
from noetl_broker.service.check import FILE, check_source
from noetl_broker.service.models.base import Role
from noetl_broker.service.models.playbooks import PlaybookView
from noetl_broker.service.payload_check import payload_fault
from noetl_broker.service.typed_json import json_text

router = APIRouter()

NEWEST: Final = 8  # executions beside the graph
START_OPTIONS: Final = ("tags", "start_at", "start_after", "priority")
COMPARED: Final = (20, 100, 500, 1000)  # executions of a back-test, to choose from
USUAL: Final = 100
GROUPS: Final = 100  # of divergences that the page lists


# The parts of a playbook's page: template, title, address, the role that sees it.
PARTS: Final = (
    ("graph", "Graph", "/playbooks", Role.VIEWER),
    ("stats", "Numbers", "/playbooks/stats", Role.VIEWER),
    ("start", "Start", "/playbooks/start", Role.OPERATOR),
    ("source", "Source", "/playbooks/source", Role.AUTHOR),
    ("versions", "Versions", "/playbooks/versions", Role.VIEWER),
    ("difference", "Differences", "/playbooks/difference", Role.AUTHOR),
    ("edit", "Edit and back-test", "/playbooks/edit", Role.AUTHOR),
)


async def open_playbook(screen: Screen, **other: Any) -> dict[str, Any]:
    """The version that the address names, by default the latest, or another one. Raises NotFoundFault.

    `of` has its text, `latest` is what the list says of its path. `versions` begin with the latest.
    """
    found = await screen.ask(service.open_version, **{**screen.asked("path", "version"), **other})
    return {**found, "versions": [screen.seen(PlaybookView, row) for row in found["versions"]]}


async def open_sent(form: SentForm) -> dict[str, Any]:
    """The version that a form is about."""
    return await open_playbook(form.screen, path=form.text("path"), version=form.text("version") or "none")


def show_part(screen: Screen, opened: dict[str, Any], part: str, **values: Any) -> Response:
    """The page of a playbook with one of its parts; the part has a template of its own."""
    of, parts = opened["of"], [one for one in PARTS if screen.may(one[-1])]
    is_latest = of.version == opened["latest"]["version"]
    shown = {"opened": opened, "of": of, "is_latest": is_latest, "part": part, "parts": parts, **values}
    return screen.render(f"playbook_{part}.html", title=of.path, **shown)


async def compiled(screen: Screen, of: Any) -> tuple[Playbook | None, str | None]:
    """The compiled playbook, or why it cannot be; a long one takes seconds."""
    try:
        return await asyncio.to_thread(of.compile, screen.asker.rules), None
    except PlaybookError as error:
        return None, str(error)


@router.get("/playbooks")
async def show_playbooks(screen: Shown) -> Response:
    """The list, or with a path the graph of a playbook and its newest executions."""
    path = screen.asked("path")["path"]
    if not path:
        return await list_playbooks(screen)
    opened = await open_playbook(screen)
    recent = await screen.rows(executions.list_executions, path=path, limit=NEWEST, cursor=None)
    playbook, fault = await compiled(screen, opened["of"])
    drawn = None
    if playbook is not None:
        found = picture_of_playbook(playbook, opened["of"].version)
        drawn = picture(await asyncio.to_thread(render_svg, found if screen.may_act else without_values(found)))
    no_graph = fault if screen.may_act else "This version cannot be read."
    return show_part(screen, opened, "graph", changes="all", drawn=drawn, no_graph=no_graph, recent=recent["items"])


async def list_playbooks(screen: Screen) -> Response:
    """The latest version of each path; a search without `*` finds a part of the path."""
    search = screen.asked("search")["search"]
    pattern = search if "*" in search or not search else f"*{search}*"
    listed = await screen.rows(service.list_playbooks, path=pattern)
    return screen.render("playbooks.html", title="Playbooks", search=search, **listed)


@router.get("/playbooks/source")
async def show_source(screen: Authoring) -> Response:
    """The text with line numbers; what lint finds stands beside its line."""
    opened = await open_playbook(screen)
    of, rules = opened["of"], screen.asker.rules.of_registered()  # no type of its steps is refused
    text = of.content
    checked = await asyncio.to_thread(check_source, of.path, text.encode(errors="surrogatepass"), rules)
    lines = lines_with_findings(text, checked.findings)
    return show_part(screen, opened, "source", lines=lines, checked=checked)


@router.get("/playbooks/versions")
async def show_versions(screen: Shown) -> Response:
    """All versions, the latest first."""
    return show_part(screen, await open_playbook(screen), "versions")


@router.get("/playbooks/difference")
async def show_difference(screen: Authoring) -> Response:
    """The differences between a version and another one, by default the version before, or of the first the next."""
    opened = await open_playbook(screen)
    numbers, own = [row["version"] for row in opened["versions"]], opened["of"].version  # the latest first
    near = [*(one for one in numbers if one < own), *(one for one in reversed(numbers) if one > own)]
    chosen = screen.asked("other")["other"] or next(iter(near), None)
    found = opened if chosen is None else await open_playbook(screen, version=chosen)
    old, new = sorted((found["of"], opened["of"]), key=lambda each: each.version)
    compared = await asyncio.to_thread(compare_texts, old.content, new.content)
    return show_part(screen, opened, "difference", other=chosen, old=old, new=new, compared=compared)


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
    said = (
        f"New executions of {path} run again; {queued}" if answer["changed"] else f"The playbook {path} was not paused."
    )
    return form.done(link("/playbooks", path=path), said)


@router.get("/playbooks/edit")
async def show_editor(screen: Authoring) -> Response:
    """The text of a version, to be edited."""
    opened = await open_playbook(screen)
    shown = {"content": opened["of"].content, "limits": COMPARED, "limit": USUAL, "ways_only": False, "checked": None}
    return show_part(screen, opened, "edit", **shown)


@router.post("/playbooks/edit")
async def check(form: Authored) -> Response:
    """Check the text and compare executions with it, register it, or give it back as a file."""
    content = form.text("content")
    if form.text("do") == "download":
        headers = {"Content-Disposition": f'attachment; filename="{FILE}"'}
        return Response(content.encode(errors="replace"), media_type="application/yaml", headers=headers)
    if form.text("do") == "register":
        made = await form.screen.ask(service.register_text, content=content)
        if made.get("path") is not None:
            return form.done(link("/playbooks", path=made["path"]), registered_text(form.screen, made))
    limit = next((each for each in COMPARED if str(each) == form.text("limit")), USUAL)
    opened = await open_sent(form)
    asked = {"content": content, "limit": limit, "ways_only": form.text("ways_only") == "1"}
    checked, result = await form.screen.ask(service.try_text, which={"path": opened["of"].path}, **asked)
    marked = [line for line in lines_with_findings(content, checked.findings) if line.findings]
    found = {"checked": checked, "marked": marked, "result": result, "is_changed": content != opened["of"].content}
    return show_part(form.screen, opened, "edit", limits=COMPARED, groups=GROUPS, file=FILE, **asked, **found)


def registered_text(screen: Screen, made: Mapping[str, Any]) -> str:
    """The sentence after a registration."""
    said = f"Version {made['version']} of {made['path']} is {'registered' if made['new'] else 'the latest already'}."
    if screen.asker.role is Role.AUTHOR:
        said += " Schedules and signals that it brings wait until an operator resumes them."
    return " ".join((said, *made["notes"]))


@router.get("/playbooks/start")
async def show_form(screen: Acting) -> Response:
    """The form, with a key of its own: a second click on its button starts nothing."""
    opened = await open_playbook(screen)
    playbook, fault = await compiled(screen, opened["of"])
    shown = {"inputs": inputs_of(playbook), "faults": [] if fault is None else [fault]}
    return show_part(
        screen,
        opened,
        "start",
        playbook=playbook,
        key=secrets.token_urlsafe(16),
        options=dict.fromkeys(START_OPTIONS, ""),
        **shown,
    )


def inputs_of(playbook: Playbook | None) -> list[Input]:
    """The fields of a start: they are made from `workload_schema`."""
    document = {} if playbook is None else playbook.document
    found = next((document[key] for key in ("workload", "spec") if isinstance(document.get(key), dict)), None)
    return inputs_of_workload(None if playbook is None else playbook.workload_schema, found or {})


@router.post("/playbooks/start")
async def start(form: Posted) -> Response:
    """Start an execution of the version that the form was made for, or show what is wrong at its fields."""
    opened, key = await open_sent(form), form.text("key")
    of = opened["of"]
    playbook, _ = await compiled(form.screen, opened["of"])
    payload, inputs = read_inputs(form, inputs_of(playbook))
    options = {name: form.text(name) for name in START_OPTIONS}
    faults = list[str]()
    try:
        if not any(one.error for one in inputs):
            once = form.once(key, json_text(payload), *options.values())
            error = None if playbook is None else await asyncio.to_thread(payload_fault, playbook, payload)
            if error is None:
                given = {"path": of.path, "version": of.version, "idempotency_key": once, **options}
                made = await form.screen.ask(executions.start_unchecked, payload=payload, **given)
                said = f"Version {of.version} of {of.path} has started."
                return form.done(f"/executions/{made['execution_id']}", said)
            inputs, faults = with_errors(inputs, error["places"])
    except DatabaseFault:
        raise
    except BrokerError as fault:
        faults = [str(fault)]
    shown = {"inputs": inputs, "faults": faults, "status": HTTPStatus.BAD_REQUEST}
    shown["options"] = options
    return show_part(form.screen, opened, "start", playbook=playbook, key=key[:64], **shown)
