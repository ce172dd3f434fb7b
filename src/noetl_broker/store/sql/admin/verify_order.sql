-- name: verify_causes
-- I8. Events of the broker, of workers' functions and of children name parents that exist and are earlier. Other events
-- may name any parent. The start of a child names the step of the parent that waits for it.
with caused as (
  select e.execution_id, e.event_id, e.event_type, e.node_id, e.parent_event_id, noetl.as_json(e.meta) as meta,
    p.event_id is not null as has_parent,
    case when jsonb_typeof(noetl.as_json(p.meta) -> 'turn') = 'number'
      then (noetl.as_json(p.meta) ->> 'turn')::numeric end as parent_written_in
  from noetl.event e
  left join noetl.event p
    on p.execution_id = e.execution_id and p.event_id = e.parent_event_id and p.execution_id = any($1::bigint[])
  where e.execution_id = any($1::bigint[])
    and noetl.as_json(e.meta) ?| array['turn', 'queue_id', 'child_execution_id']
)
select c.execution_id,
  case
    when c.has_parent then format('%s %s was read in turn %s, its parent was written in turn %s',
      c.event_type, c.event_id, t.turn, c.parent_written_in)
    else format('%s %s names the parent %s, which there is not', c.event_type, c.event_id, c.parent_event_id)
  end as detail
from caused c
left join noetl.turn t on t.execution_id = c.execution_id and t.event_id = c.event_id and t.execution_id = any($1::bigint[])
where c.parent_written_in >= t.turn
  or not c.has_parent and (
    jsonb_typeof(c.meta -> 'turn') = 'number'
    or c.parent_event_id is not null and (
      select q.queue_id
      from noetl.queue q
      where q.execution_id = c.execution_id and q.node_id = c.node_id and to_jsonb(q.queue_id) = c.meta -> 'queue_id'
    ) is not null
  )
union all
select x.execution_id, format('its parent %s has no event %s that began it', x.parent_execution_id, x.parent_event_id)
from noetl.execution x
where x.execution_id = any($1::bigint[])
  and x.parent_node_id is not null
  -- looked up one by one: the parent may be on another page
  and (select p.execution_id from noetl.execution p where p.execution_id = x.parent_execution_id) is not null
  and (
    select p.event_id
    from noetl.event p
    where p.execution_id = x.parent_execution_id and p.event_id = x.parent_event_id
  ) is null;

-- name: verify_answers
-- I9. Each attempt is ended once, by complete_job, fail_job or the reaper. The event names the worker and the cause. A
-- copy of the event that another program sends is a duplicate. Attempt 0 is a job that the broker runs itself: each
-- child that took too long ends it.
select ended.execution_id, format('attempt %s of job %s ended %s times', ended.attempt, ended.queue_id, ended.times) as detail
from (
  select e.execution_id, noetl.as_json(e.meta) -> 'queue_id' as queue_id, noetl.as_json(e.meta) -> 'attempt' as attempt,
    e.parent_event_id, count(*) as times
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in ('action_completed', 'action_failed')
    and jsonb_typeof(noetl.as_json(e.meta) -> 'queue_id') = 'number'
    and jsonb_typeof(noetl.as_json(e.meta) -> 'attempt') = 'number'
    and noetl.as_json(e.meta) -> 'attempt' <> '0'
    and e.worker_id is not null
  group by 1, 2, 3, 4
  having count(*) > 1
) ended
join noetl.queue q
  on q.execution_id = ended.execution_id and to_jsonb(q.queue_id) = ended.queue_id and q.event_id = ended.parent_event_id
where q.execution_id = any($1::bigint[]);

-- name: verify_limits
-- I10. By the rules that were pinned at the start. A playbook may set `max_visits`; only the core knows which of its
-- numbers applies, so this check takes the largest.
select s.execution_id, format('%s visits, %s open jobs; the limits are %s and %s',
  l.visits, l.open_jobs, x.rules -> 'max_visits', x.rules -> 'max_open_jobs') as detail
from noetl.execution_state s
join noetl.execution x on x.execution_id = s.execution_id
cross join lateral (
  select case when s.tokens ->> 'total' ~ '^[0-9]{1,9}$' then (s.tokens ->> 'total')::int end as visits,
    case when json_typeof(s.tokens -> 'tokens') = 'array' then json_array_length(s.tokens -> 'tokens') else 0 end as open_jobs
) l
where s.execution_id = any($1::bigint[])
  and x.execution_id = any($1::bigint[])
  and (
    l.open_jobs > (x.rules ->> 'max_open_jobs')::int
    or l.visits > (x.rules ->> 'max_visits')::int and l.visits > coalesce((
      select max(m.found[1]::numeric)
      from noetl.catalog c
      cross join lateral regexp_matches(c.content, 'max_visits[''"]?[[:space:]]*:[[:space:]]*([0-9]+)', 'g') m (found)
      where c.catalog_id = x.catalog_id
    ), 0)
  );

