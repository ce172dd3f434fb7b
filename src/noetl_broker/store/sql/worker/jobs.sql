-- name: lease_jobs
select queue_id, execution_id, node_id, node_name, node_type, action, context::text as context, attempts, priority,
  timeout_seconds
from noetl.lease_jobs($1::text, $2::int, $3::int, $4::text[], $5::text[]);

-- name: announce_types
select noetl.announce_step_types($1::text[]);

-- name: announce_worker
select noetl.announce_worker($1::text, $2::text[], $3::text[], $4::int, $5::int, $6::text, $7::text, $8::boolean);

-- name: heartbeat_jobs
-- These statements lock rows in the order of their ids, so that two batches cannot deadlock.
select held.queue_id, noetl.heartbeat_job(held.queue_id, $1::text, held.attempt, $2::int) as accepted
from (
  select given.queue_id, given.attempt
  from unnest($3::bigint[], $4::int[]) given (queue_id, attempt)
  order by given.queue_id
) held;

-- name: complete_jobs
select queue_id, yours as accepted
from noetl.complete_jobs($1::text, $2::bigint[], $3::int[], $4::text[]::jsonb[]);

-- name: complete_job_once
-- The last statement of a transaction with rows of the job.
select noetl.complete_job($1::bigint, $2::text, $3::int, $4::text::jsonb, only_once => true);

-- name: attempt_status
select noetl.attempt_status($1::bigint, $3::text, $2::int) as status;

-- name: fail_jobs
select ended.queue_id,
  noetl.fail_job(ended.queue_id, $1::text, ended.attempt, ended.error::jsonb, ended.retryable) as accepted
from (
  select given.queue_id, given.attempt, given.error, given.retryable
  from unnest($2::bigint[], $3::int[], $4::text[], $5::boolean[]) given (queue_id, attempt, error, retryable)
  order by given.queue_id
) ended;

-- name: log_jobs
-- Each log is locked until the end of the statement, in the order of their jobs.
select given.queue_id,
  noetl.log_job(given.queue_id, $1::text, given.attempt, given.level, given.message, given.first_byte) as accepted
from (
  select given.queue_id, given.attempt, given.level, given.message, given.first_byte
  from unnest($2::bigint[], $3::int[], $4::text[], $5::text[], $6::bigint[]) with ordinality
    given (queue_id, attempt, level, message, first_byte, ordinal)
  order by given.queue_id, given.ordinal
) given;

-- name: report_progress
select given.queue_id, noetl.report_progress(given.queue_id, $1::text, given.attempt, given.progress::jsonb) as accepted
from (
  select given.queue_id, given.attempt, given.progress
  from unnest($2::bigint[], $3::int[], $4::text[]) given (queue_id, attempt, progress)
  order by given.queue_id
) given;

-- name: complete_jobs_and_lease
-- Rows of completed jobs have `accepted` and nothing else.
select queue_id, yours as accepted, execution_id, node_id, node_name, node_type, action, context::text as context,
  attempt as attempts, priority, timeout_seconds
from noetl.complete_jobs_and_lease($1::text, $2::bigint[], $3::int[], $4::text[]::jsonb[], $5::int, $6::int, $7::text[],
  $8::text[]);
