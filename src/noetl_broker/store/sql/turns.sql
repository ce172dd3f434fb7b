-- name: take_mail
-- The mail that this transaction will decide on, with everything that nearly every decision needs.
select mail_id, execution_id, event_id, locked, at, waited, event_type, node_id, node_name,
  context, result, result_left, error, meta, broken, bytes_over, oversize, job_attempts,
  catalog_id, path, version, name, rules::text as rules, turn, tokens,
  parent_execution_id, parent_event_id, parent_node_id, parent_index, workload
from noetl.take_mail($1::int, $2::boolean, $3::bigint);

-- name: begin_executions
-- What is written once per execution, before its first turn's decision; the shape of a playbook comes once per version.
with begun as (
  select execution_id, catalog_id, workload::jsonb as workload, rules::json as rules
  from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) b (execution_id, catalog_id, workload, rules)
), shape as (
  select catalog_id, steps::jsonb as steps, arcs::jsonb as arcs, tasks::jsonb as tasks
  from unnest($5::bigint[], $6::text[], $7::text[], $8::text[]) s (catalog_id, steps, arcs, tasks)
), executions as (
  update noetl.execution x
  set workload = b.workload, rules = b.rules
  from begun b
  where x.execution_id = b.execution_id
), workloads as (
  insert into noetl.workload (execution_id, data)
  select b.execution_id, b.workload
  from begun b
  on conflict (execution_id) do nothing
), steps as (
  insert into noetl.workflow (
    execution_id, step_id, step_name, step_type, description, raw_config, ordinal, status, visits
  )
  select b.execution_id, r.name, r.name, r.type, r.description, r.raw, r.ordinal, 'PENDING', 0
  from begun b
  join shape s on s.catalog_id = b.catalog_id
  cross join jsonb_to_recordset(s.steps) r (ordinal int, name text, type text, description text, raw text)
  on conflict (execution_id, step_id) do update
  set ordinal = excluded.ordinal, status = excluded.status,
    step_type = coalesce(workflow.step_type, excluded.step_type),
    description = coalesce(workflow.description, excluded.description),
    raw_config = coalesce(workflow.raw_config, excluded.raw_config)
), arcs as (
  insert into noetl.transition (execution_id, from_step, to_step, condition, with_params, ordinal)
  select b.execution_id, r.source, r.target, coalesce(r.condition, ''), r.inputs, r.ordinal
  from begun b
  join shape s on s.catalog_id = b.catalog_id
  cross join jsonb_to_recordset(s.arcs) r (ordinal int, source text, target text, condition text, inputs text)
  on conflict do nothing
)
insert into noetl.workbook (execution_id, task_id, task_name, task_type, raw_config)
select b.execution_id, r.name, r.name, r.type, r.raw
from begun b
join shape s on s.catalog_id = b.catalog_id
cross join jsonb_to_recordset(s.tasks) r (name text, type text, raw text)
on conflict (execution_id, task_id) do nothing;

