-- name: lease_jobs
select queue_id, execution_id, node_id, node_name, node_type, action, context::text as context, attempts, priority,
  timeout_seconds
from noetl.lease_jobs($1::text, $2::int, $3::int, $4::text[]);

-- name: lease_singly
select queue_id, execution_id, node_id, node_name, node_type, action, context::text as context, attempts, priority,
  timeout_seconds
from noetl.lease_singly($1::text, $2::int, $3::int, $4::text[]);

-- name: heartbeat_jobs
-- Here and below rows are touched in one order by everybody, so that two batches cannot wait for each other.
select held.queue_id, noetl.heartbeat_job(held.queue_id, $1::text, held.attempt, $2::int) as yours
from (
  select asked.queue_id, asked.attempt
  from unnest($3::bigint[], $4::int[]) asked (queue_id, attempt)
  order by asked.queue_id
) held;

-- name: complete_jobs
select queue_id, yours
from noetl.complete_jobs($1::text, $2::bigint[], $3::int[], $4::text[]::jsonb[]);

-- name: fail_jobs
select ended.queue_id,
  noetl.fail_job(ended.queue_id, $1::text, ended.attempt, ended.error::jsonb, ended.retryable) as yours
from (
  select asked.queue_id, asked.attempt, asked.error, asked.retryable
  from unnest($2::bigint[], $3::int[], $4::text[], $5::boolean[]) asked (queue_id, attempt, error, retryable)
  order by asked.queue_id
) ended;

-- name: change_jobs
-- What becomes of jobs that stand in the table: few turns say anything about one, so it is no part of `write_turns`.
update noetl.queue q
set status = c.status,
    available_at = clock_timestamp() + make_interval(secs => c.delay),
    lease_until = null,
    first_leased_at = case when c.status in ('retry', 'delegated') then null else q.first_leased_at end,
    updated_at = clock_timestamp()
from unnest($1::bigint[], $2::text[], $3::text[], $4::float8[]) c (execution_id, node_id, status, delay)
where q.execution_id = c.execution_id and q.node_id = c.node_id and q.status not in ('done', 'dead', 'cancelled');

-- name: withdraw_jobs
-- After change_jobs: all jobs of executions that ended, but those that it named ($2, $3). What somebody holds, as a worker does
-- that has not committed its lease, is left to the reaper: a turn waits for nobody.
with free as materialized (
  select q.execution_id, q.node_id
  from noetl.queue q
  where q.execution_id = any($1::bigint[])
    and q.status in ('queued', 'retry', 'failed', 'delegated')
    and not exists (
      select
      from unnest($2::bigint[], $3::text[]) c (execution_id, node_id)
      where c.execution_id = q.execution_id and c.node_id = q.node_id
    )
  for update of q skip locked
), withdrawn as (
  update noetl.queue q
  set status = 'cancelled', updated_at = clock_timestamp()
  from free f
  where q.execution_id = f.execution_id and q.node_id = f.node_id
)
insert into noetl.withdrawn_job (execution_id, node_id)
select q.execution_id, q.node_id
from noetl.queue q
where q.execution_id = any($1::bigint[])
  and q.status in ('queued', 'retry', 'failed', 'delegated')
  and not exists (
    select
    from unnest($2::bigint[], $3::text[]) c (execution_id, node_id)
    where c.execution_id = q.execution_id and c.node_id = q.node_id
  )
except
select execution_id, node_id
from free
on conflict do nothing;
