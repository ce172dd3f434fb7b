-- name: write_undos
-- After write_turns: what executions have to undo, and how far they are. $1 to $9: new rows. $10 to $13: changes of
-- rows. $14 to $16: visits whose own undo replaces those of their items. $17, $18: jobs of undos.
with superseded as (
  update noetl.undo u
  set status = 'superseded'
  from unnest($14::bigint[], $15::text[], $16::int[]) s (execution_id, step, visit)
  where u.execution_id = s.execution_id and u.step = s.step and u.visit = s.visit and u.index is not null
    and u.status = 'open'
), changed as (
  update noetl.undo u
  set status = c.status, error = c.error::jsonb, ended_at = case when c.status <> 'running' then clock_timestamp() end
  from unnest($10::bigint[], $11::text[], $12::text[], $13::text[]) c (execution_id, node_id, status, error)
  where u.execution_id = c.execution_id and u.node_id = c.node_id and u.status in ('open', 'running', 'unknown')
), named as (
  update noetl.queue q
  set node_name = noetl.undo_step(q.node_name)
  from unnest($17::bigint[], $18::text[]) j (execution_id, node_id)
  where q.execution_id = j.execution_id and q.node_id = j.node_id
)
insert into noetl.undo (
  execution_id, node_id, step, visit, index, turn, status, child_execution_id, error, ended_at
)
select execution_id, node_id, step, visit, index, turn, status, child_id, error::jsonb,
  case when status in ('done', 'failed') then clock_timestamp() end
from unnest(
  $1::bigint[], $2::text[], $3::text[], $4::int[], $5::int[], $6::int[], $7::text[], $8::bigint[], $9::text[]
) n (execution_id, node_id, step, visit, index, turn, status, child_id, error)
on conflict (execution_id, node_id) do update
set turn = excluded.turn, status = excluded.status, child_execution_id = excluded.child_execution_id,
    error = excluded.error, ended_at = excluded.ended_at
where undo.status in ('open', 'unknown');

-- name: leave_undos
-- After write_undos: what executions that failed or were cancelled leave.
update noetl.undo u
set ended_at = clock_timestamp()
where u.execution_id = any($1::bigint[]) and u.ended_at is null and u.status in ('open', 'unknown');

