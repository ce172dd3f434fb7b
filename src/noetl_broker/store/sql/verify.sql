-- name: verify_turns
-- I1. Mail is what the trigger makes of it: everything but two types, and but what the broker wrote itself (it says in
-- `meta` which turn wrote it; `verify_transactions` holds it to that).
with read as (
  select t.execution_id, t.event_id, count(*) as turns
  from noetl.turn t
  where t.execution_id = any($1::bigint[])
  group by t.execution_id, t.event_id
)
select r.execution_id, format('event %s was read in %s turns', r.event_id, r.turns) as detail
from read r
where r.turns > 1
union all
select e.execution_id, format('%s %s has no turn and no mail', e.event_type, e.event_id)
from noetl.event e
left join read r on r.execution_id = e.execution_id and r.event_id = e.event_id
where e.execution_id = any($1::bigint[])
  and r.event_id is null
  and coalesce(lower(e.event_type), '') not in ('action_started', 'step_result')
  and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') is distinct from 'number'
  and not exists (
    select
    from noetl.inbox i
    where i.execution_id = e.execution_id and i.event_id = e.event_id and i.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.dead_letter d
    where d.execution_id = e.execution_id and d.event_id = e.event_id and d.execution_id = any($1::bigint[])
  );

-- name: verify_ends_of_visits
-- I1. Twice is told by the ends; never, by the turn that decided on the end of an action and wrote none. (Where a worker
-- started children, its own answer ends nothing: the step waits for them.)
with ends as (
  select e.execution_id, e.node_id, e.parent_event_id, noetl.as_json(e.meta) -> 'turn' as turn, e.event_type
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in ('step_completed', 'step_failed', 'action_retry', 'iteration_completed', 'iteration_failed')
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
), adopting as (
  select distinct i.execution_id, split_part(i.node_id, ':', 2) as visit
  from noetl.iteration i
  where i.execution_id = any($1::bigint[])
    and i.child_execution_id is not null
)
select e.execution_id, format('visit %s ended %s times', e.node_id, count(*)) as detail
from ends e
where e.event_type in ('step_completed', 'step_failed')
group by e.execution_id, e.node_id
having count(*) > 1
union all
select t.execution_id, format('turn %s read %s of %s and ended nothing', t.turn, e.event_type, e.node_id)
from noetl.turn t
join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = any($1::bigint[])
  and e.execution_id = any($1::bigint[])
  and t.outcome = 'decided'
  and lower(e.event_type) in ('action_completed', 'action_failed', 'action_error', 'iterator_completed')
  and not exists (
    select
    from ends d
    where d.execution_id = t.execution_id and d.parent_event_id = t.event_id and d.turn = to_jsonb(t.turn)
  )
  and not exists (
    select
    from adopting a
    where a.execution_id = e.execution_id and a.visit = coalesce(split_part(e.node_id, ':', 2), e.node_name)
      and lower(e.event_type) = 'action_completed'
  );

-- name: verify_jobs
-- I2. A job names the event that began its visit, or its item; a visit without a job has ended in the turn that began it.
with started as (
  select e.execution_id, e.event_id, e.event_type, e.node_id,
    case when noetl.as_json(e.context) ->> 'index' ~ '^[0-9]{1,9}$' then (noetl.as_json(e.context) ->> 'index')::int end as place
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in ('step_started', 'iteration_started')
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
)
select q.execution_id, format('job %s of %s has no event that began it', q.queue_id, q.node_id) as detail
from noetl.queue q
left join started s on s.execution_id = q.execution_id and s.event_id = q.event_id
where q.execution_id = any($1::bigint[])
  and q.node_id is distinct from
    case when s.event_type = 'iteration_started' then noetl.item_node_id(s.node_id, s.place) else s.node_id end
union all
select s.execution_id, format('visit %s began and has neither a job nor an end', s.node_id)
from started s
where s.event_type = 'step_started'
  and not exists (
    select
    from noetl.queue q
    where q.execution_id = s.execution_id and q.node_id = s.node_id and q.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.event e
    where e.execution_id = s.execution_id and e.node_id = s.node_id
      and e.event_type in ('step_completed', 'step_failed') and e.execution_id = any($1::bigint[])
  );

