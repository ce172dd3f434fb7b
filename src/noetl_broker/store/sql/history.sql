-- name: history_ids
-- Executions by age, a page at a time, each with the number of its turns and the bytes of its history as stored: whoever
-- loads many at once must know what comes. Sizes are read without reading the values.
select s.execution_id, s.turn as turns, (
  select coalesce(
    sum(coalesce(pg_column_size(e.result), 0) + coalesce(pg_column_size(e.context), 0)
      + coalesce(pg_column_size(e.error), 0) + coalesce(pg_column_size(e.meta), 0)), 0)::bigint
  from noetl.event e
  where e.execution_id = s.execution_id
) as bytes
from noetl.execution_state s
left join noetl.execution x on x.execution_id = s.execution_id
where s.execution_id > $1::bigint
  -- beside a NoETL server: an event of what another broker decides has a turn, and decided nothing
  and (
    x.execution_id is not null
    or exists (select from noetl.turn t where t.execution_id = s.execution_id and t.outcome = 'decided')
  )
  and ($2::text is null or x.path like $2)
  and ($3::text is null or x.status = $3)
  and ($4::timestamptz is null or x.started_at >= $4)
  and not exists (
    select
    from noetl.period p
    where p.first_id <= s.execution_id and s.execution_id < p.next_id and p.archived_at is not null
  )
  and not exists (select from noetl.archived a where a.execution_id = s.execution_id)
order by s.execution_id
limit $5::int;

-- name: weigh_history
-- The same of one execution.
select s.execution_id, s.turn as turns, (
  select coalesce(
    sum(coalesce(pg_column_size(e.result), 0) + coalesce(pg_column_size(e.context), 0)
      + coalesce(pg_column_size(e.error), 0) + coalesce(pg_column_size(e.meta), 0)), 0)::bigint
  from noetl.event e
  where e.execution_id = s.execution_id
) as bytes
from noetl.execution_state s
where s.execution_id = $1::bigint
  and not noetl.is_archived(s.execution_id);

-- name: count_histories
select count(*)
from noetl.execution_state s
left join noetl.execution x on x.execution_id = s.execution_id
where (
    x.execution_id is not null
    or exists (select from noetl.turn t where t.execution_id = s.execution_id and t.outcome = 'decided')
  )
  and ($1::text is null or x.path like $1)
  and ($2::text is null or x.status = $2)
  and ($3::timestamptz is null or x.started_at >= $3)
  and not exists (
    select
    from noetl.period p
    where p.first_id <= s.execution_id and s.execution_id < p.next_id and p.archived_at is not null
  )
  and not exists (select from noetl.archived a where a.execution_id = s.execution_id);

-- name: history_heads
-- Where executions stand, beside which version of a playbook they ran on. An id that no broker has read has no turn, and
-- neither has one whose turns are archived.
select wanted.execution_id, x.catalog_id, x.path, x.version, x.status, x.rules, x.workload, x.result, x.error,
  s.tokens, case when not noetl.is_archived(wanted.execution_id) then s.turn end as turn, (
    select count(*)
    from noetl.dead_letter d
    where d.execution_id = wanted.execution_id
  ) as set_aside
from unnest($1::bigint[]) wanted (execution_id)
left join noetl.execution x on x.execution_id = wanted.execution_id
left join noetl.execution_state s on s.execution_id = wanted.execution_id
order by wanted.execution_id;

-- name: history_turns
-- Each turn with the event that it read, in the form in which the broker took it.
select t.execution_id, t.turn, t.outcome, t.note, t.decided_at, t.event_id,
  left(e.event_type, 100) as event_type, left(e.node_id, 1024) as node_id, left(e.node_name, 1024) as node_name,
  case
    when t.facts ? 'oversize' or lower(left(e.event_type, 40)) like 'action%' then null
    else noetl.as_json(e.context)
  end as context,
  noetl.as_json(e.result) as result, false as result_left,
  case
    when coalesce(t.facts ->> 'oversize', 'path') like 'path%' or e.error is null then noetl.as_error(e.error)
    else jsonb_build_object(
      'message', format('the error was not read: the event is too large (%s bytes)', t.facts ->> 'oversize')
    )
  end as error,
  case when t.facts ? 'oversize' then null else noetl.as_json(e.meta) end as meta, t.facts ->> 'oversize' as oversize,
  coalesce(t.facts -> 'broken' = 'true', false) as broken,
  case when t.facts ->> 'bytes_over' ~ '^[0-9]{1,9}$' then (t.facts ->> 'bytes_over')::int end as bytes_over,
  case when t.facts ->> 'attempt' ~ '^[0-9]{1,9}$' then (t.facts ->> 'attempt')::int end as job_attempts
