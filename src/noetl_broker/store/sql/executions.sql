-- name: start_execution
select noetl.start_execution($1::text, $2::text::jsonb, $3::int, $4::text);

-- name: cancel_execution
select noetl.cancel_execution($1::bigint, $2::text);

-- name: list_executions
-- Ids are time-ordered, and have an index that starting times have not.
select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id, x.error
from noetl.execution x
where ($1::text is null or x.status = $1)
  and ($2::text is null or x.path like $2)
order by x.execution_id desc
limit $3::int;

-- name: find_execution
-- `read_at`: the database's clock, against which leases and delays are told.
select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id, x.forked_from,
  x.result, x.error, noetl.is_archived(x.execution_id) as archived,
  (select count(*) from noetl.inbox i where i.execution_id = x.execution_id) as unread,
  clock_timestamp() as read_at
from noetl.execution x
where x.execution_id = $1::bigint;

-- name: list_steps
select w.step_name as step, w.step_type as type, w.status, w.visits, w.started_at, w.ended_at
from noetl.workflow w
where w.execution_id = $1::bigint
order by w.ordinal, w.step_id;

-- name: list_open_jobs
-- What a worker holds or may take, what waits for the broker, and what nobody will try again.
select q.queue_id, q.node_id, q.node_name as step, q.node_type as type, q.status, q.priority, q.attempts, q.max_attempts,
  q.lost_leases, q.available_at::timestamptz as available_at, q.lease_until::timestamptz as lease_until, q.worker_id
from noetl.queue q
where q.execution_id = $1::bigint
  and q.status not in ('done', 'cancelled')
order by q.created_at, q.queue_id;

-- name: list_dead_letters
select d.event_id, e.event_type, e.node_name, d.reason, d.created_at
from noetl.dead_letter d
left join noetl.event e on e.execution_id = d.execution_id and e.event_id = d.event_id
where d.execution_id = $1::bigint
order by d.created_at, d.event_id;

-- name: list_events
-- Every event with the turn that read it, or else the turn that wrote it: that one says so in `meta` and read its cause.
with turns as materialized (
  select t.event_id, min(t.turn) as turn
  from noetl.turn t
  where t.execution_id = $1::bigint
  group by t.event_id
)
select e.execution_id, e.event_id, e.catalog_id, e.parent_event_id, e.parent_execution_id,
  e.created_at::timestamptz as created_at, e.event_type, e.node_id, e.node_name, e.node_type, e.status, e.duration,
  noetl.as_json(e.context) as context, noetl.as_json(e.result) as result, noetl.as_json(e.meta) as meta,
  noetl.as_json(e.error) as error, e.worker_id,
  r.turn as read_in,
  case when r.turn is null and noetl.as_json(e.meta) -> 'turn' = to_jsonb(w.turn) then w.turn end as written_in
from noetl.event e
left join turns r on r.event_id = e.event_id
left join turns w on w.event_id = e.parent_event_id
where e.execution_id = $1::bigint
order by e.created_at, e.event_id;

-- name: log_of_latest_execution
-- The check of the broker's first description, word for word: its reader must find the sequence that stands there.
SELECT event_type, node_name 
FROM noetl.event 
WHERE execution_id = (
  SELECT execution_id FROM noetl.event 
  ORDER BY created_at DESC LIMIT 1
)
ORDER BY created_at;

-- name: count_rows
-- `reltuples` is exact after this for tables as small as a demonstration's.
analyze;

-- name: list_user_tables
select n.nspname as schema, c.relname as name, c.reltuples::bigint as rows
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r'
  and n.nspname not in ('noetl', 'noetl_history', 'noetl_archive', 'information_schema')
  and not starts_with(n.nspname, 'pg_')
order by n.nspname, c.relname;
