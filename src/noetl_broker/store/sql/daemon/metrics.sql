-- name: observe
-- Metrics of the whole database. Counts end at $1 rows. Each part reads an index or the first rows of a table.
with oldest_mail as (
  select i.execution_id, i.event_id
  from noetl.inbox i
  order by i.mail_id
  limit 1
), waiting as materialized (
  select q.available_at
  from noetl.queue q
  where q.status in ('queued', 'retry')
    and q.available_at <= clock_timestamp()
  order by q.pool, q.priority desc, q.available_at, q.queue_id
  limit $1::int
), leased as materialized (
  select q.lease_until < clock_timestamp() and noetl.is_lease_lost(row(q.*)::noetl.queue, clock_timestamp(), null) as is_lost
  from noetl.queue q
  where q.status = 'leased'
  order by q.lease_until
  limit $1::int
)
select
  -- the time of an event may lie in the future
  (
    select greatest(extract(epoch from clock_timestamp() - e.created_at), 0)::float8
    from oldest_mail m
    join noetl.event e on e.execution_id = m.execution_id and e.event_id = m.event_id
  ) as oldest_unread_seconds,
  (select count(*) from (select from noetl.inbox limit $1::int) mail) as unread_mail,
  (select count(*) from (select from noetl.dead_letter limit $1::int) letters) as dead_letters,
  (
    select count(*)
    from (
      select
      from noetl.execution x
      where noetl.is_live(x.status)
      limit $1::int
    ) running
  ) as executions_running,
  (select count(*) from (select from noetl.execution x where x.status = 'PAUSED' limit $1::int) paused) as executions_paused,
  (select count(*) from (select from noetl.execution x where x.status = 'QUEUED' limit $1::int) queued) as executions_queued,
  (select count(*) from (select from noetl.execution x where x.undo_status = 'left' limit $1::int) l)
    as undo_left_executions,
  (select count(*) from waiting) as waiting_jobs,
  (
    select count(*)
    from (
      select
      from noetl.queue q
      where q.status in ('queued', 'retry')
        and q.available_at > clock_timestamp()
      limit $1::int
    ) later
  ) as delayed_jobs,
  (select count(*) from leased) as leased_jobs,
  (select coalesce(sum(u.jobs), 0)::bigint from noetl.unserved_jobs() u) as jobs_unserved,
  (
    select count(*)
    from (
      select
      from noetl.queue q
      where q.limit_name is not null and q.status = 'held' and q.held_for = array['limit']
      limit $1::int
    ) throttled
  ) as throttled_jobs,
  (
    select greatest(extract(epoch from clock_timestamp() - min(w.available_at)), 0)::float8
    from waiting w
  ) as oldest_waiting_job_seconds,
  (select count(*) from leased l where l.is_lost) as leases_overdue,
  (
    select case when s.is_called then s.last_value & ((1::bigint << 48) - 1) else 0 end -- Citus puts the node above
    from noetl.stale_answer_seq s
  ) as stale_answers_total,
  pg_notification_queue_usage() as notify_queue_usage;
