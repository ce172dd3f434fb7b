-- name: change_jobs
-- Sets the status of existing jobs. Few turns do this, so it is not part of write_turns.
update noetl.queue q
set status = c.status,
    stop = false,
    attempts = greatest(q.attempts, c.attempt),
    available_at = clock_timestamp() + make_interval(secs => c.delay),
    lease_until = null,
    held_for = case when c.status = 'held' then array['pause'] end,
    first_leased_at = case when c.status in ('retry', 'held', 'delegated') then null else q.first_leased_at end,
    updated_at = clock_timestamp()
from unnest($1::bigint[], $2::text[], $3::text[], $4::float8[], $5::int[]) c (execution_id, node_id, status, delay, attempt)
where q.execution_id = c.execution_id and q.node_id = c.node_id and q.status not in ('done', 'dead', 'cancelled');

-- name: cancel_jobs
-- After change_jobs: cancels all jobs of executions that ended, except those that change_jobs named
-- ($2, $3). Workers that hold a job are told to stop. Turns never wait: the reaper cancels a job that another transaction
-- has locked, such as an uncommitted lease.
with free as materialized (
  select q.execution_id, q.node_id
  from noetl.queue q
  where q.execution_id = any($1::bigint[])
    and q.status in ('queued', 'retry', 'held', 'failed', 'delegated', 'leased')
    and not exists (
      select
      from unnest($2::bigint[], $3::text[]) c (execution_id, node_id)
      where c.execution_id = q.execution_id and c.node_id = q.node_id
    )
  for update of q skip locked
), cancelled as (
  update noetl.queue q
  set status = case when q.status = 'leased' then q.status else 'cancelled' end,
      stop = q.status = 'leased',
      draining = false,
      held_for = null,
      updated_at = case when q.status = 'leased' then q.updated_at else clock_timestamp() end
  from free f
  where q.execution_id = f.execution_id and q.node_id = f.node_id
  returning q.stop
), locked as (
  insert into noetl.job_to_cancel (execution_id, node_id)
  select q.execution_id, q.node_id
  from noetl.queue q
  where q.execution_id = any($1::bigint[])
    and q.status in ('queued', 'retry', 'held', 'failed', 'delegated', 'leased')
    and not exists (
      select
      from unnest($2::bigint[], $3::text[]) c (execution_id, node_id)
      where c.execution_id = q.execution_id and c.node_id = q.node_id
    )
  except
  select execution_id, node_id
  from free
  on conflict do nothing
)
select noetl.notify_cancel()
where exists (select from cancelled c where c.stop);

-- name: cancel_visits
-- Before write_family: cancels the jobs of cancelled visits ($3). Of these, and of visits that cancelled their items, cancels
-- the jobs of open items. A worker that has leased one is told to stop. Locked jobs are left to the reaper, as in
-- cancel_jobs.
with visits as materialized (
  select u.execution_id, u.node_id, bool_or(u.is_whole) as is_whole
  from unnest($1::bigint[], $2::text[], $3::boolean[]) u (execution_id, node_id, is_whole)
  group by u.execution_id, u.node_id
), open_jobs as materialized (
  select q.execution_id, q.node_id
  from (
    select v.execution_id, v.node_id
    from visits v
    where v.is_whole
    union all
    select i.execution_id, noetl.item_node_id(i.node_id, i.index)
    from noetl.iteration i
    join visits v on v.execution_id = i.execution_id and v.node_id = i.node_id
    where i.status = 'RUNNING'
    offset 0 -- a fence: each job is looked up by its key
  ) g
  join noetl.queue q on q.execution_id = g.execution_id and q.node_id = g.node_id
  where q.status in ('queued', 'leased', 'retry', 'held', 'failed', 'delegated')
), free_jobs as materialized (
  select q.execution_id, q.node_id
  from open_jobs o
  join noetl.queue q on q.execution_id = o.execution_id and q.node_id = o.node_id
  where q.status in ('queued', 'leased', 'retry', 'held', 'failed', 'delegated')
  for update of q skip locked
), cancelled as (
  update noetl.queue q
  set status = case when q.status = 'leased' then q.status else 'cancelled' end,
      stop = q.status = 'leased',
      held_for = null,
      updated_at = case when q.status = 'leased' then q.updated_at else clock_timestamp() end
  from free_jobs f
  where q.execution_id = f.execution_id and q.node_id = f.node_id
  returning q.stop
), locked as (
  insert into noetl.job_to_cancel (execution_id, node_id)
  select execution_id, node_id from open_jobs
  except
  select execution_id, node_id from free_jobs
  on conflict do nothing
)
select noetl.notify_cancel()
where exists (select from cancelled c where c.stop);
