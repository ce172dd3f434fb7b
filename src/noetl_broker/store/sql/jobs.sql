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
