-- name: verify_undos
-- I6. The rows of what is to be undone agree with the events, over all undos of an execution: each is completed once at most.
-- How the undo of an ended execution stands agrees with its rows and its state.
with recorded as (
  select e.execution_id, e.node_id, (noetl.as_json(e.context) ->> 'index')::int as index,
    count(*) filter (where e.event_type = 'compensation_started') as started,
    count(*) filter (where e.event_type = 'compensation_completed') as completed,
    count(*) filter (where e.event_type = 'compensation_failed') as failed
  from noetl.event e
  where e.execution_id = any($1::bigint[])
    and e.event_type in ('compensation_started', 'compensation_completed', 'compensation_failed')
  group by e.execution_id, e.node_id, index
), kept as (
  select u.execution_id, noetl.node_id(u.execution_id, u.step, u.visit) as node_id, u.index, u.status
  from noetl.undo u
  where u.execution_id = any($1::bigint[])
)
select coalesce(t.execution_id, k.execution_id) as execution_id,
  format('the undo of %s%s is %s, and it was started %s times, completed %s times, and failed %s times',
    coalesce(t.node_id, k.node_id), '[' || coalesce(t.index, k.index) || ']', coalesce(k.status, 'not there'),
    coalesce(t.started, 0), coalesce(t.completed, 0), coalesce(t.failed, 0)) as detail
from recorded t
full join kept k
  on k.execution_id = t.execution_id and k.node_id = t.node_id and k.index is not distinct from t.index
where case k.status
    when 'done' then t.completed is distinct from 1 or t.started <= t.failed
    when 'failed' then t.completed is distinct from 0 or t.failed = 0 or t.started < t.failed
    when 'running' then t.completed is distinct from 0 or t.started <= t.failed
    when 'superseded' then t.started > 0
    when 'open' then t.completed > 0
    when 'unknown' then t.completed > 0
    when 'settled' then t.completed > 0
    else true
  end
union all
select x.execution_id, format('the undo of it is %s, it is %s, and %s', coalesce(x.undo_status, 'not begun'), x.status, u.rows)
from noetl.execution x
join noetl.execution_state s on s.execution_id = x.execution_id and s.execution_id = any($1::bigint[])
cross join lateral (
  select count(*) filter (where u.status = 'running') as running,
    count(*) filter (where u.status in ('open', 'failed', 'unknown')) as left_over,
    coalesce(string_agg(u.node_id || ' is ' || u.status, ', ' order by u.node_id), 'it has nothing to undo') as rows
  from noetl.undo u
  where u.execution_id = x.execution_id and u.execution_id = any($1::bigint[])
    and u.status in ('running', 'open', 'failed', 'unknown')
) u
where x.execution_id = any($1::bigint[])
  and (
    u.running > 0 and x.status <> 'COMPENSATING' and x.undo_status is distinct from 'undoing'
    or not noetl.is_live(x.status) and (s.tokens -> 'compensation' is not null) <> (x.undo_status is not distinct from 'undoing')
    or x.undo_status = 'left' and u.left_over = 0
    or x.undo_status = 'undone' and u.left_over > 0
    or x.undo_status is null and x.status in ('FAILED', 'CANCELLED') and u.left_over > 0
  );
