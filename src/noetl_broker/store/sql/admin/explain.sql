-- name: explain_execution
-- The execution's row, the database's clock, and the number of brokers that listen on this database.
select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.erased_at, x.result, x.error,
  x.parent_execution_id, x.forked_from, x.idempotency_key, clock_timestamp() as read_at, s.started_by,
  (
    select min(t.due_at)
    from noetl.timer t
    where t.execution_id = x.execution_id and t.purpose = 'deadline'
  ) as deadline, (
    select count(*)
    from pg_stat_activity a
    where a.datname = current_database() and a.application_name = 'noetl-broker bell'
  ) as brokers
from noetl.execution x
left join lateral (
  -- the signal of an execution that `on_signal` started
  select noetl.as_json(e.context) #> '{workload,signal}' as started_by
  from noetl.event e
  where e.execution_id = x.execution_id and e.event_type = 'execution_start'
    and noetl.as_json(e.meta) ->> 'signal_id' = x.idempotency_key
  limit 1
) s on true
where x.execution_id = $1::bigint;

-- name: explain_turns
-- The limit makes a look-up by key of each event: without statistics of a long execution, the planner joins all with all.
select t.turn, t.event_id, e.event_type, e.created_at, e.worker_id
from noetl.turn t
left join lateral (
  select v.event_type, v.created_at::timestamptz as created_at, v.worker_id
  from noetl.event v
  where v.execution_id = t.execution_id and v.event_id = t.event_id
  limit 1
) e on true
where t.execution_id = $1::bigint
order by t.turn;

-- name: explain_jobs
-- Jobs of live visits, and at most $3 other open ones.
(
  select q.node_id, q.node_type, q.status, q.attempts, q.max_attempts, q.lost_leases,
    nullif(q.available_at, 'infinity')::timestamptz as available_at, q.created_at::timestamptz as created_at, q.priority,
    q.lease_until::timestamptz as lease_until, q.worker_id, q.last_heartbeat::timestamptz as last_heartbeat,
    q.first_leased_at::timestamptz as first_leased_at, q.timeout_seconds, j.ended_status as server_status, j.ended_at as server_status_at,
    coalesce(j.is_leased, false) as foreign_lease, case when q.status = 'queued' and q.attempts = 0 then (
      select min(t.due_at)
      from noetl.timer t
      where t.execution_id = q.execution_id and t.node_id = q.node_id and t.purpose = 'start_timeout'
    ) end as start_by, q.limit_name, q.limit_key, p.concurrency, p.rate, p.leased, p.ready, p.before, p.holders,
    'pause' = any(q.held_for) as paused, q.pool
  from noetl.queue q
  left join lateral noetl.server_job(row(q.*)::noetl.queue) j on true
  left join lateral noetl.throttle_wait(row(q.*)::noetl.queue) p on true
  where q.execution_id = $1::bigint and q.node_id = any($2::text[])
)
union all
(
  select q.node_id, q.node_type, q.status, q.attempts, q.max_attempts, q.lost_leases,
    nullif(q.available_at, 'infinity')::timestamptz as available_at, q.created_at::timestamptz as created_at, q.priority,
    q.lease_until::timestamptz as lease_until, q.worker_id, q.last_heartbeat::timestamptz as last_heartbeat,
    q.first_leased_at::timestamptz as first_leased_at, q.timeout_seconds, j.ended_status as server_status, j.ended_at as server_status_at,
    coalesce(j.is_leased, false) as foreign_lease, case when q.status = 'queued' and q.attempts = 0 then (
      select min(t.due_at)
      from noetl.timer t
      where t.execution_id = q.execution_id and t.node_id = q.node_id and t.purpose = 'start_timeout'
    ) end as start_by, q.limit_name, q.limit_key, p.concurrency, p.rate, p.leased, p.ready, p.before, p.holders,
    'pause' = any(q.held_for) as paused, q.pool
  from noetl.queue q
  left join lateral noetl.server_job(row(q.*)::noetl.queue) j on true
  left join lateral noetl.throttle_wait(row(q.*)::noetl.queue) p on true
  where q.execution_id = $1::bigint
    and q.status not in ('done', 'cancelled')
    and q.node_id <> all($2::text[])
    -- failed items are counted by type
    and not (q.status = 'dead' and exists (select from noetl.parse_item(q.node_id)))
  order by exists (select from noetl.parse_item(q.node_id)), q.status = 'leased' desc, q.queue_id
  limit $3::int
);

