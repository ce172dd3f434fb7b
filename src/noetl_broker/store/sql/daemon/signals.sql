-- name: match_signals
select delivered, again, worked_on, late
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
