"""Whether the drain costs the same with ten million old events as with empty tables."""

from __future__ import annotations

from typing import Final

from benchmarks.bench import Bench, Database
from benchmarks.drain import drained
from benchmarks.results import Row, at_most, ratios

ROUNDS: Final = 3
# The rows of ended executions with 30 events, 10 jobs and 10 turns each, with older ids. The trigger is off: no mail.
FILL: Final = (
    "set session_replication_role = replica",
    """
    insert into noetl.event (execution_id, event_id, catalog_id, created_at, event_type, node_id, node_name, node_type,
      status, meta, result)
    select n / 30, n, 1, now() - interval '30 days' + n * interval '1 millisecond', 'step_completed', 's' || n % 10,
      's' || n % 10, 'python', 'COMPLETED', '{"turn": 1, "visit": 1}', '{"n": 7}'
    from generate_series(1, $1::bigint) n""",
    """
    insert into noetl.turn (execution_id, turn, event_id, outcome, decided_at)
    select n / 10, 1 + n % 10, n, 'decided', now() - interval '30 days'
    from generate_series(1, $1::bigint / 3) n""",
    """
    insert into noetl.queue (queue_id, execution_id, catalog_id, node_id, node_name, node_type, action, status)
    select n, n / 10, 1, 's' || n % 10, 's' || n % 10, 'python', '{"args": {"x": 6}}', 'done'
    from generate_series(1, $1::bigint / 3) n""",
    """
    insert into noetl.execution (execution_id, catalog_id, path, version, status, ended_at)
    select n, 1, 'old', 1, 'COMPLETED', now()
    from generate_series(1, $1::bigint / 30) n""",
    """
    insert into noetl.execution_state (execution_id, turn, last_at, tokens)
    select n, 11, now(), '{}'
    from generate_series(1, $1::bigint / 30) n""",
    "set session_replication_role = origin",
    "analyze",
)


async def measure(bench: Bench) -> list[Row]:
    """Measure the drain in the full database and in a new one, in turns."""
    executions, events = bench.scaled(2_000, 300), bench.scaled(10_000_000, 200_000)
    full, empty, probes = [], [], []
    async with bench.database() as old:
        await _fill(old, events)
        for number in range(ROUNDS):
            probes.append(await old.probe())
            full.append((await drained(old, executions, path=f"ten{number}")).rate)
            async with bench.database() as new:
                empty.append((await drained(new, executions)).rate)
    return [
        Row(figure="flat in the database", what=f"time of the drain, {events:,} old events ÷ none", unit="×",
            values=ratios(empty, full), bar=at_most(1.2), probes=tuple(probes))
    ]  # fmt: skip


async def _fill(database: Database, events: int) -> None:
    for statement in FILL:
        await database.connection.execute(statement.replace("$1", str(events)), timeout=None)
    await database.connection.execute("checkpoint")
