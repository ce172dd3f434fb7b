-- name: write_waits
-- Waits that began, and timers. A new head of the timers wakes the brokers that sleep until a later one.
with waits as (
  insert into noetl.wait (execution_id, node_id, step, kind, request, names, key, since_at, details)
  select execution_id, node_id, step, kind, request::jsonb, noetl.text_list(names::jsonb), key,
    case when kind = 'signal' then noetl.original_start(w.execution_id) - make_interval(secs => w.since) end, details::jsonb
  from unnest(
    $1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::float8[], $9::text[]
  ) w (execution_id, node_id, step, kind, request, names, key, since, details)
), requests as (
  insert into noetl.match_request (execution_id, node_id)
  select w.execution_id, w.node_id
  from unnest($1::bigint[], $2::text[], $4::text[]) w (execution_id, node_id, kind)
  where w.kind = 'signal'
), timers as (
  insert into noetl.timer (execution_id, node_id, step, purpose, due_at, is_moment)
  select execution_id, node_id, step, purpose, due_at, is_moment
  from unnest($10::bigint[], $11::text[], $12::text[], $13::text[], $14::timestamptz[], $15::boolean[])
    t (execution_id, node_id, step, purpose, due_at, is_moment)
)
select noetl.notify_timers(min(due_at)), case when 'signal' = any($4::text[]) then noetl.notify_matchers() end
from unnest($14::timestamptz[]) t (due_at);

-- name: end_waits
-- Waits that are over, and their timers.
with ended as (
  select execution_id, node_id, status
  from unnest($1::bigint[], $2::text[], $3::text[]) w (execution_id, node_id, status)
), timers as (
  delete from noetl.timer t
  using ended e
  where t.execution_id = e.execution_id and t.node_id = e.node_id
)
update noetl.wait w
set status = e.status, ended_at = clock_timestamp()
from ended e
where w.execution_id = e.execution_id and w.node_id = e.node_id;

-- name: end_late_timers
-- After write_waits: visits with a `late_after` that are over.
delete from noetl.timer t
using unnest($1::bigint[], $2::text[]) v (execution_id, node_id)
where t.execution_id = v.execution_id and t.node_id = v.node_id and t.purpose = 'late';

-- name: mark_late
-- Executions that are late, or have a late visit.
update noetl.execution x
set late_at = l.at
from (
  select execution_id, min(at) as at
  from unnest($1::bigint[], $2::timestamptz[]) m (execution_id, at)
  group by execution_id
) l
where x.execution_id = l.execution_id and x.late_at is null;

-- name: settle_executions
-- After write_waits: waits and timers of executions that ended.
with waits as (
  update noetl.wait w
  set status = 'cancelled', ended_at = clock_timestamp()
  where w.execution_id = any($1::bigint[]) and noetl.is_waiting(w.status)
)
delete from noetl.timer t
where t.execution_id = any($1::bigint[]);
