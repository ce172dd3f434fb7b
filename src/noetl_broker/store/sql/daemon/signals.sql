-- name: match_signals
select delivered, again, worked_on, late, has_copies
from noetl.match_signals($1::int);

-- name: has_match_requests
select exists (select from noetl.match_request);

-- name: has_starts
select exists (select from noetl.match_request k where k.path is not null);

-- name: try_match_gate
-- A sleeping broker holds the gate. A sender that finds it held notifies.
select pg_try_advisory_lock(hashtext('noetl.lock'), 5);

-- name: release_match_gate
select pg_advisory_unlock(hashtext('noetl.lock'), 5);

-- name: lock_starts
-- Playbooks that signals may start, with the condition of the latest version. A signal that is no longer declared has
-- no condition.
select k.request_id, k.path, k.signal_id, s.hops, o.path is not null as is_declared, o.condition,
  s.name, s.key, s.payload, s.sent_at
from noetl.match_request k
left join noetl.signal s on s.signal_id = k.signal_id
left join noetl.on_signal o on o.path = k.path and o.name = s.name
where k.path is not null
order by k.request_id
limit $1::int
for update of k skip locked;

-- name: start_by_signals
select noetl.start_by_signal(s.path, s.signal_id)
from unnest($1::text[], $2::bigint[]) s (path, signal_id);

-- name: delete_match_requests
delete from noetl.match_request k
where k.request_id = any($1::bigint[]);

-- name: sweep_signals
select swept, next_id
from noetl.sweep_signals($1::int, $2::bigint);

-- name: read_copies
-- Signals that are to be copied to these buckets, and to which of them: of each bucket the first $2. Only as many as fit into
-- a batch. A signal that was swept has no name.
with missing as (
  select c.signal_id, array_agg(c.target order by c.target) as targets
  from unnest($1::int[]) t (target)
  cross join lateral (
    select k.target, k.signal_id
    from noetl.signal_copy k
    where k.target = t.target
    order by k.signal_id
    limit $2::int
  ) c
  group by c.signal_id
), sized as (
  select m.signal_id, m.targets, s.name, s.key, s.payload, s.sent_at, s.expires_at, s.hops, s.sent_by,
    sum(noetl.weight(s.payload)) over (order by m.signal_id) as together, noetl.weight(s.payload) as own
  from missing m
  left join noetl.signal s on s.signal_id = m.signal_id
)
select z.signal_id, z.targets, z.name, z.key, z.payload::text as payload, z.sent_at, z.expires_at, z.hops, z.sent_by
from sized z
where z.name is null or z.together <= noetl.limit_of('batch_bytes') or z.together = z.own
order by z.signal_id;

-- name: write_copies
-- Copies of signals of the buckets $1, of each by one broker at a time; `held` are those of which they were written. Their ids
-- say whether they are here already, so nothing is written twice. A signal that is too old is left out. This notifies nobody:
-- a notification wakes each listener of the database, and the matcher of this process is near.
with origins as materialized (
  select o.origin, pg_try_advisory_xact_lock(hashtext('noetl.lock'), 64 + o.origin) as is_held
  from unnest($1::int[]) o (origin)
), copies as (
  insert into noetl.signal (signal_id, name, key, payload, sent_at, expires_at, hops, sent_by)
  select c.signal_id, c.name, c.key, c.payload::jsonb, c.sent_at, c.expires_at, c.hops, c.sent_by
  from unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::int[], $9::text[])
    c (signal_id, name, key, payload, sent_at, expires_at, hops, sent_by)
  where c.signal_id & 63 = any(array(select o.origin from origins o where o.is_held)) and c.expires_at > clock_timestamp()
  order by c.signal_id
  on conflict (signal_id) do nothing
  returning signal_id, sent_at
), requests as (
  insert into noetl.match_request (signal_id)
  select c.signal_id
  from copies c
  order by c.signal_id
)
select array(select o.origin from origins o where o.is_held) as held,
  greatest(date_part('epoch', clock_timestamp() - (select min(c.sent_at) from copies c)), 0) as late;

-- name: delete_copies
delete from noetl.signal_copy c
using unnest($1::int[], $2::bigint[]) d (target, signal_id)
where c.target = d.target and c.signal_id = d.signal_id;
