-- name: verify_slots
-- I3: who is queued for a slot has a number, who ended has none, and who was given one has mail. Nobody waits for a slot
-- that is free: it was given on in the transaction that freed it.
select c.execution_id, format('ended as %s, and still claims the slot of key %s of %s', x.status, c.key, c.path) as detail
from noetl.slot_claim c
join noetl.execution x on x.execution_id = c.execution_id
where c.execution_id = any($1::bigint[]) and not noetl.is_live(x.status)
union all
select x.execution_id, 'is queued for a slot, and has no number'
from noetl.execution x
where x.execution_id = any($1::bigint[]) and x.status = 'QUEUED' and x.waits_for_slot
  and not exists (select from noetl.slot_claim c where c.execution_id = x.execution_id)
union all
select c.execution_id, format('was given the slot of key %s of %s, and has no mail', c.key, c.path)
from noetl.slot_claim c
join noetl.execution x on x.execution_id = c.execution_id
where c.execution_id = any($1::bigint[]) and c.held_at is not null and x.status = 'QUEUED'
  and not exists (select from noetl.inbox m where m.execution_id = c.execution_id and m.execution_id = any($1::bigint[]))
  and not exists (
    select from noetl.dead_letter d where d.execution_id = c.execution_id and d.execution_id = any($1::bigint[])
  )
union all
select c.execution_id, format('waits for the slot of key %s of %s, which is free', c.key, c.path)
from noetl.slot_claim c
join noetl.place p on p.path = c.path and p.key = c.key
where c.execution_id = any($1::bigint[]) and c.held_at is null and c.cancelled_at is null and not p.is_passed
  and p.max_held > (
    select count(*)
    from noetl.slot_claim h
    where h.path = c.path and h.key = c.key and h.held_at is not null
  )
  and noetl.could_run(row(c.*)::noetl.slot_claim);