-- name: verify_ends
-- I3. The row of an execution and its end event are written together. (A child's end is told its parent under the same
-- types; such a letter was written by no turn of the parent. A child that nobody has started ends by its row alone.)
select x.execution_id,
  format('status %s, and %s', x.status, coalesce(string_agg(e.event_type::text, ' and ' order by e.event_id), 'no end')) as detail
from noetl.execution x
left join noetl.event e
  on e.execution_id = x.execution_id
  and e.execution_id = any($1::bigint[])
  and e.event_type in ('execution_complete', 'execution_failed', 'execution_cancelled')
  and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
where x.execution_id = any($1::bigint[])
group by x.execution_id, x.status, x.path
having array_agg(e.event_type::text) is distinct from case
    when x.status = 'COMPLETED' then array['execution_complete']
    when x.status = 'FAILED' then array['execution_failed']
    when x.status = 'CANCELLED' and x.path is not null then array['execution_cancelled']
    else array[null]::text[]
  end;

-- name: verify_after_end
-- I4. What may come after an end: turns that say why they changed nothing, and answers of workers that held a job then.
-- Children were told to end: they have the letter, or have ended.
with ends as (
  select e.execution_id, (noetl.as_json(e.meta) ->> 'turn')::numeric as turn
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in ('execution_complete', 'execution_failed', 'execution_cancelled')
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
)
select t.execution_id, format('turn %s decided after the end in turn %s', t.turn, n.turn) as detail
from ends n
join noetl.turn t on t.execution_id = n.execution_id and t.execution_id = any($1::bigint[])
where t.turn > n.turn
  and t.outcome = 'decided'
union all
select e.execution_id, format('turn %s wrote %s %s after the end in turn %s',
  noetl.as_json(e.meta) -> 'turn', e.event_type, e.event_id, n.turn)
from ends n
join noetl.event e on e.execution_id = n.execution_id and e.execution_id = any($1::bigint[])
where jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
  and (noetl.as_json(e.meta) ->> 'turn')::numeric > n.turn
union all
select x.execution_id, format('job %s of %s is %s after the end', q.queue_id, q.node_id, q.status)
from noetl.execution x
join noetl.queue q on q.execution_id = x.execution_id and q.execution_id = any($1::bigint[])
where x.execution_id = any($1::bigint[])
  and x.status <> 'RUNNING'
  and q.status in ('queued', 'retry', 'delegated')
  -- somebody held it at the end, and the reaper looks again
  and not exists (
    select
    from noetl.withdrawn_job w
    where w.execution_id = q.execution_id and w.node_id = q.node_id and w.execution_id = any($1::bigint[])
  )
union all
select c.execution_id, format('runs on, nobody has told it that its parent %s has ended', c.parent_execution_id)
from noetl.execution c
join noetl.execution x on x.execution_id = c.parent_execution_id
where x.execution_id = any($1::bigint[])
  and c.status = 'RUNNING'
  and c.parent_execution_id = any($1::bigint[])
  and c.parent_node_id is not null
  and c.path is not null
  and x.status in ('FAILED', 'CANCELLED')
  and not exists (select from noetl.inbox i where i.execution_id = c.execution_id)
  and not exists (select from noetl.dead_letter d where d.execution_id = c.execution_id);

-- name: verify_turn_numbers
-- I7. From 1 on, one after the other, up to where the state stands.
select coalesce(t.execution_id, s.execution_id) as execution_id,
  format('%s turns, the last is %s, the state stands at %s', coalesce(t.turns, 0), t.last, coalesce(s.turn, 0)) as detail
from (
  select t.execution_id, count(*) as turns, max(t.turn) as last
  from noetl.turn t
  where t.execution_id = any($1::bigint[])
  group by t.execution_id
) t
full join (
  select s.execution_id, s.turn
  from noetl.execution_state s
  where s.execution_id = any($1::bigint[])
) s on s.execution_id = t.execution_id
where coalesce(t.turns, 0) <> coalesce(s.turn, 0)
  or coalesce(t.last, 0) <> coalesce(s.turn, 0);
