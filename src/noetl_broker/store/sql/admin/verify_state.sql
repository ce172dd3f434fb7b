-- name: verify_visits
-- I2, of running executions. Each live visit has an open job, mail, a running child, a timer, or an open wait. A job of the
-- broker may wait for the jobs of its items. Where a NoETL server ended a job, its event may still come. While an execution
-- is paused, a child whose delay is over is started later.
with visits as (
  select s.execution_id, x.status, token ->> 'step' as step,
    noetl.node_id(s.execution_id, token ->> 'step', (token ->> 'visit')::int) as node_id
  from noetl.execution_state s
  join noetl.execution x on x.execution_id = s.execution_id
  cross join lateral json_array_elements(
    case when json_typeof(s.tokens -> 'tokens') = 'array' then s.tokens -> 'tokens' end
  ) token
  where s.execution_id = any($1::bigint[])
    and x.execution_id = any($1::bigint[])
    and noetl.is_live(x.status)
)
select v.execution_id, format('visit %s lives, and its job is %s', v.node_id, coalesce(q.status, 'not there')) as detail
from visits v
left join noetl.queue q on q.execution_id = v.execution_id and q.node_id = v.node_id and q.execution_id = any($1::bigint[])
where coalesce(q.status, 'none') not in ('queued', 'leased', 'retry', 'held')
  and not (coalesce(q.status, 'none') = 'delegated' and q.available_at < 'infinity' and v.status in ('PAUSED', 'QUEUED'))
  and not exists (
    select
    from noetl.timer t
    where t.execution_id = v.execution_id and t.node_id = v.node_id and t.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.wait w
    where w.execution_id = v.execution_id and w.node_id = v.node_id and w.kind <> 'timer' and noetl.is_waiting(w.status)
      and w.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.execution c
    where c.parent_execution_id = v.execution_id and c.parent_node_id = v.node_id
      and noetl.is_live(c.status) and c.parent_execution_id = any($1::bigint[])
  )
  -- a compensating execution drains items whose iterator has no job any more
  and not (coalesce(q.status, 'none') in ('delegated', 'cancelled') and exists (
    select
    from noetl.queue i
    where i.execution_id = v.execution_id and i.node_name = v.step
      and i.status in ('queued', 'leased', 'retry', 'held') and i.execution_id = any($1::bigint[])
  ))
  and not exists (
    select
    from noetl.queue i
    cross join lateral noetl.server_job(row(i.*)::noetl.queue) j
    where j.ended_status is not null and i.execution_id = v.execution_id and i.node_name = v.step and i.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.inbox m
    where m.execution_id = v.execution_id and m.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.dead_letter d
    where d.execution_id = v.execution_id and d.execution_id = any($1::bigint[])
  );

-- name: verify_standstill
-- I3, the other half: executions, or undos, that can never end: they have no mail, job, child or timer, and no wait for a
-- signal or a person. One without a path is a child that is not started yet.
select x.execution_id, format('runs since %s, and nothing is left that could move it', x.started_at) as detail
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id and s.execution_id = any($1::bigint[])
where x.execution_id = any($1::bigint[])
  and (noetl.is_live(x.status) or x.undo_status = 'undoing')
  and x.status not in ('PAUSED', 'QUEUED')
  and (x.path is not null or s.execution_id is not null)
  and not exists (
    select
    from noetl.timer t
    where t.execution_id = x.execution_id and t.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.wait w
    where w.execution_id = x.execution_id and w.kind <> 'timer' and noetl.is_waiting(w.status)
      and w.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.queue q
    where q.execution_id = x.execution_id and q.execution_id = any($1::bigint[])
      and q.status in ('queued', 'leased', 'retry', 'held')
  )
  and not exists (
    select
    from noetl.queue q
    cross join lateral noetl.server_job(row(q.*)::noetl.queue) j
    where j.ended_status is not null and q.execution_id = x.execution_id and q.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.execution c
    where c.parent_execution_id = x.execution_id and c.parent_execution_id = any($1::bigint[])
      and (noetl.is_live(c.status) or c.undo_status = 'undoing' or noetl.is_undo_asked(c.execution_id))
  )
  and not exists (
    select
    from noetl.inbox m
    where m.execution_id = x.execution_id and m.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.dead_letter d
    where d.execution_id = x.execution_id and d.execution_id = any($1::bigint[])
  );