-- name: write_turns
-- Every row of a batch of turns in one statement; ids are made here.
-- Returns how many executions moved from the turn they were expected at, and how many ended that still had the parent
-- that was seen: fewer than asked for is a conflict.
-- $4 to $8: of each turn its execution, the playbook's version, the event that it read, its moment and its mail; `source`: a place
-- in them.
with turns as materialized (
  -- The last turn of an execution has the state after it beside it, from which turn on that was expected, and whether the
  -- execution ended: then it has no deadline any more. `failed` here and below: the ordinal of the step_failed that has the
  -- result of the turn.
  select u.execution_id, u.event_id, u.decided_at, (u.t ->> 0)::int as turn, u.t ->> 1 as outcome, u.t ->> 2 as note,
    (u.t ->> 3)::jsonb as facts, (u.t ->> 4)::int as failed, (u.t ->> 5)::int as expected,
    u.decided_at + (u.t ->> 6)::int * interval '1 microsecond' as last_at, (u.t ->> 7)::json as tokens,
    (u.t ->> 8)::float8 as deadline, (u.t ->> 9)::boolean as ends
  from rows from (
    unnest($4::bigint[]), unnest($6::bigint[]), unnest($7::timestamptz[]), jsonb_array_elements($1::text::jsonb)
  ) u (execution_id, event_id, decided_at, t)
), told as materialized (
  -- An iteration_started says which child it started: its id is made here, and used by write_family. The job that an
  -- event queues stands beside it, so that the two need no join. What few rows have comes last, by its name.
  select u.ordinal, noetl.next_id() as event_id,
    ($4::bigint[])[u.source] as execution_id, ($5::bigint[])[u.source] as catalog_id, ($6::bigint[])[u.source] as parent_event_id,
    ($7::timestamptz[])[u.source] + (u.e ->> 1)::int * interval '1 microsecond' as created_at,
    u.e ->> 2 as event_type, u.e ->> 3 as node_id, u.e ->> 4 as node_name, u.e ->> 5 as node_type, u.e ->> 6 as status,
    u.e -> 7 as meta,
    u.e -> 14 -> 'result' as result, u.e -> 14 -> 'error' as error, u.e -> 14 -> 'context' as context,
    case when u.e -> 14 ? 'starts_child' then noetl.next_id() end as child_id,
    u.e ->> 8 as job_action, u.e -> 9 as job_context, u.e ->> 10 as job_status, (u.e ->> 11)::int as job_priority,
    (u.e ->> 12)::int as job_max_attempts, u.e ->> 13 as job_type, (u.e -> 14 ->> 'timeout')::float8 as job_timeout,
    (u.e -> 14 ->> 'delay')::float8 as job_delay, u.e -> 14 ->> 'node_id' as job_node_id,
    u.e -> 14 ? 'lacks_workload' as job_lacks_workload
  from (
    select e, (e ->> 0)::int as source, ordinal
    from jsonb_array_elements($2::text::jsonb) with ordinality e (e, ordinal)
    offset 0 -- read once, however often it is named
  ) u
), failures as materialized (
  -- narrow, and read by those alone that look for one: a join would cost every batch
  select ordinal, event_id
  from told
  where event_type = 'step_failed'
), new_turns as (
  insert into noetl.turn (execution_id, turn, event_id, outcome, note, decided_at, facts, result_event_id)
  select execution_id, turn, event_id, outcome, note, decided_at, facts,
    case when failed is not null then (select f.event_id from failures f where f.ordinal = failed) end
  from turns
), events as (
  insert into noetl.event (
    event_id, execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
    status, meta, result, error, context
  )
  select event_id, execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
    status, meta, result, error,
    case when child_id is null then context else context || jsonb_build_object('child_execution_id', child_id) end
  from told
), jobs as (
  insert into noetl.queue (
    execution_id, catalog_id, node_id, node_name, node_type, action, context, status, priority, max_attempts,
    timeout_seconds, available_at, first_leased_at, event_id, parent_event_id, created_at, updated_at
  )
  select t.execution_id, t.catalog_id, coalesce(t.job_node_id, t.node_id), t.node_name, t.job_type, t.job_action,
    case
      -- A hundred thousand items must not copy a large workload a hundred thousand times: the core adds it to an
      -- item's context where the item still needs it.
      when t.job_lacks_workload then t.job_context || coalesce((
        select jsonb_build_object('workload', x.workload)
        from noetl.execution x
        where x.execution_id = t.execution_id and (t.job_node_id is null or pg_column_size(x.workload) <= 8192)
      ), '{}')
      else t.job_context
    end,
    t.job_status, t.job_priority, t.job_max_attempts, t.job_timeout,
    case
      when t.job_status = 'delegated' then 'infinity'
      else clock_timestamp() + make_interval(secs => coalesce(t.job_delay, 0))
    end,
    case when t.job_status = 'delegated' then clock_timestamp() end,
    t.event_id, t.event_id, t.created_at, t.created_at
  from told t
  where t.job_status is not null
), steps as (
  update noetl.workflow w
  set status = r.status,
      visits = r.visits,
      started_at = coalesce(r.started_at, w.started_at),
      ended_at = r.ended_at,
      result_visit = greatest(w.result_visit, r.result_visit),
      result_event_id = case
        -- the row of a fork names the results that it brought along before its first turn
        when r.result_visit >= coalesce(w.result_visit, 0) then coalesce(r.result_event_id, w.result_event_id)
        else w.result_event_id
      end
  from (
    select ($4::bigint[])[(d ->> 0)::int] as execution_id, d ->> 1 as step, d ->> 2 as status, (d ->> 3)::int as visits,
      ($7::timestamptz[])[(d ->> 0)::int] + (d ->> 4)::int * interval '1 microsecond' as ended_at,
      ($7::timestamptz[])[(d ->> 5)::int] + (d ->> 6)::int * interval '1 microsecond' as started_at,
      (d ->> 7)::int as result_visit,
      case
        when d ->> 9 is not null then (select f.event_id from failures f where f.ordinal = (d ->> 9)::bigint)
        else ($6::bigint[])[(d ->> 8)::int]
      end as result_event_id
    from jsonb_array_elements($3::text::jsonb) d
    offset 0 -- each read once, however often it is named
  ) r
  where w.execution_id = r.execution_id and w.step_id = r.step
), ended as (
  update noetl.execution x
  set status = e.status, result = e.result::jsonb, error = e.error::jsonb, ended_at = e.ended_at
  from unnest($9::bigint[], $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::text[])
    e (execution_id, status, result, error, ended_at, parent_node_id)
  -- A parent that adopts it at this moment is told by whoever comes second: the row's lock decides who that is.
  where x.execution_id = e.execution_id and x.parent_node_id is not distinct from e.parent_node_id
  returning x.execution_id
), new_states as (
  insert into noetl.execution_state (execution_id, turn, last_at, tokens, deadline_at)
  select execution_id, turn, last_at, tokens,
    case when not ends then clock_timestamp() + make_interval(secs => deadline) end
  from turns
  where expected = 0
  returning execution_id
), moved_states as (
  update noetl.execution_state s
  set turn = n.turn,
      last_at = n.last_at,
      tokens = n.tokens,
      deadline_at = case
        when not n.ends then coalesce(clock_timestamp() + make_interval(secs => n.deadline), s.deadline_at)
      end
  from turns n
  where s.execution_id = n.execution_id and s.turn = n.expected and n.expected > 0
  returning s.execution_id
), read as (
  delete from noetl.inbox i
  where i.mail_id = any($8::bigint[])
), bell as (
  -- one of each a commit, however many jobs were queued and executions ended
  select pg_notify('noetl_job', '')
  where exists (select from told where job_status is not null) and current_setting('noetl.quiet', true) is distinct from 'on'
  union all
  select pg_notify('noetl_end', '')
  where cardinality($9::bigint[]) > 0 and current_setting('noetl.quiet', true) is distinct from 'on'
)
select (select count(*) from new_states) + (select count(*) from moved_states) as moved,
  (select count(*) from ended) as ended,
  (select count(*) from bell) as rung,
  (select array_agg(ordinal order by ordinal) from told where child_id is not null) as child_ordinals,
  (select array_agg(child_id order by ordinal) from told where child_id is not null) as child_ids;

