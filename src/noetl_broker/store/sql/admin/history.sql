-- name: history_ids
-- A page of executions by age, with their numbers of turns and the stored size of their history. So the caller can load
-- several at once. Values are not read.
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
  -- beside a NoETL server, events of executions of another broker have a turn that decided nothing
  and (
    x.execution_id is not null
    or exists (select from noetl.turn t where t.execution_id = s.execution_id and t.outcome = 'decided')
  )
  and {part.chosen}
  and {part.changed_since}
  and {part.not_archived s}
  and x.erased_at is null
order by s.execution_id
limit $2::int;

-- name: history_size
-- The same for one execution.
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
  and {part.chosen}
  and {part.changed_since}
  and {part.not_archived s}
  and x.erased_at is null;

-- name: history_heads
-- The state of executions and the version of their playbook. An execution without turns was never read, or is archived.
select wanted.execution_id, x.catalog_id, x.path, x.version, x.status, x.rules, x.workload, x.result, x.error,
  coalesce(c.name, noetl.name_of_path(x.path)) as name,
  s.tokens, case when not noetl.is_archived(wanted.execution_id) then s.turn end as turn, (
    select count(*)
    from noetl.dead_letter d
    where d.execution_id = wanted.execution_id
  ) as set_aside, (
    select jsonb_agg(jsonb_build_object('version', c.version, 'catalog_id', c.catalog_id))
    from noetl.catalog c
    where c.path = x.path and c.version in (
      select (noetl.as_json(e.context) -> 'version')::int
      from noetl.event e
      where e.execution_id = x.execution_id and noetl.kind_of(e.event_type) = 'execution_undo'
        and jsonb_typeof(noetl.as_json(e.context) -> 'version') = 'number'
    )
  ) as undo_versions
from unnest($1::bigint[]) wanted (execution_id)
left join noetl.execution x on x.execution_id = wanted.execution_id
left join noetl.catalog c on c.catalog_id = x.catalog_id
left join noetl.execution_state s on s.execution_id = wanted.execution_id
order by wanted.execution_id;

-- name: history_turns
-- Each turn with the event that it read, as take_mail gives it.
select t.execution_id, t.turn, t.outcome, t.note, t.decided_at, t.event_id,
  left(e.event_type, noetl.limit_of('type_chars')) as event_type, left(e.node_id, noetl.limit_of('node_chars')) as node_id,
  left(e.node_name, noetl.limit_of('node_chars')) as node_name,
  case
    when t.facts ? 'oversize' or noetl.kind_of(e.event_type) like 'action%' then null
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
  coalesce(t.facts -> 'path_paused' = 'true', false) as path_paused, t.facts -> 'slots' as slots,
  case when t.facts ->> 'attempt' ~ '^[0-9]{1,9}$' then (t.facts ->> 'attempt')::int end as job_attempts,
  coalesce(t.facts -> 'doubled' = 'true', false) as is_doubled
from noetl.turn t
left join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = any($1::bigint[])
order by t.execution_id, t.turn;

-- name: history_events
-- The broker's events: `meta` names their turn. Events with an invalid turn come first.
select e.execution_id, e.event_id, e.parent_event_id, e.event_type, e.node_id, e.node_name, e.node_type, e.status,
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
-- The results that were copied into forks: step_result events, which no turn reads.
select e.execution_id, e.event_id, e.node_id, e.event_type, noetl.as_json(e.result) as result,
  noetl.as_json(e.error) as error, noetl.as_json(e.context) -> 'failed' as failed
from noetl.execution x
join noetl.event e on e.execution_id = x.execution_id
where x.execution_id = any($1::bigint[])
  and x.forked_from is not null
  and e.event_type = 'step_result'
  and noetl.as_json(e.meta) ?| array['taken_from', 'set']
  and not noetl.as_json(e.meta) ? 'index'
order by e.execution_id, e.event_id;

-- name: history_items
-- The items that forks took over: all of them by index, and which are run again.
select f.execution_id, f.step, f.visit, f.again, l.items
from (
  select e.execution_id, t.arrival ->> 'step' as step, (t.arrival ->> 'repeats')::int as visit,
    t.arrival #>> '{items,again}' as again
  from noetl.execution x
  join noetl.event e on e.execution_id = x.execution_id and e.event_type = 'execution_start'
  cross join lateral (select noetl.as_json(e.meta) #> '{fork,state,hold,kept}' as kept) m
  cross join lateral jsonb_array_elements(case when jsonb_typeof(m.kept) = 'array' then m.kept end) t (arrival)
  where x.execution_id = any($1::bigint[]) and x.forked_from is not null and t.arrival ? 'items'
) f
cross join lateral (
  select jsonb_agg(i.item order by i.index) as items
  from noetl.iteration i
  where i.execution_id = f.execution_id and i.node_id = noetl.node_id(f.execution_id, f.step, f.visit)
) l
where l.items is not null
order by f.execution_id, f.step, f.visit;

-- name: history_undone
-- The visits and items whose undo has begun.
select u.execution_id, u.step, u.visit, u.index, u.status
from noetl.undo u
where u.execution_id = any($1::bigint[]) and u.status in ('running', 'done', 'failed', 'settled')
order by u.execution_id, u.turn;

-- name: history_jobs
-- Jobs in the order of the turns that wrote them, without the workload, which history_heads has.
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
-- Which of these events a turn has read: the broker did not write them, whatever their `meta` says.
select t.event_id
from noetl.turn t
where t.execution_id = $1::bigint and t.event_id = any($2::bigint[]);

-- name: history_patience
-- A long history is sorted, and then read through cursors while its turns are re-run.
set local statement_timeout = '10min';
set local idle_in_transaction_session_timeout = '10min';

-- name: turn_of_event
-- The turn that read an event, else the turn that wrote it, else the last turn before it.
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
-- Whether an execution without turns has a row or events.
select exists (select from noetl.execution x where x.execution_id = $1::bigint)
  or exists (select from noetl.event e where e.execution_id = $1::bigint) as known,
  exists (select from noetl.inbox i where i.execution_id = $1::bigint) as unread,
  (
    select min(d.reason)
    from noetl.dead_letter d
    where d.execution_id = $1::bigint
  ) as set_aside;
