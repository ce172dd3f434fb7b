"""Checks of ended executions: nothing is open, tables agree with events, and a replay decides the same."""

from __future__ import annotations

from typing import Any

from noetl_broker.history.replay import replay_history, sentences
from noetl_broker.playbook import PlaybookRules
from noetl_broker.store.admin.history import load_history
from tests.brokers import broken_invariants, rows
from tests.postgres import Database
from tests.sessions import pooled_session

# Each statement returns a row for each fault.
FAULTS = {
    "running executions": "select execution_id, path from noetl.execution where noetl.is_live(status)",
    "open jobs": """
        select node_id, status
        from noetl.queue
        where status not in ('done', 'dead', 'cancelled')""",
    "steps whose status differs from their events": """
        select w.execution_id, w.step_name, w.status, e.types
        from noetl.workflow w
        cross join lateral (
          select array_agg(e.event_type order by e.created_at desc) as types,
            count(*) filter (where e.event_type = 'step_started') as began,
            count(*) filter (where e.event_type <> 'step_started') as ended
          from noetl.event e
          where e.execution_id = w.execution_id and e.node_name = w.step_name
            and e.event_type in ('step_started', 'step_completed', 'step_failed', 'step_cancelled')
        ) e
        where e.types is not null and w.status <> case
          when e.began > e.ended then 'CANCELLED'
          when e.types[1] = 'step_completed' then 'COMPLETED'
          when e.types[1] = 'step_cancelled' then 'CANCELLED'
          else 'FAILED'
        end""",
    "items whose status differs from their events": """
        select i.node_id, i.index, i.status, e.types
        from noetl.iteration i
        cross join lateral (
          select coalesce(array_agg(e.event_type order by e.created_at), '{}') as types
          from noetl.event e
          where e.execution_id = i.execution_id and e.node_id = i.node_id
            and e.event_type like 'iteration\\_%' and (e.context ->> 'index')::int = i.index
        ) e
        where e.types <> case i.status
          when 'WAITING' then array[]::text[]
          when 'COMPLETED' then case when exists (
            -- of a fork: the result was taken over
            select from noetl.event r
            where r.execution_id = i.execution_id and r.event_id = i.result_event_id and r.event_type = 'step_result'
          ) then array[]::text[] else array['iteration_started', 'iteration_completed'] end
          when 'FAILED' then array['iteration_started', 'iteration_failed']
          else array['iteration_started']
        end or i.status = 'RUNNING'""",
    "items with the child of another item": """
        select i.node_id, i.index, i.child_execution_id
        from noetl.iteration i
        left join noetl.execution x on x.execution_id = i.child_execution_id
          and x.parent_execution_id = i.execution_id and x.parent_node_id = i.node_id and x.parent_index = i.index
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
            and e.event_type = 'action_retry'
            and (noetl.as_json(e.context) ->> 'index')::int is not distinct from x.parent_index
        )""",
    "events that name an unknown child": """
        select e.execution_id, e.context
        from noetl.event e
        where e.event_type = 'iteration_started' and e.context ? 'child_execution_id' and not exists (
          select
          from noetl.execution x
          where x.execution_id = (e.context ->> 'child_execution_id')::bigint
        )""",
}


async def inconsistencies(database: Database) -> dict[str, list[Any]]:
    """Return the faults by check; empty if nothing is open or broken and each replay decides the same."""
    found: dict[str, list[Any]] = {**await broken_invariants(database)}
    for name, statement in FAULTS.items():
        found[name] = await rows(database, statement)
    async with pooled_session(database) as connection:
        read = "select execution_id from noetl.execution_state order by execution_id"
        for (execution_id,) in await connection.fetch(read):
            history = await load_history(connection, execution_id, PlaybookRules())
            found[f"replay of {execution_id}"] = sentences(replay_history(history)[1])
    return {name: faults for name, faults in found.items() if faults}