-- name: verify_logs
-- I10. noetl.log_job keeps the bounds.
select l.execution_id, format('attempt %s of %s has a log of %s bytes in %s rows', l.attempt, l.node_id,
  sum(octet_length(l.message)), count(*)) as detail
from noetl.log l
where l.execution_id = any($1::bigint[])
group by l.execution_id, l.node_id, l.attempt
having sum(octet_length(l.message)) > noetl.limit_of('log_bytes') or count(*) > noetl.limit_of('log_rows')
union all
select l.execution_id, format('attempt %s of %s has a log, and its job has %s attempts', l.attempt, l.node_id, q.attempts)
from (
  select distinct l.execution_id, l.node_id, l.attempt
  from noetl.log l
  where l.execution_id = any($1::bigint[])
) l
left join noetl.queue q on q.execution_id = l.execution_id and q.node_id = l.node_id and q.execution_id = any($1::bigint[])
where q.attempts is null or l.attempt > q.attempts;

-- name: verify_transactions
-- I11. Rows from the transaction that started their execution were loaded by a restore, because no turn is in that
-- transaction. An event that names a turn and was read itself is not the broker's.
select e.execution_id,
  case
    when t.turn is null then format('%s %s says that turn %s wrote it, which did not read its parent',
      e.event_type, e.event_id, noetl.as_json(e.meta) -> 'turn')
    else format('%s %s was written by another transaction than its turn %s', e.event_type, e.event_id, t.turn)
  end as detail
from noetl.event e
left join noetl.turn t
  on t.execution_id = e.execution_id and t.event_id = e.parent_event_id
  and to_jsonb(t.turn) = noetl.as_json(e.meta) -> 'turn'
  and t.execution_id = any($1::bigint[])
where e.execution_id = any($1::bigint[])
  and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
  and t.xmin is distinct from e.xmin
  and not exists (
    select
    from noetl.turn r
    where r.execution_id = e.execution_id and r.event_id = e.event_id and r.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.inbox i
    where i.execution_id = e.execution_id and i.event_id = e.event_id and i.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.dead_letter d
    where d.execution_id = e.execution_id and d.event_id = e.event_id and d.execution_id = any($1::bigint[])
  )
  and not (t.turn is not null and exists (
    select
    from noetl.event b
    where b.execution_id = e.execution_id and b.xmin = e.xmin
      and noetl.kind_of(b.event_type) = 'execution_start'
  ));

-- name: verify_joins
-- I13. Each visit names the transitions that entered it, none of them more often than its source ended. A `start`
-- without an action has no event; transition -1 leads to it. The start of a fork lists what was done before it.
with entered as (
  select e.execution_id, a.arc, count(*) as times
  from noetl.event e
  cross join lateral jsonb_array_elements(
    case when jsonb_typeof(noetl.as_json(e.meta) -> 'arcs') = 'array' then noetl.as_json(e.meta) -> 'arcs' end
  ) a (arc)
  where e.execution_id = any($1::bigint[])
    and e.event_type = 'step_started'
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
  group by e.execution_id, a.arc
), left_behind as (
  select l.execution_id, l.node_name, sum(l.times) as times
  from (
    select e.execution_id, e.node_name::text as node_name, 1 as times
    from noetl.event e
    where e.execution_id = any($1::bigint[])
      and e.event_type in ('step_completed', 'step_failed')
      and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
    union all
    select e.execution_id, v.step, (v.visits #>> '{}')::int
    from noetl.execution x
    join noetl.event e on e.execution_id = x.execution_id and e.event_type = 'execution_start'
    cross join lateral jsonb_each(
      case when jsonb_typeof(noetl.as_json(e.meta) #> '{fork,visits}') = 'object'
        then noetl.as_json(e.meta) #> '{fork,visits}' end
    ) v (step, visits)
    where x.execution_id = any($1::bigint[])
      and e.execution_id = any($1::bigint[])
      and x.forked_from is not null
      and v.visits #>> '{}' ~ '^[0-9]{1,9}$'
  ) l
  group by l.execution_id, l.node_name
)
select n.execution_id, format('%s was entered %s times from %s, which ended %s times',
  r.to_step, n.times, r.from_step, coalesce(b.times, 0)) as detail
from entered n
join noetl.transition r
  on r.execution_id = n.execution_id and to_jsonb(r.ordinal) = n.arc and r.execution_id = any($1::bigint[])
left join left_behind b on b.execution_id = n.execution_id and b.node_name = r.from_step
where n.times > greatest(coalesce(b.times, 0), case when r.from_step = 'start' then 1 else 0 end)
union all
select n.execution_id, format('start was entered %s times', n.times)
from entered n
where n.arc = '-1'
  and n.times > 1;
