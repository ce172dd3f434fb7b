-- name: list_turns
-- The turn number and status of the executions $1; with $2 also of the newest $3, and of the newest $3 that have not ended.
-- Of the newest, those of $4 are left out: they are known to have ended. `seconds`: how long the server has worked on it.
with newest as materialized (
  select x.execution_id, x.status
  from noetl.execution x
  where $2::boolean
  order by x.execution_id desc
  limit $3::int
), live as materialized (
  select x.execution_id, x.status
  from noetl.execution x
  where $2::boolean and noetl.is_live(x.status)
  order by x.execution_id desc
  limit $3::int
), watched as (
  select n.execution_id, n.status
  from newest n
  where not exists (
    select
    from unnest($4::bigint[]) e (execution_id)
    where e.execution_id = n.execution_id
  )
  union
  select l.execution_id, l.status
  from live l
  union
  select x.execution_id, x.status
  from unnest($1::bigint[]) w (execution_id)
  -- The limits keep the planner from reading both tables whole.
  cross join lateral (
    select e.execution_id, e.status
    from noetl.execution e
    where e.execution_id = w.execution_id
    limit 1
  ) x
)
select x.execution_id, coalesce(s.turn, 0) as turn, x.status,
  extract(epoch from clock_timestamp() - statement_timestamp())::float8 as seconds
from watched x
left join lateral (
  select t.turn
  from noetl.execution_state t
  where t.execution_id = x.execution_id
  limit 1
) s on true;

-- name: count_attention
-- What waits for a person: open approvals, and dead letters; each count ends at $1.
select
  (select count(*) from (select from noetl.wait w where w.kind = 'approval' and w.status = 'open' limit $1::int) a) as approvals,
  (select count(*) from (select from noetl.dead_letter limit $1) d) as dead_letters;
