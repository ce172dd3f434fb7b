"""Sends a bad event to one execution, and checks that another one is not affected."""

from __future__ import annotations

from typing import Any

from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database

FORK = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: [{when: "{{ a.n | default(1) == 1 }}", step: end}, {else: [end]}]}
- {step: b, type: python, code: x, retry: {max_attempts: 3, initial_delay: 0}, next: end}
- {step: end}
"""
BAD = 77  # the id of the bad event
# For so few rows a truncation takes longer.
CLEAR = "".join(
    f"delete from noetl.{table};"
    for table in (
        *("catalog", "event", "queue", "execution", "execution_state", "turn", "inbox", "workflow", "transition"),
        *("dead_letter", "workload", "workbook", "iteration"),
    )
)


async def insert(database: Database, execution_id: int, columns: dict[str, Any]) -> None:
    """Insert the event `BAD`: a completion of step `a` with these columns instead of its own."""
    event = {
        "execution_id": execution_id,
        "event_id": BAD,
        "event_type": "action_completed",
        "node_id": f"{execution_id}:a",
        "node_name": "a",
        **columns,
    }
    names = ", ".join(event)
    places = ", ".join(f"${n}::text::{_type(name)}" for n, name in enumerate(event, 1))
    values = [None if value is None else str(value) for value in event.values()]
    await execute(database, f"insert into noetl.event ({names}) values ({places})", *values)


def _type(name: str) -> str:
    if name.endswith("_id") and name != "node_id":
        return "bigint"
    kinds = {"created_at": "timestamptz", "meta": "jsonb", "result": "jsonb", "error": "jsonb", "context": "jsonb"}
    return kinds.get(name, "text")


async def begin(database: Database) -> tuple[int, int]:
    """Start two executions that wait for jobs: the first gets the bad event, the second does not."""
    await register(database, FORK)
    victim, bystander = await start(database, count=2)
    await drain(database)
    return victim, bystander


async def clear(database: Database) -> None:
    """Give the next example an empty database."""
    await execute(database, CLEAR)


async def assert_healthy(database: Database, bystander: int) -> None:
    """Drain, and assert that the bystander completes, nothing is a dead letter, and all invariants hold."""
    await drain(database)
    assert await value(database, "select count(*) from noetl.inbox") == 0
    while await complete_jobs(database, {"n": 1}):
        await drain(database)
    assert await value(database, "select status from noetl.execution where execution_id = $1", bystander) == "COMPLETED"
    assert await value(database, "select count(*) from noetl.execution where status = 'RUNNING'") == 0
    assert await broken_invariants(database) == {}


async def outcomes(database: Database) -> list[str]:
    """Return the outcome of each turn that read the bad event."""
    return [row[0] for row in await rows(database, "select outcome from noetl.turn where event_id = $1", BAD)]


async def start_by_hand(
    database: Database, execution_id: int, context: str | None, catalog_id: int | None = None
) -> None:
    """Insert an `execution_start` without `noetl.start_execution`."""
    await execute(
        database,
        """insert into noetl.event (execution_id, catalog_id, event_type, context)
        values ($1, $2, 'execution_start', $3::text::jsonb)""",
        execution_id, catalog_id, context,
    )  # fmt: skip
