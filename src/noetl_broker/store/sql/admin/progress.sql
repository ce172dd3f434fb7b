-- name: load_progress
-- The items of the latest visit of each iterator and of its open visits, at most $2 visits. Counted by status, failed
-- ones by type of error: the $3 most frequent types, and the rest together. The pace is that of the last $4 items.
with counted as materialized (
  select i.node_id, count(*) as total,
    count(*) filter (where i.status <> 'WAITING') as started,
    count(*) filter (where i.status in ('COMPLETED', 'FAILED')) as ended,
    count(*) filter (where i.status = 'FAILED') as failed, count(*) filter (where i.status = 'CANCELLED') as cancelled,
    count(*) filter (where i.status = 'RUNNING' and i.failures > 0) as failing
  from noetl.iteration i
  where i.execution_id = $1::bigint
  group by i.node_id
), named as materialized (
  select c.*, n.step, n.visit
  from counted c
  cross join noetl.parse_node(c.node_id) n
), chosen as materialized (
  select c.*, t.status, case when w.visits = c.visit then w.started_at end as started_at
  from named c
  left join noetl.workflow w on w.execution_id = $1::bigint and w.step_id = c.step
  left join lateral (
    -- the status of the execution, if the visit is open
    select x.status
    from noetl.execution x
    join noetl.execution_state s on s.execution_id = x.execution_id
    cross join lateral json_array_elements(s.tokens -> 'tokens') t (token)
    where x.execution_id = $1::bigint and noetl.is_live(x.status)
      and t.token ->> 'step' = c.step and (t.token ->> 'visit')::int = c.visit
    limit 1
  ) t on true
  where t.status is not null or not exists (select from named n where n.step = c.step and n.visit > c.visit)
  order by c.node_id
  limit $2::int
)
select c.step, c.visit, c.total, c.started, c.ended, c.failed, c.cancelled, case when c.failing > 0 then (
    -- each job is looked up by its key
    select count(*)
    from noetl.iteration i
    cross join lateral (
      select q.status, q.available_at
      from noetl.queue q
      where q.execution_id = i.execution_id and q.node_id = noetl.item_node_id(i.node_id, i.index)
      limit 1
    ) j
    where i.execution_id = $1::bigint and i.node_id = c.node_id and i.status = 'RUNNING' and i.failures > 0
      and (j.status in ('retry', 'held') or j.status = 'delegated' and j.available_at < 'infinity')
  ) else 0 end as retrying, (
    select count(*)
    from noetl.queue q
    where q.execution_id = $1::bigint and q.status = 'held' and 'limit' = any(q.held_for)
      and starts_with(q.node_id, noetl.items_prefix(c.node_id))
  ) as held, c.status is not null as is_open, f.errors, f.other_errors,
  f.other_types, p.last_ended_at,
  case when c.status <> 'PAUSED' then (p.counted / greatest(extract(epoch from clock_timestamp() - p.since), 0.001))::float8 end as pace
from chosen c
cross join lateral (
  select coalesce(
      jsonb_agg(jsonb_build_object('type', e.type, 'count', e.count, 'first', e.first) order by e.ordinal)
        filter (where e.ordinal <= $3::int), '[]'
    ) as errors, coalesce(sum(e.count) filter (where e.ordinal > $3::int), 0)::bigint as other_errors,
    count(*) filter (where e.ordinal > $3::int) as other_types
  from (
    select g.*, row_number() over (order by g.count desc, g.first) as ordinal
    from (
      -- a template that failed has no type
      select left(coalesce(i.error ->> 'type', case when i.error ? 'template' then 'template' end), 100) as type,
        count(*) as count, min(i.index) as first
      from noetl.iteration i
      where i.execution_id = $1::bigint and i.node_id = c.node_id and i.status = 'FAILED'
      group by 1
    ) g
  ) e
) f
cross join lateral (
  select least(count(*), $4::int) as counted, max(l.at) as last_ended_at,
    case when count(*) <= $4::int then coalesce(c.started_at, min(l.at)) else min(l.at) end as since
  from (
    select e.created_at::timestamptz as at
    from (
      select i.result_event_id
      from noetl.iteration i
      where i.execution_id = $1::bigint and i.node_id = c.node_id and i.result_event_id is not null
      order by i.result_event_id desc
      limit $4::int + 1
    ) r
    cross join lateral (
      select v.created_at
      from noetl.event v
      where v.execution_id = $1::bigint and v.event_id = r.result_event_id
      limit 1
    ) e
  ) l
) p
order by c.step, c.visit;

-- name: load_reported_progress
-- What workers have reported of the leased jobs of open visits, at most $2. `age`: seconds since then.
select v.step, v.visit, q.progress, (q.progress ->> 'at')::timestamptz as at,
  extract(epoch from clock_timestamp() - (q.progress ->> 'at')::timestamptz)::float8 as age
from noetl.execution x
join noetl.execution_state s on s.execution_id = x.execution_id
cross join lateral (
  select distinct t.token ->> 'step' as step, (t.token ->> 'visit')::int as visit
  from json_array_elements(s.tokens -> 'tokens') t (token)
) v
join noetl.queue q on q.execution_id = x.execution_id and q.node_id = noetl.node_id(x.execution_id, v.step, v.visit)
where x.execution_id = $1::bigint and noetl.is_live(x.status)
  and q.status = 'leased' and (q.progress ->> 'attempt')::int = q.attempts
order by v.step, v.visit
limit $2::int;

-- name: load_ended_progress
-- The items of ended iterators that one worker ran, at most $2 steps: they have no rows, the result of the step has
-- them. Failed ones by type of error: the $3 most frequent types, and the rest together.
select w.step_id as step, w.result_visit as visit, case when d.is_list then jsonb_array_length(d.data) end as total,
  coalesce(f.failed, 0)::bigint as failed, 0 as retrying, f.errors, f.other_errors, f.other_types,
  e.created_at::timestamptz as last_ended_at
