-- name: path_events
-- The broker's events about steps and the end, without results. Their `meta` names the turn that read their cause, so
-- events of these types that others wrote are left out.
select e.event_type, e.node_id, e.node_name, e.node_type, e.status, noetl.as_json(e.meta) as meta,
  noetl.as_error(e.error) as error
from noetl.event e
join noetl.turn t
  on t.execution_id = e.execution_id and t.event_id = e.parent_event_id
  and to_jsonb(t.turn) = noetl.as_json(e.meta) -> 'turn'
where e.execution_id = $1::bigint
  and e.event_type in (
    'step_started', 'step_completed', 'step_failed', 'action_retry', 'execution_failed', 'execution_compensating',
    'compensation_started', 'compensation_completed', 'compensation_failed'
  )
  and (e.event_type <> 'action_retry' or noetl.as_json(e.context) -> 'index' is null) -- not those of items
order by e.created_at, e.event_id;

-- name: path_items
select i.node_id, count(*) as total,
  count(*) filter (where i.status = 'COMPLETED') as completed,
  count(*) filter (where i.status = 'FAILED') as failed,
  count(*) filter (where i.status = 'RUNNING') as running
from noetl.iteration i
where i.execution_id = $1::bigint
group by i.node_id;

-- name: path_children
-- Children that are not iterator items: running ones, by their index, and those that answered.
select x.parent_node_id as node_id, x.execution_id
from noetl.execution x
where x.parent_execution_id = $1::bigint and noetl.is_live(x.status) and x.parent_index is null
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

-- name: visit_spans
-- Visits of steps, the latest first. Each with its begin and end, its last event by the broker, and when its attempts began
-- and failed. A job that a throttle held waited until `held_until`; later attempts hide that. An undo is a visit of its own,
-- `charge!undo`. Not the items of iterators.
select e.node_id, max(e.step) as step, max(e.node_type) as type, min(e.created_at::timestamptz) as began_at,
  max(e.created_at::timestamptz) filter (
    where e.event_type in ('step_completed', 'step_failed', 'step_cancelled', 'compensation_completed', 'compensation_failed')
  ) as ended_at,
  max(e.status) filter (
    where e.event_type in ('step_completed', 'step_failed', 'step_cancelled', 'compensation_completed', 'compensation_failed')
  ) as status,
  array_agg(e.created_at::timestamptz order by e.event_id) filter (where e.event_type = 'action_started') as started,
  array_agg(e.created_at::timestamptz order by e.event_id) filter (where e.event_type = 'action_failed') as failed,
  max(w.kind) as waits_for, coalesce(bool_or(q.node_type <> 'playbook'), false) as has_job, max(
    case
      when q.limit_name is null or q.attempts > 1 then null
      when q.status = 'held' then clock_timestamp()
      else q.available_at
    end
  ) as held_until
from (
  select v.execution_id, v.event_id, v.event_type, v.node_type, v.created_at, v.status,
    case when starts_with(v.event_type, 'compensation_') then noetl.undo_node_id(v.node_id) else v.node_id end as node_id,
    case when starts_with(v.event_type, 'compensation_') then noetl.undo_step(v.node_name) else v.node_name end as step
  from noetl.event v
  where v.execution_id = $1::bigint
    and v.event_type in (
      'step_started', 'step_completed', 'step_failed', 'step_cancelled', 'action_started', 'action_failed',
      'compensation_started', 'compensation_completed', 'compensation_failed'
    )
    and not noetl.is_item(v.node_id)
) e
left join noetl.wait w on w.execution_id = e.execution_id and w.node_id = e.node_id
left join noetl.queue q on q.execution_id = e.execution_id and q.node_id = e.node_id
group by e.node_id
order by min(e.event_id) desc
limit $2::int;

-- name: queued_span
-- When an execution that was queued was admitted, or null; no row of one that never was. The event that says so is of its
-- first turn.
select (
    select min(a.created_at::timestamptz)
    from noetl.event a
    where a.execution_id = $1::bigint and a.event_type = 'execution_admitted'
  ) as admitted_at
from (
  select e.event_type from noetl.event e where e.execution_id = $1::bigint order by e.event_id limit 10
) e
where e.event_type = 'execution_queued';

-- name: child_spans
-- Children: those that run, and those that answered, by their ids; at most $3.
select x.execution_id, x.path, x.status, x.started_at as began_at, x.ended_at, x.parent_node_id as node_id,
  x.parent_index as index
from noetl.execution x
where x.parent_execution_id = $1::bigint and noetl.is_live(x.status) and x.execution_id > $2::bigint
union
select x.execution_id, x.path, x.status, x.started_at, x.ended_at, x.parent_node_id, x.parent_index
from noetl.event e
join noetl.execution x on x.execution_id = (noetl.as_json(e.meta) ->> 'child_execution_id')::bigint
where e.execution_id = $1::bigint
  and noetl.as_json(e.meta) ->> 'child_execution_id' ~ '^[0-9]{1,18}$'
  and x.parent_execution_id = $1::bigint
  and x.execution_id > $2::bigint
order by execution_id
limit $3::int;

-- name: visit_events
-- What happened in one visit or to one item, without the events of a visit's items; the first $3.
select e.event_id, e.created_at::timestamptz as created_at, e.event_type, e.status, noetl.as_json(e.context) as context,
  noetl.as_json(e.result) as result, noetl.as_json(e.meta) as meta, noetl.as_json(e.error) as error, e.worker_id
from noetl.event e
where e.execution_id = $1::bigint and e.node_id = $2::text
  and e.event_type not in ('iteration_started', 'iteration_completed', 'iteration_failed')
order by e.event_id
limit $3::int;

-- name: visit_request
-- What a job, a wait or an item was given.
select q.action, w.request, i.item, q.status, q.attempts, q.max_attempts, i.status as item_status,
  i.child_execution_id, i.error as item_error
from (select $1::bigint as execution_id, $2::text as node_id) wanted
left join noetl.queue q on q.execution_id = wanted.execution_id and q.node_id = wanted.node_id
left join noetl.wait w on w.execution_id = wanted.execution_id and w.node_id = wanted.node_id
left join noetl.iteration i on i.execution_id = wanted.execution_id and i.node_id = $3::text and i.index = $4::int;

-- name: following_step
-- The step to which a transition leads from $2: one that was visited before one that was not.
select t.to_step
from noetl.transition t
left join noetl.workflow w on w.execution_id = t.execution_id and w.step_name = t.to_step
where t.execution_id = $1::bigint and t.from_step = $2::text and t.to_step <> $2
order by coalesce(w.visits, 0) > 0 desc, t.ordinal
limit 1;

-- name: execution_origin
-- The last turn of an execution, its workload, and the executions that were forked from it, the latest first.
select coalesce(s.turn, 0) as turns, x.workload, x.idempotency_key, array(
    select f.execution_id
    from noetl.execution f
    where f.forked_from = x.execution_id
    order by f.execution_id desc
    limit 10
  ) as forks
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where x.execution_id = $1::bigint;
