-- name: sum_figures
-- Sums hours that are over. Another sum of the same hour is replaced: executions never leave an hour.
insert into noetl.figure (path, hour, version, step, sampled, counts)
{part.figures}
on conflict (path, hour, version, step) do update
set sampled = excluded.sampled, counts = excluded.counts, summed_at = clock_timestamp();

-- name: mark_summed
-- An hour in which nothing started has a row, too.
insert into noetl.figure (path, hour, version, step, sampled, counts)
values ('', $1::timestamptz, 0, '', 1, '{}')
on conflict do nothing;

-- name: read_figures
{part.figures};

-- name: lock_figures
-- One session sums; the others need not. It is free at the end of the transaction.
select pg_try_advisory_xact_lock(hashtext('noetl.lock'), 22);

-- name: due_hours
-- At most $1 hours that are over for ten minutes, the newest first: those without a sum, and those to be summed again.
-- An hour is summed again if fewer of its executions are live now than its sum says. Its last sum is then older than a
-- twentieth of its age. No hour is older than 60 days.
with live as materialized (
  select date_bin(interval '1 hour', l.started_at, timestamptz '2000-01-01Z') as hour, count(*) as number
  from (
    select x.started_at
    from noetl.execution x
    where noetl.is_live(x.status)
    order by x.execution_id desc
    limit 100000
  ) l
  group by 1
), hour as (
  select h.at
  from (
    select greatest(date_trunc('hour', x.started_at, 'UTC'), date_trunc('hour', clock_timestamp() - interval '60 days', 'UTC')) as first_at
    from noetl.execution x
    order by x.execution_id
    limit 1
  ) o
  cross join lateral generate_series(o.first_at, clock_timestamp() - interval '70 minutes', interval '1 hour') h (at)
)
select h.at
from hour h
left join noetl.figure f on f.path = '' and f.hour = h.at and f.version = 0 and f.step = ''
left join live l on l.hour = h.at
where f.hour is null
  or f.summed_at < clock_timestamp() - greatest(interval '10 minutes', (clock_timestamp() - h.at) / 20)
    and coalesce(l.number, 0) < (
      select coalesce(sum(s.value::bigint), 0)
      from jsonb_each_text(f.counts -> 'status') s
      where noetl.is_live(s.key)
    )
order by h.at desc
limit $1::int;

-- name: delete_old_figures
delete from noetl.figure
where hour < clock_timestamp() - interval '61 days';

-- name: bounds_of_figures
-- The moments of a request; the first hour that may have executions; what is summed ends at `summed_until` (null: nothing is). `whole_since`: the
-- newest $3 executions after that began then (null: there are no more). `live`: how many are live, counted up to 10,000.
with asked as materialized (
  select coalesce($1::timestamptz, clock_timestamp() - make_interval(secs => $2::float8)) as since
), summed as materialized (
  select max(f.hour) + interval '1 hour' as until
  from noetl.figure f
  where f.path = '' and f.hour >= (select date_trunc('hour', a.since, 'UTC') from asked a)
)
select a.since, clock_timestamp() as read_at, s.until as summed_until,
  (select x.started_at from noetl.execution x order by x.execution_id limit 1) as first_at,
  (
    select x.started_at
    from noetl.execution x
    order by x.execution_id desc
    offset $3::int
    limit 1
  ) as whole_since,
  (
    select count(*)
    from (select from noetl.execution x where noetl.is_live(x.status) and ($4::text is null or x.path = $4) limit 10000) l
  ) as live
from asked a
cross join summed s;

-- name: summed_hours
-- The hours from $1 until $2 that are summed.
select f.hour
from noetl.figure f
where f.path = '' and f.version = 0 and f.step = '' and f.hour >= $1::timestamptz and f.hour < $2::timestamptz
order by f.hour;

-- name: list_figures
-- The sums of hours from $1 until $2 of all playbooks ($3 is empty), or of one; with $4, of one version; $5: also of its steps, since $6.
select f.path, f.hour, f.version, f.step, f.sampled, f.counts
from noetl.figure f
where f.path = $3::text and f.hour >= $1::timestamptz and f.hour < $2::timestamptz
  and ($4::int is null or f.version = $4)
  and (f.step = '' or $5::boolean and f.hour >= $6::timestamptz)
order by f.hour;
