"""One action on many executions: finds them, groups them for a preview, acts on each at a limited rate."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from noetl_broker.broker.state.state import CANCELLED, COMPENSATING, COMPLETED, FAILED, PAUSED, QUEUED, RUNNING
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.operations.recoveries import Outlook
from noetl_broker.store.admin import executions, recovery
from noetl_broker.store.admin.executions import Entry, Filter
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.session import translate_faults

STATUSES = (QUEUED, RUNNING, PAUSED, COMPENSATING, COMPLETED, FAILED, CANCELLED)
REASON_SHOWN = 80  # characters

# A UUID; a word of 6 characters or more with a digit; a number.
_VARYING = re.compile(
    r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
    r"|\b(?=\w*\d)\w{6,}\b"
    r"|\d+(?:[.,:]\d+)*"
)

BulkAction = Literal["cancel", "pause", "resume", "retry", "fork", "reevaluate"]
_STATUSES_OF: dict[BulkAction, tuple[str, ...]] = {
    "cancel": (QUEUED, RUNNING, PAUSED),
    "pause": (RUNNING, QUEUED),
    "resume": (PAUSED,),
    "fork": tuple(status for status in STATUSES if status != COMPENSATING),
}


class Group(NamedTuple):
    """Executions of one version, step and reason: how many, and the id of the newest.

    `reason` leaves out the numbers and ids in which their reasons differ. `latest` is the latest version, where it is
    newer. `outlook` says what the action will do with them, and `goes_on` whether it can; None: not previewed.
    """

    path: str | None
    version: int | None
    step: str | None
    reason: str
    executions: int
    example: int
    latest: int | None = None
    outlook: str | None = None
    goes_on: bool | None = None


class Acted(NamedTuple):
    """The answer for each execution, and the message of each failure."""

    done: list[dict[str, Any]]
    failed: list[dict[str, Any]]


async def find_executions(
    connection: Connection, action: BulkAction, which: Filter, *, limit: int, after: int = 0
) -> list[Entry]:
    """The executions that an action is for, the oldest first, with `path`, `step` and `reason`.

    `retry` and `fork` are for executions without a parent that nothing recovered before. A `fork` without a status
    is for failed executions only: repeated, it must not fork its own forks. `reevaluate` is for executions with dead
    letters.
    """
    if action == "retry" or (action == "fork" and which.status is None):
        return await recovery.search_failed(connection, which, limit=limit, after=after)
    if action == "reevaluate":
        letters = await recovery.search_dead_letters(connection, which, limit=limit)
        return [*{letter["execution_id"]: letter for letter in reversed(letters)}.values()][::-1]
    return await executions.search_executions(
        connection, which, statuses=_STATUSES_OF[action], limit=limit, new_only=action == "fork", after=after
    )


async def find_left_out(connection: Connection, action: BulkAction, which: Filter, *, limit: int) -> list[int] | None:
    """The executions that a retry or a fork leaves out: they were recovered already. None for other actions."""
    if action not in {"retry", "fork"}:
        return None
    return await recovery.list_recovered(connection, which, limit=limit)


def group_executions(
    found: Sequence[Entry],
    *,
    latest: Mapping[str, int] | None = None,
    outlooks: Mapping[int, Outlook] | None = None,
) -> list[Group]:
    """The groups of a preview, the largest first. `latest`: the latest versions, by path; `outlooks` by execution."""
    latest, outlooks = latest or {}, outlooks or {}
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in found:
        reason = without_numbers(entry["reason"] or "")
        key = (entry["path"], entry.get("version"), entry.get("step"), reason, outlooks.get(entry["execution_id"]))
        groups.setdefault(key, []).append(entry)
    made = []
    for (path, version, step, reason, outlook), entries in sorted(groups.items(), key=lambda item: -len(item[1])):
        reasons = {entry["reason"] or "" for entry in entries}
        shown = reasons.pop() if len(reasons) == 1 else reason
        newest = latest.get(path)
        is_newer = newest is not None and version is not None and newest > version
        made.append(
            Group(
                path,
                version,
                step,
                shown[:REASON_SHOWN],
                len(entries),
                entries[-1]["execution_id"],
                newest if is_newer else None,
                outlook.says if outlook is not None else None,
                outlook.goes_on if outlook is not None else None,
            )
        )
    return made


def without_numbers(reason: str) -> str:
    """A reason with `…` in place of numbers and of words of six characters or more that have a digit."""
    return _VARYING.sub("…", reason)


async def act_on_each(
    found: Sequence[Entry],
    action: Callable[[int], Awaitable[dict[str, Any]]],
    *,
    rate: float,
    on_each: Callable[[BrokerError | None], None] = lambda _fault: None,
) -> Acted:
    """Act on each, at most `rate` a second. A failure is reported, and the other executions go on.

    `on_each` is called after each, with its fault. Raises DatabaseFault: the others would fail too.
    """
    acted = Acted([], [])
    began = time.monotonic()
    for number, entry in enumerate(found):
        await asyncio.sleep(max(0.0, number / rate - (time.monotonic() - began)))
        execution_id, fault = entry["execution_id"], None
        try:
            with translate_faults():
                acted.done.append({"execution_id": execution_id, **await action(execution_id)})
        except DatabaseFault:
            raise
        except BrokerError as error:
            fault = error
            acted.failed.append({"execution_id": execution_id, "message": str(fault)})
        on_each(fault)
    return acted
