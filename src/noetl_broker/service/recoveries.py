"""Retries and forks: executions that continue others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple

from noetl_broker.broker.state.state import is_live
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.history.fork_plan import ForkPlan, plan_fork
from noetl_broker.history.record import History
from noetl_broker.history.recovery_plan import OtherWay, plan_recovery, plan_restart
from noetl_broker.playbook.blocks import part_of
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.model import Playbook
from noetl_broker.service.payload_check import payload_fault
from noetl_broker.store.admin import catalog, executions, recovery, undo
from noetl_broker.store.admin.executions import Entry
from noetl_broker.store.admin.history import load_history
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.text import join_names


class OtherPlaybook(NamedTuple):
    """Another playbook for a fork; its catalog id and version are None if it is yet to be registered."""

    playbook: Playbook
    text: str
    catalog_id: int | None
    version: int | None = None


class OnVersion:
    """The version on which retries or forks continue (None: the latest); it compiles each playbook once.

    `or_from_start`: retries that would have gone another way on it start anew.
    """

    def __init__(self, version: int | None, rules: PlaybookRules, *, or_from_start: bool = False) -> None:
        self.version, self.or_from_start = version, or_from_start
        self._rules = rules
        self._found: dict[str, OtherPlaybook] = {}

    async def of(self, connection: Connection, execution_id: int) -> OtherPlaybook | None:
        """The version for an execution; None if it is the execution's own. Raises NotFoundFault."""
        row = await executions.find_execution(connection, execution_id)
        path = row["path"]
        if path is None:
            raise BrokerError(f"execution {execution_id} has no playbook path, so it has no other version")
        if path not in self._found:
            found = await catalog.find(connection, path, self.version)
            playbook = await asyncio.to_thread(found.compile, self._rules)  # a long one takes seconds
            self._found[path] = OtherPlaybook(playbook, found.content, found.catalog_id, found.version)
        other = self._found[path]
        return None if other.version == row["version"] else other


UNDONE = "what it did was undone"
ABANDONED = "its undo was abandoned"


class RecoveryPlan(NamedTuple):
    """The beginning of a retry or a fork; `other` is the playbook that it continues on, if that is another one.

    `anew`: why the retry starts from the start: how that version would have gone another way, UNDONE, or ABANDONED.
    """

    plan: ForkPlan
    other: OtherPlaybook | None
    anew: OtherWay | str | None
    history: History


async def recover(
    connection: Connection, execution_id: int, rules: PlaybookRules, on: OnVersion | None = None, by: str | None = None
) -> dict[str, Any]:
    """Retry a failed execution, or give back the dead letters of a running one. Raises BrokerError if neither fits.

    `status_before`: the status of an earlier retry, which is then the same execution.
    """
    row = await executions.find_execution(connection, execution_id)
    if row["status"] != "FAILED":
        if not await recovery.count_dead_letters(connection, execution_id):
            raise BrokerError(_nothing_to_recover(execution_id, row["status"]))
        put_back = await call(connection, "put_back", execution_id)
        return {"execution_id": execution_id, "put_back": put_back, "status_before": None, "notes": []}
    before = await recovery.find_recovery(connection, execution_id)
    made = await recover_failed(connection, execution_id, rules, None if before is not None else on, by)
    notes = await _notes(connection, row, made, is_new=before is None, on=on)
    return {"execution_id": execution_id, **made, "status_before": before and before["status"], "notes": notes}


async def recover_failed(
    connection: Connection,
    execution_id: int,
    rules: PlaybookRules,
    on: OnVersion | None = None,
    by: str | None = None,
) -> dict[str, Any]:
    """Retry a failed execution: `recovered_as` is the new one, which begins at `steps` with results of `taken`.

    `on`: it continues on another version, `version` of the answer; `anew` says why it starts from the start there.
    """
    planned = await preview_recovery(connection, execution_id, rules, on)
    plan, other = planned.plan, planned.other
    catalog_id = other.catalog_id if other is not None else None
    new = await recovery.start_recovery(connection, execution_id, plan, catalog_id=catalog_id, by=by)
    made = {"recovered_as": new, "steps": list(plan.steps), "taken": list(plan.taken)}
    if other is not None:
        made["version"] = other.version
    return made if planned.anew is None else {**made, "anew": str(planned.anew)}


