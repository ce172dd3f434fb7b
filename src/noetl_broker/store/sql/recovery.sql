-- name: put_back
select noetl.put_back($1::bigint);

-- name: fork_execution
select noetl.fork_execution($1::bigint, $2::text::jsonb, $3::bigint, $4::text);

-- name: search_dead_letters
select d.execution_id, x.path, x.version, x.status, d.event_id, e.event_type, e.node_name as step, d.reason, d.created_at
from noetl.dead_letter d
left join noetl.execution x on x.execution_id = d.execution_id
left join noetl.event e on e.execution_id = d.execution_id and e.event_id = d.event_id
where ($1::text is null or x.path like $1)
  and ($2::text is null or d.reason ilike $2)
  and ($3::timestamptz is null or d.created_at >= $3)
  and ($4::float8 is null or d.created_at >= clock_timestamp() - make_interval(secs => $4))
order by d.created_at, d.event_id
limit $5::int;

-- name: search_failed
-- Those that can be brought back: no child (its parent has been told, and decides), and not brought back before.
select x.execution_id, x.path, x.version, x.ended_at, x.error ->> 'step' as failed_step, x.error ->> 'message' as reason
from noetl.execution x
where x.status = 'FAILED'
  and x.parent_execution_id is null
  and not exists (
    select
    from noetl.execution f
    where f.forked_from = x.execution_id and f.idempotency_key = $7::text || x.execution_id
  )
  and ($1::text is null or x.path like $1)
  and ($2::text is null or x.error ->> 'message' ilike $2)
  and ($3::timestamptz is null or x.ended_at >= $3)
  and ($4::float8 is null or x.ended_at >= clock_timestamp() - make_interval(secs => $4))
  and ($5::text is null or x.error ->> 'step' = $5)
order by x.execution_id
limit $6::int;

-- name: find_brought_back
select f.execution_id, f.status
from noetl.execution f
where f.forked_from = $1::bigint and f.idempotency_key = $2::text;

-- name: count_dead_letters
select count(*)
from noetl.dead_letter d
where d.execution_id = $1::bigint;