from noetl.turn t
left join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = any($1::bigint[])
order by t.execution_id, t.turn;

-- name: history_events
-- What the broker wrote: its events say in `meta` which turn they are of. What says so and names no turn comes first.
select e.execution_id, e.event_id, e.parent_event_id, e.event_type, e.node_id, e.node_type, e.status,
  noetl.as_json(e.meta) as meta, noetl.as_json(e.result) as result, noetl.as_json(e.error) as error,
  noetl.as_json(e.context) as context
from noetl.event e
where e.execution_id = any($1::bigint[]) and noetl.as_json(e.meta) ? 'turn'
order by e.execution_id,
  case when jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
    then (noetl.as_json(e.meta) -> 'turn')::numeric
  end nulls first,
  e.created_at, e.event_id;

-- name: history_taken
-- The results that forks brought along: events of their own that no turn read.
select e.execution_id, e.event_id, e.node_id, e.event_type, noetl.as_json(e.result) as result,
  noetl.as_json(e.error) as error, noetl.as_json(e.context) -> 'failed' as failed
from noetl.execution x
join noetl.event e on e.execution_id = x.execution_id
where x.execution_id = any($1::bigint[])
  and x.forked_from is not null
  and e.event_type = 'step_result'
  and noetl.as_json(e.meta) ?| array['taken_from', 'set']
order by e.execution_id, e.event_id;

-- name: history_jobs
-- In the order of the turns that wrote them. The workload is in the context of every job: it comes once, with the head.
select q.execution_id, q.node_id, q.node_type, q.action, q.priority, q.max_attempts, q.timeout_seconds,
  coalesce(q.context -> 'workload' = x.workload, false) as same_workload,
  case when q.context -> 'workload' = x.workload then q.context - 'workload' else q.context end as context,
  noetl.as_json(e.meta) -> 'turn' as turn
from noetl.queue q
left join noetl.execution x on x.execution_id = q.execution_id
left join noetl.event e on e.execution_id = q.execution_id and e.event_id = q.event_id
where q.execution_id = any($1::bigint[])
order by q.execution_id,
  case when jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
    then (noetl.as_json(e.meta) -> 'turn')::numeric
  end nulls first,
  q.queue_id;

-- name: history_rows
select w.execution_id, w.step_id, w.status, w.visits, w.result_visit
from noetl.workflow w
where w.execution_id = any($1::bigint[])
order by w.execution_id;

-- name: events_read
-- Which of these events a turn has read: such an event is somebody else's, whatever its `meta` says.
select t.event_id
from noetl.turn t
where t.execution_id = $1::bigint and t.event_id = any($2::bigint[]);

-- name: history_patience
-- A long history is sorted, and then read through cursors while its turns are taken again.
set local statement_timeout = '10min';
set local idle_in_transaction_session_timeout = '10min';

-- name: turn_of_event
-- The turn that read an event, or else the one that wrote it, or else the last one before it came.
select coalesce(
  (
    select min(t.turn)
    from noetl.turn t
    where t.execution_id = e.execution_id and t.event_id = e.event_id
  ),
  (
    select t.turn
    from noetl.turn t
    where t.execution_id = e.execution_id and t.event_id = e.parent_event_id
      and to_jsonb(t.turn) = noetl.as_json(e.meta) -> 'turn'
  ),
  (
    select max(t.turn)
    from noetl.turn t
    where t.execution_id = e.execution_id and t.decided_at <= e.created_at::timestamptz
  )
) as turn
from noetl.event e
where e.execution_id = $1::bigint and e.event_id = $2::bigint;

-- name: was_never_read
-- Whether an execution is known though no broker has read an event of it: by a row of its own, or by its log alone.
select exists (select from noetl.execution x where x.execution_id = $1::bigint)
  or exists (select from noetl.event e where e.execution_id = $1::bigint) as known,
  exists (select from noetl.inbox i where i.execution_id = $1::bigint) as unread,
  (
    select min(d.reason)
    from noetl.dead_letter d
    where d.execution_id = $1::bigint
  ) as set_aside;
