-- name: course_events
-- What the broker wrote of steps and of the end, without results. It is what names in `meta` the turn that read its cause:
-- an event that somebody else wrote under such a name counts no more here than it did for the broker.
select e.event_type, e.node_id, e.node_name, e.node_type, e.status, noetl.as_json(e.meta) as meta,
  noetl.as_error(e.error) as error
from noetl.event e
join noetl.turn t
  on t.execution_id = e.execution_id and t.event_id = e.parent_event_id
  and to_jsonb(t.turn) = noetl.as_json(e.meta) -> 'turn'
where e.execution_id = $1::bigint
  and e.event_type in ('step_started', 'step_completed', 'step_failed', 'action_retry', 'execution_failed')
order by e.created_at, e.event_id;

-- name: course_items
select i.node_id, count(*) as total,
  count(*) filter (where i.status = 'COMPLETED') as completed,
  count(*) filter (where i.status = 'FAILED') as failed,
  count(*) filter (where i.status = 'RUNNING') as running
from noetl.iteration i
where i.execution_id = $1::bigint
group by i.node_id;

-- name: course_children
-- Children that are no items of an iterator: those that run, by the index of running ones, and those that answered.
select x.parent_node_id as node_id, x.execution_id
from noetl.execution x
where x.parent_execution_id = $1::bigint and x.status = 'RUNNING' and x.parent_index is null
union
select x.parent_node_id, x.execution_id
from noetl.event e
join noetl.execution x on x.execution_id = (noetl.as_json(e.meta) ->> 'child_execution_id')::bigint
where e.execution_id = $1::bigint
  and e.event_type in ('action_completed', 'action_failed')
  and noetl.as_json(e.meta) ->> 'child_execution_id' ~ '^[0-9]{1,18}$'
  and x.parent_execution_id = $1::bigint
  and x.parent_index is null
order by execution_id;