async def preview_recovery(
    connection: Connection, execution_id: int, rules: PlaybookRules, on: OnVersion | None = None
) -> RecoveryPlan:
    """The beginning of a retry of this execution. Raises BrokerError if it cannot be retried.

    Where something of it was undone, a retry starts from the start.
    """
    other = None if on is None else await on.of(connection, execution_id)
    undone = await _why_anew(connection, execution_id)
    history = await load_history(connection, execution_id, rules)
    playbook = None if other is None else other.playbook
    if undone is not None:
        return RecoveryPlan(plan_restart(history, playbook), other, undone, history)
    try:
        return RecoveryPlan(plan_recovery(history, onto=playbook), other, None, history)
    except OtherWay as way:
        if on is None or other is None:
            raise
        if on.or_from_start:
            return RecoveryPlan(plan_restart(history, playbook), other, way, history)
        where = f"execution {execution_id} would have gone another way on version {other.version}"
        raise BrokerError(f"{where}: {way}; nothing was started") from way


# What keeps an execution from a retry: {0}, by the field of what the store found.
OBSTACLES = {
    "undoing": "execution {1} is undoing what it did; noetl-broker status {1} shows how far it is,"
    " noetl-broker abandon {1} ends it",
    "left": "execution {1} has something left to undo; noetl-broker undo {1} goes on with it, then {0} can be retried",
}


async def _why_anew(connection: Connection, execution_id: int) -> str | None:
    """UNDONE or ABANDONED; None: nothing was undone. Raises BrokerError while an undo runs or is left."""
    obstacle = await undo.find_undo_obstacle(connection, execution_id)
    for name, sentence in OBSTACLES.items():
        if found := getattr(obstacle, name):
            raise BrokerError(sentence.format(execution_id, found))
    if obstacle.abandoned:
        return ABANDONED
    return UNDONE if obstacle.done else None


async def _notes(
    connection: Connection, of: Entry, made: Mapping[str, Any], *, is_new: bool, on: OnVersion | None
) -> list[str]:
    """What a person should know about a retry that was made: why it starts anew, a newer version, its parent."""
    notes: list[str] = []
    if is_new:
        if (way := made.get("anew")) is not None:
            known = way in {ABANDONED, UNDONE}
            notes.append(f"it starts anew, because {way if known else f'it would have gone another way: {way}'}")
        if on is None and (newer := await newer_version(connection, of)) is not None:
            notes.append(f"it has version {of['version']}; {newer} is registered: --version latest continues on it")
    if (parent := of["parent_execution_id"]) is not None:
        notes.append(f"its parent {parent} has received the failure and does not wait for the new execution")
    return notes


async def newer_version(connection: Connection, row: Mapping[str, Any]) -> int | None:
    """The latest version of an execution's playbook, if that is newer than the execution's."""
    latest = (await catalog.latest_versions(connection, [row["path"] or ""])).get(row["path"] or "")
    return latest if latest is not None and row["version"] is not None and latest > row["version"] else None


class Outlook(NamedTuple):
    """Whether an execution can be retried, and what the retry would begin with, or why it cannot."""

    goes_on: bool
    says: str


async def preview_retry(
    connection: Connection, execution_id: int, rules: PlaybookRules, on: OnVersion | None = None
) -> Outlook:
    """The effect of a retry, in a few words that are the same for similar executions."""
    return await _outlook(preview_recovery(connection, execution_id, rules, on), "retried")


