-- name: verify_visits
-- I2, of executions that run: each live visit has a job that somebody may take, holds, or will bring back; or its answer
-- is in the mail; or a child runs, started by the broker or by the worker. A job that the broker runs itself may also wait
-- for its pause to be over, or for the jobs of its items. Where a NoETL server has ended a job (of an item too), its event
-- is still waited for.
with visits as (
  select s.execution_id, token ->> 'step' as step,
    s.execution_id || ':' || (token ->> 'step')
      || case when token ->> 'visit' = '1' then '' else '#' || (token ->> 'visit') end as node_id
  from noetl.execution_state s
  join noetl.execution x on x.execution_id = s.execution_id
  cross join lateral json_array_elements(
    case when json_typeof(s.tokens -> 'tokens') = 'array' then s.tokens -> 'tokens' end
  ) token
  where s.execution_id = any($1::bigint[])
    and x.execution_id = any($1::bigint[])
    and x.status = 'RUNNING'
)
select v.execution_id, format('visit %s lives, and its job is %s', v.node_id, coalesce(q.status, 'not there')) as detail
from visits v
left join noetl.queue q on q.execution_id = v.execution_id and q.node_id = v.node_id and q.execution_id = any($1::bigint[])
where coalesce(q.status, 'none') not in ('queued', 'leased', 'retry')
  and not (coalesce(q.status, 'none') = 'delegated' and q.available_at < 'infinity')
  and not exists (
    select
    from noetl.execution c
    where c.parent_execution_id = v.execution_id and c.parent_node_id = v.node_id
      and c.status = 'RUNNING' and c.parent_execution_id = any($1::bigint[])
  )
  and not (coalesce(q.status, 'none') = 'delegated' and exists (
    select
    from noetl.queue i
    where i.execution_id = v.execution_id and i.node_name = v.step
      and i.status in ('queued', 'leased', 'retry') and i.execution_id = any($1::bigint[])
  ))
  and not exists (
    select
    from noetl.queue i
    join noetl.ended_job j on j.queue_id = i.queue_id
    where i.execution_id = v.execution_id and i.node_name = v.step and i.execution_id = any($1::bigint[])
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
-- I3, the other half: an execution that can never end. No mail, no job, no child, no pause, no deadline will move it. (One
-- without a path is waited for by a parent, and nobody has started it yet.)
select x.execution_id, format('runs since %s, and nothing is left that could move it', x.started_at) as detail
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id and s.execution_id = any($1::bigint[])
where x.execution_id = any($1::bigint[])
  and x.status = 'RUNNING'
  and (x.path is not null or s.execution_id is not null)
  and s.deadline_at is null
  and not exists (
    select
    from noetl.queue q
    where q.execution_id = x.execution_id and q.execution_id = any($1::bigint[])
      and (q.status in ('queued', 'leased', 'retry') or q.status = 'delegated' and q.available_at < 'infinity')
  )
  and not exists (
    select
    from noetl.queue q
    join noetl.ended_job j on j.queue_id = q.queue_id
    where q.execution_id = x.execution_id and q.execution_id = any($1::bigint[])
  )
  and not exists (
    select
    from noetl.execution c
    where c.parent_execution_id = x.execution_id and c.status = 'RUNNING' and c.parent_execution_id = any($1::bigint[])
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
-- I5. Mail that was read is gone from the inbox.
select i.execution_id, format('event %s was read in turn %s, and its mail is still there', i.event_id, t.turn) as detail
from noetl.inbox i
join noetl.turn t on t.execution_id = i.execution_id and t.event_id = i.event_id
where i.execution_id = any($1::bigint[])
  and t.execution_id = any($1::bigint[]);

-- name: verify_rows
-- I6, the least of it.
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
  );

-- name: verify_items
-- I6, of items, which the core does not fold: one stands where the broker's last event of it says, and each that events
-- tell of is there. (A worker tells itself that a child of its own began; what was open when its iterator ended is
-- cancelled without an event.)
with told as (
  select e.execution_id, e.node_id,
    case when noetl.as_json(e.context) ->> 'index' ~ '^[0-9]{1,9}$' then (noetl.as_json(e.context) ->> 'index')::int end as place,
    bool_or(e.event_type = 'iteration_started') as began,
    bool_or(e.event_type = 'iteration_completed') as completed,
    bool_or(e.event_type = 'iteration_failed') as failed
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in ('iteration_started', 'iteration_completed', 'iteration_failed')
    and jsonb_typeof(noetl.as_json(e.meta) -> 'turn') = 'number'
  group by 1, 2, 3
)
select execution_id,
  format('item %s of %s is %s, and its events say otherwise', place, node_id, coalesce(i.status, 'missing')) as detail
from (
  select execution_id, node_id, place, status, child_execution_id
  from noetl.iteration
  where execution_id = any($1::bigint[])
) i
full join told t using (execution_id, node_id, place)
where case coalesce(i.status, 'missing')
    when 'missing' then false
    when 'COMPLETED' then t.completed and not t.failed
    when 'FAILED' then t.failed and not t.completed
    when 'WAITING' then t.began is null
    else (t.began or i.child_execution_id is not null) and not coalesce(t.completed or t.failed, false)
  end is not true;

-- name: verify_silence
-- I5. Mail that waits for longer than $1 seconds, while no broker has taken any turn for as long: nobody reads it. (Mail of
-- executions of before, which have no row, counts too.) The events are looked up one by one.
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
  );
