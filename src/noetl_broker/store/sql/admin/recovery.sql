-- name: fork_execution
select noetl.fork_execution($1::bigint, $2::text::jsonb, $3::bigint, $4::text);

-- name: search_dead_letters
select d.execution_id, x.path, x.version, x.status, d.event_id, e.event_type, e.node_name as step, d.reason, d.created_at
from noetl.dead_letter d
left join noetl.execution x on x.execution_id = d.execution_id
left join noetl.event e on e.execution_id = d.execution_id and e.event_id = d.event_id
where ({filter.path}::text is null or x.path like {filter.path})
  and ({filter.status}::text is null or x.status = {filter.status})
  and ({filter.error}::text is null or d.reason ilike {filter.error})
  and ({filter.step}::text is null or x.error ->> 'step' = {filter.step})
  and ({filter.since}::timestamptz is null or d.created_at >= {filter.since})
  and (
    {filter.since_seconds}::float8 is null
    or d.created_at >= clock_timestamp() - make_interval(secs => {filter.since_seconds})
  )
  and ({filter.until}::timestamptz is null or d.created_at <= {filter.until})
  and (
    {filter.until_seconds}::float8 is null
    or d.created_at <= clock_timestamp() - make_interval(secs => {filter.until_seconds})
  )
  and ({filter.version}::int is null or x.version = {filter.version})
  and ({filter.tags}::text is null or x.tags @> {filter.tags}::text::jsonb)
  and ({filter.key}::text is null or x.idempotency_key like {filter.key})
order by d.created_at, d.event_id
limit $1::int;

-- name: search_failed
-- Executions that can be retried: not a child, whose parent decides, and not recovered before by a retry or a fork.
select x.execution_id, x.path, x.version, x.ended_at, x.error ->> 'step' as step, {part.reason} as reason
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where x.status = 'FAILED'
  and x.parent_execution_id is null
  and not exists (
    select
    from noetl.execution f
    where f.forked_from = x.execution_id
  )
  and {part.chosen}
  and {part.changed_since}
  and x.execution_id > $2::bigint
order by x.execution_id
limit $1::int;

-- name: list_recovered
-- As search_failed, but those that a retry or a fork recovered before. Without a status: failed ones.
select x.execution_id
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where x.status = coalesce({filter.status}::text, 'FAILED')
  and x.parent_execution_id is null
  and exists (
    select
    from noetl.execution f
    where f.forked_from = x.execution_id
  )
  and {part.chosen}
  and {part.changed_since}
order by x.execution_id
limit $1::int;

-- name: find_recovery
select f.execution_id, f.status
from noetl.execution f
where f.forked_from = $1::bigint and f.idempotency_key = $2::text;

-- name: count_dead_letters
select count(*)
from noetl.dead_letter d
where d.execution_id = $1::bigint;