async def preview_fork(connection: Connection, execution_id: int, start: ForkFrom, rules: PlaybookRules) -> Outlook:
    """The effect of a fork, in such words, too."""
    return await _outlook(_plan_fork(connection, execution_id, start, rules), "forked")


async def _outlook(planning: Awaitable[RecoveryPlan], done: str) -> Outlook:
    try:
        plan, other, anew, history = await planning
    except DatabaseFault:
        raise
    except BrokerError as fault:
        way = fault.__cause__
        if isinstance(way, OtherWay):
            return Outlook(goes_on=False, says=f"goes another way at {way.step or 'the start'}: {way.what}")
        return Outlook(goes_on=False, says=f"cannot be {done}: {fault}")
    says = f"begins at {join_names(plan.steps) or 'the beginning'}, keeps {_kept_text(plan)}"
    if isinstance(anew, OtherWay):
        says = f"starts anew, because at {anew.step or 'the start'} {anew.what}"
    elif anew is not None:
        says = f"starts anew, because {anew}"
    if other is not None and other.version is not None:
        says = f"version {other.version}: {says}"
    if other is not None and other.playbook.workload_schema is not None and isinstance(history.workload, dict):
        misfit = payload_fault(other.playbook, history.workload)
        says += f"; its workload does not fit: {misfit['message']}" if misfit is not None else ""
    return Outlook(goes_on=True, says=says)


def _kept_text(plan: ForkPlan) -> str:
    """The contents of a plan in words: `2 results and the completed items of load`."""
    count = len({*plan.taken})
    results = f"{count or 'no'} result{'' if count == 1 else 's'}"
    if not plan.iterators:
        return results
    items = f"the completed items of {join_names(plan.iterators)}"
    return f"{results} and {items}" if count else items


def _nothing_to_recover(execution_id: int, status: str) -> str:
    if is_live(status):
        return (
            f"execution {execution_id} is {status} and has no dead letters;"
            f" noetl-broker explain {execution_id} says what it waits for"
        )
    return (
        f"execution {execution_id} has not failed, it is {status};"
        f" noetl-broker fork {execution_id} --from STEP starts from one of its steps"
    )


class Forked(NamedTuple):
    """A new execution, its plan, and the version that was registered for it (None: it had one)."""

    execution_id: int
    plan: ForkPlan
    registered: catalog.Registered | None


class ForkFrom(NamedTuple):
    """Where forks begin: a step, results by step in place of the recorded ones, and another version or playbook."""

    step: str
    values: Mapping[str, Any]
    on: OnVersion | None = None
    other: OtherPlaybook | None = None


async def _plan_fork(connection: Connection, execution_id: int, start: ForkFrom, rules: PlaybookRules) -> RecoveryPlan:
    other = start.other if start.on is None else await start.on.of(connection, execution_id)
    history = await load_history(connection, execution_id, rules)
    part = None if other is None else part_of(other.playbook, history.path)
    if other is not None and part is None:
        raise BrokerError(f"the other playbook has no block {history.path}")
    return RecoveryPlan(plan_fork(history, start.step, playbook=part, values=dict(start.values)), other, None, history)


async def fork_execution(
    connection: Connection,
    execution_id: int,
    start: ForkFrom,
    rules: PlaybookRules,
    key: str | None = None,
    by: str | None = None,
) -> Forked:
    """Start an execution from a step of another. `key` is its idempotency key."""
    plan, other, _, history = await _plan_fork(connection, execution_id, start, rules)
    catalog_id, registered = None if other is None else other.catalog_id, None
    if other is not None and catalog_id is None:
        registered = await catalog.find_or_register(connection, other.playbook, other.text, by)
        catalog_id = registered.catalog_id
        part = part_of(other.playbook, history.path)
        if part is not None and part is not other.playbook:
            catalog_id = (await catalog.find(connection, part.path, registered.version)).catalog_id
    new = await recovery.fork_execution(connection, execution_id, plan, catalog_id=catalog_id, key=key, by=by)
    return Forked(new, plan, registered)
