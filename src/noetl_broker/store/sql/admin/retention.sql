-- name: periods_to_drop
-- Periods that ended $1 seconds ago or earlier, and those whose dropping has begun; null: only these. The oldest first.
select p.name, p.first_id, p.next_id, p.archived_at, p.dropping_at, p.kept
from noetl.period p
where p.dropped_at is null
  and (
    p.dropping_at is not null
    or timestamptz '2024-01-01Z' + (p.next_id >> 20) * interval '1 millisecond'
      <= clock_timestamp() - make_interval(secs => $1::float8)
  )
order by p.first_id;

-- name: is_dropping_begun
select exists (
  select
  from noetl.period p
  where p.dropping_at is not null and p.dropped_at is null
);

-- name: kept_of_period
select p.kept
from noetl.period p
where p.name = $1::text;

-- name: families_in_period
-- Executions ($3) with those above and below them, as far as they are in a period. They stay together.
with recursive above as (
  select g.execution_id
  from unnest($3::bigint[]) g (execution_id)
  union
  select x.parent_execution_id
  from above a
  join noetl.execution x on x.execution_id = a.execution_id
  where x.parent_execution_id is not null
), below as (
  select g.execution_id
  from unnest($3) g (execution_id)
  union
  select c.execution_id
  from below b
  join noetl.execution c on c.parent_execution_id = b.execution_id
)
select f.execution_id
from (
  select execution_id
  from above
  union
  select execution_id
  from below
) f
where f.execution_id >= $1::bigint and f.execution_id < $2::bigint
order by f.execution_id
limit $4::int;

-- name: most_rows_of
-- How many rows these executions have in the table that has most of them.
select greatest(
  (select count(*) from noetl.event t where t.execution_id = any($1::bigint[])),
  (select count(*) from noetl.turn t where t.execution_id = any($1)),
  (select count(*) from noetl.queue t where t.execution_id = any($1)),
  (select count(*) from noetl.workflow t where t.execution_id = any($1)),
  (select count(*) from noetl.iteration t where t.execution_id = any($1)),
  (select count(*) from noetl.transition t where t.execution_id = any($1)),
  (select count(*) from noetl.wait t where t.execution_id = any($1)),
  (select count(*) from noetl.signal_taken t where t.execution_id = any($1)),
  (select count(*) from noetl.log t where t.execution_id = any($1)),
  (select count(*) from noetl.undo t where t.execution_id = any($1))
);

-- name: executions_of_period
select x.execution_id
from noetl.execution x
where x.execution_id >= $1::bigint and x.execution_id < $2::bigint and x.execution_id <> all($3::bigint[])
order by x.execution_id
limit $4::int;

-- name: drop_without_period
select dropped, last_id
from noetl.drop_without_period($1::bigint, clock_timestamp() - make_interval(secs => $2::float8), $3::int);

-- name: sweep_keys
-- Deletes the old keys of executions that are gone, among the $4 keys after one. Returns the last of these, and how many are
-- deleted.
with page as materialized (
  select k.idempotency_key, k.path, k.execution_id, k.created_at
  from noetl.start_key k
  where (k.idempotency_key, k.path) > ($1::text, $2::text)
  order by k.idempotency_key, k.path
  limit $4::int
), gone as (
  delete from noetl.start_key k
  using page p
  where k.idempotency_key = p.idempotency_key and k.path = p.path
    and p.created_at < now() - make_interval(secs => $3::float8) -- Citus refuses clock_timestamp() in a delete
    and not exists (select from noetl.execution x where x.execution_id = k.execution_id)
  returning k.execution_id
)
select p.idempotency_key, p.path, (select count(*) from gone) as deleted
from page p
order by p.idempotency_key desc, p.path desc
limit 1;
