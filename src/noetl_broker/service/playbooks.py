"""Playbooks of the catalog: list, versions, source, graph, difference, check, back-test, pause; types of steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from difflib import unified_diff
from itertools import chain
from typing import Any

from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.model import Picture
from noetl_broker.errors import OperatorFault
from noetl_broker.history.comparisons import Comparisons, compared_paths
from noetl_broker.playbook import compile_playbook
from noetl_broker.playbook.step_types import ACTION_TYPES
from noetl_broker.service import paging
from noetl_broker.service.action import Caller, Cost, Role, action
from noetl_broker.service.check import FILE, CheckedFile, check_text
from noetl_broker.service.executions import filter_of
from noetl_broker.service.histories import read_histories
from noetl_broker.service.images import Image, image_of
from noetl_broker.service.models import playbooks as models
from noetl_broker.service.models.actions import Which
from noetl_broker.service.models.base import Given, Listed, PageOfPaths
from noetl_broker.service.where import everywhere, in_any, whole
from noetl_broker.store.admin import catalog, executions, list_pages
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.connect.bucket_connections import Place
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.store.connect.places import in_each_schema, in_first, in_their_buckets, in_turn

MOST_VERSIONS = 200  # of a playbook, to choose from


@action(Role.VIEWER, Listed[models.Latest], where=in_any)
async def list_playbooks(connection: Connection, _caller: Caller, given: PageOfPaths) -> Any:
    """List the playbooks by path, each with its latest version."""
    return paging.listed(await list_pages.page_playbooks(connection, path=given.path, **paging.place(given, str)))


@action(Role.VIEWER, Listed[models.PlaybookView], where=in_any)
async def list_versions(connection: Connection, _caller: Caller, given: models.PageOfPath) -> Any:
    """List the versions of a playbook, the latest first."""
    found = await list_pages.page_versions(connection, given.path, **paging.place(given, int))
    if not found.items and given.cursor is None:
        await catalog.find(connection, given.path, None)
    return paging.listed(found)


@action(Role.VIEWER, dict[str, Any], where=in_any)
async def open_version(connection: Connection, _caller: Caller, given: models.OneVersion) -> Any:
    """Find a version (`of`), what the list says of its path (`latest`), and its `versions`, the latest first."""
    found = await catalog.find(connection, given.path, given.version)
    listed = await list_pages.page_playbooks(connection, path=given.path, limit=MOST_VERSIONS)  # `*` is no pattern here
    default = {"version": found.version, "paused": False}
    latest = next((row for row in listed.items if row["path"] == found.path), default)
    versions = await list_pages.page_versions(connection, found.path, limit=MOST_VERSIONS)
    return {"of": found, "latest": latest, "versions": versions.items}


@action(Role.AUTHOR, models.Source, where=in_any)
async def show_source(connection: Connection, _caller: Caller, given: models.OneVersion) -> Any:
    """Show the text of a version. It may hold values, so a viewer does not see it."""
    found = await catalog.find(connection, given.path, given.version)
    return {"path": found.path, "version": found.version, "content": found.content}


@action(Role.VIEWER, Image, cost=Cost.SHORT, where=in_any)
async def draw_playbook(connection: Connection, caller: Caller, given: models.PlaybookGraphRequest) -> Image:
    """Draw a playbook. A viewer gets no conditions."""
    picture = await picture_playbook(connection, caller, given)
    return image_of(picture, given.format, with_values=caller.sees_values)


@action(Role.VIEWER, Picture, cost=Cost.SHORT, where=in_any)
async def picture_playbook(connection: Connection, caller: Caller, given: models.OneVersion) -> Picture:
    """Make the diagram of a version."""
    found = await catalog.find(connection, given.path, given.version)
    return picture_of_playbook(found.compile(caller.rules), found.version)


@action(Role.AUTHOR, list[dict[str, Any]], where=whole)
async def register(connection: Place, caller: Caller, given: models.RegisterRequest) -> Any:
    """Register playbooks, all or none; changed content makes a new version. `notes` say what stays as it is.

    Schedules and signals that an author declares, or changes, begin paused.
    """
    made = [(compile_playbook(text.encode(), file=file, rules=caller.rules), text) for file, text in given.files]
    registered = await in_each_schema(
        connection,
        lambda one: catalog.register(
            one, made, new_home=given.new_home, paused=caller.role is Role.AUTHOR, by=caller.by
        ),
        at_last=lambda one: catalog.write_homes(one, [playbook for playbook, _ in made]),
    )
    return [asdict(entry) for entry in registered]


@action(Role.AUTHOR, models.RegisteredText, where=whole)
async def register_text(connection: Place, caller: Caller, given: models.RegisterTextRequest) -> Any:
    """Register the text of a playbook; changed content makes a new version. A text with errors is not registered.

    Schedules and signals that an author declares, or changes, begin paused: an operator resumes the schedules, and the
    path.
    """
    checked = await in_first(connection, lambda one: check_text(one, given.content, caller.rules))
    if checked.errors:
        return {"findings": checked.findings}
    files = [(FILE, given.content)]
    caller = replace(caller, rules=caller.rules.of_registered())  # the types of its steps are checked
    asked = models.RegisterRequest(files=files, new_home=given.new_home)
    [made] = await register(connection, caller, asked)
    return {"findings": checked.findings, **{name: made[name] for name in ("path", "version", "new", "notes")}}


@action(Role.AUTHOR, models.DifferenceView, cost=Cost.SHORT, where=in_any)
async def compare_versions(connection: Connection, _caller: Caller, given: models.CompareRequest) -> Any:
    """Show what differs between two versions, as a unified diff."""
    versions = given.version, given.other
    before, after = [(await catalog.find(connection, given.path, each)).content.splitlines() for each in versions]
    lines = unified_diff(before, after, f"version {given.version}", f"version {given.other}", lineterm="")
    return {"path": given.path, "version": given.version, "other": given.other, "diff": "\n".join(lines)}


@action(Role.AUTHOR, models.Findings, cost=Cost.SHORT, where=in_any)
async def validate(connection: Connection, caller: Caller, given: models.ValidateRequest) -> Any:
    """Check the text of a playbook with the step types and the playbooks of the catalog. Registers nothing."""
    checked = await check_text(connection, given.content, caller.rules)
    checked = checked.strictly() if given.strict else checked
    return {"valid": not checked.errors, "findings": checked.findings}


@action(Role.AUTHOR, models.BackTested, cost=Cost.LONG, where=whole)
async def back_test(connection: Place, caller: Caller, given: models.BackTestRequest) -> Any:
    """Compare recorded executions with an edited playbook: which would go another way, where, and why."""
    checked, result = await try_text(connection, caller, given)
    return {"findings": checked.findings} if result is None else result


@action(Role.AUTHOR, tuple[CheckedFile, dict[str, Any] | None], cost=Cost.LONG, where=whole)
async def try_text(
    connection: Place, caller: Caller, given: models.BackTestRequest
) -> tuple[CheckedFile, dict[str, Any] | None]:
    """Check the text of a playbook, and if it has no errors, compare the newest executions with it.

    Without a path in the filter, those of its path are compared.
    """
    which = Filter() if given.which is None else named_filter(given.which)
    checked = await in_first(connection, lambda one: check_text(one, given.content, caller.rules))
    if checked.errors:
        return checked, None
    playbook = compile_playbook(checked.source, file=checked.file, rules=caller.rules.of_registered())
    comparisons, began = Comparisons(playbook, ways_only=given.ways_only), time.monotonic()

    async def choose(one: Connection) -> list[int]:
        chosen: list[int] = []
        for path in compared_paths(playbook, which.path):
            found = await list_pages.page_executions(one, replace(which, path=path), limit=given.limit)
            chosen += [row["execution_id"] for row in found.items]
        return await executions.with_turns(one, sorted(chosen, reverse=True)[: given.limit])

    newest = sorted(chain.from_iterable(await in_turn(connection, choose)), reverse=True)[: given.limit]

    async def compare(one: Connection, ids: Sequence[int]) -> None:
        async with aclosing(read_histories(one, ids, caller.rules)) as parts:
            async for part in parts:
                comparisons.take(part)

    await in_their_buckets(connection, newest, compare)
    return checked, comparisons.as_document(time.monotonic() - began)


@action(Role.AUTHOR, str, where=in_any)
async def suggest_path(connection: Connection, _caller: Caller, given: models.OneVersion) -> Any:
    """A registered path that is near one that is not; None if there is none."""
    return await catalog.suggest_path(connection, given.path, given.version)


def named_filter(which: Which) -> Filter:
    """The filter; raises OperatorFault where it names nothing: an action never takes all by default."""
    found = filter_of(which)
    if found == Filter() and not which.all:
        raise OperatorFault('the filter names no executions: give a filter, or "all": true')
    return found


@action(Role.OPERATOR, models.PathPaused, where=everywhere)
async def pause_path(connection: Connection, caller: Caller, given: models.PausePathRequest) -> Any:
    """Queue the new executions of a playbook. Running executions are not paused."""
    changed = await call(connection, "pause_path", _one(given.path), given.reason, caller.by)
    return {"path": given.path, "paused": True, "changed": changed}


@action(Role.OPERATOR, models.PathPaused, cost=Cost.LONG, where=whole)
async def resume_path(connection: Place, _caller: Caller, given: models.OnePath) -> Any:
    """Let the new executions of a playbook run again, and admit queued executions, the oldest first."""
    path = _one(given.path)
    changed = bool(await in_each_schema(connection, lambda one: call(one, "resume_path", path)))
    admitted = sum(await in_turn(connection, lambda one: executions.admit_all(one, path)))
    return {"path": given.path, "paused": False, "changed": changed, "admitted": admitted}


def _one(path: str) -> str:
    """A path without a pattern; raises OperatorFault."""
    if "*" in path:
        raise OperatorFault(f"{path} is a pattern: name one playbook; /executions/bulk/pause pauses executions")
    return path


@action(Role.VIEWER, models.StepTypes, where=in_any)
async def list_step_types(connection: Connection, _caller: Caller, _given: Given) -> Any:
    """List the step types beside the built-in ones."""
    return {"items": await catalog.list_step_types(connection)}


@action(Role.OPERATOR, models.StepTypeChange, where=everywhere)
async def add_step_type(connection: Connection, caller: Caller, given: models.StepTypeRequest) -> Any:
    """Add a step type."""
    return {"name": given.name, "changed": bool(await _announce(connection, [given.name], caller.by))}


@action(Role.OPERATOR, models.StepTypeChange, where=everywhere)
async def remove_step_type(connection: Connection, _caller: Caller, given: models.StepTypeRequest) -> Any:
    """Remove a step type. Registered playbooks go on."""
    return {"name": given.name, "changed": bool(await call(connection, "remove_step_types", [given.name]))}


@action(Role.OPERATOR, dict[str, int], where=everywhere)
async def add_step_types(connection: Connection, caller: Caller, given: models.StepTypesRequest) -> Any:
    """Add step types; says how many are new."""
    return {"changed": await _announce(connection, given.names, caller.by)}


async def _announce(connection: Connection, names: list[str], by: str | None) -> int:
    """Add step types; gives how many are new. Raises OperatorFault for one that the reference worker runs."""
    for name in sorted(ACTION_TYPES.intersection(names)):
        raise OperatorFault(f"the step type {name} is built in; give the type of your worker another name")
    return int(await call(connection, "announce_step_types", names, by))


@action(Role.OPERATOR, dict[str, int], where=everywhere)
async def remove_step_types(connection: Connection, _caller: Caller, given: models.StepTypesRequest) -> Any:
    """Remove step types; says how many there were."""
    return {"changed": await call(connection, "remove_step_types", given.names)}
