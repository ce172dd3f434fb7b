-- name: write_undos
-- After write_turns: what executions have to undo, and how far they are. $1 to $10: new rows. $11 to $14: changes of
-- rows. $15 to $17: visits whose own undo replaces those of their items. $18, $19: jobs of undos. $20, $21: executions that
-- begin to undo after their end, and whether they undo what is unknown, too.
with superseded as (
  update noetl.undo u
  set status = 'superseded'
  from unnest($15::bigint[], $16::text[], $17::int[]) s (execution_id, step, visit)
  where u.execution_id = s.execution_id and u.step = s.step and u.visit = s.visit and u.index is not null
    and u.status = 'open'
), changed as (
  update noetl.undo u
  set status = c.status, error = c.error::jsonb, ended_at = case when c.status not in ('open', 'running') then clock_timestamp() end
  from unnest($11::bigint[], $12::text[], $13::text[], $14::text[]) c (execution_id, node_id, status, error)
  where u.execution_id = c.execution_id and u.node_id = c.node_id
    and u.status in ('open', 'running', 'unknown', 'failed')
), begun as (
  update noetl.undo u
  set status = 'open', error = null, ended_at = null
  from unnest($20::bigint[], $21::boolean[]) b (execution_id, with_unknown)
  where u.execution_id = b.execution_id and (u.status = 'failed' or b.with_unknown and u.status = 'unknown')
    and not exists (
      select from unnest($11, $12) c (execution_id, node_id) where c.execution_id = u.execution_id and c.node_id = u.node_id
    )
), named as (
  update noetl.queue q
  set node_name = noetl.undo_step(q.node_name)
  from unnest($18::bigint[], $19::text[]) j (execution_id, node_id)
  where q.execution_id = j.execution_id and q.node_id = j.node_id
)
insert into noetl.undo as u (
  execution_id, node_id, step, visit, index, turn, status, unsure, children, error, ended_at
)
select execution_id, node_id, step, visit, index, turn, status, is_unsure, children::bigint[], error::jsonb,
  case when status in ('done', 'failed') then clock_timestamp() end
from unnest(
  $1::bigint[], $2::text[], $3::text[], $4::int[], $5::int[], $6::int[], $7::text[], $8::boolean[], $9::text[], $10::text[]
) n (execution_id, node_id, step, visit, index, turn, status, is_unsure, children, error)
on conflict (execution_id, node_id) do update
set turn = excluded.turn, status = excluded.status, unsure = excluded.unsure,
    children = excluded.children, error = excluded.error, ended_at = excluded.ended_at
where u.status in ('open', 'unknown');

-- name: queue_again
-- After write_turns: jobs of undos that an earlier undo has queued. One that is leased yet is queued when that lease ends.
-- The reaper may be about to cancel one for the earlier undo.
with wanted as (
  delete from noetl.job_to_cancel c
  using unnest($1::bigint[], $2::text[]) n (execution_id, node_id)
  where c.execution_id = n.execution_id and c.node_id = n.node_id
)
update noetl.queue q
set status = case when q.status = 'leased' then q.status else n.status end,
    stop = q.status = 'leased',
    draining = q.status = 'leased' and n.status in ('queued', 'retry'),
    action = n.action,
    context = n.context::jsonb || case when n.context::jsonb ? 'workload' then '{}' else coalesce((
      select jsonb_build_object('workload', x.workload)
      from noetl.execution x
      where x.execution_id = n.execution_id
    ), '{}') end,
    priority = n.priority, max_attempts = n.max_attempts, timeout_seconds = n.timeout, lost_leases = 0, held_for = null,
    pool = coalesce(n.pool, 'default'),
    available_at = case when n.status = 'delegated' then 'infinity' else clock_timestamp() end,
    first_leased_at = case when n.status = 'delegated' then clock_timestamp() end,
    event_id = (
      select max(e.event_id)
      from noetl.event e
      where e.execution_id = n.execution_id and e.node_id = n.visit_node_id and e.event_type = 'compensation_started'
    ),
    updated_at = clock_timestamp()
from unnest(
  $1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::int[], $9::float8[],
  $10::text[]
) n (execution_id, node_id, visit_node_id, status, action, context, priority, max_attempts, timeout, pool)
where q.execution_id = n.execution_id and q.node_id = n.node_id;

