-- Parts of statements, most of them conditions that several share. `{part.chosen}` in a statement stands for the text below
-- its name. Its tables are x, an execution, and s, its state. `{part.not_archived s}` has `s` in place of `{id}`.
-- `{filter.path}` is the parameter for that field of a `Filter` (store/admin/executions.py).
--
-- chosen_in_view: the filters of commands that the views of noetl_reader have a column for, but `since`
-- chosen: all filters but `since`
-- changed_since: the filter by the last change, since a moment or for so many seconds
-- counts_left_undone: what is left to undo in an execution that ended, by status; null: nothing
-- log: rows of the log l, with the byte at which each attempt's log went on before
-- reason: the message of an error, after that of the error that its `catch` read
-- sent_too_early: when the last signal was sent that is older than `since` of the wait w
-- not_archived: whether the rows of an execution are in the tables of history
-- figures: sums of the executions that started from $1 until $2, for each hour, playbook and step
-- begin: what write_first_turns adds to write_turns
-- tags_at_end: what it adds where an execution ends in its first turns

-- name: chosen_in_view
({filter.path}::text is null or x.path like {filter.path} and ({filter.path} like '%#%' or x.path not like '%#%'))
  and ({filter.status}::text is null or x.status = {filter.status})
  and ({filter.until}::timestamptz is null or x.started_at <= {filter.until})
  and (
    {filter.until_seconds}::float8 is null
    or x.started_at <= clock_timestamp() - make_interval(secs => {filter.until_seconds})
  )
  and ({filter.version}::int is null or x.version = {filter.version})
  and ({filter.tags}::text is null or x.tags @> {filter.tags}::text::jsonb)

-- name: chosen
{part.chosen_in_view}
  and (
    {filter.error}::text is null
    or nullif(concat_ws(': ', x.error ->> 'type', x.error ->> 'message'), '') ilike {filter.error}
  )
  and ({filter.step}::text is null or x.error ->> 'step' = {filter.step})
  and ({filter.key}::text is null or x.idempotency_key like {filter.key})

-- name: changed_since
({filter.since}::timestamptz is null or greatest(x.started_at, s.last_at) >= {filter.since})
  and (
    {filter.since_seconds}::float8 is null
    or greatest(x.started_at, s.last_at) >= clock_timestamp() - make_interval(secs => {filter.since_seconds})
  )

-- name: not_archived
not exists (
    select
    from noetl.period p
    where p.first_id <= {id}.execution_id and {id}.execution_id < p.next_id and p.archived_at is not null
  )
  and not exists (select from noetl.archived a where a.execution_id = {id}.execution_id)

-- name: length_class
case when {id}.took is not null then floor(5.770780163555853 * ln(greatest(date_part('epoch', {id}.took), 0.001) * 1000))::int end

