"""Throttles of jobs, and slots of executions: who holds them, and who waits."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import Any

from noetl_broker.errors import NotFoundFault
from noetl_broker.service import paging
from noetl_broker.service.action import Caller, Role, action
from noetl_broker.service.models import slots as models
from noetl_broker.service.models.base import Given, Listed
from noetl_broker.service.where import Row, chained, collected, everywhere, grouped
from noetl_broker.store.admin import slot_lines, throttles
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.text import slot_name


def _merge_throttles(parts: Sequence[Row], _given: Given) -> dict[str, Any]:
    every = [row for part in parts for row in part["items"]]
    return {"items": grouped(every, "name", keys=add, leased=add, ready=add, held=add)}


def _merge_keys(parts: Sequence[Row], given: models.KeysRequest) -> dict[str, Any]:
    rows = grouped([row for part in parts for row in part["items"]], "key", leased=add, ready=add, held=add)
    rows.sort(key=lambda row: (-row["held"], -row["leased"], row["key"]))
    return {"items": rows[: given.limit]}


@action(Role.VIEWER, models.Throttles, where=collected(_merge_throttles))
async def list_throttles(connection: Connection, _caller: Caller, _given: Given) -> Any:
    """List the throttles with the jobs that they count."""
    return {"items": await throttles.list_throttles(connection)}


@action(Role.VIEWER, models.KeysOfThrottle, where=collected(_merge_keys))
async def list_keys(connection: Connection, _caller: Caller, given: models.KeysRequest) -> Any:
    """List the keys of a throttle that have jobs, those with most held jobs first. A viewer sees no keys."""
    return {"items": await throttles.list_keys(connection, given.name, most=given.limit)}


@action(Role.OPERATOR, models.ThrottleChange, where=everywhere)
async def put_throttle(connection: Connection, caller: Caller, given: models.ThrottleRequest) -> Any:
    """Make a throttle, or change its numbers.

    Fewer slots stop no job: jobs that run or are ready go on.
    """
    new = await call(connection, "put_throttle", given.name, given.concurrency, given.rate, given.burst, caller.by)
    unused = new and not await throttles.list_keys(connection, given.name, most=1)
    return {"new": new, "unused": unused, **given.model_dump()}


@action(Role.OPERATOR, models.ThrottleChange, where=everywhere)
async def delete_throttle(connection: Connection, _caller: Caller, given: models.OneThrottle) -> Any:
    """Delete a throttle: its held jobs run."""
    if not await call(connection, "delete_throttle", given.name):
        raise NotFoundFault(f"there is no limit {given.name}")
    return {"name": given.name, "deleted": True}


@action(Role.VIEWER, Listed[models.SlotView], where=chained("path"))
async def list_slots(connection: Connection, _caller: Caller, given: models.ListSlots) -> Any:
    """List slots by playbook and key: who holds them, and how many wait. A viewer sees no keys."""
    begin = paging.after(given, str, str) or ("", "")
    rows = await slot_lines.list_slots(connection, path=given.path, after=begin, limit=given.limit + 1)
    return paging.cut(given, rows, lambda row: (row["path"], row["key"]))


@action(Role.OPERATOR, Listed[models.InLine], where=chained("number"))
async def list_line(connection: Connection, _caller: Caller, given: models.LineRequest) -> Any:
    """List the executions that hold a slot or wait for it, by number."""
    [begin] = paging.after(given, int) or (0,)
    rows = await slot_lines.list_line(connection, given.path, given.key, after=begin, limit=given.limit + 1)
    first = await slot_lines.slots_of(connection, [row["execution_id"] for row in rows[:1]])
    names = [one["name"] for one in first if (one["path"], one["key"]) == (given.path, given.key)]
    name = names[0] if names else slot_name(given.path, given.key, "")
    return {"name": name, **paging.cut(given, rows, lambda row: (row["number"],))}
