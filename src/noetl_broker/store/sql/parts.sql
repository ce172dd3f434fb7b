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
