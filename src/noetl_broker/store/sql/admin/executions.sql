-- name: start_execution
select noetl.start_execution($1::text, $2::text::jsonb, $3::int, $4::text, $5::text::jsonb);

-- name: start_executions
select noetl.start_executions($1::text, $2::text[]::jsonb[], $3::text[], $4::int, $5::text::jsonb);

-- name: outcome
select $1::bigint as execution_id, o.path, o.version, o.status, o.result, o.error
from noetl.outcome($1::bigint, $2::text) o;

-- name: bucket_of_start
select noetl.bucket_of($1::text, $2::text, $3::text);

-- name: search_executions
-- Executions in one of the statuses $2, the oldest first. $3: only those without a parent, fork and retry. $4: after that one. $5: not
-- those that were erased.
select x.execution_id, x.path, x.version, x.status, x.error ->> 'step' as step, {part.reason} as reason
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where {part.chosen}
  and {part.changed_since}
  and x.status = any($2::text[])
  and not (
    $3::boolean and (
      x.parent_execution_id is not null
      or exists (
        select
        from noetl.execution f
        where f.forked_from = x.execution_id
      )
    )
  )
  and x.execution_id > $4::bigint
  and not ($5::boolean and x.erased_at is not null)
order by x.execution_id
limit $1::int;

-- name: with_turns
select s.execution_id
from noetl.execution_state s
join noetl.execution x on x.execution_id = s.execution_id
where s.execution_id = any($1::bigint[]) and not noetl.is_archived(s.execution_id) and x.erased_at is null;

-- name: find_path_pause
select p.reason, p.paused_at
from noetl.path_pause p
where p.path = $1::text;

-- name: list_chosen
select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id,
  x.error ->> 'step' as step, {part.reason} as reason, x.erased_at,
  noetl.recovered_as(x.execution_id) as recovered_as,
  (select count(*) from noetl.dead_letter d where d.execution_id = x.execution_id) as dead_letters
from noetl.execution x
where x.execution_id = any ($1::bigint[])
order by x.execution_id;

-- name: find_execution
-- `read_at`: the database's clock, by which leases and delays are shown.
select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id, x.forked_from,
  x.result, x.error, x.undo_status, x.tags, x.idempotency_key as key,
  case when x.waits_for_slot = false then (
    select t.due_at from noetl.timer t where t.execution_id = x.execution_id and t.purpose = 'start'
  ) end as starts_at,
  x.late_at, x.erased_at, noetl.is_archived(x.execution_id) as archived,
  (select count(*) from noetl.inbox i where i.execution_id = x.execution_id) as unread,
  noetl.recovered_as(x.execution_id) as recovered_as,
  clock_timestamp() as read_at
from noetl.execution x
where x.execution_id = $1::bigint;

-- name: list_steps
select w.step_name as step, w.step_type as type, w.status, w.visits, w.started_at, w.ended_at
from noetl.workflow w
where w.execution_id = $1::bigint
order by w.ordinal, w.step_id;

-- name: list_blocks
-- Blocks that are live or failed, live ones first, each with its live steps.
select x.execution_id, x.path, x.status, x.parent_node_id as node_id, x.parent_index as index, coalesce((
    select array_agg(t.token ->> 'step')
    from json_array_elements(s.tokens -> 'tokens') t (token)
  ), '{}') as at
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where x.parent_execution_id = $1::bigint
  and x.path like '%#%'
  and (noetl.is_live(x.status) or x.status = 'FAILED')
order by noetl.is_live(x.status) desc, x.execution_id desc
limit $2::int;

-- name: list_open_waits
-- Waits with the moment of their timer: their end, or their timeout.
select w.node_id, w.step, w.kind, w.names, w.key, w.details ->> 'title' as title, w.began_at as since, t.due_at,
  w.since_at, {part.sent_too_early} as sent_too_early
from noetl.wait w
left join lateral (
  select min(t.due_at) as due_at
  from noetl.timer t
  where t.execution_id = w.execution_id and t.node_id = w.node_id
) t on true
where w.execution_id = $1::bigint and noetl.is_waiting(w.status)
order by w.began_at, w.node_id;

-- name: list_open_jobs
-- Jobs that are open or that failed. Of iterator items, which may be thousands, at most $2 open ones, leased ones first;
-- `open_items` is how many there are.
select j.queue_id, j.node_id, j.step, j.type, j.status, j.priority, j.attempts, j.max_attempts, j.lost_leases,
  j.available_at, j.lease_until, j.worker_id, j.stop, j.held_for, j.limit_name, j.pool, case when j.is_item then j.together end as open_items
from (
  select k.*, row_number() over by_kind as number, count(*) over (partition by k.is_item) as together
  from (
    select q.queue_id, q.node_id, q.node_name as step, q.node_type as type, q.status, q.priority, q.attempts,
      q.max_attempts, q.lost_leases, q.available_at::timestamptz as available_at,
      q.lease_until::timestamptz as lease_until, q.worker_id, q.stop, q.held_for, q.limit_name, q.pool, q.created_at,
      noetl.is_item(q.node_id) as is_item
    from noetl.queue q
    where q.execution_id = $1::bigint
      and q.status not in ('done', 'cancelled')
  ) k
  where not (k.is_item and k.status = 'dead')
  window by_kind as (partition by k.is_item order by k.status = 'leased' desc, k.created_at, k.queue_id)
) j
where not j.is_item or j.number <= $2::int
order by j.created_at, j.queue_id;

