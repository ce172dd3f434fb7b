-- name: load_activity
-- Counts the executions of the last $1 seconds, among the newest $2: by $3 equal times and status, and by playbook.
-- Failures are counted by playbook, step and type of error. `recovered` counts those that a fork or a retry recovered
-- back. `since` is where the times begin. `is_cut`: more started
-- then than were read.
with read as materialized (
  select x.execution_id, x.path, x.status, x.started_at, x.ended_at,
    case when x.status = 'FAILED' then coalesce(x.error ->> 'step', '') end as step,
    case when x.status = 'FAILED' then coalesce(x.error ->> 'type', '') end as error_type
  from noetl.execution x
  order by x.execution_id desc
  limit $2::int
), asked as materialized (
  select clock_timestamp() as read_at, clock_timestamp() - make_interval(secs => $1::float8) as since, count(*) >= $2 as is_full,
    min(r.started_at) as first_read_at
  from read r
), newest as materialized (
  select r.*
  from read r
  cross join asked a
  where r.started_at >= a.since
), span as materialized (
  select a.read_at, (select min(n.started_at) from newest n) as first_at, (select count(*) from newest) as executions,
    a.is_full and a.first_read_at > a.since as is_cut,
    case when a.is_full then greatest(a.since, a.first_read_at) else a.since end as since
  from asked a
), part as (
  -- a clock that was set back may leave a start after `read_at`
  select least(greatest(floor(date_part('epoch', n.started_at - s.since) * $3::int
      / greatest(date_part('epoch', s.read_at - s.since), 1)), 0), $3 - 1)::int as index, n.status
  from newest n
  cross join span s
), frequent as materialized (
  select n.path, count(*) as executions, count(*) filter (where n.status = 'FAILED') as failed,
    count(*) filter (where noetl.is_live(n.status)) as live, max(n.started_at) as last_at
  from newest n
  where n.path not like '%#%' -- no blocks, as in lists of playbooks
  group by n.path
  order by count(*) desc, n.path
  limit $4::int
)
select s.read_at, s.first_at, s.since, s.executions, s.is_cut,
  (
    select coalesce(json_agg(json_build_array(c.index, c.status, c.count)), '[]')
    from (
      select p.index, p.status, count(*) as count
      from part p
      group by p.index, p.status
    ) c
  ) as parts,
  (
    select coalesce(json_agg(c), '[]')
    from (
      select f.path, f.executions, f.failed, f.live, t.median_seconds,
        date_part('epoch', s.read_at - f.last_at) as last_seconds
      from frequent f
      left join (
        select n.path, percentile_cont(0.5) within group (order by date_part('epoch', n.ended_at - n.started_at)) as median_seconds
        from newest n
        where n.path in (select q.path from frequent q) and n.status = 'COMPLETED'
        group by n.path
      ) t on t.path = f.path
      order by f.executions desc, f.path
    ) c
  ) as playbooks, (
    select count(*)
    from newest n
    where n.status = 'FAILED' and exists (
      select
      from noetl.execution f
      where f.forked_from = n.execution_id
    )
  ) as recovered,
  (
    select coalesce(json_agg(c), '[]')
    from (
      select n.path, n.step, n.error_type as type, count(*) as count,
        extract(epoch from s.read_at - max(n.ended_at))::float8 as last_seconds, max(n.execution_id)::text as execution_id
      from newest n
      where n.status = 'FAILED'
        and not exists (
          select
          from noetl.execution f
          where f.forked_from = n.execution_id
        )
      group by n.path, n.step, n.error_type
      order by max(n.execution_id) desc
      limit $4
    ) c
  ) as failures
from span s;

-- name: load_present
-- What there is now. Counts end at $1; each part reads an index or the first rows of a table.
with live as materialized (
  select x.status
  from noetl.execution x
  where noetl.is_live(x.status)
  limit $1::int
), ready as materialized (
  select q.available_at
  from noetl.queue q
  where q.status in ('queued', 'retry') and q.available_at <= clock_timestamp()
  order by q.pool, q.priority desc, q.available_at, q.queue_id
  limit $1
), leased as materialized (
  select q.worker_id
  from noetl.queue q
  where q.status = 'leased'
  order by q.lease_until
  limit $1
)
select clock_timestamp() as read_at,
  (select count(*) from live) as live,
  (select count(*) from live l where l.status = 'QUEUED') as queued,
  (select count(*) from live l where l.status = 'PAUSED') as paused,
  (select count(*) from live l where l.status = 'COMPENSATING') as compensating,
  (select count(*) from ready) as ready_jobs,
  (select extract(epoch from clock_timestamp() - min(r.available_at))::float8 from ready r) as oldest_ready_seconds,
  (select count(*) from leased) as leased_jobs,
  (select count(distinct l.worker_id) from leased l) as leasing_workers,
  (
    select count(*)
    from (select from noetl.wait w where w.kind = 'approval' and w.status = 'open' limit $1) approvals
  ) as approvals,
  (select count(*) from (select from noetl.inbox limit $1) mail) as unread_mail,
  (
    select greatest(extract(epoch from clock_timestamp() - e.created_at), 0)::float8
    from (select i.execution_id, i.event_id from noetl.inbox i order by i.mail_id limit 1) m
    join noetl.event e on e.execution_id = m.execution_id and e.event_id = m.event_id
  ) as oldest_mail_seconds,
  (select count(*) from (select from noetl.dead_letter limit $1) letters) as dead_letters,
  (select count(*) from (select from noetl.execution x where x.undo_status = 'left' limit $1) l) as left_undone,
  (
    select count(*)
    from pg_stat_activity a
    where a.datname = current_database() and a.application_name = 'noetl-broker bell'
  ) as brokers;

-- name: list_unserved
-- Types and pools of jobs that no worker serves, of the first $1 jobs of each pool.
select u.type, u.pool, u.jobs, u.seconds, u.execution_id, u.limits
from noetl.unserved_jobs($1::int) u
limit $2::int;

-- name: list_oldest_live
-- Of the oldest $2 executions that live, those that began first, without children.
select l.execution_id, l.path, l.version, l.status, l.started_at, l.ended_at, l.parent_execution_id
from (
  select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id
  from noetl.execution x
  where noetl.is_live(x.status)
  order by x.execution_id
  limit $2::int
) l
where l.parent_execution_id is null
order by l.execution_id
limit $1::int;

-- name: list_positions
-- Where each of these executions is: the first $2 steps that run, and whether one waits, and for what. Of one that
-- undoes, the step that is undone; of one that has ended, how many of its actions nothing has undone.
select w.execution_id, (array_agg(w.step_name order by w.ordinal))[:$2::int] as steps, count(*) as running,
  (
    select min(v.kind)
    from noetl.wait v
    where v.execution_id = w.execution_id and noetl.is_waiting(v.status)
  ) as waits_for
from noetl.workflow w
where w.execution_id = any($1::bigint[]) and w.status = 'RUNNING'
group by w.execution_id
union all
select c.execution_id, '{}', 0, 'slot'
from noetl.slot_claim c
where c.execution_id = any($1) and c.held_at is null
group by c.execution_id
union all
select u.execution_id, case when u.status = 'running' then array_agg(u.step) else '{}' end, count(*),
  case when u.status = 'running' then 'undo' else 'undone' end
from noetl.undo u
join noetl.execution x on x.execution_id = u.execution_id
where u.execution_id = any($1)
  and (u.status = 'running' or x.undo_status = 'left' and u.status in ('open', 'failed', 'unknown'))
group by u.execution_id, u.status = 'running';