-- name: explain_waits
-- Open waits. For signals: how many signals of these names came to the execution without the key of the wait. And the last
-- signal that is older than `since`.
select w.node_id, w.kind, w.began_at, t.due_at, w.names, w.key, w.details ->> 'title' as title,
  array(select jsonb_array_elements_text(w.details -> 'approvers')) as approvers, (
    select count(*)
    from noetl.signal s
    where w.kind = 'signal' and w.key <> w.execution_id::text and s.key = w.execution_id::text
      and s.name = any(w.names) and s.expires_at > clock_timestamp()
  ) as to_execution, date_part('epoch', noetl.original_start(w.execution_id) - {part.sent_too_early}) as too_old
from noetl.wait w
left join lateral (
  select min(t.due_at) as due_at
  from noetl.timer t
  where t.execution_id = w.execution_id and t.node_id = w.node_id and t.purpose in ('wait', 'timeout')
) t on true
where w.execution_id = $1::bigint and noetl.is_waiting(w.status)
order by w.began_at, w.node_id
limit $2::int;

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
-- Running children, each with its live steps.
select x.execution_id, x.path, x.started_at, x.parent_node_id, x.parent_index, coalesce((
    select array_agg(t.token ->> 'step')
    from json_array_elements(s.tokens -> 'tokens') t (token)
  ), '{}') as steps
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where x.parent_execution_id = $1::bigint and noetl.is_live(x.status)
order by x.execution_id
limit $2::int;

-- name: explain_types
-- How many jobs of these types and pools wait or are leased, and when a worker was last seen. It reads only the latest
-- jobs, because the queue may be long.
select wanted.type, wanted.pool, (
    select count(*)
    from noetl.queue q
    where q.status in ('queued', 'retry') and q.node_type = wanted.type and q.pool = wanted.pool
      and q.available_at <= clock_timestamp()
  ) as waiting, (
    select count(*)
    from noetl.queue q
    where q.status = 'leased' and q.node_type = wanted.type and q.pool = wanted.pool
  ) as leased, (
    select max(l.last_heartbeat::timestamptz)
    from (
      select q.node_type, q.pool, q.last_heartbeat
      from noetl.queue q
      order by q.queue_id desc
      limit 5000
    ) l
    where l.node_type = wanted.type and l.pool = wanted.pool
  ) as last_seen
from unnest($1::text[], $2::text[]) wanted (type, pool);

-- name: explain_forks
select f.execution_id, f.status, coalesce(f.idempotency_key = $2::text, false) as retry
from noetl.execution f
where f.forked_from = $1::bigint
order by f.execution_id;

-- name: explain_alarm
-- What started because an execution failed.
select x.execution_id, x.path, x.status, x.version
from noetl.start_key k
join noetl.execution x on x.execution_id = k.execution_id
where k.path = $2::text and k.idempotency_key = 'on_failure ' || $1::bigint;

-- name: find_child
-- The latest child of a step, of one visit ($3) or any, and of one item ($4) or any. Not what undoes a child.
select x.execution_id
from noetl.execution x
where x.parent_execution_id = $1::bigint
  and exists (
    select
    from noetl.parse_node(x.parent_node_id) n
    where n.step = $2::text and ($3::int is null or n.visit = $3)
  )
  and not noetl.is_undo(x.parent_node_id)
  and ($4::int is null or x.parent_index = $4)
order by x.execution_id desc
limit 1;
