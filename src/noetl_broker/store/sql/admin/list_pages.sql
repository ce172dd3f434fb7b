-- name: page_executions
-- Executions before the id $3, the newest first, among at most $4 of the kind $2: live, failed (or cancelled), or all.
-- $1 is a part of the id, the path or the error's step. With $7 it may be a part of more: the idempotency key, the
-- error's type and message, a workload of up to 2,000 bytes. $6: none older than this id.
-- Each kind has an index in the order of ids, so a page reads no more rows. Of the kind found, the ids are $8.
with candidates as (
  select *
  from (
    select x.*
    from noetl.execution x
    where $2::text = 'all' and x.execution_id < $3::bigint
    order by x.execution_id desc
    limit $4::int
  ) every
  union all
  select *
  from (
    select x.*
    from noetl.execution x
    where $2::text = 'live' and x.execution_id < $3::bigint and noetl.is_live(x.status)
    order by x.execution_id desc
    limit $4::int
  ) live
  union all
  select *
  from (
    select x.*
    from noetl.execution x
    where $2::text = 'failed' and x.execution_id < $3::bigint and x.status in ('FAILED', 'CANCELLED')
    order by x.execution_id desc
    limit $4::int
  ) failed
  union all
  select x.*
  from noetl.execution x
  where $2::text = 'found' and x.execution_id = any($8::bigint[]) and x.execution_id < $3::bigint
)
select x.execution_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id,
  x.forked_from, x.error, noetl.recovered_as(x.execution_id) as recovered_as, x.undo_status, x.tags,
  x.idempotency_key as key, x.late_at,
  {part.counts_left_undone} as left_undone
from candidates x
where {part.chosen}
  -- one that has ended changed last at its end; only of others the state is read
  and (
    {filter.since}::timestamptz is null
    or x.started_at >= {filter.since}
    or x.ended_at >= {filter.since}
    or x.ended_at is null and exists (
      select
      from noetl.execution_state s
      where s.execution_id = x.execution_id and s.last_at >= {filter.since}
    )
  )
  and (
    $1::text is null
    or x.execution_id::text like $1
    or x.path ilike $1
    or x.error ->> 'step' ilike $1
    or $7::boolean and (
      x.idempotency_key ilike $1
      or concat_ws(': ', x.error ->> 'type', x.error ->> 'message') ilike $1
      or case when pg_column_size(x.workload) <= 2000 then x.workload::text ilike $1 end
    )
  )
  and x.execution_id >= $6::bigint
order by x.execution_id desc
limit $5::int;

-- name: bitmaps_alone
-- For one transaction: statistics of tags are rough, and say that a rare one is in many rows.
select set_config('enable_seqscan', 'off', true), set_config('enable_indexscan', 'off', true);

-- name: plan_tagged
explain (format json)
select
from noetl.execution x
where x.tags @> $1::text::jsonb;

-- name: find_tagged
select x.execution_id
from noetl.execution x
where x.tags @> $1::text::jsonb
limit $2::int;

-- name: find_by_key
select k.execution_id
from noetl.start_key k
where k.idempotency_key = $1::text
limit $2::int;

-- name: page_executions_end
-- The id of the last row that page_executions looks at; none where there are fewer than $3.
select c.execution_id
from (
  (
    select x.execution_id
    from noetl.execution x
    where $1::text = 'all' and x.execution_id < $2::bigint
    order by x.execution_id desc
    limit $3::int
  )
  union all
  (
    select x.execution_id
    from noetl.execution x
    where $1::text = 'live' and x.execution_id < $2::bigint and noetl.is_live(x.status)
    order by x.execution_id desc
    limit $3::int
  )
  union all
  (
    select x.execution_id
    from noetl.execution x
    where $1::text = 'failed' and x.execution_id < $2::bigint and x.status in ('FAILED', 'CANCELLED')
    order by x.execution_id desc
    limit $3::int
  )
) c
order by c.execution_id desc
offset $3::int - 1
limit 1;

-- name: moments_of_filter
-- The moments of a filter, and the id `before`: no execution with a higher id started before `until`. It is null if the ids
-- are not of this program. An id is made before its execution starts; the minute is for clocks that stepped back.
select m.since, m.until, case
    when m.until is not null
      and (select max(x.execution_id) from noetl.execution x) < noetl.first_id_at(clock_timestamp() + interval '1 day')
      then noetl.first_id_at(m.until + interval '1 minute')
  end as before
from (
  select coalesce({filter.since}::timestamptz, clock_timestamp() - make_interval(secs => {filter.since_seconds}::float8)) as since,
    coalesce({filter.until}::timestamptz, clock_timestamp() - make_interval(secs => {filter.until_seconds}::float8)) as until
) m;

-- name: page_playbooks
-- The latest version of each path, by path.
select distinct on (c.path) c.path, c.version, c.catalog_id, c.name, c.created_at,
  exists (select from noetl.path_pause p where p.path = c.path) as paused
