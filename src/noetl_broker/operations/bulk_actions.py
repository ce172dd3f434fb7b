"""A bulk action: its effect on one execution, and the chosen executions that it leaves out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from noetl_broker.broker.state.state import COMPENSATING, FAILED, PAUSED, is_live
from noetl_broker.operations import recoveries
from noetl_broker.operations.bulk import BulkAction, Group, group_executions
from noetl_broker.operations.recoveries import OnVersion, Outlook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin import catalog, executions, recovery
from noetl_broker.store.admin.executions import Entry
from noetl_broker.store.connect.connection import Connection

Action = Callable[[int], Awaitable[dict[str, Any]]]


class Request(NamedTuple):
    """An action on many executions. `reason`: of cancel and pause; `from_step`: of fork; `on`: of retry and fork."""

    action: BulkAction
    rules: PlaybookRules
    reason: str | None = None
    from_step: str | None = None
    on: OnVersion | None = None


def action_of(connection: Connection, request: Request) -> Action:
    """The action on one execution; it returns a report."""
    action, rules, reason, from_step, on = request

    async def cancel(execution_id: int) -> dict[str, Any]:
        return {"requested": await executions.cancel_execution(connection, execution_id, reason)}

    async def pause(execution_id: int) -> dict[str, Any]:
        return {"requested": await executions.pause_execution(connection, execution_id, reason)}

    async def resume(execution_id: int) -> dict[str, Any]:
        return {"requested": await executions.resume_execution(connection, execution_id)}

    async def retry(execution_id: int) -> dict[str, Any]:
        return await recoveries.recover_failed(connection, execution_id, rules, on)

    async def fork(execution_id: int) -> dict[str, Any]:
        step = from_step or ""
        other = None if on is None else await on.of(connection, execution_id)
        key = recoveries.key_of_fork(execution_id, step)
        forked = await recoveries.fork_execution(connection, execution_id, step, rules, other=other, values={}, key=key)
        return forked.as_document()

    async def reevaluate(execution_id: int) -> dict[str, Any]:
        return {"put_back": await recovery.put_back(connection, execution_id)}

    of: dict[BulkAction, Action] = {
        "cancel": cancel,
        "pause": pause,
        "resume": resume,
        "retry": retry,
        "fork": fork,
        "reevaluate": reevaluate,
    }
    return of[action]


async def preview_groups(
    connection: Connection,
    request: Request,
    found: Sequence[Entry],
    *,
    most_planned: int,
    on_each: Callable[[], object] = lambda: None,
) -> list[Group]:
    """The groups of a preview, the largest first.

    For a fork, and for a retry on another version, the first `most_planned` executions are each planned: their groups
    have the outlook. `on_each` is called after each. A retry on their own versions names the latest versions.
    """
    action, rules, _reason, from_step, on = request
    outlooks: dict[int, Outlook] = {}
    planned = action == "fork" if on is None else action in {"retry", "fork"}
    for entry in found[:most_planned] if planned else ():
        execution_id = entry["execution_id"]
        if action == "fork":
            outlook = await recoveries.preview_fork(connection, execution_id, from_step or "", rules, on)
        else:
            outlook = await recoveries.preview_outlook(connection, execution_id, rules, on)
        outlooks[execution_id] = outlook
        on_each()
    latest: dict[str, int] = {}
    if action == "retry" and on is None:
        latest = await catalog.latest_versions(connection, {entry["path"] for entry in found} - {None})
    return group_executions(found, latest=latest, outlooks=outlooks)


def why_left_out(action: BulkAction, row: Mapping[str, Any]) -> str | None:
    """Why an action is not for an execution, a row of `executions.list_chosen`; None: it is."""
    if action == "retry":
        return _why_not_recovered(row)
    if action == "reevaluate":
        return None if row["dead_letters"] else "has no dead letters"
    if action == "fork":
        return "is undoing what it did" if row["status"] == COMPENSATING else _why_continued(row)
    return _why_as_it_is(action, row["status"])


def _why_as_it_is(action: BulkAction, status: str) -> str | None:
    if not is_live(status):
        return f"has ended, it is {status}"
    if status == COMPENSATING:
        return "is undoing what it did: abandon ends it"
    if action == "pause" and status == PAUSED:
        return "is paused already"
    if action == "resume" and status != PAUSED:
        return f"is not paused, it is {status}"
    return None


def _why_not_recovered(row: Mapping[str, Any]) -> str | None:
    if row["status"] != FAILED:
        return f"has not failed, it is {row['status']}"
    return _why_continued(row)


def _why_continued(row: Mapping[str, Any]) -> str | None:
    if row["recovered_as"] is not None:
        return "was recovered already"
    if row["parent_execution_id"] is not None:
        return "is a child: retry or fork the execution that called it"
    return None
