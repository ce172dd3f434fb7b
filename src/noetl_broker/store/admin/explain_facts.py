"""Reads what `explain` needs: the history and further facts, in one snapshot."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from noetl_broker.explain.facts import (
    AlarmFact,
    Cause,
    ChildFact,
    Facts,
    ForkFact,
    JobFact,
    JobTypeFact,
    ScheduleFact,
    SignalFact,
    ThrottleFact,
    UnreadEvent,
    WaitFact,
)
from noetl_broker.explain.item import Item
from noetl_broker.explain.slots import slot_of_row
from noetl_broker.explain.unserved import unserved_text
from noetl_broker.history.record import History
from noetl_broker.node_ids import ItemName, node_id, node_of_job, parse_node
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.archive import archived_fault, unknown_fault
from noetl_broker.store.admin.history import load_history
from noetl_broker.store.admin.overview import list_unserved
from noetl_broker.store.admin.progress import load_failed_items, load_item, load_progress
from noetl_broker.store.admin.recovery import RECOVERY_KEY
from noetl_broker.store.admin.undo import load_undo
from noetl_broker.store.connect.connection import Connection, schema_of
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA
from noetl_broker.store.queries import sql

SCHEDULE_KEY = re.compile(r"schedule:(.+)@(\d{4}-\d\d-\d\dT[\d:.]+Z)", re.DOTALL)
ALARM_KEY = re.compile(r"on_failure ([0-9]{1,19})")
LATE_KEY = re.compile(r"on_late ([0-9]{1,19})(?: .*)?", re.DOTALL)
MOST = 100  # jobs of items, mail, children: nobody reads more


async def load_history_and_facts(
    connection: Connection, execution_id: int, rules: PlaybookRules
) -> tuple[History | None, Facts]:
    """The history of an execution (None if no broker has read anything of it) and the facts beside it.

    Raises NotFoundFault if there is none.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow(sql("explain_execution"), execution_id)
        if row is None:
            raise await unknown_fault(connection, execution_id)
        if (archived := await archived_fault(connection, execution_id)) is not None:
            raise archived
        turns = await connection.fetch(sql("explain_turns"), execution_id)
        history = await load_history(connection, execution_id, rules) if turns and not row["erased_at"] else None
        facts = await _facts(connection, row, turns, _live_nodes(execution_id, history))
        return history, await _alarm(connection, facts, history)