-- name: verify_mail
-- I5. Mail that was read is not in the inbox.
select i.execution_id, format('event %s was read in turn %s, and its mail is still there', i.event_id, t.turn) as detail
from noetl.inbox i
join noetl.turn t on t.execution_id = i.execution_id and t.event_id = i.event_id
where i.execution_id = any($1::bigint[])
  and t.execution_id = any($1::bigint[]);

-- name: verify_rows
-- I6, in part.
select s.execution_id, format('it has taken %s turns and has no row in noetl.execution', s.turn) as detail
from noetl.execution_state s
where s.execution_id = any($1::bigint[])
  and not exists (
    select
    from noetl.execution x
    where x.execution_id = s.execution_id and x.execution_id = any($1::bigint[])
  )
  and exists (
    select
    from noetl.turn t
    where t.execution_id = s.execution_id and t.execution_id = any($1::bigint[]) and t.outcome = 'decided'
  )
union all
select s.execution_id, format('it is %s, and its state is %s', x.status, s.tokens ->> 'status')
from noetl.execution_state s
join noetl.execution x on x.execution_id = s.execution_id and x.execution_id = any($1::bigint[])
where s.execution_id = any($1::bigint[])
  and s.tokens ->> 'status' <> x.status
  and noetl.is_live(s.tokens ->> 'status')
  and noetl.is_live(x.status)
union all
select q.execution_id, format('job %s of %s is %s, and the execution is %s', q.queue_id, q.node_id, q.status, x.status)
from noetl.queue q
join noetl.execution x on x.execution_id = q.execution_id and x.execution_id = any($1::bigint[])
where q.execution_id = any($1::bigint[])
  and (
    x.status = 'PAUSED' and q.status in ('queued', 'retry')
    or x.status <> 'PAUSED' and q.status = 'held' and 'pause' = any(q.held_for)
  )
  and not exists (select from noetl.inbox m where m.execution_id = q.execution_id and m.execution_id = any($1::bigint[]))
  and not exists (select from noetl.unheld_job u where u.execution_id = q.execution_id and u.execution_id = any($1::bigint[]));

-- name: verify_items
-- I6, of items, which are not in the state of the core. Each item that events name exists, and has the status of the
-- broker's last event about it. The start of a worker's child is the worker's event. Items that ran when their iterator
-- ended are cancelled without an event. A fork has the results of items that it took over as step_result events.
with recorded as (
  select e.execution_id, e.node_id,
    case when noetl.as_json(e.context) ->> 'index' ~ '^[0-9]{1,9}$' then (noetl.as_json(e.context) ->> 'index')::int end as index,
    bool_or(e.event_type = 'iteration_started') as began,
    bool_or(e.event_type = 'iteration_completed') as completed,
    bool_or(e.event_type = 'iteration_failed') as failed
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in ('iteration_started', 'iteration_completed', 'iteration_failed')
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
  group by 1, 2, 3
  union all
  select e.execution_id, i.visit_node_id, i.index, true, true, false
  from noetl.event e
  cross join lateral noetl.parse_item(e.node_id) i
  where e.execution_id = any($1::bigint[]) and e.event_type = 'step_result' and noetl.as_json(e.meta) ?& array['taken_from', 'index']
)
select execution_id,
  format('item %s of %s is %s, and its events say otherwise', index, node_id, coalesce(i.status, 'missing')) as detail