-- name: mark
savepoint turns;

-- name: return_to_mark
rollback to savepoint turns;

-- name: keep_quiet
-- For this transaction: where the notification queue is full, a notification fails the commit.
select set_config('noetl.quiet', 'on', true);

-- name: wait_at_most
-- For this transaction: so long for each lock.
select set_config('lock_timeout', $1::int || 'ms', true);

-- name: set_aside
-- Mail that the broker cannot decide on, by a fault of the program: kept for the mend, out of the way of the rest.
-- Only what still stands in the inbox: another broker may have decided on it meanwhile.
with read as (
  delete from noetl.inbox i
  where i.mail_id = any($1::bigint[])
  returning i.execution_id, i.event_id
)
insert into noetl.dead_letter (execution_id, event_id, reason)
select distinct execution_id, event_id, $2::text
from read
on conflict (execution_id, event_id) do update
set reason = excluded.reason, created_at = clock_timestamp()
returning execution_id;

-- name: hold_oldest
-- The first mail that a claim comes upon.
select i.mail_id
from noetl.inbox i
where i.mail_id >= $1
order by i.mail_id
limit 1
for update skip locked;

-- name: hold_newest
-- The same of a claim that reads the newest mail first.
select i.mail_id
from noetl.inbox i
where i.mail_id >= $1
order by i.mail_id desc
limit 1
for update skip locked;

-- name: first_mail
select i.mail_id
from noetl.inbox i
where i.mail_id >= $1
order by i.mail_id
limit 1;
