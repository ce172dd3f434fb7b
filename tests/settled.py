"""What executions leave behind when nothing moves any more: nothing open, and histories that decide the same again."""

from __future__ import annotations

from typing import Any

from noetl_broker.broker.replay import compare_end, retake
from noetl_broker.playbook import Rules
from noetl_broker.store.history import load_history
from noetl_broker.store.pool import connect
from tests.brokers import broken_invariants, rows
from tests.postgres import Database

# Each statement gives a row per fault.
OPEN = {
    "executions that run": "select execution_id, path from noetl.execution where status = 'RUNNING'",
    "jobs that wait for somebody": """
        select node_id, status
        from noetl.queue
        where status not in ('done', 'dead', 'cancelled')""",
    "steps that stand elsewhere than their events": """
        select w.execution_id, w.step_name, w.status, e.types
        from noetl.workflow w
        cross join lateral (
          select array_agg(e.event_type order by e.created_at desc) as types,
            count(*) filter (where e.event_type = 'step_started') as began,
            count(*) filter (where e.event_type <> 'step_started') as ended
          from noetl.event e
          where e.execution_id = w.execution_id and e.node_name = w.step_name
            and e.event_type in ('step_started', 'step_completed', 'step_failed')
        ) e
        where e.types is not null and w.status <> case
          when e.began > e.ended then 'CANCELLED'
          when e.types[1] = 'step_completed' then 'COMPLETED'
          else 'FAILED'
        end""",
    "items that stand elsewhere than their events": """
        select i.node_id, i.place, i.status, e.types
        from noetl.iteration i
        cross join lateral (
          select coalesce(array_agg(e.event_type order by e.created_at), '{}') as types
          from noetl.event e
          where e.execution_id = i.execution_id and e.node_id = i.node_id
            and e.event_type like 'iteration\\_%' and (e.context ->> 'index')::int = i.place
        ) e
        where e.types <> case i.status
          when 'WAITING' then array[]::text[]
          when 'COMPLETED' then array['iteration_started', 'iteration_completed']
          when 'FAILED' then array['iteration_started', 'iteration_failed']
          else array['iteration_started']
        end or i.status = 'RUNNING'""",
    "items that name a child which is not theirs": """
        select i.node_id, i.place, i.child_execution_id
        from noetl.iteration i
        left join noetl.execution x on x.execution_id = i.child_execution_id
          and x.parent_execution_id = i.execution_id and x.parent_node_id = i.node_id and x.parent_index = i.place
        where i.child_execution_id is not null and x.execution_id is null""",
    "visits and items with more children than attempts": """
        select x.parent_node_id, x.parent_index, count(*)
        from noetl.execution x
        where x.parent_node_id is not null
        group by x.parent_execution_id, x.parent_node_id, x.parent_index
        having count(*) > 1 + (
          select count(*)
          from noetl.event e
          where e.execution_id = x.parent_execution_id and e.node_id = x.parent_node_id
            and e.event_type = 'action_retry' and x.parent_index is null
        )""",
    "events that name a child which never was": """
        select e.execution_id, e.context
        from noetl.event e
        where e.event_type = 'iteration_started' and e.context ? 'child_execution_id' and not exists (
          select
          from noetl.execution x
          where x.execution_id = (e.context ->> 'child_execution_id')::bigint
        )""",
}


async def unsettled(database: Database) -> dict[str, list[Any]]:
    """Everything that is still open, broken, or decided otherwise by a replay; empty where all is well."""
    found: dict[str, list[Any]] = {**await broken_invariants(database)}
    for name, statement in OPEN.items():
        found[name] = await rows(database, statement)
    connection = await connect(database.dsn, name="test")
    try:
        read = "select execution_id from noetl.execution_state order by execution_id"
        for (execution_id,) in await connection.fetch(read):
            history = await load_history(connection, execution_id, Rules())
            turns = list(retake(history))
            found[f"replay of {execution_id}"] = [difference for turn in turns for difference in turn.differences]
            found[f"replay of {execution_id}"] += compare_end(history, turns)
    finally:
        await connection.close()
    return {name: faults for name, faults in found.items() if faults}
