"""Executions as a person asks for them: started, cancelled, listed, looked into, and their log in turn order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import asyncpg

from noetl_broker.errors import NotFoundFault
from noetl_broker.store.archive import archived_fault
from noetl_broker.store.catalog import what_was_meant
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql
from noetl_broker.store.session import OWN_STATES, fault_of

Entry = dict[str, Any]  # one row as a JSON object; moments are aware datetimes
Place = tuple[Any, ...]  # sorts as the event does; what hangs below an event has that event's place as its beginning

NOT_FOUND = "NB404"
OPEN = "RUNNING"


async def start_execution(
    connection: Connection, path: str, payload: str, *, version: int | None, idempotency_key: str | None
) -> int:
    """Start an execution with a JSON object as payload, give its id; NotFoundFault says what may have been meant."""
    try:
        execution_id: int = await connection.fetchval(sql("start_execution"), path, payload, version, idempotency_key)
    except asyncpg.PostgresError as error:
        if error.sqlstate != NOT_FOUND:
            raise
        try:
            meant = await what_was_meant(connection, path, version)
        except asyncpg.InsufficientPrivilegeError:
            meant = None  # a producer may start playbooks that it may not list
        if meant is None:
            raise fault_of(error) from error
        raise OWN_STATES[NOT_FOUND](f"{error.args[0]}; {meant}") from error
    return execution_id


async def cancel_execution(connection: Connection, execution_id: int, reason: str | None) -> bool:
    """Ask the broker to cancel; false when the execution has ended already. NotFoundFault when there is none."""
    return bool(await connection.fetchval(sql("cancel_execution"), execution_id, reason))


async def list_executions(connection: Connection, *, status: str | None, path: str | None, limit: int) -> list[Entry]:
    """The newest executions first; `path` may hold `*` for any run of characters."""
    pattern = None if path is None else like(path)
    return [dict(row) for row in await connection.fetch(sql("list_executions"), status, pattern, limit)]


def like(text: str, *, anywhere: bool = False) -> str:
    """The pattern of SQL's `like` for text in which `*` is any run of characters; `anywhere`: it may stand within."""
    escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_").replace("*", "%")
    return f"%{escaped}%" if anywhere else escaped


async def find_execution(connection: Connection, execution_id: int) -> Entry:
    """The row of one execution with `unread` (events that wait for the broker) and `read_at` (the database's clock)."""
    row = await connection.fetchrow(sql("find_execution"), execution_id)
    if row is None:
        raise NotFoundFault(f"no execution {execution_id}; noetl-broker executions lists them")
    return dict(row)


async def look_into(connection: Connection, execution_id: int) -> Entry:
    """Where an execution stands, in one snapshot: its row with `steps`, `jobs` (not ended well) and `dead_letters`."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        entry = await find_execution(connection, execution_id)
        for key, statement in (
            ("steps", "list_steps"),
            ("jobs", "list_open_jobs"),
            ("dead_letters", "list_dead_letters"),
        ):
            entry[key] = [dict(row) for row in await connection.fetch(sql(statement), execution_id)]
    return entry


async def list_events(connection: Connection, execution_id: int, *, read_only: bool = False) -> list[Entry]:
    """The log of an execution in turn order, each entry with the columns of `noetl.event`.

    `read_only` leaves out what the broker has not read yet: its place is not known. NotFoundFault if there is none.
    """
    rows = [dict(row) for row in await connection.fetch(sql("list_events"), execution_id)]
    if (archived := await archived_fault(connection, execution_id)) is not None:
        raise archived
    if not rows:
        await find_execution(connection, execution_id)
    return in_turn_order(rows, read_only=read_only)


UNREAD: Place = (float("inf"), 0)  # behind every turn
# Recorded, and never decided on.
TURNLESS = frozenset({"action_started", "step_result"})


def in_turn_order(rows: Iterable[Mapping[str, Any]], *, read_only: bool = False) -> list[Entry]:
    """Order events as spec section 4 says: an event, what its turn wrote, and what takes no turn after its parent.

    `rows` have `read_in` (the turn that read the event) or `written_in` (the turn that wrote it); both are taken out.
    What nobody has read stands at the end.
    """
    places: dict[int, Place] = {}
    turnless: list[Mapping[str, Any]] = []
    entries = sorted(rows, key=lambda row: (row["created_at"], row["event_id"]))
    for row in entries:
        own = (row["created_at"], row["event_id"])
        if row["read_in"] is not None:
            places[row["event_id"]] = (row["read_in"], 0, *own)
        elif row["written_in"] is not None:
            places[row["event_id"]] = (row["written_in"], 1, *own)
        elif str(row["event_type"]).lower() in TURNLESS:
            turnless.append(row)
        else:
            places[row["event_id"]] = (*UNREAD, *own)
    _place_turnless(turnless, entries, places)
    entries.sort(key=lambda row: places[row["event_id"]])
    return [
        {key: value for key, value in row.items() if key not in {"read_in", "written_in"}}
        for row in entries
        if not (read_only and places[row["event_id"]][:2] == UNREAD)
    ]


def _place_turnless(
    turnless: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]], places: dict[int, Place]
) -> None:
    """Place each after its parent; a later attempt's start after the `action_retry` that made room for it.

    The events of a NoETL server's worker may name no parent: they stand after what was there when they came.
    """
    retries: dict[str, list[Mapping[str, Any]]] = {}
    for row in entries:
        if row["event_type"] == "action_retry":
            retries.setdefault(row["node_id"], []).append(row)
    ordered = sorted((places[row["event_id"]], row["created_at"]) for row in entries if row["event_id"] in places)
    latest = [*accumulate((moment for _, moment in ordered), max)]
    for row in turnless:
        before = bisect_right(latest, row["created_at"])
        anchors = [places[retry["event_id"]] for retry in retries.get(row["node_id"], ()) if _precedes(retry, row)]
        if row["parent_event_id"] in places:
            anchors.append(places[row["parent_event_id"]])
        if not anchors and before:
            anchors.append(ordered[before - 1][0])
        places[row["event_id"]] = (*max(anchors, default=UNREAD), row["created_at"], row["event_id"])


def _precedes(retry: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return bool(retry["created_at"] <= row["created_at"])


async def log_of_latest_execution(connection: Connection) -> list[tuple[str, str]]:
    """Give (event_type, node_name) of the execution with the newest event, by `created_at`."""
    rows = await connection.fetch(sql("log_of_latest_execution"))
    return [(row["event_type"], row["node_name"]) for row in rows]


async def list_user_tables(connection: Connection) -> list[Entry]:
    """List the tables that are not ours, each with `schema`, `name` and the number of its `rows`."""
    await connection.execute(sql("count_rows"))
    return [dict(row) for row in await connection.fetch(sql("list_user_tables"))]
