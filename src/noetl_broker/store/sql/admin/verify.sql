-- name: verify_turns
-- I1. The trigger makes mail of all events except two types and the broker's own. The broker's events name their turn
-- in `meta`; verify_transactions checks that.
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
  and noetl.is_mail(e.event_type)
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
-- I1. Two ends of a visit: decided twice. A turn that decided on the end of an action and ended nothing: decided never.
-- Where a worker started children, its own answer ends nothing, because the step waits for them.
with ends as (
  select e.execution_id, e.node_id, e.parent_event_id, noetl.as_json(e.meta) -> 'turn' as turn, e.event_type
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in (
      'step_completed', 'step_failed', 'step_cancelled', 'action_retry', 'iteration_completed', 'iteration_failed',
      'compensation_completed', 'compensation_failed', 'execution_compensating'
    )
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
), adopting as (
  select distinct i.execution_id, i.node_id
  from noetl.iteration i
  where i.execution_id = any($1::bigint[])
    and i.child_execution_id is not null
)
select e.execution_id, format('visit %s ended %s times', e.node_id, count(*)) as detail
from ends e
where e.event_type in ('step_completed', 'step_failed', 'step_cancelled')
group by e.execution_id, e.node_id
having count(*) > 1
union all
select t.execution_id, format('turn %s read %s of %s and ended nothing', t.turn, e.event_type, e.node_id)
from noetl.turn t
join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = any($1::bigint[])
  and e.execution_id = any($1::bigint[])
  and t.outcome = 'decided'
  and noetl.kind_of(e.event_type) in ('action_completed', 'action_failed', 'iterator_completed')
  and not exists (
    select
    from ends d
    where d.execution_id = t.execution_id and d.parent_event_id = t.event_id and d.turn = to_jsonb(t.turn)
  )
  -- the undo is tried again, or another child undoes what it did
  and not (
    noetl.is_undo(e.node_id)
    and (noetl.kind_of(e.event_type) = 'action_failed' or noetl.as_json(e.meta) ? 'child_execution_id')
  )
  -- a visit that is draining after its end, or while the execution compensates, ends nothing
  and not exists (
    select
    from ends d
    where d.execution_id = t.execution_id and d.turn < to_jsonb(t.turn) and not noetl.is_undo(e.node_id)
      and (d.event_type = 'execution_compensating' or d.event_type in ('step_failed', 'step_cancelled')
        and d.node_id = coalesce((select p.visit_node_id from noetl.parse_item(e.node_id) p), e.node_id))
  )
  and not exists (
    select
    from adopting a
    where a.execution_id = e.execution_id and a.node_id = coalesce(e.node_id, noetl.node_id(e.execution_id, e.node_name, 1))
      and lower(e.event_type) = 'action_completed'
  );

-- name: verify_jobs
-- I2. A job names the event that started its visit or its item. A visit without a job ended in the turn that started it.
with started as (
  select e.execution_id, e.event_id, e.event_type, e.node_id,
    case when noetl.as_json(e.context) ->> 'index' ~ '^[0-9]{1,9}$' then (noetl.as_json(e.context) ->> 'index')::int end as index
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in ('step_started', 'iteration_started', 'compensation_started')
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
)
select q.execution_id, format('job %s of %s has no event that began it', q.queue_id, q.node_id) as detail
from noetl.queue q
left join started s on s.execution_id = q.execution_id and s.event_id = q.event_id
where q.execution_id = any($1::bigint[])
  and q.node_id is distinct from case
    when s.event_type = 'step_started' then s.node_id
    when s.event_type = 'iteration_started' then noetl.item_node_id(s.node_id, s.index)
    when s.index is null then noetl.undo_node_id(s.node_id)
    else noetl.undo_node_id(noetl.item_node_id(s.node_id, s.index))
  end
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
    from noetl.wait w
    where w.execution_id = s.execution_id and w.node_id = s.node_id and w.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.event e
    where e.execution_id = s.execution_id and e.node_id = s.node_id
      and e.event_type in ('step_completed', 'step_failed', 'step_cancelled') and e.execution_id = any($1::bigint[])
  );

-- name: verify_cancelled_visits
-- I2. A cancelled visit has no open job, and its worker was told to stop. A job that was locked is left to the reaper. Its
-- children have ended, or have a cancel to read.
with cancelled as (
  select e.execution_id, e.node_id
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type = 'step_cancelled'
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
)
select q.execution_id, format('visit %s is cancelled, and its job %s is %s', q.node_id, q.queue_id, q.status) as detail
from cancelled c
join noetl.queue q on q.execution_id = c.execution_id and q.node_id = c.node_id and q.execution_id = any($1::bigint[])
where (q.status in ('queued', 'retry', 'held', 'delegated') or q.status = 'leased' and not q.stop and not q.draining)
  and not exists (
    select
    from noetl.job_to_cancel w
    where w.execution_id = q.execution_id and w.node_id = q.node_id and w.execution_id = any($1::bigint[])
  )
