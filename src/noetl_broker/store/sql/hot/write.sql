-- name: write_turns
-- Writes a batch of turns; ids are made here. $1 to $3: rows of turns, events and steps (row_layout.py). $4 to $8:
-- execution, catalog_id, event, time and mail of each turn; `source` is a position in these. `carrier`: the ordinal of
-- the emitted event with the result. Fewer `moved` or `ended` executions than asked for are a conflict. $15 to $17: the
-- executions that begin, their workloads, their rules. The part `begin` is empty, except in write_first_turns (queries.py).
with turns as materialized (
  -- only the last turn of an execution has the columns from `expected` on
  select u.execution_id, u.event_id, u.decided_at, (u.t ->> {turn.turn})::int as turn, u.t ->> {turn.outcome} as outcome,
    u.t ->> {turn.note} as note, (u.t ->> {turn.facts})::jsonb as facts, (u.t ->> {turn.carrier})::int as carrier,
    (u.t ->> {turn.expected})::int as expected,
    u.decided_at + (u.t ->> {turn.last})::int * interval '1 microsecond' as last_at, (u.t ->> {turn.tokens})::json as tokens
  from rows from (
    unnest($4::bigint[]), unnest($6::bigint[]), unnest($7::timestamptz[]), jsonb_array_elements($1::text::jsonb)
  ) u (execution_id, event_id, decided_at, t)
), emitted as materialized (
  -- an event with the job that it queues; the id of a child is made here, because its iteration_started event names it
  select u.ordinal, noetl.next_id() as event_id, ($4::bigint[])[u.source] as execution_id,
    ($5::bigint[])[u.source] as catalog_id, ($6::bigint[])[u.source] as parent_event_id,
    ($7::timestamptz[])[u.source] + (u.e ->> {event.ordinal})::int * interval '1 microsecond' as created_at,
    u.e ->> {event.event_type} as event_type, u.e ->> {event.node_id} as node_id, u.e ->> {event.node_name} as node_name,
    u.e ->> {event.node_type} as node_type, u.e ->> {event.status} as status, u.e -> {event.meta} as meta,
    u.e -> {event.extra} as extra, case when u.e -> {event.extra} ? 'starts_child' then noetl.next_id() end as child_id,
    u.e ->> {event.job_action} as job_action, u.e -> {event.job_context} as job_context,
    u.e ->> {event.job_status} as job_status, (u.e ->> {event.job_priority})::int as job_priority,
    (u.e ->> {event.job_max_attempts})::int as job_max_attempts, u.e ->> {event.job_type} as job_type
  from (
    select e, (e ->> {event.source})::int as source, ordinal
    from jsonb_array_elements($2::text::jsonb) with ordinality e (e, ordinal)
    offset 0 -- parsed once
  ) u
), carriers as materialized ( -- a narrow list for the few rows that look into it; a join would slow down every batch
  select ordinal, event_id, event_type
  from emitted
  where event_type = 'step_failed' or event_type in ('step_completed', 'iteration_completed') and extra ? 'result'
), new_turns as (
  insert into noetl.turn (execution_id, turn, event_id, outcome, note, decided_at, facts, result_event_id)
  select execution_id, turn, event_id, outcome, note, decided_at, facts,
    case when carrier is not null then (select c.event_id from carriers c where c.ordinal = carrier) end
  from turns
), events as (
  insert into noetl.event (
    event_id, execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
    status, meta, result, error, context
  )
  select event_id, execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
    status, meta, extra -> 'result', extra -> 'error',
    case when child_id is null then extra -> 'context'
      else (extra -> 'context') || jsonb_build_object('child_execution_id', child_id) end
  from emitted
), jobs as (
  insert into noetl.queue (
    execution_id, catalog_id, node_id, node_name, node_type, action, context, status, priority, max_attempts,
    timeout_seconds, attempts, available_at, first_leased_at, event_id, parent_event_id, created_at, updated_at, pool
  )
  select t.execution_id, t.catalog_id, coalesce(t.extra ->> 'node_id', t.node_id), t.node_name, t.job_type, t.job_action,
    case when t.extra ? 'lacks_workload' then t.job_context || coalesce((
      -- many items must not copy a large workload; the core adds it to the context of an item that needs it
      select jsonb_build_object('workload', w.workload)
      from noetl.execution x
      cross join lateral (select coalesce(($16::text[])[(t.extra ->> 'lacks_workload')::int]::jsonb, x.workload)) w (workload)
      where x.execution_id = t.execution_id
        and (not t.extra ? 'node_id' or pg_column_size(w.workload) <= noetl.limit_of('small_bytes'))
    ), '{}') else t.job_context end,
    t.job_status, t.job_priority, t.job_max_attempts, (t.extra ->> 'timeout')::float8, coalesce((t.extra ->> 'attempts')::int, 0),
    case when t.job_status = 'delegated' then 'infinity'
      else clock_timestamp() + make_interval(secs => coalesce((t.extra ->> 'delay')::float8, 0)) end,
    case when t.job_status = 'delegated' then clock_timestamp() end, t.event_id, t.event_id, t.created_at, t.created_at, coalesce(t.extra ->> 'pool', 'default')
  from emitted t
  where t.job_status is not null
), steps as (
  update noetl.workflow w
  set status = r.status, visits = r.visits, started_at = coalesce(r.started_at, w.started_at), ended_at = r.ended_at,
      result_visit = greatest(w.result_visit, r.result_visit),
      result_event_id = case when r.result_visit >= coalesce(w.result_visit, 0)
        then coalesce(r.result_event_id, w.result_event_id) else w.result_event_id end
  from (
    select ($4::bigint[])[(d ->> {step.source})::int] as execution_id, d ->> {step.step} as step,
      d ->> {step.status} as status, (d ->> {step.visits})::int as visits,
      ($7::timestamptz[])[(d ->> {step.source})::int] + (d ->> {step.ended})::int * interval '1 microsecond' as ended_at,
      ($7::timestamptz[])[(d ->> {step.started_source})::int]
        + (d ->> {step.started})::int * interval '1 microsecond' as started_at,
      (d ->> {step.result_visit})::int as result_visit,
      case when d ->> {step.carrier} is null then ($6::bigint[])[(d ->> {step.result_source})::int]
        else (select c.event_id from carriers c where c.ordinal = (d ->> {step.carrier})::bigint) end as result_event_id
    from jsonb_array_elements($3::text::jsonb) d
    offset 0 -- parsed once
  ) r
  where w.execution_id = r.execution_id and w.step_id = r.step {part.begin}
), ended as (
  update noetl.execution x
  set status = e.status, result = e.result::jsonb, error = e.error::jsonb, ended_at = e.ended_at,
      workload = coalesce(($16::text[])[array_position($15::bigint[], e.execution_id)]::jsonb, x.workload),
      rules = coalesce(($17::text[])[array_position($15, e.execution_id)]::json, x.rules) {part.tags_at_end}
  from unnest($9::bigint[], $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::text[])
    e (execution_id, status, result, error, ended_at, parent_node_id)
  -- another broker may just have given it a parent, which then waits for an answer
  where x.execution_id = e.execution_id and x.parent_node_id is not distinct from e.parent_node_id
  returning x.execution_id
), new_states as (
  insert into noetl.execution_state (execution_id, turn, last_at, tokens)
  select execution_id, turn, last_at, tokens
  from turns
  where expected = 0
  returning execution_id
), moved_states as (
  update noetl.execution_state s
  set turn = n.turn, last_at = n.last_at, tokens = n.tokens
  from turns n
  where s.execution_id = n.execution_id and s.turn = n.expected and n.expected > 0
  returning s.execution_id
), read as (
  delete from noetl.inbox i
  where i.mail_id = any($8::bigint[])
), notified as (
  select noetl.notify(exists (select from emitted where job_status is not null), cardinality($9::bigint[]) > 0)
)
select (select count(*) from new_states) + (select count(*) from moved_states) as moved,
  (select count(*) from ended) as ended, (select count(*) from notified) as notified,
  (select array_agg(ordinal order by ordinal) from emitted where child_id is not null) as child_ordinals,
  (select array_agg(child_id order by ordinal) from emitted where child_id is not null) as child_ids,
  (select jsonb_object_agg(ordinal, event_id) from carriers where event_type = 'iteration_completed') as item_results;

-- name: set_savepoint
savepoint turns;

-- name: rollback_to_savepoint
rollback to savepoint turns;