-- name: start_undos
-- After write_family: executions that undo a child of a compensating execution.
with wanted as materialized (
  select c.execution_id, c.node_id, c.child_id, c.meta::jsonb as meta, q.event_id
  from unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[]) c (execution_id, node_id, child_id, meta)
  join noetl.queue q on q.execution_id = c.execution_id and q.node_id = c.node_id
), started as materialized (
  select w.execution_id, w.node_id, w.meta, u.new_id, u.event_id
  from wanted w
  cross join lateral noetl.start_undo(w.child_id, false, w.execution_id, w.node_id, w.event_id, w.meta, null) u
), begun as (
  update noetl.queue q
  set status = case when q.status = 'failed' then 'delegated' else q.status end,
    attempts = (s.meta #>> '{parent,attempt}')::int, available_at = 'infinity', first_leased_at = clock_timestamp()
  from started s
  where q.execution_id = s.execution_id and q.node_id = s.node_id
)
insert into noetl.inbox (execution_id, event_id)
select new_id, event_id
from started;

-- name: undo_late_children
-- After write_undos: children ($2) that completed when their parent ($1) had ended or had cancelled them. Each is undone
-- by an execution of its own, unless a row of the parent names it. The same answer twice starts one.
with late as materialized (
  select distinct c.child_id
  from unnest($1::bigint[], $2::bigint[]) c (execution_id, child_id)
  where exists (select from noetl.undo u where u.execution_id = c.child_id and u.status = 'open')
    and not exists (
      select from noetl.undo u where u.execution_id = c.execution_id and u.child_execution_id = c.child_id
    )
), started as materialized (
  select u.new_id, u.event_id
  from late c
  cross join lateral noetl.start_undo(c.child_id, false, null, null, null, jsonb_build_object('undo', jsonb_build_object(
    'error', jsonb_build_object('message', 'its parent ended or cancelled it', 'type', 'cancelled')
  )), null) u
)
insert into noetl.inbox (execution_id, event_id)
select new_id, event_id
from started;

-- name: drain_jobs
-- After write_turns and change_items: the jobs of compensating executions ($1), and of draining visits ($2, $3)
-- and their items. Of a draining visit, a worker that has leased the job goes on. A job that no worker has, or a child that
-- was not started ($4, $5), sends `cancelled` to the visit. Other jobs are cancelled, as in cancel_jobs. Locked jobs are
-- left to the reaper.
with visits as materialized (
  select execution_id, node_id
  from unnest($2::bigint[], $3::text[]) a (execution_id, node_id)
), open_jobs as materialized (
  select q.execution_id, q.node_id, v.node_id is not null as draining
  from noetl.queue q
  left join lateral noetl.parse_item(q.node_id) p on true
  left join visits v on v.execution_id = q.execution_id and v.node_id = coalesce(p.visit_node_id, q.node_id)
  where q.execution_id = any($1::bigint[])
    and q.status in ('queued', 'retry', 'held', 'failed', 'delegated', 'leased')
    and not noetl.is_undo(q.node_id)
  union all
  select q.execution_id, q.node_id, true
  from (
    select v.execution_id, v.node_id
    from visits v
    union all
    select i.execution_id, noetl.item_node_id(i.node_id, i.index)
    from visits v
    join noetl.iteration i on i.execution_id = v.execution_id and i.node_id = v.node_id and i.status = 'RUNNING'
  ) n
  join noetl.queue q on q.execution_id = n.execution_id and q.node_id = n.node_id
  where n.execution_id <> all($1)
    and q.status in ('queued', 'retry', 'held', 'failed', 'delegated', 'leased')
), free as materialized (
  select q.execution_id, q.node_id, q.status, o.draining
  from open_jobs o
  join noetl.queue q on q.execution_id = o.execution_id and q.node_id = o.node_id
  where q.status in ('queued', 'retry', 'held', 'failed', 'delegated', 'leased')
  for update of q skip locked
), cancelled as (
  update noetl.queue q
  set status = case
        when f.status = 'leased' then 'leased'
        when f.draining and f.status = 'failed' then 'dead' -- its event is on the way
        else 'cancelled'
      end,
      stop = f.status = 'leased' and not f.draining,
      draining = f.draining and f.status = 'leased',
      held_for = null,
      updated_at = case when f.status = 'leased' then q.updated_at else clock_timestamp() end
  from free f
  where q.execution_id = f.execution_id and q.node_id = f.node_id
  returning q.execution_id, q.node_id, q.stop, f.draining and f.status in ('queued', 'retry', 'held') as tells
), locked as (
  insert into noetl.job_to_cancel (execution_id, node_id, draining)
  select o.execution_id, o.node_id, o.draining
  from open_jobs o
  where not exists (select from free f where f.execution_id = o.execution_id and f.node_id = o.node_id)
  on conflict do nothing
), unleased as materialized (
  select noetl.next_id() as event_id, w.execution_id, w.node_id, q.catalog_id, q.event_id as cause, q.node_name, q.node_type,
    q.queue_id, q.attempts
  from (
    select c.execution_id, c.node_id, c.node_id as job_node_id
    from cancelled c
    where c.tells
    union all
    select u.execution_id, u.node_id, coalesce((select p.visit_node_id from noetl.parse_item(u.node_id) p), u.node_id)
    from unnest($4::bigint[], $5::text[]) u (execution_id, node_id)
  ) w
  join noetl.queue q on q.execution_id = w.execution_id and q.node_id = w.job_node_id
), events as (
  -- no lease had the attempt after the last one, so it was not counted as failed
  insert into noetl.event (
    execution_id, event_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, error, meta
  )
  select execution_id, event_id, catalog_id, cause, 'action_failed', node_id, node_name, node_type, 'FAILED',
    noetl.cancelled_error(), jsonb_build_object('queue_id', queue_id, 'attempt', attempts + 1, 'retryable', false)
  from unleased
), mail as (
  insert into noetl.inbox (execution_id, event_id)
  select execution_id, event_id
  from unleased
)
select noetl.notify_cancel()
where exists (select from cancelled c where c.stop);

-- name: load_undos
-- The rows that are to be undone next: of each execution the open one with the highest turn below $2 (null: of all).
select execution_id, below, step, visit, index, turn, child_execution_id, fits, case when fits then inputs end as inputs,
  case when fits then result end as result
from (
  select w.*, w.together <= noetl.limit_of('batch_bytes') or w.together = w.own as fits
  from (
    select k.execution_id, k.below, u.*, noetl.weight(u.inputs) + noetl.weight(u.result) as own,
      sum(noetl.weight(u.inputs) + noetl.weight(u.result)) over (order by k.execution_id) as together
    from unnest($1::bigint[], $2::int[]) k (execution_id, below)
    cross join lateral (
      select u.step, u.visit, u.index, u.turn, u.child_execution_id, u.inputs, u.result
      from noetl.undo u
      where u.execution_id = k.execution_id and u.status = 'open' and u.turn < coalesce(k.below, 2147483647)
      order by u.turn desc
      limit 1
    ) u
  ) w
) found;

-- name: load_item_actions
-- The actions of the jobs of items; of an item that a child runs, {args: the payload of the child}.
select execution_id, node_id, index, fits, case when fits then action end as action
from (
  select w.*, w.together <= noetl.limit_of('batch_bytes') or w.together = noetl.weight(w.action) as fits
  from (
    select k.execution_id, k.node_id, k.index, k.action,
      sum(noetl.weight(k.action)) over (order by k.execution_id) as together
    from (
      select n.execution_id, n.node_id, n.index, noetl.item_action(n.execution_id, n.node_id, n.index) as action
      from unnest($1::bigint[], $2::text[], $3::int[]) n (execution_id, node_id, index)
      offset 0 -- each is read once
    ) k
  ) w
) found;

-- name: load_undone
-- The statuses of the rows of visits and items.
select u.execution_id, u.node_id, u.status
from unnest($1::bigint[], $2::text[]) k (execution_id, node_id)
join noetl.undo u on u.execution_id = k.execution_id and u.node_id = k.node_id;
