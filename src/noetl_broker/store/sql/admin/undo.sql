-- name: list_undo_targets
-- Steps with something that an undo would take over; of their visits, or of items.
select distinct u.step, u.index is not null as of_items, u.child_execution_id is not null as by_child
from noetl.undo_executions($1::bigint) s
join noetl.undo u on u.execution_id = s.execution_id
where not s.is_live and (u.status in ('open', 'failed') or $2::boolean and u.status in ('unknown', 'running'))
order by u.step, of_items, by_child;

-- name: count_undos
-- What an execution has to undo, by status. A view for readers has it, too.
select u.status, count(*) as rows
from noetl.undos u
where u.execution_id = $1::bigint
group by u.status
order by u.status;

-- name: list_undos
-- What runs, failed, is unknown or is left, in the order in which it is undone.
select u.node_id, u.step, u.visit, u.index, u.status, u.child_execution_id, u.error, u.ended_at
from noetl.undo u
where u.execution_id = $1::bigint and u.status in ('running', 'failed', 'unknown', 'open')
order by u.status = 'running' desc, u.status = 'failed' desc, u.status = 'unknown' desc, u.turn desc, u.index desc, u.node_id
limit $2::int;

-- name: list_undos_for_readers
select u.node_id, u.step, u.visit, u.index, u.status, u.child_execution_id, u.ended_at
from noetl.undos u
where u.execution_id = $1::bigint and u.status in ('running', 'failed', 'unknown', 'open')
order by u.status = 'running' desc, u.status = 'failed' desc, u.status = 'unknown' desc, u.turn desc, u.index desc, u.node_id
limit $2::int;

-- name: list_undo_executions
-- The executions that took over what an execution had to undo, also from one another, the oldest first.
with recursive takers as (
  select $1::bigint as execution_id
  union
  select u.taken_by
  from takers k
  join noetl.undos u on u.execution_id = k.execution_id
  where u.taken_by is not null
)
select x.execution_id, x.status
from takers k
join noetl.executions x on x.execution_id = k.execution_id
where k.execution_id <> $1
order by x.execution_id;

-- name: list_draining
-- Visits that are over, but whose job, items or children may still report a success, which is undone then.
select t.token ->> 'step' as step, (t.token ->> 'visit')::int as visit
from noetl.execution_state s
cross join json_array_elements(s.tokens -> 'tokens') t (token)
where s.execution_id = $1::bigint and t.token ->> 'draining' = 'true';

-- name: undo_obstacle
-- What keeps an execution from a retry: it undid something, an undo of it runs, or something is left to undo that nobody
-- abandoned. Counted with the executions that undo what it left.
with recursive below as (
  -- a child that failed, or whose success nobody wanted, has undone what it did, or left it: its parent has no row of it
  select $1::bigint as execution_id
  union
  select n.execution_id
  from below b
  cross join lateral (
    select c.execution_id
    from noetl.execution c
    where c.parent_execution_id = b.execution_id
    union all
    select u.taken_by
    from noetl.undo u
    where u.execution_id = b.execution_id and u.taken_by is not null
  ) n
)
select coalesce(sum(u.done), 0)::bigint as done, coalesce(sum(u.left_over), 0)::bigint as left_over,
  max(s.execution_id) filter (where s.is_live) as running, noetl.undo_origin($1) as origin,
  bool_or(u.abandoned) as abandoned, (
    select max(u.execution_id)
    from below b
    join noetl.undo u on u.execution_id = b.execution_id
    where b.execution_id <> $1 and u.ended_at is not null and u.status in ('open', 'failed') and not exists (
      select from noetl.event e where e.execution_id = b.execution_id and e.event_type = 'execution_abandon'
    )
  ) as child, (
    select max(l.execution_id)
    from below b
    join noetl.execution l on l.execution_id = b.execution_id
    where b.execution_id <> $1 and noetl.is_live(l.status) and noetl.undoes(l.execution_id)
  ) as undoing
from noetl.undo_executions($1::bigint) s
join noetl.execution x on x.execution_id = s.execution_id
cross join lateral (
  select exists (
    select from noetl.event e where e.execution_id = s.execution_id and e.event_type = 'execution_abandon'
  ) as abandoned
) a
cross join lateral (
  select count(*) filter (where u.status = 'done') as done,
    count(*) filter (
      where u.status in ('open', 'failed') and x.status in ('FAILED', 'CANCELLED') and not a.abandoned
    ) as left_over,
    count(*) filter (where u.status in ('open', 'failed', 'unknown') and a.abandoned) > 0 as abandoned
  from noetl.undo u
  where u.execution_id = s.execution_id
) u;