from noetl.catalog c
where ($1::text is null or c.path like $1)
  and c.path > $2::text
  and c.block_of is null
order by c.path, c.version desc
limit $3::int;

-- name: page_versions
-- The versions of a path, the latest first.
select c.path, c.version, c.catalog_id, c.name, c.created_at
from noetl.catalog c
where c.path = $1::text and c.version < $2::bigint
order by c.version desc
limit $3::int;

-- name: page_events
-- Events of an execution in the order of their ids.
select e.execution_id, e.event_id, e.catalog_id, e.parent_event_id, e.parent_execution_id,
  e.created_at::timestamptz as created_at, e.event_type, e.node_id, e.node_name, e.node_type, e.status, e.duration,
  noetl.as_json(e.context) as context, noetl.as_json(e.result) as result, noetl.as_json(e.meta) as meta,
  noetl.as_json(e.error) as error, e.worker_id
from noetl.event e
where e.execution_id = $1::bigint and e.event_id > $2::bigint
order by e.event_id
limit $3::int;

-- name: page_events_fitting
-- How many of the next events take fewer bytes together than a page may have, and one more. No value is read for it.
select count(*)
from (
  select sum(s.size) over (order by s.event_id) - s.size as before
  from (
    select e.event_id, coalesce(pg_column_size(e.context), 0)::bigint + coalesce(pg_column_size(e.result), 0)
      + coalesce(pg_column_size(e.meta), 0) + coalesce(pg_column_size(e.error), 0) as size
    from noetl.event e
    where e.execution_id = $1::bigint and e.event_id > $2::bigint
    order by e.event_id
    limit $3::int
  ) s
) b
where b.before < $4::bigint;

-- name: page_jobs
-- Jobs of an execution by node, whatever their status.
select q.queue_id, q.node_id, q.node_name as step, q.node_type as type, q.status, q.priority, q.attempts, q.max_attempts,
  q.lost_leases, nullif(q.available_at, 'infinity')::timestamptz as available_at,
  q.lease_until::timestamptz as lease_until, q.worker_id, q.stop, q.held_for, q.limit_name, q.limit_key, q.pool
from noetl.queue q
where q.execution_id = $1::bigint and q.node_id > $2::text
order by q.node_id
limit $3::int;

-- name: page_items
-- Iterator items of an execution by visit and index, with their child executions.
select i.node_id, i.index, i.status, i.child_execution_id, i.error
from noetl.iteration i
where i.execution_id = $1::bigint and (i.node_id, i.index) > ($2::text, $3::bigint)
  and ($5::text is null or i.status = $5)
order by i.node_id, i.index
limit $4::int;

-- name: page_undos
-- What an execution has to undo, in the order in which it is undone.
select u.node_id, u.step, u.visit, u.index, u.turn, u.status, u.children[cardinality(u.children)] as child_execution_id,
  u.error, u.ended_at,
  coalesce(u.index, -1) as item
from noetl.undo u
where u.execution_id = $1::bigint and (u.turn, coalesce(u.index, -1), u.node_id collate "C") < ($2::int, $3::int, $4::text)
order by u.turn desc, coalesce(u.index, -1) desc, u.node_id collate "C" desc
limit $5::int;

-- name: page_left_undone
-- Executions that ended and left something undone, the newest first.
select x.execution_id, x.path, x.status, x.ended_at, l.open, l.failed, l.unknown
from (
  select x.execution_id, x.path, x.status, x.ended_at
  from noetl.execution x
  where x.undo_status = 'left' and x.execution_id < $1::bigint
  order by x.execution_id desc
  limit $2::int
) x
cross join lateral (
  select count(*) filter (where u.status = 'open') as open, count(*) filter (where u.status = 'failed') as failed,
    count(*) filter (where u.status = 'unknown') as unknown
  from noetl.undo u
  where u.execution_id = x.execution_id
) l
order by x.execution_id desc;

-- name: page_approvals
-- What waits for a person, in the order of executions. $6 and $7: only what this caller with this role may decide.
select a.*
from noetl.pending_approvals a
where ($1::text is null or a.path like $1)
  and ($2::text is null or $2 = any(a.approvers))
  and (a.execution_id, a.node_id) > ($3::bigint, $4::text)
  and ($6::text is null or noetl.is_approver(a.approvers, $6, $7::text))
order by a.execution_id, a.node_id
limit $5::int;

-- name: keys_of_executions
select x.execution_id, x.idempotency_key
from noetl.execution x
where x.execution_id = any($1::bigint[]);

-- name: page_signals
-- Signals that are kept, the newest first, among at most $6.
select s.signal_id, s.name, s.key, s.payload, s.sent_at, nullif(s.expires_at, 'infinity') as expires_at, s.execution_id,
  s.hops
