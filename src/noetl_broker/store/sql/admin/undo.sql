-- name: list_undo_targets
-- Steps with something that is left to undo; of their visits, or of items.
select distinct u.step, u.index is not null as of_items, u.children is not null as by_child
from noetl.undo u
where u.execution_id = $1::bigint and (u.status in ('open', 'failed') or $2::boolean and u.status = 'unknown')
order by u.step, of_items, by_child;

-- name: count_undos
-- What an execution has to undo, by status, and how its undo stands after its end. Views for readers have it, too.
select u.status, count(*) as rows, (
    select x.undo_status from noetl.executions x where x.execution_id = $1::bigint
  ) as undo_status
from noetl.undos u
where u.execution_id = $1
group by u.status
order by u.status;

-- name: list_undos
-- What runs, failed, is unknown or is left, in the order in which it is undone.
select u.node_id, u.step, u.visit, u.index, u.status, u.children[cardinality(u.children)] as child_execution_id, u.error,
  u.ended_at
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

-- name: list_draining
-- Visits that are over, but whose job, items or children may still report a success, which is undone then.
select t.token ->> 'step' as step, (t.token ->> 'visit')::int as visit
from noetl.execution_state s
cross join json_array_elements(s.tokens -> 'tokens') t (token)
where s.execution_id = $1::bigint and t.token ->> 'draining' = 'true';

-- name: undo_obstacle
-- What keeps an execution from a retry that takes over its results: it, or one below it, undid something, undoes something
-- now, or left something that nobody abandoned. `done` counts visits and items.
with recursive below as (
  select x.execution_id, x.status, x.undo_status
  from noetl.execution x
  where x.execution_id = $1::bigint
  union
  select c.execution_id, c.status, c.undo_status
  from below b
  cross join lateral (
    select c.execution_id, c.status, c.undo_status
    from noetl.execution c
    where c.parent_execution_id = b.execution_id
    offset 0 -- a fence: the children are looked up by their parent
  ) c
), found as (
  select b.execution_id, b.undo_status, b.status = 'COMPENSATING' or b.undo_status = 'undoing' as undoes, (
      select e.event_type = 'execution_abandon'
      from noetl.event e
      where e.execution_id = b.execution_id and noetl.kind_of(e.event_type) in ('execution_undo', 'execution_abandon')
      order by e.event_id desc
      limit 1
    ) is true as abandoned
  from below b
)
select (
    select count(*)
    from found f
    join noetl.undo u on u.execution_id = f.execution_id and u.status in ('done', 'settled')
  ) as done,
  max(f.execution_id) filter (where f.undoes) as undoing,
  max(f.execution_id) filter (where l.is_left and not f.abandoned) as "left",
  coalesce(bool_or(f.abandoned) filter (where f.undo_status = 'left'), false) as abandoned
from found f
cross join lateral (
  select f.undo_status = 'left' and exists (
    select from noetl.undo u where u.execution_id = f.execution_id and u.status in ('open', 'failed')
  ) as is_left
) l;
