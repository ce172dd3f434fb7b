-- name: reopen_waits
-- Waits that did not take the signal that came to them: a broker looks for the next one.
with opened as (
  update noetl.wait w
  set status = 'open'
  from unnest($1::bigint[], $2::text[]) r (execution_id, node_id)
  where w.execution_id = r.execution_id and w.node_id = r.node_id and w.status = 'signalled'
  returning w.execution_id, w.node_id
), requests as (
  insert into noetl.match_request (execution_id, node_id)
  select execution_id, node_id
  from opened
)
select noetl.notify_matchers();

-- name: send_signals
-- Signals of steps. The idempotency key is the node of the visit.
with sent as (
  insert into noetl.signal (name, key, payload, idempotency_key, hops, execution_id, expires_at)
  select s.name, s.key, s.payload::jsonb, s.node_id, s.hops, case when s.own then s.execution_id end,
    case when s.own then 'infinity' else clock_timestamp() + interval '7 days' end
  from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::boolean[])
    with ordinality s (execution_id, node_id, name, key, payload, hops, own, ordinal)
  order by s.ordinal
  on conflict (name, key, idempotency_key) where idempotency_key is not null do nothing
  returning signal_id
), requests as (
  insert into noetl.match_request (signal_id)
  select signal_id
  from sent
  order by signal_id
)
select noetl.notify_matchers();

-- name: load_signals
-- The signals that were read in these turns, or that are in these events of a fork.
select execution_id, turn, event_id, fits, case when fits then noetl.as_json(context) end as context
from (
  select w.*, w.together <= noetl.limit_of('batch_bytes') or w.together = w.own as fits
  from (
    select k.execution_id, k.turn, k.event_id, e.context,
      sum(noetl.weight(e.context)) over (order by k.execution_id) as together,
      sum(noetl.weight(e.context)) over (partition by k.execution_id) as own
    from (
      select t.execution_id, t.turn, t.event_id
      from unnest($1::bigint[], $2::int[]) wanted (execution_id, turn)
      join noetl.turn t on t.execution_id = wanted.execution_id and t.turn = wanted.turn
      union all
      select v.execution_id, null, v.event_id
      from unnest($3::bigint[], $4::bigint[]) v (execution_id, event_id)
    ) k
    join noetl.event e on e.execution_id = k.execution_id and e.event_id = k.event_id
  ) w
) found;
