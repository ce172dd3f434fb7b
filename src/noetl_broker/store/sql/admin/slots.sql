-- name: list_slots_of
select p.execution_id, p.path, p.key, p.label, p.number, p.held_at, p.since, p.max_held, p.before, p.waiting, p.holders
from noetl.slots_of($1::bigint[]) p;

-- name: list_claimed_slots
select p.path, p.key, p.max_held, p.held, (
    select c.label
    from noetl.slot_claim c
    where c.path = p.path and c.key = p.key
    order by c.number desc
    limit 1
  ) as label, (
    select count(*)
    from (
      select
      from noetl.slot_claim c
      where c.path = p.path and c.key = p.key and c.held_at is null
      limit $5::int
    ) w
  ) as waiting, (
    select min(c.created_at)
    from noetl.slot_claim c
    where c.path = p.path and c.key = p.key and c.held_at is null
  ) as waited_for_since, array(
    select c.execution_id
    from noetl.slot_claim c
    where c.path = p.path and c.key = p.key and c.held_at is not null
    order by c.number
    limit 10
  ) as holders
from noetl.place p
where ($1::text is null or p.path = $1) and (p.path, p.key) > ($2::text, $3::text)
order by p.path, p.key
limit $4::int;

-- name: list_line
select c.execution_id, x.status, x.started_at, c.number, c.created_at as since, c.held_at, c.cancelled_at
from noetl.slot_claim c
join noetl.execution x on x.execution_id = c.execution_id
where c.path = $1::text and c.key = $2::text and c.number > $3::bigint
order by c.number
limit $4::int;

-- name: examine_slots
-- Executions that wait for slots, the one that waits longest, and slots that are free although somebody waits.
select w.waiting, w.slots, w.since, w.execution_id, (
    select count(*)
    from noetl.place p
    where p.is_waited_for and p.held < p.max_held and not p.is_passed
  ) as free
from (
  select count(*) as waiting, count(distinct (c.path, c.key)) as slots, min(c.created_at) as since,
    (array_agg(c.execution_id order by c.created_at, c.number))[1] as execution_id
  from (
    select c.path, c.key, c.created_at, c.execution_id, c.number
    from noetl.slot_claim c
    where c.held_at is null
    limit 100000
  ) c
) w;
