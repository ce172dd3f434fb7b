-- name: explain_execution
-- Its row, the database's clock, and how many brokers listen on this database.
select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.result, x.error,
  x.parent_execution_id, x.forked_from, clock_timestamp() as read_at,
  (
    select count(*)
    from pg_stat_activity a
    where a.datname = current_database() and a.application_name = 'noetl-broker bell'
  ) as brokers
from noetl.execution x
where x.execution_id = $1::bigint;

-- name: explain_turns
select t.turn, t.event_id, e.event_type, e.created_at::timestamptz as created_at, e.worker_id
from noetl.turn t
left join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = $1::bigint
order by t.turn;

-- name: explain_jobs
-- Those of live visits, and whatever is open: of a wide iterator only so many.
(
  select q.node_id, q.node_type, q.status, q.attempts, q.max_attempts, q.lost_leases,
    nullif(q.available_at, 'infinity')::timestamptz as available_at, q.created_at::timestamptz as created_at, q.priority,
    q.lease_until::timestamptz as lease_until, q.worker_id, q.last_heartbeat::timestamptz as last_heartbeat,
    q.first_leased_at::timestamptz as first_leased_at, q.timeout_seconds, j.status as said, j.ended_at as said_at,
    coalesce(q.foreign_attempt = q.attempts, false) as foreign_lease
  from noetl.queue q
  left join noetl.ended_job j on j.queue_id = q.queue_id
  where q.execution_id = $1::bigint and q.node_id = any($2::text[])
)
union all
(
  select q.node_id, q.node_type, q.status, q.attempts, q.max_attempts, q.lost_leases,
    nullif(q.available_at, 'infinity')::timestamptz as available_at, q.created_at::timestamptz as created_at, q.priority,
    q.lease_until::timestamptz as lease_until, q.worker_id, q.last_heartbeat::timestamptz as last_heartbeat,
    q.first_leased_at::timestamptz as first_leased_at, q.timeout_seconds, j.status as said, j.ended_at as said_at,
    coalesce(q.foreign_attempt = q.attempts, false) as foreign_lease
  from noetl.queue q
  left join noetl.ended_job j on j.queue_id = q.queue_id
  where q.execution_id = $1::bigint
    and q.status not in ('done', 'cancelled')
    and q.node_id <> all($2::text[])
  order by q.queue_id
  limit $3::int
);

-- name: explain_unread
select e.event_id, e.event_type, e.node_id, e.node_name, e.created_at::timestamptz as created_at
from noetl.inbox i
join noetl.event e on e.execution_id = i.execution_id and e.event_id = i.event_id
where i.execution_id = $1::bigint
order by i.mail_id
limit $2::int;

-- name: explain_set_aside
select d.event_id, e.event_type, e.node_id, e.node_name, d.created_at, d.reason
from noetl.dead_letter d
left join noetl.event e on e.execution_id = d.execution_id and e.event_id = d.event_id
where d.execution_id = $1::bigint
order by d.created_at, d.event_id
limit $2::int;

-- name: explain_children
-- Those that run, each with the steps that live in it.
select x.execution_id, x.path, x.started_at, x.parent_node_id, x.parent_index, coalesce((
    select array_agg(t.token ->> 'step')
    from json_array_elements(s.tokens -> 'tokens') t (token)
  ), '{}') as steps
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where x.parent_execution_id = $1::bigint and x.status = 'RUNNING'
order by x.execution_id
limit $2::int;

-- name: explain_types
-- Who works for these types now, and when somebody was last seen to: by the latest jobs alone, the queue may be long.
select asked.type, (
    select count(*)
    from noetl.queue q
    where q.status in ('queued', 'retry') and q.node_type = asked.type and q.available_at <= clock_timestamp()
  ) as waiting, (
    select count(*)
    from noetl.queue q
    where q.status = 'leased' and q.node_type = asked.type
  ) as leased, (
    select max(l.last_heartbeat::timestamptz)
    from (
      select q.node_type, q.last_heartbeat
      from noetl.queue q
      order by q.queue_id desc
      limit 5000
    ) l
    where l.node_type = asked.type
  ) as last_seen
from unnest($1::text[]) asked (type);

-- name: explain_forks
select f.execution_id, f.status, coalesce(f.idempotency_key = $2::text, false) as retry
from noetl.execution f
where f.forked_from = $1::bigint
order by f.execution_id;
