-- name: reap
-- $3: of leases, those alone that ran out in so many seconds; null: all. $4: one job or execution; null: all. $5: seconds
-- after which a lease that a NoETL server gave is lost.
select requeued, lost, timed_out, overdue, woken
from noetl.reap(
  $1::int, $2::int, coalesce(clock_timestamp() - make_interval(secs => $3::float8), '-infinity'), $4::bigint, $5::float8
);

-- name: mind_clock
select stepped_seconds, pulled
from noetl.mind_clock($1::int, $2::boolean);

-- name: reap_ended_jobs
-- A statement of its own: what the other one has locked is free again.
select noetl.reap_ended_jobs($1::int, $2::float8, $3::bigint);

-- name: due
-- What these two would see to, $1 of each kind at most, without $2, to have it done one by one. $3: as $2 of the
-- second; $4: as $5 of the first.
(
  select 'timeout' as due, q.queue_id as id, q.queue_id, q.execution_id, q.node_id
  from noetl.queue q
  where q.status in ('leased', 'delegated', 'queued')
    and q.timeout_seconds is not null
    and q.first_leased_at is not null
    and q.first_leased_at + make_interval(secs => q.timeout_seconds) < clock_timestamp()
    and q.queue_id <> all($2::bigint[])
  limit $1::int
)
union all
(
  select 'lease', q.queue_id, q.queue_id, q.execution_id, q.node_id
  from noetl.queue q
  where q.status = 'leased' and q.lease_until < clock_timestamp()
    and q.queue_id <> all($2)
    and (
      q.foreign_attempt is distinct from q.attempts
        and (
          q.lease_seconds is not null
          or exists (select from noetl.execution x where x.execution_id = q.execution_id)
        )
      or noetl.is_lease_lost(q.execution_id, q.node_id, q.lease_until, clock_timestamp(), $4::float8)
    )
  order by q.lease_until
  limit $1
)
union all
(
  select 'deadline', s.execution_id, null, s.execution_id, s.execution_id::text
  from noetl.execution_state s
  where s.deadline_at < clock_timestamp()
    and s.execution_id <> all($2)
  limit $1
)
union all
(
  select 'pause', q.queue_id, q.queue_id, q.execution_id, q.node_id
  from noetl.queue q
  where q.status = 'delegated' and q.available_at <= clock_timestamp()
    and q.queue_id <> all($2)
  order by q.available_at
  limit $1
)
union all
(
  select 'withdrawal', q.queue_id, q.queue_id, q.execution_id, q.node_id
  from noetl.withdrawn_job w
  join noetl.queue q on q.execution_id = w.execution_id and q.node_id = w.node_id
  where q.queue_id <> all($2)
  limit $1
)
union all
(
  select 'event', j.queue_id, j.queue_id, q.execution_id, q.node_id
  from noetl.ended_job j
  left join noetl.queue q on q.queue_id = j.queue_id
  where (j.ended_at < clock_timestamp() - make_interval(secs => $3::float8) or j.status in ('dead', 'retry'))
    and j.queue_id <> all($2)
  order by j.ended_at
  limit $1
);
