-- name: trace_executions
-- What the spans of executions need besides their ends. Times of a NoETL server have no zone and are UTC.
select x.execution_id, noetl.root_of(x.execution_id) as root_execution_id, x.path, x.version,
  x.started_at::timestamptz as started_at, x.parent_execution_id, x.parent_node_id
from noetl.execution x
where x.execution_id = any($1::bigint[]);

-- name: trace_jobs
-- When visits and items began, which is when their job was queued.
select q.execution_id, q.node_id, q.created_at::timestamptz as created_at, q.attempts
from unnest($1::bigint[], $2::text[]) wanted (execution_id, node_id)
join noetl.queue q on q.execution_id = wanted.execution_id and q.node_id = wanted.node_id;

-- name: traceparent
select noetl.traceparent($1::bigint, $2::text);