-- name: figures
-- Reads at most the newest $3 executions. For steps, at most $4 of a version in an hour, and 50 jobs of each. $5: only this path.
-- Ids that are not of this program do not say when an execution started: then all of the newest are looked at.
-- A class of length counts quarters of an octave above one millisecond: 4 is 2 ms (service/length_classes.py).
with ids as materialized (
  select case when m.is_ours then noetl.first_id_at($1::timestamptz - interval '1 minute') else 0 end as first_id,
    case when m.is_ours then noetl.first_id_at($2::timestamptz + interval '1 minute') else 9223372036854775807 end as next_id
  from (
    select coalesce(max(x.execution_id) < noetl.first_id_at(clock_timestamp() + interval '1 day'), true) as is_ours
    from noetl.execution x
  ) m
), newest as materialized (
  select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at,
    case when x.status = 'FAILED' then coalesce(x.error ->> 'type', '') end as error_type, x.error ->> 'step' as error_step
  from noetl.execution x
  where x.execution_id >= (select i.first_id from ids i) and x.execution_id < (select i.next_id from ids i)
  order by x.execution_id desc
  limit $3::int
), read as materialized (
  select n.execution_id, coalesce(n.path, '') as path, coalesce(n.version, 0) as version, n.status, n.started_at, n.ended_at,
    n.error_type, n.error_step, date_bin(interval '1 hour', n.started_at, timestamptz '2000-01-01Z') as hour
  from newest n
  where n.started_at >= $1 and n.started_at < $2 and ($5::text is null or n.path = $5)
), ranked as (
  select r.execution_id, r.path, r.version, r.hour, r.error_type, r.error_step,
    row_number() over (partition by r.hour, r.path, r.version order by hashint8(r.execution_id)) as number,
    least($4::int / count(*) over (partition by r.hour, r.path, r.version)::real, 1) as sampled
  from read r
  where $4 > 0 and r.path <> ''
), chosen as materialized (
  select k.execution_id, k.path, k.version, k.hour, k.sampled, k.error_type, k.error_step
  from ranked k
  where k.number <= $4
), alike as (
  select e.path, e.version, e.hour, e.status, e.error_type, e.ended, case when e.status = 'COMPLETED' then {part.length_class e} end as class,
    count(*) as number
  from (
    select r.path, r.version, r.hour, r.status, r.error_type, r.ended_at - r.started_at as took,
      floor(date_part('epoch', r.ended_at - r.hour) / 3600)::int as ended
    from read r
  ) e
  group by e.path, e.version, e.hour, e.status, e.error_type, e.ended, class
), cell as (
  select a.path, a.version, a.hour, '' as step, 1::real as sampled, f.kind, f.key, sum(a.number) as number
  from alike a
  cross join lateral (
    values ('status', a.status), ('error', a.error_type), ('ended', a.ended::text), ('duration', a.class::text)
  ) f (kind, key)
  where f.key is not null
  group by a.path, a.version, a.hour, f.kind, f.key
  union all
  select s.path, s.version, s.hour, s.step, s.sampled, s.kind, g.key, sum(s.number)
  from (
    select c.path, c.version, c.hour, w.step_name as step, c.sampled, f.kind, f.key, f.number, f.took
    from chosen c
    join noetl.workflow w on w.execution_id = c.execution_id
    cross join lateral (
      values ('visit', '', w.visits, null::interval), ('status', w.status, 1, null),
        ('error', case when c.error_step = w.step_name then c.error_type end, 1, null),
        ('duration', null, 1, case when w.status = 'COMPLETED' then w.ended_at - w.started_at end)
    ) f (kind, key, number, took)
    where w.visits > 0
    union all
    select c.path, c.version, c.hour, q.node_name, c.sampled, f.kind, f.key, f.number, f.took
    from chosen c
    cross join lateral (
      select j.node_name, j.attempts, j.first_leased_at, j.available_at
      from noetl.queue j
      where j.execution_id = c.execution_id and not noetl.is_undo(j.node_id)
      limit 50
    ) q
    cross join lateral (
      values ('retry', case when q.attempts > 1 then '' end, q.attempts - 1, null::interval),
        ('wait', null, 1, case when q.first_leased_at >= q.available_at then q.first_leased_at - q.available_at end)
    ) f (kind, key, number, took)
  ) s
  cross join lateral (select coalesce(s.key, ({part.length_class s})::text)) g (key)
  where g.key is not null
  group by s.path, s.version, s.hour, s.step, s.sampled, s.kind, g.key
), of_all as (
  select c.path, c.version, c.hour, c.step, c.sampled, c.kind, c.key, c.number
  from cell c
  where c.path <> ''
  union all
  select '', 0, c.hour, '', 1, c.kind, c.key, sum(c.number)
  from cell c
  where c.step = '' and $5 is null
  group by c.hour, c.kind, c.key
  union all
  select '', 0, p.hour, '', 1, f.kind, p.path, f.number
  from (
    select a.hour, a.path, sum(a.number) as started, sum(a.number) filter (where a.status = 'FAILED') as failed,
      row_number() over (partition by a.hour order by sum(a.number) desc, a.path) as rank
    from alike a
    where a.path <> '' and a.path not like '%#%' and $5 is null
    group by a.hour, a.path
  ) p
  cross join lateral (values ('path', p.started), ('failed_path', p.failed)) f (kind, number)
  where p.rank <= 100 and f.number is not null
), by_kind as (
  select a.path, a.version, a.hour, a.step, a.sampled, a.kind, jsonb_object_agg(a.key, a.number) as keys
  from of_all a
  group by a.path, a.version, a.hour, a.step, a.sampled, a.kind
)
select k.path, k.hour, k.version, k.step, k.sampled, jsonb_object_agg(k.kind, k.keys) as counts
from by_kind k
group by k.path, k.hour, k.version, k.step, k.sampled

