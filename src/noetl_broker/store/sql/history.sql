-- name: history_execution
-- Where an execution stands, beside which version of a playbook it ran on; the state may be there without an execution.
select wanted.execution_id, x.catalog_id, x.path, x.version, x.status, x.rules, x.workload, x.result, x.error,
  c.content, s.tokens, s.turn
from (select $1::bigint as execution_id) wanted
left join noetl.execution x on x.execution_id = wanted.execution_id
left join noetl.catalog c on c.catalog_id = x.catalog_id
left join noetl.execution_state s on s.execution_id = wanted.execution_id;

-- name: history_turns
-- Each turn with the event that it read, in the form in which the broker took it.
select t.execution_id, t.turn, t.outcome, t.note, t.decided_at, t.event_id, t.facts, 0::bigint as mail_id, t.decided_at as taken_at,
  e.event_type, e.node_id, e.node_name, e.created_at::timestamptz as created_at,
  case when lower(e.event_type) like 'action%' then null else noetl.as_json(e.context) end as context,
  noetl.as_json(e.result) as result, false as result_left,
  noetl.as_json(e.error) as error, noetl.as_json(e.meta) as meta,
  coalesce((t.facts ->> 'broken')::boolean, false) as broken, (t.facts ->> 'attempt')::int as job_attempts
from noetl.turn t
left join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = $1::bigint
order by t.turn;

-- name: history_events
-- What the broker wrote: its events say in `meta` which turn they are of.
select e.event_id, e.parent_event_id, e.event_type, e.node_id, e.node_name, e.node_type, e.status,
  noetl.as_json(e.meta) as meta, noetl.as_json(e.result) as result, noetl.as_json(e.error) as error,
  noetl.as_json(e.context) as context
from noetl.event e
where e.execution_id = $1::bigint and noetl.as_json(e.meta) ? 'turn'
order by e.created_at, e.event_id;

-- name: history_taken
-- The results that a fork brought along: events of its own that no turn read.
select e.event_id, e.event_type, noetl.as_json(e.result) as result, noetl.as_error(e.error) as error
from noetl.event e
where e.execution_id = $1::bigint and e.event_id = any($2::bigint[])
order by e.event_id;

-- name: history_jobs
select q.node_id, q.node_type, q.action, q.context, q.priority, q.max_attempts, q.timeout_seconds
from noetl.queue q
where q.execution_id = $1::bigint;

-- name: history_rows
select w.step_id, w.status, w.visits, w.result_visit
from noetl.workflow w
where w.execution_id = $1::bigint;

-- name: history_ids
-- Executions by age, a page at a time.
select s.execution_id
from noetl.execution_state s
where s.execution_id > $1::bigint
order by s.execution_id
limit $2::int;