async def load_item_and_facts(connection: Connection, execution_id: int, name: ItemName) -> tuple[Item, Facts]:
    """An item of an iterator and the facts about its job, without the history. Raises NotFoundFault."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow(sql("explain_execution"), execution_id)
        if row is None:
            raise await unknown_fault(connection, execution_id)
        if (archived := await archived_fault(connection, execution_id)) is not None:
            raise archived
        item = await load_item(connection, execution_id, name)
        job = node_id(execution_id, item["step"], item["visit"], item["index"])
        return item, await _facts(connection, row, [], [job])


async def _facts(connection: Connection, row: Any, turns: list[Any], live: list[str]) -> Facts:
    """The facts beside the history; `live` are the nodes of the jobs that are loaded in any case."""
    execution_id = row["execution_id"]
    jobs = await connection.fetch(sql("explain_jobs"), execution_id, live, MOST)
    iterators = {(one["step"], one["visit"]): one for one in await load_progress(connection, execution_id)}
    failed = [visit for visit, progress in iterators.items() if progress["failed"]]
    types = sorted({(job["node_type"], job["pool"]) for job in jobs if job["status"] in {"queued", "retry"}})
    return Facts(
        execution_id=execution_id,
        path=row["path"],
        version=row["version"],
        status=row["status"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        erased_at=row["erased_at"],
        read_at=row["read_at"],
        deadline=row["deadline"],
        result=row["result"],
        error=row["error"],
        parent=row["parent_execution_id"],
        forked_from=row["forked_from"],
        schedule=_schedule(row["idempotency_key"]),
        signal=_signal(row["started_by"]),
        failed_before=_cause_of(ALARM_KEY, row["idempotency_key"]),
        late_before=_cause_of(LATE_KEY, row["idempotency_key"]),
        slots=tuple(slot_of_row(dict(slot)) for slot in await connection.fetch(sql("list_slots_of"), [execution_id])),
        brokers=row["brokers"],
        other_schema=None if schema_of(connection) == DEFAULT_SCHEMA else schema_of(connection),
        causes={
            turn["turn"]: Cause(turn["event_id"], turn["event_type"], turn["created_at"], turn["worker_id"])
            for turn in turns
            if turn["event_type"] is not None
        },
        jobs={node_of_job(job["node_id"]): _job(job) for job in jobs},
        waits={
            node_of_job(wait["node_id"]): _wait(wait)
            for wait in await connection.fetch(sql("explain_waits"), execution_id, MOST)
        },
        unread=tuple(map(_unread_event, await connection.fetch(sql("explain_unread"), execution_id, MOST))),
        dead_letters=tuple(map(_unread_event, await connection.fetch(sql("explain_set_aside"), execution_id, MOST))),
        children=tuple(map(_child, await connection.fetch(sql("explain_children"), execution_id, MOST))),
        types=await _load_types(connection, types),
        undo=await load_undo(connection, execution_id),
        iterators=iterators,
        failed_items={visit: tuple(await load_failed_items(connection, execution_id, *visit)) for visit in failed},
        forks=tuple(
            ForkFact(fork["execution_id"], fork["status"], fork["retry"])
            for fork in await connection.fetch(sql("explain_forks"), execution_id, f"{RECOVERY_KEY}{execution_id}")
        ),
    )


def _schedule(key: str | None) -> ScheduleFact | None:
    """The schedule whose moment has this idempotency key (`noetl.schedule_key`); None for any other key."""
    found = SCHEDULE_KEY.fullmatch(key or "")
    return None if found is None else ScheduleFact(found[1], found[2].replace(".000000Z", "Z"))


def _cause_of(pattern: re.Pattern[str], key: str | None) -> int | None:
    """The execution that is the cause of one with this idempotency key; None for any other key."""
    found = pattern.fullmatch(key or "")
    return None if found is None else int(found[1])


async def _alarm(connection: Connection, facts: Facts, history: History | None) -> Facts:
    """The facts with what started because the execution failed."""
    playbook = None if history is None or isinstance(history.playbook, str) else history.playbook
    if facts.status != "FAILED" or playbook is None or playbook.on_failure is None:
        return facts
    row = await connection.fetchrow(sql("explain_alarm"), facts.execution_id, playbook.on_failure.path)
    return facts if row is None else replace(facts, alarm=AlarmFact(*row))


def _signal(signal: Any) -> SignalFact | None:
    """The signal that started an execution, from its workload."""
    return SignalFact(signal["name"], signal["key"], signal["at"]) if isinstance(signal, dict) else None


def _live_nodes(execution_id: int, history: History | None) -> list[str]:
    """The node ids of the live visits, from the stored state."""
    state = history.state if history is not None and isinstance(history.state, dict) else {}
    nodes = [node_id(execution_id, token["step"], token["visit"]) for token in state.get("tokens", ())]
    current = state.get("compensation", {}).get("current")
    if current is not None:
        nodes.append(node_id(execution_id, current["step"], current["visit"], current["item_index"], undo=True))
    return nodes


async def _load_types(connection: Connection, types: list[tuple[str, str]]) -> dict[tuple[str, str], JobTypeFact]:
    """The facts about types and pools of jobs that wait."""
    if not types:
        return {}
    unserved = {(row["type"], row["pool"]): unserved_text(row) for row in await list_unserved(connection)}
    return {
        (found["type"], found["pool"]): JobTypeFact(
            found["waiting"], found["leased"], found["last_seen"], unserved.get((found["type"], found["pool"]))
        )
        for found in await connection.fetch(sql("explain_types"), *map(list, zip(*types, strict=True)))
    }


def _job(row: Any) -> JobFact:
    return JobFact(
        row["node_type"],
        row["status"],
        row["attempts"],
        row["max_attempts"],
        row["lost_leases"],
        row["available_at"],
        row["created_at"],
        row["priority"],
        row["lease_until"],
        row["worker_id"],
        row["last_heartbeat"],
        row["first_leased_at"],
        row["timeout_seconds"],
        row["server_status"],
        row["server_status_at"],
        row["foreign_lease"],
        row["start_by"],
        None if row["leased"] is None else _throttle_of(row),
        row["pool"],
    )


def _throttle_of(row: Any) -> ThrottleFact:
    names = ("limit_name", "limit_key", "concurrency", "rate", "leased", "ready", "before", "paused", "holders")
    return ThrottleFact(*(row[name] for name in names))


def _wait(row: Any) -> WaitFact:
    return WaitFact(
        row["kind"],
        row["began_at"],
        row["due_at"],
        tuple(row["names"] or ()),
        row["key"],
        row["title"] or "",
        tuple(row["approvers"]),
        row["to_execution"],
        row["too_old"],
    )


def _unread_event(row: Any) -> UnreadEvent:
    step, visit, index = parse_node(row["node_id"], row["node_name"])
    node = (step, visit or 1, index) if step is not None and ":" in (row["node_id"] or "") else None
    return UnreadEvent(row["event_id"], row["event_type"] or "an event", node, row["created_at"], row.get("reason"))


def _child(row: Any) -> ChildFact:
    step, visit, _ = parse_node(row["parent_node_id"], row["parent_node_id"])
    node = (step or "", visit or 1, row["parent_index"])
    return ChildFact(row["execution_id"], row["path"], node, row["started_at"], tuple(row["steps"]))