-- name: begin
-- Rows that are written once per execution, in the statement of its first decision. $18: the catalog_id of each; $19: the
-- steps that its first turns changed, {step: [status, visits, started_at, ended_at, result_visit, result_event_id, carrier]}.
-- $20 to $23: the shape of each playbook. $24: the tags of each, if its playbook gives any.
), begun as materialized (
  select u.execution_id, u.workload::jsonb as workload, u.rules::json as rules, u.tags::jsonb as tags
  from unnest($15::bigint[], $16::text[], $17::text[], $24::text[]) u (execution_id, workload, rules, tags)
), shape as materialized (
  select u.catalog_id, u.steps::jsonb as steps, u.arcs::jsonb as arcs, u.tasks::jsonb as tasks
  from unnest($20::bigint[], $21::text[], $22::text[], $23::text[]) u (catalog_id, steps, arcs, tasks)
), shaped as materialized (
  select u.execution_id, u.changed::jsonb as changed, s.steps, s.arcs, s.tasks
  from unnest($15::bigint[], $18::bigint[], $19::text[]) u (execution_id, catalog_id, changed)
  join shape s on s.catalog_id = u.catalog_id
), first_steps as (
  insert into noetl.workflow as w (
    execution_id, step_id, step_name, step_type, description, raw_config, ordinal, status, visits, started_at, ended_at,
    result_visit, result_event_id
  )
  select b.execution_id, r.name, r.name, r.type, r.description, r.raw, r.ordinal,
    coalesce(c.step ->> 0, 'PENDING'), coalesce((c.step ->> 1)::int, 0), (c.step ->> 2)::timestamptz,
    (c.step ->> 3)::timestamptz, (c.step ->> 4)::int,
    case when c.step ->> 6 is null then (c.step ->> 5)::bigint
      else (select k.event_id from carriers k where k.ordinal = (c.step ->> 6)::bigint) end
  from shaped b
  cross join jsonb_to_recordset(b.steps) r (ordinal int, name text, type text, description text, raw text)
  cross join lateral (select b.changed -> r.name) c (step)
  on conflict (execution_id, step_id) do update
  set ordinal = excluded.ordinal, status = excluded.status, visits = excluded.visits,
    started_at = excluded.started_at, ended_at = excluded.ended_at,
    -- the row of a fork names the results that were copied before its first turn
    result_visit = greatest(w.result_visit, excluded.result_visit),
    result_event_id = case when excluded.result_visit >= coalesce(w.result_visit, 0)
      then coalesce(excluded.result_event_id, w.result_event_id) else w.result_event_id end,
    step_type = coalesce(w.step_type, excluded.step_type),
    description = coalesce(w.description, excluded.description),
    raw_config = coalesce(w.raw_config, excluded.raw_config)
), arcs as (
  insert into noetl.transition (execution_id, from_step, to_step, condition, with_params, ordinal)
  select b.execution_id, r.source, r.target, coalesce(r.condition, ''), r.inputs, r.ordinal
  from shaped b
  cross join jsonb_to_recordset(b.arcs) r (ordinal int, source text, target text, condition text, inputs text)
  on conflict do nothing
), tasks as (
  insert into noetl.workbook (execution_id, task_id, task_name, task_type, raw_config)
  select b.execution_id, r.name, r.name, r.type, r.raw
  from shaped b
  cross join jsonb_to_recordset(b.tasks) r (name text, type text, raw text)
  on conflict (execution_id, task_id) do nothing
), workloads as (
  insert into noetl.workload (execution_id, data)
  select b.execution_id, b.workload
  from begun b
  on conflict (execution_id) do nothing
), executions as (
  -- one that ends in its first turns is updated once, below
  update noetl.execution x
  set workload = b.workload, rules = b.rules, tags = coalesce(b.tags, x.tags)
  from begun b
  where x.execution_id = b.execution_id and b.execution_id <> all($9::bigint[])

-- name: tags_at_end
, tags = coalesce(($24::text[])[array_position($15, e.execution_id)]::jsonb, x.tags)

-- name: counts_left_undone
case when x.undo_status = 'left' then (
  select json_build_object(
      'open', count(*) filter (where u.status = 'open'), 'failed', count(*) filter (where u.status = 'failed'),
      'unknown', count(*) filter (where u.status = 'unknown')
    )
  from noetl.undos u
  where u.execution_id = x.execution_id
) end

-- name: reason
(coalesce((x.error #>> '{caused_by,message}') || '; then its catch failed: ', '') || (x.error ->> 'message'))

-- name: sent_too_early
(
  select max(s.sent_at)
  from noetl.signal s
  where w.kind = 'signal' and s.key = w.key and s.name = any(w.names)
    and noetl.latest_sent_at(s.signal_id, s.sent_at) < w.since_at and s.expires_at > clock_timestamp()
)

-- name: log
select l.execution_id, l.node_id, l.step, l.attempt, l.ordinal, l.level, l.created_at, l.first_byte, l.message,
  coalesce(b.next_byte, 0) as next_byte
from noetl.log l
left join lateral (
  select b.first_byte + octet_length(b.message) as next_byte
  from noetl.log b
  where b.execution_id = l.execution_id and b.node_id = l.node_id and b.attempt = l.attempt and b.ordinal < l.ordinal
  order by b.ordinal desc
  limit 1
) b on true
