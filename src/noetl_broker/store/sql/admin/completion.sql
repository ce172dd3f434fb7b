-- name: complete_paths
select c.path, max(c.version) as version
from noetl.catalog c
where c.path like $1::text and c.block_of is null
group by c.path
order by c.path
limit 100;

-- name: complete_executions
-- The newest thousand only, because a shell waits for the answer.
select n.execution_id, n.path, n.status
from (
  select x.execution_id, x.path, x.status
  from noetl.execution x
  order by x.execution_id desc
  limit 1000
) n
where n.execution_id::text like $1::text
order by n.execution_id desc
limit 30;

-- name: complete_steps
select w.step_name as step, w.status
from noetl.workflow w
where w.execution_id = $1::bigint and w.step_name like $2::text
order by w.ordinal, w.step_id
limit 100;

-- name: complete_schedules
select s.name, s.path
from noetl.start_schedule s
where s.name like $1::text
order by s.name
limit 100;