from (
  select *
  from noetl.signal s
  where s.signal_id < $4::bigint
  order by s.signal_id desc
  limit $6::int
) s
where ($1::text is null or s.name = $1)
  and ($2::text is null or s.key = $2)
  and ($3::bigint is null or s.execution_id = $3)
  and s.expires_at > clock_timestamp()
order by s.signal_id desc
limit $5::int;

-- name: page_signals_fitting
-- How many of the next signals take fewer bytes together than a page may have, and one more. No payload is read for it.
select count(*)
from (
  select sum(f.size) over (order by f.signal_id desc) - f.size as before
  from (
    select s.signal_id, coalesce(pg_column_size(s.payload), 0)::bigint as size
    from (
      select *
      from noetl.signal s
      where s.signal_id < $4::bigint
      order by s.signal_id desc
      limit $6::int
    ) s
    where ($1::text is null or s.name = $1)
      and ($2::text is null or s.key = $2)
      and ($3::bigint is null or s.execution_id = $3)
      and s.expires_at > clock_timestamp()
    order by s.signal_id desc
    limit $5::int
  ) f
) b
where b.before < $7::bigint;

-- name: page_signals_end
select s.signal_id
from noetl.signal s
where s.signal_id < $1::bigint
order by s.signal_id desc
offset $2::int - 1
limit 1;

-- name: page_schedules
select s.name, s.path, s.version, s.payload, s.cron, s.every, s.timezone, s.jitter, s.catch_up, s.overlap, s.declared_in,
  s.options -> 'tags' as tags, (s.options ->> 'priority')::int as priority,
  s.paused, s.paused_at, s.resumed_at, s.since_at, s.next_at, s.due_at, s.last_at, s.last_execution_id, s.started,
  s.skipped, s.error, s.error_at, p.paused_at as path_paused_at, p.reason as path_pause_reason, clock_timestamp() as now
from noetl.start_schedule s
left join noetl.path_pause p on p.path = s.path
where ($1::text is null or s.path like $1)
  and s.name > $2::text
order by s.name
limit $3::int;

-- name: page_dead_letters
-- Dead letters, the newest execution first, among at most $6.
select d.execution_id, d.path, d.version, d.status, d.event_id, e.event_type, e.node_name as step, d.reason, d.created_at
from (
  select d.*, x.path, x.version, x.status
  from (
    select *
    from noetl.dead_letter d
    where (d.execution_id, d.event_id) < ($3::bigint, $4::bigint)
    order by d.execution_id desc, d.event_id desc
    limit $6::int
  ) d
  left join noetl.execution x on x.execution_id = d.execution_id
  where ($1::text is null or x.path like $1)
    and ($2::text is null or d.reason ilike $2)
  order by d.execution_id desc, d.event_id desc
  limit $5::int
) d
left join noetl.event e on e.execution_id = d.execution_id and e.event_id = d.event_id
order by d.execution_id desc, d.event_id desc;

-- name: page_dead_letters_end
select d.execution_id, d.event_id
from noetl.dead_letter d
where (d.execution_id, d.event_id) < ($1::bigint, $2::bigint)
order by d.execution_id desc, d.event_id desc
offset $3::int - 1
limit 1;

-- name: list_workers
-- Who has announced itself, and who holds leases.
select coalesce(w.worker_id, l.worker_id) as worker_id, w.host, w.version, w.slots, w.since, w.seen,
  coalesce(w.pools, l.pools) as pools, case when w.worker_id is null then l.types else w.types end as types,
  coalesce(l.leases, 0) as leases, coalesce(l.expired, 0) as expired, l.next_lease_until, l.last_heartbeat
from noetl.live_workers() w
full join (
  select q.worker_id::text as worker_id, count(*) as leases, count(*) filter (where q.lease_until < clock_timestamp()) as expired,
    min(q.lease_until)::timestamptz as next_lease_until, max(q.last_heartbeat)::timestamptz as last_heartbeat,
    array_agg(distinct q.node_type::text) as types, array_agg(distinct q.pool) as pools
  from noetl.queue q
  where q.status = 'leased'
  group by q.worker_id
) l on l.worker_id = w.worker_id
order by 1;

-- name: page_leases
-- The leases of one worker, or of all.
select q.queue_id, q.execution_id, q.node_id, q.node_name as step, q.node_type as type, q.attempts, q.worker_id,
  q.lease_until::timestamptz as lease_until, q.last_heartbeat::timestamptz as last_heartbeat,
  (extract(epoch from q.lease_until) * 1000000)::bigint as until_microseconds
from noetl.queue q
where q.status = 'leased'
  and ($1::text is null or q.worker_id = $1)
  and (q.lease_until, q.queue_id) > ('epoch'::timestamptz + $2::bigint * interval '1 microsecond', $3::bigint)
order by q.lease_until, q.queue_id
limit $4::int;
