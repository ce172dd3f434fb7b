"""What `explain` asks of the tables, beside the history: read in one snapshot with it."""

from __future__ import annotations

from typing import Any

from noetl_broker.broker.facts import Cause, ChildFact, Facts, ForkFact, JobFact, Letter, Node, TypeFact
from noetl_broker.broker.history import History
from noetl_broker.errors import NotFoundFault
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store.archive import archived_fault
from noetl_broker.store.history import load_history
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql
from noetl_broker.store.recovery import RETRY_KEY
from noetl_broker.store.rows import node_id, parse_node

MOST = 100  # jobs of items, letters, children: nobody reads more


async def look_closely(connection: Connection, execution_id: int, rules: PlaybookRules) -> tuple[History | None, Facts]:
    """The history of an execution (None where no broker has read anything of it) and the facts beside it.

    Raises NotFoundFault where there is none.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow(sql("explain_execution"), execution_id)
        if row is None:
            raise NotFoundFault(f"no execution {execution_id}; noetl-broker executions lists them")
        if (archived := await archived_fault(connection, execution_id)) is not None:
            raise archived
        turns = await connection.fetch(sql("explain_turns"), execution_id)
        history = await load_history(connection, execution_id, rules) if turns else None
        return history, await _facts(connection, row, turns, history)


async def _facts(connection: Connection, row: Any, turns: list[Any], history: History | None) -> Facts:
    execution_id = row["execution_id"]
    live = _live_nodes(execution_id, history)
    jobs = await connection.fetch(sql("explain_jobs"), execution_id, live, MOST)
    types = sorted({job["node_type"] for job in jobs if job["status"] in {"queued", "retry"}})
    return Facts(
        execution_id=execution_id,
        path=row["path"],
        version=row["version"],
        status=row["status"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        read_at=row["read_at"],
        result=row["result"],
        error=row["error"],
        parent=row["parent_execution_id"],
        forked_from=row["forked_from"],
        brokers=row["brokers"],
        causes={
            turn["turn"]: Cause(turn["event_id"], turn["event_type"], turn["created_at"], turn["worker_id"])
            for turn in turns
            if turn["event_type"] is not None
        },
        jobs={_node(job["node_id"]): _job(job) for job in jobs},
        unread=tuple(map(_letter, await connection.fetch(sql("explain_unread"), execution_id, MOST))),
        set_aside=tuple(map(_letter, await connection.fetch(sql("explain_set_aside"), execution_id, MOST))),
        children=tuple(map(_child, await connection.fetch(sql("explain_children"), execution_id, MOST))),
        types={
            found["type"]: TypeFact(found["waiting"], found["leased"], found["last_seen"])
            for found in await connection.fetch(sql("explain_types"), types)
        },
        forks=tuple(
            ForkFact(fork["execution_id"], fork["status"], fork["retry"])
            for fork in await connection.fetch(sql("explain_forks"), execution_id, f"{RETRY_KEY}{execution_id}")
        ),
    )


def _live_nodes(execution_id: int, history: History | None) -> list[str]:
    """The nodes of the visits that live, by the stored state."""
    state = history.state if history is not None and isinstance(history.state, dict) else {}
    return [node_id(execution_id, token["step"], token["visit"]) for token in state.get("tokens", ())]


def _node(node: str) -> Node:
    step, visit, place = parse_node(node, node)
    return step or node, visit or 1, place


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
        row["said"],
        row["said_at"],
        row["foreign_lease"],
    )


def _letter(row: Any) -> Letter:
    step, visit, place = parse_node(row["node_id"], row["node_name"])
    node = (step, visit or 1, place) if step is not None and ":" in (row["node_id"] or "") else None
    return Letter(row["event_id"], row["event_type"] or "an event", node, row["created_at"], row.get("reason"))


def _child(row: Any) -> ChildFact:
    step, visit, _ = parse_node(row["parent_node_id"], row["parent_node_id"])
    node = (step or "", visit or 1, row["parent_index"])
    return ChildFact(row["execution_id"], row["path"], node, row["started_at"], tuple(row["steps"]))