union all
select c.execution_id, format('visit %s is cancelled, and nobody has told its child %s', c.node_id, x.execution_id)
from cancelled c
join noetl.execution x on x.parent_execution_id = c.execution_id and x.parent_node_id = c.node_id
where x.parent_execution_id = any($1::bigint[])
  and noetl.is_live(x.status)
  and x.status <> 'COMPENSATING' -- it ends once it has undone what it did
  and x.path is not null
  and not exists (select from noetl.inbox i where i.execution_id = x.execution_id)
  and not exists (select from noetl.dead_letter d where d.execution_id = x.execution_id);

-- name: verify_ends
-- I3. The end in the row of an execution and its end event are written together. The answer of a child has the same
-- types, and was not written by a turn of the parent. A child that was never started has no end event.
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
-- I4. After an end there are only turns that changed nothing and answers of workers that held a job then. An undo may
-- decide, from an `execution_undo` to its answer. Children have ended, or have a cancel to read.
with ends as (
  select e.execution_id, (noetl.as_json(e.meta) ->> 'turn')::numeric as turn
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in ('execution_complete', 'execution_failed', 'execution_cancelled')
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
), undos as (
  select t.execution_id, t.turn as first_turn, coalesce(
      case when t.outcome = 'late' or noetl.kind_of(e.event_type) = 'undo_settled' then t.turn end,
      (
        select min((noetl.as_json(a.meta) ->> 'turn')::numeric)
        from noetl.event a
        where a.execution_id = t.execution_id and a.event_type in ('execution_undone', 'execution_undo_failed')
          and (noetl.as_json(a.meta) ->> 'turn')::numeric >= t.turn
      ),
      'infinity'
    ) as last_turn
  from noetl.turn t
  join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id and e.execution_id = any($1::bigint[])
  where t.execution_id = any($1::bigint[])
    and (t.outcome = 'decided' and noetl.kind_of(e.event_type) in ('execution_undo', 'undo_settled') or t.outcome = 'late')
)
select t.execution_id, format('turn %s decided after the end in turn %s', t.turn, n.turn) as detail
from ends n
join noetl.turn t on t.execution_id = n.execution_id and t.execution_id = any($1::bigint[])
where t.turn > n.turn
  and t.outcome = 'decided'
  and not exists (
    select from undos u where u.execution_id = t.execution_id and t.turn between u.first_turn and u.last_turn
  )
union all
select e.execution_id, format('turn %s wrote %s %s after the end in turn %s',
  noetl.as_json(e.meta) -> 'turn', e.event_type, e.event_id, n.turn)
from ends n
join noetl.event e on e.execution_id = n.execution_id and e.execution_id = any($1::bigint[])
where jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
  and (noetl.as_json(e.meta) ->> 'turn')::numeric > n.turn
  and not exists (
    select
    from undos u
    where u.execution_id = e.execution_id and (noetl.as_json(e.meta) ->> 'turn')::numeric between u.first_turn and u.last_turn
  )
union all
select x.execution_id, format('job %s of %s is %s after the end', q.queue_id, q.node_id, q.status)
from noetl.execution x
join noetl.queue q on q.execution_id = x.execution_id and q.execution_id = any($1::bigint[])
where x.execution_id = any($1::bigint[])
  and not noetl.is_live(x.status)
  and (q.status in ('queued', 'retry', 'held', 'delegated') or q.status = 'leased' and not q.stop)
  and not (noetl.is_undo(q.node_id) and x.undo_status is not distinct from 'undoing')
  -- it was locked at the end, and the reaper will cancel it
  and not exists (
    select
    from noetl.job_to_cancel w
    where w.execution_id = q.execution_id and w.node_id = q.node_id and w.execution_id = any($1::bigint[])
  )
union all
select c.execution_id, format('runs on, nobody has told it that its parent %s has ended', c.parent_execution_id)
from noetl.execution c
join noetl.execution x on x.execution_id = c.parent_execution_id
where x.execution_id = any($1::bigint[])
  and noetl.is_live(c.status)
  and c.status <> 'COMPENSATING'
  and c.parent_execution_id = any($1::bigint[])
  and c.parent_node_id is not null
  and c.path is not null
  and x.status in ('FAILED', 'CANCELLED')
  and not (noetl.is_undo(c.parent_node_id) and x.undo_status is not distinct from 'undoing')
  and not exists (select from noetl.inbox i where i.execution_id = c.execution_id)
  and not exists (select from noetl.dead_letter d where d.execution_id = c.execution_id);

-- name: verify_turn_numbers
-- I7. Turn numbers run from 1 to the turn of the state, without gaps.
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
