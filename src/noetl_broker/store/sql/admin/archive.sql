-- name: list_periods
-- The periods of history, the oldest first. `is_old`: the period ended $1 seconds ago or earlier. Ids are assigned at the
-- start, so an execution of an old period may still run.
select p.name, timestamptz '2024-01-01Z' + (p.first_id >> 20) * interval '1 millisecond' as begins_at,
  timestamptz '2024-01-01Z' + (p.next_id >> 20) * interval '1 millisecond' as ends_at,
  p.first_id, p.next_id, p.archived_at, p.dropped_at,
  timestamptz '2024-01-01Z' + (p.next_id >> 20) * interval '1 millisecond'
    <= clock_timestamp() - make_interval(secs => $1::float8) as is_old,
  (
    select count(*)
    from noetl.execution x
    where x.execution_id >= p.first_id and x.execution_id < p.next_id
  ) as executions
from noetl.period p
order by p.first_id;

-- name: list_partitions
-- The tables of each period, with the planner's estimate of their rows. Citus refuses to join this with the periods.
select substr(c.relname, length(t.name) + 2) as period, sum(greatest(c.reltuples, 0))::bigint as rows,
  sum(pg_total_relation_size(c.oid))::bigint as bytes,
  coalesce(array_agg(t.name order by t.ordinal) filter (where c.relispartition), '{}') as attached,
  coalesce(array_agg(t.name order by t.ordinal) filter (where not c.relispartition), '{}') as detached
from noetl.history_tables() t
join pg_class c on starts_with(c.relname::text, t.name || '_') and c.relkind = 'r'
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = case when c.relispartition then 'noetl_history' else 'noetl_archive' end
group by 1;

-- name: archive_patience
-- For the rest of the session, because reading a period takes long.
select set_config('statement_timeout', '0', false);

-- name: take_archive
-- For the rest of the session: one session archives or restores at a time. The caller polls, because a statement that
-- waits keeps an old snapshot.
select pg_try_advisory_lock(hashtext('noetl.lock'), 8);

-- name: living_in_period
-- Executions of a period that are still active. It reads indexes of active rows only, because it runs again while the
-- events of the period are locked.
select h.execution_id, h.reason, count(*) over () as holders
from (
  select x.execution_id, 'it runs' as reason
  from noetl.execution x
  where noetl.is_live(x.status)
    and x.execution_id >= $1::bigint and x.execution_id < $2::bigint
  union all
  select c.parent_execution_id, format('its child %s runs', c.execution_id)
  from noetl.execution c
  where noetl.is_live(c.status)
    and c.parent_execution_id >= $1 and c.parent_execution_id < $2
    and not (c.execution_id >= $1 and c.execution_id < $2)
  union all
  select i.execution_id, format('event %s of it is not read yet', i.event_id)
  from noetl.inbox i
  where i.execution_id >= $1 and i.execution_id < $2
  union all
  select d.execution_id, format('event %s of it is set aside', d.event_id)
  from noetl.dead_letter d
  where d.execution_id >= $1 and d.execution_id < $2
  union all
  select x.execution_id, case x.undo_status when 'left' then 'it left something to undo' else 'it is undoing what it did' end
  from noetl.execution x
  where x.undo_status in ('undoing', 'left') and x.execution_id >= $1 and x.execution_id < $2
  union all
  select c.execution_id, 'an execution above it may have to undo it'
  from noetl.below_undos() c (execution_id)
  where c.execution_id >= $1 and c.execution_id < $2
  union all
  select q.execution_id, format('a worker holds its job %s', q.queue_id)
  from noetl.queue q
  where q.status = 'leased'
    and q.execution_id >= $1 and q.execution_id < $2
) h
order by h.execution_id, h.reason
limit $3::int;

-- name: young_in_period
-- Executions of a period that ended within the last $3 seconds, or whose parent runs; and those that run and have
-- descendants in the period whose parent has ended.
with recursive above as (
  select x.parent_execution_id as execution_id
  from noetl.execution x
  where x.execution_id >= $1::bigint and x.execution_id < $2::bigint and x.parent_execution_id is not null
  union
  select p.parent_execution_id
  from above a
  join noetl.execution p on p.execution_id = a.execution_id
  where p.parent_execution_id is not null
)
select h.execution_id, h.reason, count(*) over () as holders
from (
  select x.execution_id, case when noetl.is_live(p.status) then format('its parent %s runs', p.execution_id)
    else 'it ended only lately' end as reason
  from noetl.execution x
  left join noetl.execution p on p.execution_id = x.parent_execution_id
  where x.execution_id >= $1::bigint and x.execution_id < $2::bigint
    and not noetl.is_live(x.status)
    and (
      noetl.is_live(p.status)
      or coalesce(x.ended_at, 'infinity') >= clock_timestamp() - make_interval(secs => $3::float8)
    )
  union all
  select x.execution_id, 'it runs, and executions below it are in this period'
  from above a
  join noetl.execution x on x.execution_id = a.execution_id
  where noetl.is_live(x.status)
    and not exists (
      select
      from noetl.execution c
      where c.parent_execution_id = x.execution_id and c.execution_id >= $1 and c.execution_id < $2
    )
) h
order by h.execution_id
limit $4::int;

-- name: mark_archived
-- Citus refuses clock_timestamp() in an update.
update noetl.period
set archived_at = now()
where name = $1::text and archived_at is null;

-- name: mark_restored
update noetl.period
set archived_at = null
where name = $1::text;

-- name: executions_without_period
select execution_id, over
from noetl.executions_without_period(
  $1::bigint, clock_timestamp() - make_interval(secs => $2::float8), $3::int
);

-- name: archived_as
-- The period in which the history of an execution was archived; empty: its rows were archived one by one. `dropped_at`: it
-- was dropped.
select coalesce(p.name, '') as period, gone.dropped_at
from (select) one
left join noetl.period p on p.first_id <= $1::bigint and $1 < p.next_id and p.archived_at is not null
left join lateral (
  select coalesce(d.dropped_at, d.dropping_at) as dropped_at
  from noetl.period d
  where d.first_id <= $1 and $1 < d.next_id
    and not exists (select from noetl.execution x where x.execution_id = $1)
) gone on true
where noetl.is_archived($1) or gone.dropped_at is not null;