-- name: list_dead_letters
select d.event_id, e.event_type, e.node_name, d.reason, d.created_at
from noetl.dead_letter d
left join noetl.event e on e.execution_id = d.execution_id and e.event_id = d.event_id
where d.execution_id = $1::bigint
order by d.created_at, d.event_id;

-- name: list_events
-- Every event with the turn that read it, or else the turn that wrote it. `meta` names that turn. $2: only those of a
-- step; $3: of a visit with its items; $4: of one item of that visit.
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
  and ($2::text is null or e.node_name = $2)
  and (
    $3::text is null
    or e.node_id = $3 and $4::int is null
    or $4::int is null and starts_with(e.node_id, noetl.items_prefix($3))
    or e.node_id = noetl.item_node_id($3, $4)
    or e.node_id = $3 and $4::text in (noetl.as_json(e.context) ->> 'index', noetl.as_json(e.meta) ->> 'index')
  )
order by e.created_at, e.event_id;

-- name: list_executions_for_readers
-- As page_executions, for a login with the role noetl_reader alone: without errors, and so without filters on errors.
select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id,
  x.forked_from, (
    select max(f.execution_id)
    from noetl.executions f
    where f.forked_from = x.execution_id
  ) as recovered_as, x.undo_status, x.tags, x.late_at, {part.counts_left_undone} as left_undone
from noetl.executions x
cross join lateral (
  select (select max(t.decided_at) from noetl.turns t where t.execution_id = x.execution_id) as last_at
) s
where {part.chosen_in_view}
  and {part.changed_since}
  and ($2::bigint is null or x.execution_id < $2)
order by x.execution_id desc
limit $1::int;

-- name: find_execution_for_readers
select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id, x.forked_from,
  x.undo_status, x.tags, x.late_at, x.erased_at, (select count(*) from noetl.unread i where i.execution_id = x.execution_id) as unread,
  (select max(f.execution_id) from noetl.executions f where f.forked_from = x.execution_id) as recovered_as,
  clock_timestamp() as read_at
from noetl.executions x
where x.execution_id = $1::bigint;

-- name: list_steps_for_readers
select w.step_name as step, w.step_type as type, w.status, w.visits, w.started_at, w.ended_at
from noetl.steps w
where w.execution_id = $1::bigint
order by w.ordinal, w.step_name;

-- name: list_waits_for_readers
select w.node_id, w.step, w.kind, w.began_at as since, w.due_at
from noetl.waits w
where w.execution_id = $1::bigint and noetl.is_waiting(w.status)
order by w.began_at, w.node_id;

-- name: list_jobs_for_readers
select q.queue_id, q.node_id, q.node_name as step, q.node_type as type, q.status, q.priority, q.attempts, q.max_attempts,
  q.lost_leases, q.available_at::timestamptz as available_at, q.lease_until::timestamptz as lease_until, q.stop, q.pool,
  count(*) over () as all_jobs
from noetl.jobs q
where q.execution_id = $1::bigint
  and q.status not in ('done', 'cancelled')
order by q.created_at, q.queue_id
limit $2::int;

-- name: list_dead_letters_for_readers
select d.event_id, d.created_at
from noetl.dead_letters d
where d.execution_id = $1::bigint
order by d.created_at, d.event_id;

-- name: list_items_for_readers
-- The items of each iterator by status.
select i.node_id, count(*) as total, count(*) filter (where i.status <> 'WAITING') as started,
  count(*) filter (where i.status in ('COMPLETED', 'FAILED')) as ended, count(*) filter (where i.status = 'FAILED') as failed,
  count(*) filter (where i.status = 'CANCELLED') as cancelled
from noetl.iterations i
where i.execution_id = $1::bigint
group by i.node_id
order by i.node_id
limit $2::int;

-- name: list_reports_for_readers
-- What workers have reported of leased jobs.
select q.node_id, q.progress, (q.progress ->> 'at')::timestamptz as at,
  extract(epoch from clock_timestamp() - (q.progress ->> 'at')::timestamptz)::float8 as age
from noetl.jobs q
where q.execution_id = $1::bigint and q.status = 'leased' and (q.progress ->> 'attempt')::int = q.attempts
order by q.node_id
limit $2::int;

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

-- name: list_blocks_for_readers
select x.execution_id, x.path, x.status, x.parent_node_id as node_id, x.parent_index as index, '{}'::text[] as at
from noetl.executions x
where x.parent_execution_id = $1::bigint
  and x.path like '%#%'
  and (noetl.is_live(x.status) or x.status = 'FAILED')
order by noetl.is_live(x.status) desc, x.execution_id desc
limit $2::int;