-- name: set_undo_statuses
-- How the undo of executions stands that have ended. Who waits for an end hears of it.
with changed as (
  update noetl.execution x
  set undo_status = n.status
  from unnest($1::bigint[], $2::text[]) n (execution_id, status)
  where x.execution_id = n.execution_id
)
select noetl.notify(false, true);

-- name: send_to_children
-- After write_undos: children ($2) of executions ($1) are asked to undo what they did, or to give it up. Nobody waits for a
-- child that completed in vain: it is asked unless its parent has a row of it. If a child was dropped, the parent is answered.
with asked as materialized (
  select c.execution_id, c.child_id, c.event_type, c.context::jsonb as context, x.execution_id is null as is_dropped
  from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) with ordinality
    c (execution_id, child_id, event_type, context, ordinal)
  left join noetl.execution x on x.execution_id = c.child_id
  where c.event_type <> 'execution_undo' or c.context::jsonb ? 'answer' or not exists (
    select from noetl.undo u where u.execution_id = c.execution_id and c.child_id = any(u.children)
  )
  order by c.ordinal
), versions as (
  update noetl.execution x
  set undo_catalog_id = (
    select c.catalog_id
    from noetl.catalog c
    where c.path = x.path and c.version = (a.context ->> 'version')::int
  )
  from asked a
  where x.execution_id = a.child_id and a.event_type = 'execution_undo' and x.undo_status is distinct from 'undoing'
    and (a.context ? 'version' or x.undo_catalog_id is not null)
), answers as (
  insert into noetl.event (
    execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, error, meta
  )
  select a.execution_id, q.catalog_id, q.event_id, 'action_failed', q.node_id, q.node_name, 'playbook', 'FAILED',
    jsonb_build_object('message', format('execution %s, which would undo what it did, was dropped', a.child_id), 'type', 'dropped'),
    jsonb_build_object('child_execution_id', a.child_id, 'attempt', a.context -> 'answer', 'retryable', false)
  from asked a
  join noetl.queue q on q.execution_id = a.execution_id and q.status = 'delegated' and noetl.is_undo(q.node_id)
  where a.is_dropped and a.context ? 'answer'
  returning execution_id, event_id
), mail as (
  insert into noetl.inbox (execution_id, event_id)
  select execution_id, event_id
  from answers
)
select noetl.send_to_executions(array[a.child_id], a.event_type, '{}', a.context)
from asked a;

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
-- The rows that are to be undone next: of each execution the open one with the highest place below $2 to $5 (null: of all).
-- $6: this turn opens rows again: failed ones, or also unknown ones.
select k.execution_id, k.turn, k.place, k.step, k.visit, k.again,
  u.step as row_step, u.visit as row_visit, u.index, u.turn as row_turn, u.children, u.unsure
from unnest($1::bigint[], $2::int[], $3::int[], $4::text[], $5::int[], $6::text[])
  k (execution_id, turn, place, step, visit, again)
cross join lateral (
  select u.*, coalesce(u.index, -1) as at
  from (
    (
      select u.step, u.visit, u.index, u.turn, u.children, u.unsure
      from noetl.undo u
      where u.execution_id = k.execution_id and (k.turn is null or u.turn <= k.turn
          and (u.turn, coalesce(u.index, -1), u.step collate "C", u.visit) < (k.turn, k.place, k.step collate "C", k.visit)) and u.status = 'open'
      order by u.turn desc, coalesce(u.index, -1) desc, u.step collate "C" desc, u.visit desc
      limit 1
    )
    union all
    (
      select u.step, u.visit, u.index, u.turn, u.children, u.unsure
      from noetl.undo u
      where k.again <> '' and u.execution_id = k.execution_id and (k.turn is null or u.turn <= k.turn
          and (u.turn, coalesce(u.index, -1), u.step collate "C", u.visit) < (k.turn, k.place, k.step collate "C", k.visit))
        and (u.status = 'failed' or u.status = k.again)
      order by u.turn desc, coalesce(u.index, -1) desc, u.step collate "C" desc, u.visit desc
      limit 1
    )
  ) u
  order by u.turn desc, at desc, u.step collate "C" desc, u.visit desc
  limit 1
) u;

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
-- The rows of visits and items.
select u.execution_id, u.node_id, u.step, u.visit, u.index, u.turn, u.children, u.unsure, u.status
from unnest($1::bigint[], $2::text[]) k (execution_id, node_id)
join noetl.undo u on u.execution_id = k.execution_id and u.node_id = k.node_id;
