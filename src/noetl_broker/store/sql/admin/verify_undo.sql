-- name: verify_undos
-- I6. The rows of what is to be undone agree with the events: an undo that began has one start, and it ended once. A row that
-- was taken over may have been tried before.
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
    when 'done' then (t.started, t.completed, t.failed) is distinct from (1, 1, 0)
    when 'failed' then (t.started, t.completed, t.failed) is distinct from (1, 0, 1)
    when 'running' then (t.started, t.completed, t.failed) is distinct from (1, 0, 0)
    when 'unknown' then t.completed > 0 or t.failed > 0
    when 'taken' then t.completed > 0 or t.started > 1
    when 'open' then t.started > 0
    when 'superseded' then t.started > 0
    else true
  end
union all
-- an undo runs only in a live execution; an undo execution has taken its rows from an execution that ended
select u.execution_id, format('the undo of %s is running, and the execution is %s', u.node_id, x.status)
from noetl.undo u
join noetl.execution x on x.execution_id = u.execution_id
where u.execution_id = any($1::bigint[])
  and u.status = 'running'
  and x.status <> 'COMPENSATING'
union all
select u.execution_id, format('the undo of %s was taken over by %s, which has no such row', u.node_id, u.taken_by)
from noetl.undo u
where u.execution_id = any($1::bigint[])
  and u.status = 'taken'
  and not noetl.is_archived(u.taken_by)
  and not exists (
    select
    from noetl.undo n
    where n.execution_id = u.taken_by and n.node_id = u.taken_by || substr(u.node_id, position(':' in u.node_id))
  );
