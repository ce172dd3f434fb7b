-- name: throttle_jobs
-- After write_turns: holds new jobs that have a throttle, and gives slots. $1 execution, $2 node, $3 name, $4 key. $5 to $7: the
-- numbers of the playbook, for a throttle that nobody made yet.
select noetl.throttle_jobs($1::bigint[], $2::text[], $3::text[], $4::text[], $5::int[], $6::float8[], $7::int[]);
