"""Workers, dead letters and the installation: what keeps brokers from working."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import Any

from noetl_broker.errors import OperatorFault
from noetl_broker.service import paging
from noetl_broker.service.action import EVERY_ROLE, Caller, Role, action
from noetl_broker.service.executions import filter_of
from noetl_broker.service.models import health as models
from noetl_broker.service.models.base import Given, Listed, Paged
from noetl_broker.service.where import Row, collected, grouped, in_any, joined, least, merged, most, whole
from noetl_broker.store.admin import list_pages, recovery
from noetl_broker.store.admin.doctor_of_buckets import examine_all
from noetl_broker.store.connect.bucket_connections import Place
from noetl_broker.store.connect.connection import Connection


def _merge_workers(parts: Sequence[Row], _given: Given) -> dict[str, Any]:
    every = [row for part in parts for row in part["items"]]
    rows = grouped(
        every, "worker_id", leases=add, expired=add, next_lease_until=least, last_heartbeat=most, slots=most,
        since=least, seen=most, host=_either, version=_either, pools=_union, types=_union,
    )  # fmt: skip
    return {"items": sorted(rows, key=lambda row: str(row["worker_id"]))}


def _either(one: Any, other: Any) -> Any:
    return one if other is None else other


def _union(one: list[str] | None, other: list[str] | None) -> list[str] | None:
    return None if one is None or other is None else sorted({*one, *other})


@action(Role.VIEWER, models.Workers, where=collected(_merge_workers))
async def list_workers(connection: Connection, _caller: Caller, _given: Given) -> Any:
    """List the workers that announced themselves within a minute, and those that hold leases."""
    return {"items": await list_pages.list_workers(connection)}


@action(Role.VIEWER, Listed[models.LeaseView], where=merged("until_microseconds", "queue_id"))
async def list_leases(connection: Connection, caller: Caller, given: models.ListLeases) -> Any:
    """List the leases of a worker, or of all, in the order of their end. A viewer sees no ids of workers."""
    caller.refuse_hidden("ids of workers", given.worker_id)
    found = await list_pages.page_leases(connection, worker_id=given.worker_id, **paging.place(given, int, int))
    return paging.listed(found)


@action(Role.VIEWER, Listed[models.DeadLetter], where=merged("execution_id", "event_id", newest_first=True))
async def list_dead_letters(connection: Connection, caller: Caller, given: models.ListDeadLetters) -> Any:
    """List dead letters, those of the newest executions first.

    POST /executions/{execution_id}/reevaluate gives them back to the broker.
    """
    caller.refuse_hidden("reasons", given.reason)
    found = await list_pages.page_dead_letters(
        connection, path=given.path, reason=given.reason, **paging.place(given, int, int)
    )
    return paging.listed(found)


@action(Role.OPERATOR, dict[str, Any], where=joined)
async def search_dead_letters(connection: Connection, _caller: Caller, given: models.SearchDeadLetters) -> Any:
    """Dead letters with their executions, the oldest first; `error` and `since` are those of the dead letter."""
    return {"items": await recovery.search_dead_letters(connection, filter_of(given.which), limit=given.limit)}


@action(None, models.Alive, where=in_any)
async def ask_health(connection: Connection, _caller: Caller, _given: Given) -> Any:
    """Answer 200 if the database answers, else 503. It needs no token and shows nothing else."""
    await connection.fetchval("select 1")
    return {"status": "ok"}


@action(Role.VIEWER, Listed[models.LeftUndone], where=merged("execution_id", newest_first=True))
async def list_left_undone(connection: Connection, _caller: Caller, given: Paged) -> Any:
    """List the executions that ended and left something undone, the newest first."""
    return paging.listed(await list_pages.page_left_undone(connection, **paging.place(given, int)))


@action(Role.VIEWER, models.HealthView, where=whole)
async def list_findings(_connection: Place, caller: Caller, _given: Given) -> Any:
    """Examine the database, as the command doctor does with the login of the console."""
    if caller.database is None:
        raise OperatorFault("a caller without a database cannot examine one")
    found = await examine_all(caller.database)
    return {
        "problems": sum(finding.state == "problem" for finding in found),
        "notices": sum(finding.state == "notice" for finding in found),
        "findings": [finding._asdict() for finding in found],
    }


@action(EVERY_ROLE, models.Me, where=in_any)
async def show_me(_connection: Connection, caller: Caller, _given: Given) -> Any:
    """Show the role of the token."""
    return {"role": caller.role, "name": caller.name}