from noetl.workflow w
join noetl.event e on e.execution_id = w.execution_id and e.event_id = w.result_event_id
cross join lateral (select noetl.as_json(e.result) as result) r
cross join lateral (
  select case when jsonb_typeof(r.result) = 'array' then r.result else r.result -> 'data' end as data,
    jsonb_typeof(case when jsonb_typeof(r.result) = 'array' then r.result else r.result -> 'data' end) = 'array' as is_list
) d
cross join lateral (
  select sum(g.count) as failed,
    coalesce(
      jsonb_agg(jsonb_build_object('type', g.type, 'count', g.count, 'first', g.first) order by g.ordinal)
        filter (where g.ordinal <= $3::int), '[]'
    ) as errors, coalesce(sum(g.count) filter (where g.ordinal > $3::int), 0)::bigint as other_errors,
    count(*) filter (where g.ordinal > $3::int) as other_types
  from (
    select left(x.item #>> '{error,type}', 100) as type, count(*) as count, min((x.item ->> 'index')::int) as first,
      row_number() over (order by count(*) desc, min((x.item ->> 'index')::int)) as ordinal
    from jsonb_array_elements(
      case when jsonb_typeof(r.result #> '{meta,failed}') = 'array' then r.result #> '{meta,failed}' end
    ) x (item)
    where jsonb_typeof(x.item -> 'index') = 'number'
    group by 1
  ) g
) f
where w.execution_id = $1::bigint and w.status = 'COMPLETED' and w.result_visit = w.visits
  and (w.step_type = 'iterator' or noetl.as_json(w.raw_config) ? 'loop') and d.is_list
  and not exists (
    select
    from noetl.iteration i
    where i.execution_id = $1::bigint and i.node_id = noetl.node_id($1::bigint, w.step_id, w.result_visit)
  )
order by w.step_id
limit $2::int;

-- name: load_failed_items
-- The first $4 failed items of a visit: from its rows, or from its result if one worker ran all items.
(
  select i.index, i.error
  from noetl.iteration i
  where i.execution_id = $1::bigint and i.status = 'FAILED'
    and i.node_id = noetl.node_id($1::bigint, $2::text, $3::int)
  union all
  select (x.item ->> 'index')::int, x.item -> 'error'
  from noetl.workflow w
  join noetl.event e on e.execution_id = w.execution_id and e.event_id = w.result_event_id
  cross join lateral (select noetl.as_json(e.result) #> '{meta,failed}' as failed) r
  cross join lateral jsonb_array_elements(case when jsonb_typeof(r.failed) = 'array' then r.failed end) x (item)
  where w.execution_id = $1::bigint and w.step_id = $2::text and w.result_visit = $3::int
    and jsonb_typeof(x.item -> 'index') = 'number'
    and not exists (
      select
      from noetl.iteration i
      where i.execution_id = $1::bigint and i.node_id = noetl.node_id($1::bigint, $2::text, $3::int)
    )
)
order by index
limit $4::int;

-- name: latest_visit
select w.visits
from noetl.workflow w
where w.execution_id = $1::bigint and w.step_id = $2::text;

-- name: load_item
-- An item with its job or its child, and the event that ended it, which has the whole error.
select i.status, i.item, i.child_execution_id, x.path as child_path, x.status as child_status,
  coalesce(q.created_at::timestamptz, x.started_at) as began_at, e.created_at::timestamptz as ended_at,
  e.event_id as ended_by, e.event_type, e.worker_id, noetl.as_json(e.meta) -> 'attempt' as attempt,
  coalesce(noetl.as_json(e.error), i.error) as error, noetl.unwrapped(noetl.as_json(e.result)) as result,
  i.failures, noetl.as_json(e.meta) ? 'caught' as is_caught, clock_timestamp() as read_at
from noetl.iteration i
left join noetl.queue q on q.execution_id = i.execution_id and q.node_id = noetl.item_node_id(i.node_id, i.index)
left join noetl.execution x on x.execution_id = i.child_execution_id
left join noetl.event e on e.execution_id = i.execution_id and e.event_id = i.result_event_id
where i.execution_id = $1::bigint and i.node_id = $2::text and i.index = $3::int;

-- name: count_items
select count(*)
from noetl.iteration i
where i.execution_id = $1::bigint and i.node_id = $2::text;

-- name: load_worker_item
-- An item of an iterator that one worker ran: it has no row, its result and its error are in the result of the step.
select d.is_list, d.is_list and $4::int < jsonb_array_length(d.data) as is_item, d.data -> $4::int as result, (
    select f.item -> 'error'
    from jsonb_array_elements(case when d.is_list then r.result #> '{meta,failed}' end) f (item)
    where f.item -> 'index' = to_jsonb($4::int)
  ) as error, e.created_at::timestamptz as ended_at, e.event_id as ended_by, e.event_type, e.worker_id,
  noetl.as_json(e.meta) -> 'attempt' as attempt, clock_timestamp() as read_at
from noetl.workflow w
join noetl.event e on e.execution_id = w.execution_id and e.event_id = w.result_event_id
cross join lateral (select noetl.as_json(e.result) as result) r
cross join lateral (
  select case when jsonb_typeof(r.result) = 'array' then r.result else r.result -> 'data' end as data,
    jsonb_typeof(case when jsonb_typeof(r.result) = 'array' then r.result else r.result -> 'data' end) = 'array' as is_list
) d
where w.execution_id = $1::bigint and w.step_id = $2::text and w.result_visit = $3::int;
