"""Executions for commands and clients: start, cancel, list, show, and the event log in turn order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import asyncpg

from noetl_broker.broker.state.state import QUEUED
from noetl_broker.explain.unserved import unserved_text
from noetl_broker.node_ids import job_node_id
from noetl_broker.store.admin import reader
from noetl_broker.store.admin.archive import archived_fault, unknown_fault
from noetl_broker.store.admin.blocks import WITH_BLOCKS, list_blocks
from noetl_broker.store.admin.catalog import suggest_path
from noetl_broker.store.admin.overview import list_unserved
from noetl_broker.store.admin.progress import load_progress
from noetl_broker.store.admin.slot_lines import slots_of
from noetl_broker.store.admin.undo import list_draining, load_undo
from noetl_broker.store.connect.connection import Connection, call, fetch_planned
from noetl_broker.store.connect.session import OWN_STATES, fault_of
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.queries import filter_parameters, sql

_Answer = TypeVar("_Answer")
Entry = dict[str, Any]  # one row as a JSON object; moments are aware datetimes
SortKey = tuple[Any, ...]  # the sort key of an event; it begins with the key of the event's parent

NOT_FOUND = "NB404"
MOST_ITEM_JOBS = 10  # of iterator items, in one answer
MOST_ADMITTED = 1_000  # executions that one transaction admits
UNSERVED_AFTER = timedelta(minutes=1)  # noetl.unserved_jobs names no younger job


async def start_execution(
    connection: Connection,
    path: str,
    payload: str,
    *,
    version: int | None,
    idempotency_key: str | None,
    options: Mapping[str, object] | None = None,
) -> int:
    """Start an execution with a JSON object as payload; returns its id. NotFoundFault suggests a near path.

    `options`: those of noetl.start_execution; None leaves one out.
    """
    given = path, payload, version, idempotency_key, _options(options)
    async with _suggesting(connection, path, version):
        return int(await connection.fetchval(sql("start_execution"), *given))


async def find_outcome(connection: Connection, execution_id: int, by: str | None = None) -> Entry:
    """The path, version, status, result and error of an execution that the caller started.

    `by`: for whom an operator asks; None: the login. Raises NotFoundFault.
    """
    [row] = await connection.fetch(sql("outcome"), execution_id, by)
    return dict(row)


async def bucket_of(
    connection: Connection, path: str, bucket_key: str | None, idempotency_key: str | None
) -> int | None:
    """The bucket in which a start will live; None: in any. The connection is to the schema of the installation."""
    found: int | None = await connection.fetchval(sql("bucket_of_start"), path, bucket_key, idempotency_key)
    return found


async def start_executions(
    connection: Connection,
    path: str,
    payloads: Sequence[str],
    *,
    version: int | None,
    idempotency_keys: Sequence[str | None] | None,
    options: Mapping[str, object] | None = None,
) -> list[int]:
    """Start an execution for each payload, all in one transaction; returns their ids in the same order."""
    given = path, payloads, idempotency_keys, version, _options(options)
    async with _suggesting(connection, path, version):
        return list(await connection.fetchval(sql("start_executions"), *given))


def _options(given: Mapping[str, object] | None) -> str | None:
    options = {name: value for name, value in (given or {}).items() if value is not None}
    return dump_json(options) if options else None


@asynccontextmanager
async def _suggesting(connection: Connection, path: str, version: int | None) -> AsyncIterator[None]:
    """Suggest a near path where the database has no such playbook."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if error.sqlstate != NOT_FOUND:
            raise
        try:
            meant = await suggest_path(connection, path, version)
        except asyncpg.InsufficientPrivilegeError:
            meant = None  # a producer may not list playbooks
        if meant is None:
            raise fault_of(error) from error
        raise OWN_STATES[NOT_FOUND](f"{error.args[0]}; {meant}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter of executions; a field that is None filters nothing.

    `path` and `error` (a part of `type: message`) may hold `*` for any characters. `step` is where it failed. `version`
    is that of its playbook. `since` and `until` are moments, or seconds before the database's now: an execution matches
    if it started or took a turn after `since`, and started before `until`. It has all of `tags`. `key` is the
    idempotency key of its start, and may hold `*`.
    """

    path: str | None = None
    status: str | None = None
    error: str | None = None
    step: str | None = None
    since: datetime | float | None = None
    until: datetime | float | None = None
    version: int | None = None
    tags: Mapping[str, str] | None = None
    key: str | None = None

    def call(self, statement: str, *own: object) -> tuple[Any, ...]:
        """The text of a statement that takes a filter, its own arguments, and those of the filter that it names."""
        since, since_seconds = _moment_or_seconds(self.since)
        until, until_seconds = _moment_or_seconds(self.until)
        values = {
            "path": None if self.path is None else like(self.path),
            "status": self.status,
            "error": None if self.error is None else like(self.error, anywhere=True),
            "step": self.step,
            "since": since,
            "since_seconds": since_seconds,
            "until": until,
            "until_seconds": until_seconds,
            "version": self.version,
            "tags": None if self.tags is None else dump_json(self.tags),
            "key": None if self.key is None else like(self.key),
        }
        return sql(statement), *own, *(values[name] for name in filter_parameters(statement))


def _moment_or_seconds(time: datetime | float | None) -> tuple[datetime | None, float | None]:
    """A time of a filter as two parameters of a statement, one of which is null."""
    return (time, None) if isinstance(time, datetime) else (None, None if time is None else float(time))


async def search_executions(
    connection: Connection,
    which: Filter,
    *,
    statuses: Collection[str],
    limit: int,
    new_only: bool = False,
    after: int = 0,
    unerased: bool = False,
) -> list[Entry]:
    """Executions in one of these statuses, the oldest first, with `step` and `reason` of their error.

    `new_only`: only those that have no parent, and that no fork or retry recovered. `after`: only with a larger id.
    `unerased`: only those with their values.
    """
    rows = await fetch_planned(
        connection, *which.call("search_executions", limit, [*statuses], new_only, after, unerased)
    )
    return [dict(row) for row in rows]


async def list_chosen(connection: Connection, execution_ids: Sequence[int]) -> list[Entry]:
    """These executions, the oldest first: with step and message of the error (`reason`), and what recovered them."""
    return [dict(row) for row in await connection.fetch(sql("list_chosen"), [*execution_ids])]


async def with_turns(connection: Connection, execution_ids: Sequence[int]) -> list[int]:
    """Those whose history can be read, in the same order: it has a turn, and is neither archived nor erased."""
    found = {row["execution_id"] for row in await connection.fetch(sql("with_turns"), [*execution_ids])}
    return [each for each in execution_ids if each in found]


async def admit_all(connection: Connection, path: str) -> int:
    """Admit the queued executions of a playbook that is not paused any more; gives their number."""
    admitted = 0
    while some := int(await call(connection, "admit_executions", path, MOST_ADMITTED)):
        admitted += some
    return admitted


def like(text: str, *, anywhere: bool = False) -> str:
    """The SQL `like` pattern of a text with `*` as wildcard; `anywhere`: match any part."""
    escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_").replace("*", "%")
    return f"%{escaped}%" if anywhere else escaped


async def find_execution(connection: Connection, execution_id: int) -> Entry:
    """One execution, with `unread` (number of undecided events) and `read_at` (the database's clock)."""
    row = await connection.fetchrow(sql("find_execution"), execution_id)
    if row is None:
        raise await unknown_fault(connection, execution_id)
    return dict(row)


async def find_status(connection: Connection, execution_id: int) -> str | None:
    """The status of an execution; None if the login may not read it."""
    try:
        return str((await find_execution(connection, execution_id))["status"])
    except asyncpg.InsufficientPrivilegeError:
        return None


async def load_execution_details(connection: Connection, execution_id: int) -> Entry:
    """One execution in one snapshot: its row, `steps`, `iterators`, `slots`, open `waits`, `jobs`, `dead_letters`.

    `blocks` are those that are live or failed. `iterators` have the shape of `Progress`. `jobs` are open or failed,
    with at most MOST_ITEM_JOBS jobs of items; `unlisted_jobs` counts the others. `undo` is what `load_undo` gives,
    `draining` what `list_draining` gives. `unserved` has a sentence for each type and pool of its jobs that no worker
    serves. `path_pause` is why its path keeps it queued. A login that may read the views
    of noetl_reader only gets them without values.
    """
    try:
        return await _load_details(connection, execution_id)
    except asyncpg.InsufficientPrivilegeError:
        if (entry := await as_reader(reader.load_execution_details(connection, execution_id))) is None:
            raise
        return entry


async def _unserved_of(connection: Connection, entry: Entry) -> list[str]:
    before = entry["read_at"] - UNSERVED_AFTER
    late = {
        (job["type"], job["pool"])
        for job in entry["jobs"]
        if job["status"] == "queued" and job["available_at"] < before
    }
    found = await list_unserved(connection) if late else []
    return [unserved_text(row) for row in found if (row["type"], row["pool"]) in late]


async def as_reader(answer: Awaitable[_Answer]) -> _Answer | None:
    """What the views give; None if the login may not read them either."""
    try:
        return await answer
    except asyncpg.InsufficientPrivilegeError:
        return None


async def _load_details(connection: Connection, execution_id: int) -> Entry:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        entry = await find_execution(connection, execution_id)
        for key, statement, arguments in (
            ("steps", "list_steps", ()),
            ("waits", "list_open_waits", ()),
            ("jobs", "list_open_jobs", (MOST_ITEM_JOBS,)),
            ("dead_letters", "list_dead_letters", ()),
        ):
            entry[key] = [dict(row) for row in await connection.fetch(sql(statement), execution_id, *arguments)]
        entry["iterators"] = await load_progress(connection, execution_id)
        has_children = any(step["type"] in WITH_BLOCKS for step in entry["steps"])
        entry["blocks"] = await list_blocks(connection, execution_id) if has_children else []
        entry["undo"] = await load_undo(connection, execution_id)
        entry["draining"] = await list_draining(connection, execution_id)
        entry["slots"] = await slots_of(connection, [execution_id])
        is_queued = entry["status"] == QUEUED
        entry["path_pause"] = await _find_path_pause(connection, entry["path"]) if is_queued else None
        entry["unserved"] = await _unserved_of(connection, entry)
    items = [job.pop("open_items") for job in entry["jobs"]]
    listed = [count for count in items if count is not None]
    entry["unlisted_jobs"] = max(listed, default=0) - len(listed)
    return entry


async def _find_path_pause(connection: Connection, path: str | None) -> Entry | None:
    row = await connection.fetchrow(sql("find_path_pause"), path)
    return None if row is None else dict(row)


class EventsOf(NamedTuple):
    """Which events: those of a step, of one visit of it, or of one item of a visit (None: the latest)."""

    step: str
    visit: int | None = None
    item_index: int | None = None


async def list_events(
    connection: Connection, execution_id: int, of: EventsOf | None = None, *, read_only: bool = False
) -> list[Entry]:
    """The log of an execution in turn order, each entry with the columns of `noetl.event`.

    `read_only` leaves out what the broker has not read yet: its place is not known. NotFoundFault if there is none.
    """
    which: tuple[object, ...] = (None, None, None)
    if of is not None:
        visit = of.visit
        if visit is None and of.item_index is not None:
            visit = await connection.fetchval(sql("latest_visit"), execution_id, of.step)
        node = None if visit is None else job_node_id(execution_id, of.step, visit)
        which = (of.step, node, of.item_index)
    rows = [dict(row) for row in await connection.fetch(sql("list_events"), execution_id, *which)]
    if (archived := await archived_fault(connection, execution_id)) is not None:
        raise archived
    if not rows:
        await find_execution(connection, execution_id)
    return in_turn_order(rows, read_only=read_only)


UNREAD: SortKey = (float("inf"), 0)  # after every turn
# Recorded, and never decided on.
TURNLESS = frozenset({"action_started", "step_result"})


def in_turn_order(rows: Iterable[Mapping[str, Any]], *, read_only: bool = False) -> list[Entry]:
    """Order events: an event, then what its turn wrote; an event without a turn follows its parent.

    `rows` have `read_in` (the turn that read the event) or `written_in` (the turn that wrote it); both are taken out.
    What nobody has read stands at the end.
    """
    sort_keys: dict[int, SortKey] = {}
    turnless: list[Mapping[str, Any]] = []
    entries = sorted(rows, key=lambda row: (row["created_at"], row["event_id"]))
    for row in entries:
        own = (row["created_at"], row["event_id"])
        if row["read_in"] is not None:
            sort_keys[row["event_id"]] = (row["read_in"], 0, *own)
        elif row["written_in"] is not None:
            sort_keys[row["event_id"]] = (row["written_in"], 1, *own)
        elif str(row["event_type"]).lower() in TURNLESS:
            turnless.append(row)
        else:
            sort_keys[row["event_id"]] = (*UNREAD, *own)
    _place_turnless(turnless, entries, sort_keys)
    entries.sort(key=lambda row: sort_keys[row["event_id"]])
    return [
        {key: value for key, value in row.items() if key not in {"read_in", "written_in"}}
        for row in entries
        if not (read_only and sort_keys[row["event_id"]][:2] == UNREAD)
    ]


def _place_turnless(
    turnless: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]], sort_keys: dict[int, SortKey]
) -> None:
    """Place each after its parent; a later attempt's start after the `action_retry` that made room for it.

    The events of a NoETL server's worker may name no parent: they stand after what was there when they came.
    """
    retries: dict[str, list[Mapping[str, Any]]] = {}
    for row in entries:
        if row["event_type"] == "action_retry":
            retries.setdefault(row["node_id"], []).append(row)
    ordered = sorted((sort_keys[row["event_id"]], row["created_at"]) for row in entries if row["event_id"] in sort_keys)
    latest = [*accumulate((moment for _, moment in ordered), max)]
    for row in turnless:
        before = bisect_right(latest, row["created_at"])
        anchors = [sort_keys[retry["event_id"]] for retry in retries.get(row["node_id"], ()) if _precedes(retry, row)]
        if row["parent_event_id"] in sort_keys:
            anchors.append(sort_keys[row["parent_event_id"]])
        if not anchors and before:
            anchors.append(ordered[before - 1][0])
        sort_keys[row["event_id"]] = (*max(anchors, default=UNREAD), row["created_at"], row["event_id"])


def _precedes(retry: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return bool(retry["created_at"] <= row["created_at"])


async def log_of_latest_execution(connection: Connection) -> list[tuple[str, str]]:
    """(event_type, node_name) of each event of the latest execution, by `created_at`."""
    rows = await connection.fetch(sql("log_of_latest_execution"))
    return [(row["event_type"], row["node_name"]) for row in rows]


async def list_user_tables(connection: Connection) -> list[Entry]:
    """Tables outside our schemas, each with `schema`, `name` and `rows`."""
    await connection.execute(sql("count_rows"))
    return [dict(row) for row in await connection.fetch(sql("list_user_tables"))]
