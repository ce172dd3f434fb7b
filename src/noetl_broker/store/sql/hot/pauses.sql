-- name: set_statuses
-- After write_family: executions that were paused, resumed, queued or admitted, and the events for their children.
select noetl.set_statuses($1::bigint[], $2::text[], $3::boolean[], $4::text[], $5::int[], $6::text[], $7::boolean[]);

-- name: hold_jobs
-- After set_statuses: holds or releases jobs of executions ($1), each after a node ($2).
select noetl.hold_jobs(u.execution_id, u.node_id, $3::int)
from unnest($1::bigint[], $2::text[]) u (execution_id, node_id);
