-- name: list_throttles
select l.name, l.concurrency, l.rate, l.burst, l.updated_at, coalesce(j.keys, 0) as keys, coalesce(j.leased, 0) as leased,
  coalesce(j.ready, 0) as ready, coalesce(j.held, 0) as held
from noetl.limit l
left join (
  select q.limit_name, count(distinct q.limit_key)::int as keys, (count(*) filter (where q.status = 'leased'))::int as leased,
    (count(*) filter (where q.status in ('queued', 'retry')))::int as ready,
    (count(*) filter (where q.status = 'held'))::int as held
  from noetl.queue q
  where q.limit_name is not null
    and (q.status in ('queued', 'retry', 'leased') or q.status = 'held' and q.held_for = array['limit'])
  group by q.limit_name
) j on j.limit_name = l.name
order by l.name;

-- name: list_throttle_keys
select q.limit_key as key, (count(*) filter (where q.status = 'leased'))::int as leased,
  (count(*) filter (where q.status in ('queued', 'retry')))::int as ready,
  (count(*) filter (where q.status = 'held'))::int as held
from noetl.queue q
where q.limit_name = $1::text
  and (q.status in ('queued', 'retry', 'leased') or q.status = 'held' and q.held_for = array['limit'])
group by q.limit_key
order by held desc, leased desc, q.limit_key
limit $2::int;

-- name: declare_throttles
-- Makes limits that nobody has made; gives the rows that there were.
with declared as (
  select name, concurrency, rate, burst
  from unnest($1::text[], $2::int[], $3::float8[], $4::int[]) d (name, concurrency, rate, burst)
), made as (
  insert into noetl.limit (name, concurrency, rate, burst)
  select name, concurrency, rate, burst
  from declared
  on conflict do nothing
)
select l.name, l.concurrency, l.rate, l.burst
from noetl.limit l
where l.name in (select d.name from declared d);
