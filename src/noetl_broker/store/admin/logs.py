"""Logs of executions, for commands and the API: what the attempts of their jobs printed, by time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from noetl_broker.errors import NotFoundFault
from noetl_broker.node_ids import ItemName, items_prefix, job_node_id, parse_node, undone_node, visit_name
from noetl_broker.store.admin.archive import archived_fault
from noetl_broker.store.admin.executions import Entry, find_execution
from noetl_broker.store.admin.progress import load_item
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.store.queries import sql

PAGE_ROWS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSubject:
    """Whose log: an execution's, or only that of a step, a visit of it, or an item (`item_index`) of that visit."""

    execution_id: int
    step: str | None = None
    visit: int | None = None
    item_index: int | None = None

    @property
    def arguments(self) -> tuple[int, str | None, list[str] | None, str | None]:
        """The first four parameters of the statement: the nodes of a visit, and the start of those of its items."""
        if self.visit is None and self.item_index is None:
            return self.execution_id, self.step, None, None
        node = job_node_id(self.execution_id, self.step or "", self.visit or 1, self.item_index)
        prefix = None if self.item_index is not None or undone_node(node) else items_prefix(node)
        return self.execution_id, self.step, [node], prefix


class LogKey(NamedTuple):
    """The place of a row in the log of an execution."""

    created_at: datetime
    node_id: str
    attempt: int
    ordinal: int


async def list_log(
    connection: Connection, subject: LogSubject, *, after: LogKey | None = None, limit: int = PAGE_ROWS
) -> list[Entry]:
    """Up to `limit` entries after a key, the oldest first.

    Each has `message` (text with its line ends), `level`, `created_at` and `ordinal`. `step`, `visit`, `index` and
    `attempt` name the node. `missing_bytes` is the size of the output before it that was not kept. NotFoundFault if
    there is no such execution or step.
    """
    rows = await connection.fetch(sql("list_log"), *subject.arguments, *(after or (None,) * 4), limit, [], [], [])
    if not rows and after is None:
        await _check(connection, subject)
        await _check_item(connection, subject)
    return [_entry(dict(row)) for row in rows]


async def list_newest_log(connection: Connection, subject: LogSubject, *, limit: int) -> list[Entry]:
    """The last entries of a log, as `list_log` gives them, the oldest of them first; none if there is no such log."""
    rows = await connection.fetch(sql("list_newest_log"), *subject.arguments, limit)
    return [_entry(dict(row)) for row in reversed(rows)]


async def _check(connection: Connection, subject: LogSubject) -> None:
    """Raise NotFoundFault if there is nothing that could have a log."""
    if (archived := await archived_fault(connection, subject.execution_id)) is not None:
        raise archived
    await find_execution(connection, subject.execution_id)
    steps = [row["step"] for row in await connection.fetch(sql("list_steps"), subject.execution_id)]
    if subject.step is not None and steps and subject.step not in steps:
        raise NotFoundFault(
            f"execution {subject.execution_id} has no step {subject.step}; its steps are {', '.join(steps)}"
        )


async def _check_item(connection: Connection, subject: LogSubject) -> None:
    """Raise NotFoundFault for an item that does not exist, or that has no log of its own."""
    if subject.item_index is None or subject.step is None:
        return
    item = await load_item(connection, subject.execution_id, ItemName(subject.step, subject.visit, subject.item_index))
    if item["by_worker"]:
        visit = visit_name(item["step"], item["visit"])
        raise NotFoundFault(
            f"one worker ran all items of {visit} as one job, and they have one log:"
            f" noetl-broker logs {subject.execution_id} {visit}"
        )


def _entry(row: dict[str, Any], *, shown: int = 0) -> Entry:
    """An entry; `shown`: how many bytes of the attempt were shown, also of rows that are deleted by now."""
    node = parse_node(row["node_id"], row["step"])
    missing = row.pop("first_byte") - max(row.pop("next_byte"), shown)
    return {**row, "visit": node.visit or 1, "index": node.item_index, "missing_bytes": max(missing, 0)}


@dataclass(slots=True)
class LogReader:
    """Reads what is new in a log at each call, also rows that became visible late."""

    subject: LogSubject
    _ordinals: dict[tuple[str, int], int] = field(default_factory=dict)
    _shown: dict[tuple[str, int], int] = field(default_factory=dict)

    async def read(self, connection: Connection) -> list[Entry]:
        """Up to PAGE_ROWS entries that no earlier call gave."""
        known = [*self._ordinals]
        keys = [node for node, _ in known], [attempt for _, attempt in known], [*self._ordinals.values()]
        rows = await connection.fetch(sql("list_log"), *self.subject.arguments, *(None,) * 4, PAGE_ROWS, *keys)
        if not rows and not known:
            await _check(connection, self.subject)
        entries = []
        for row in map(dict, rows):
            attempt = row["node_id"], row["attempt"]
            end = row["first_byte"] + len(row["message"].encode())
            entries.append(_entry(row, shown=self._shown.get(attempt, 0)))
            self._ordinals[attempt], self._shown[attempt] = row["ordinal"], end
        return entries


async def read_log(source: LastingSession, subject: LogSubject) -> AsyncIterator[list[Entry]]:
    """Yield the whole log in pages, the oldest first."""
    after: LogKey | None = None
    while entries := await source.read(partial(list_log, subject=subject, after=after)):
        yield entries
        after = LogKey(*(entries[-1][name] for name in LogKey._fields))
