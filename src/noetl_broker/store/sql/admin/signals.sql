-- name: send_signal
select noetl.send_signal($1::text, $2::text, $3::text::jsonb, $4::text, $5::interval, $6::text);

-- name: signal_execution
select noetl.signal_execution($1::bigint, $2::text, $3::text::jsonb, $4::text, $5::text);

-- name: keys_of_waits
-- The keys of the open waits of an execution for a name.
select distinct w.key
from noetl.wait w
where w.execution_id = $1::bigint and w.kind = 'signal' and noetl.is_waiting(w.status) and $2::text = any(w.names)
order by w.key;

-- name: list_signal_waits
-- Waits for signals by key, at most $3, with what waits and until when. $1: only those for this name; $2: of this key.
select w.execution_id, w.node_id, w.step, w.names, w.key, w.began_at as since, x.path, t.due_at
from (
  select v.execution_id, v.node_id, v.step, v.names, v.key, v.began_at
  from noetl.wait v
  where v.kind = 'signal' and v.status = 'open'
    and ($1::text is null or $1 = any(v.names))
    and ($2::text is null or v.key = $2)
  order by v.key, v.execution_id, v.node_id
  limit $3::int
) w
join noetl.execution x on x.execution_id = w.execution_id
left join lateral (
  select min(d.due_at) as due_at
  from noetl.timer d
  where d.execution_id = w.execution_id and d.node_id = w.node_id
) t on true
order by w.key, w.execution_id, w.node_id;

-- name: drop_on_signal
-- The signals that the latest version of a playbook no longer names.
delete from noetl.on_signal o
where o.path = $1::text and o.name <> all($2::text[]);

-- name: put_on_signal
-- A signal that an earlier version named, too, starts executions since then. $4: what is new or changed begins paused.
insert into noetl.on_signal as o (path, name, condition, since_at)
select $1::text, s.name, s.condition, case when $4::boolean then 'infinity' else clock_timestamp() end
from unnest($2::text[], $3::text[]) s (name, condition)
on conflict (path, name) do update
set condition = excluded.condition, since_at = case when $4::boolean then excluded.since_at else o.since_at end
where o.condition is distinct from excluded.condition;