from (
  select execution_id, node_id, index, status, child_execution_id
  from noetl.iteration
  where execution_id = any($1::bigint[])
) i
full join recorded t using (execution_id, node_id, index)
where case coalesce(i.status, 'missing')
    when 'missing' then false
    -- an item of an iterator that is over may still be draining, and its end is no event then
    when 'COMPLETED' then not coalesce(t.failed, false) and (t.completed or noetl.is_over(execution_id, node_id))
    when 'FAILED' then not coalesce(t.completed, false) and (t.failed or noetl.is_over(execution_id, node_id))
    when 'WAITING' then t.began is null
    else (t.began or i.child_execution_id is not null) and not coalesce(t.completed or t.failed, false)
  end is not true;

-- name: verify_silence
-- I5. Mail that is older than $1 seconds while no broker has taken a turn for that time. Timers that have been due for that
-- time. It includes executions without a row. Events are looked up one by one.
select w.execution_id, format('event %s waits since %s, and no broker has read anything since', w.event_id, w.written_at) as detail
from (
  select i.execution_id, i.event_id, (
    select e.created_at::timestamptz
    from noetl.event e
    where e.execution_id = i.execution_id and e.event_id = i.event_id
  ) as written_at
  from noetl.inbox i
  where $2::bigint[] is null or i.execution_id = any($2::bigint[])
) w
where w.written_at < clock_timestamp() - make_interval(secs => $1::float8)
  and not exists (
    select
    from noetl.execution_state s
    where s.last_at between clock_timestamp() - make_interval(secs => $1::float8) and clock_timestamp() + interval '1 minute'
  )
union all
select t.execution_id, format('timer %s has been due since %s, and no broker has fired it', t.timer_id, t.due_at)
from noetl.timer t
where t.due_at < clock_timestamp() - make_interval(secs => $1::float8)
  and t.created_at < clock_timestamp() - make_interval(secs => $1::float8)
  and ($2::bigint[] is null or t.execution_id = any($2::bigint[]));

-- name: verify_schedules
-- I5. Schedules that have been due for more than $1 seconds. Schedules that the latest version of their playbook does not
-- declare. Not for single executions ($2). The id is that of the last execution, if there is one.
select s.last_execution_id as execution_id, format('schedule %s has been due since %s, and no broker has moved it', s.name,
  greatest(s.due_at, s.updated_at)) as detail
from noetl.start_schedule s
where greatest(s.due_at, s.updated_at) < clock_timestamp() - make_interval(secs => $1::float8)
  and s.due_at < clock_timestamp()
  and $2::bigint[] is null
union all
select s.last_execution_id, format('schedule %s is not declared by %s version %s', s.name, s.declared_in, c.version)
from noetl.start_schedule s
cross join lateral (
  select c.version, c.payload #> '{metadata,schedule}' as declared
  from noetl.catalog c
  where c.path = s.declared_in
  order by c.version desc
  limit 1
) c
where s.declared_in is not null
  and $2::bigint[] is null
  and not exists (
    select
    from jsonb_array_elements(case jsonb_typeof(c.declared) when 'array' then c.declared else jsonb_build_array(c.declared) end) d
    where s.name = s.declared_in || '#' || (d ->> 'name')
  );

-- name: verify_waits
-- I2. An open wait is that of a live visit, and each timer that of a live execution. A timer of a visit has a wait or a job
-- that waits for it; a wait that says when it times out has its timer, or mail.
select w.execution_id, format('wait %s is %s, and its execution is %s', w.node_id, w.status, x.status) as detail
from noetl.wait w
join noetl.execution x on x.execution_id = w.execution_id and x.execution_id = any($1::bigint[])
where w.execution_id = any($1::bigint[])
  and noetl.is_waiting(w.status)
  and not noetl.is_live(x.status)
union all
select w.execution_id, format('wait %s is %s, and no visit waits for it', w.node_id, w.status)
from noetl.wait w
join noetl.execution x on x.execution_id = w.execution_id and x.execution_id = any($1::bigint[])
join noetl.execution_state s on s.execution_id = w.execution_id and s.execution_id = any($1::bigint[])
where w.execution_id = any($1::bigint[])
  and noetl.is_waiting(w.status)
  and noetl.is_live(x.status)
  and json_typeof(s.tokens -> 'tokens') is not distinct from 'array'
  and not exists (
    select
    from json_array_elements(s.tokens -> 'tokens') token
    where noetl.node_id(s.execution_id, token ->> 'step', (token ->> 'visit')::int) = w.node_id
  )
union all
select w.execution_id, format('wait %s times out at %s, and has no timer', w.node_id, w.details ->> 'times_out_at')
from noetl.wait w
where w.execution_id = any($1::bigint[])
  and noetl.is_waiting(w.status)
  and w.details ? 'times_out_at'
  and not exists (
    select
    from noetl.timer t
    where t.execution_id = w.execution_id and t.node_id = w.node_id and t.execution_id = any($1::bigint[])
  )
  and not exists (select from noetl.inbox m where m.execution_id = w.execution_id and m.execution_id = any($1::bigint[]))
union all
select t.execution_id, format('timer %s for %s is left, and nothing waits for it', t.timer_id, coalesce(t.node_id, t.purpose))
from noetl.timer t
join noetl.execution x on x.execution_id = t.execution_id and x.execution_id = any($1::bigint[])
where t.execution_id = any($1::bigint[])
  and (not noetl.is_live(x.status) and x.undo_status is distinct from 'undoing' or t.purpose in ('wait', 'timeout') and not exists (
    select
    from noetl.wait w
    where w.execution_id = t.execution_id and w.node_id = t.node_id and noetl.is_waiting(w.status)
      and w.execution_id = any($1::bigint[])
  ) or t.purpose = 'child' and not exists (
    select
    from noetl.queue q
    where q.execution_id = t.execution_id and q.node_id = t.node_id and q.status = 'delegated'
      and q.execution_id = any($1::bigint[])
  ));

-- name: verify_signals
-- I5. A wait that is signalled has mail that brings it; an open wait has a request for the signals that fit it; no
-- signal was decided on twice.
select w.execution_id, format('wait %s is signalled, and no event brings the signal', w.node_id) as detail
from noetl.wait w
where w.execution_id = any($1::bigint[])
  and w.status = 'signalled'
  and not exists (select from noetl.inbox m where m.execution_id = w.execution_id and m.execution_id = any($1::bigint[]))
  and not exists (
    select from noetl.dead_letter d where d.execution_id = w.execution_id and d.execution_id = any($1::bigint[])
  )
union all
select w.execution_id, format('signal %s fits the open wait %s, and no broker looks for it', w.signal_id, w.node_id)
from (
  select o.execution_id, o.node_id, (
    -- by the index of each key
    select s.signal_id
    from noetl.signal s
    where s.key = o.key and s.name = any(o.names) and noetl.latest_sent_at(s.signal_id, s.sent_at) >= o.since_at
      and s.expires_at > clock_timestamp()
      and not exists (
        select from noetl.signal_taken t where t.execution_id = o.execution_id and t.signal_id = s.signal_id
      )
      and not exists (select from noetl.match_request k where k.signal_id = s.signal_id)
    order by s.signal_id
    limit 1
  ) as signal_id
  from noetl.wait o
  where o.execution_id = any($1::bigint[]) and o.kind = 'signal' and o.status = 'open'
) w
where w.signal_id is not null
  and not exists (select from noetl.match_request k where k.execution_id = w.execution_id and k.node_id = w.node_id)
union all
select e.execution_id, format('signal %s was decided on %s times', e.signal_id, count(*))
from (
  select t.execution_id, noetl.as_json(v.context) ->> 'signal_id' as signal_id
  from noetl.turn t
  join noetl.event v on v.execution_id = t.execution_id and v.event_id = t.event_id and v.execution_id = any($1::bigint[])
  where t.execution_id = any($1::bigint[]) and t.outcome = 'decided' and v.event_type = 'execution_signal'
) e
where e.signal_id is not null
group by e.execution_id, e.signal_id
having count(*) > 1;
