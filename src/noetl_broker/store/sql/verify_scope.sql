-- name: verify_by_hash
-- For the rest of the transaction. The checks join the rows of one page of executions with each other: found by index and
-- joined by hash they cost what the page holds, whatever the tables hold, and whatever the planner knows of them. (A loop
-- over an execution with 100,000 items would never end; nor does a plan for ten executions suit a page of thousands.)
select set_config(name, setting, true)
from (
  values ('enable_nestloop', 'off'), ('enable_mergejoin', 'off'), ('enable_seqscan', 'off'), ('jit', 'off'),
    ('max_parallel_workers_per_gather', '0'), ('plan_cache_mode', 'force_custom_plan'), ('work_mem', '64MB')
) wanted (name, setting);

-- name: verify_one_by_one
-- Taking turns again reads one execution at a time, and takes its time between two statements.
select set_config(name, setting, true)
from (
  values ('enable_nestloop', 'on'), ('idle_in_transaction_session_timeout', '0')
) wanted (name, setting);

-- name: verify_everything
-- The executions that were started since there is this broker, by age; `turns` says how much there is to look at. (A row
-- without path and state stands for a child that a parent waits for and nobody has started.)
select x.execution_id, coalesce(s.turn, 0) as turns
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where x.execution_id > $1::bigint
  and (x.path is not null or s.execution_id is not null)
  and not exists (
    select
    from noetl.period p
    where p.first_id <= x.execution_id and x.execution_id < p.next_id and p.archived_at is not null
  )
  and not exists (select from noetl.archived a where a.execution_id = x.execution_id)
order by x.execution_id
limit $2::int;

-- name: verify_without_row
-- Those that were decided on and have no row any more: whoever deletes an execution by hand takes its row first. (A state
-- without a row is no fault by itself: events of executions that never were have their turns too.)
with lost as materialized (
  select s.execution_id, s.turn as turns
  from noetl.execution_state s
  where s.execution_id > $1::bigint
    and not exists (select from noetl.execution x where x.execution_id = s.execution_id)
)
select l.execution_id, l.turns
from lost l
where (select true from noetl.turn t where t.execution_id = l.execution_id and t.outcome = 'decided' limit 1)
order by l.execution_id
limit $2::int;

-- name: verify_changed
-- Those with a turn, or started, in the last $1 seconds, and those with unread mail. Neither time has an index: the one is
-- found by reading the narrow table of states, the other by the order of ids.
with since as materialized (
  select clock_timestamp() - make_interval(secs => $1::float8) as at
), changed as (
  select s.execution_id
  from noetl.execution_state s
  where s.last_at >= (select at from since)
  union
  select x.execution_id
  from noetl.execution x
  where x.execution_id >= (select ((date_part('epoch', at) * 1000)::bigint - 1704067200000) << 20 from since)
    and x.started_at >= (select at from since)
  union
  select i.execution_id
  from noetl.inbox i
)
select c.execution_id, coalesce(s.turn, 0) as turns
from changed c
left join noetl.execution x on x.execution_id = c.execution_id
left join noetl.execution_state s on s.execution_id = c.execution_id
where case
    when x.execution_id is null
      then (select true from noetl.turn t where t.execution_id = c.execution_id and t.outcome = 'decided' limit 1)
    else x.path is not null or s.execution_id is not null
  end
  and not noetl.is_archived(c.execution_id)
order by c.execution_id;

-- name: verify_family
-- One execution and its children, all the way down: those that run by their index, those that ended by their letters.
with recursive family as (
  select x.execution_id
  from noetl.execution x
  where x.execution_id = $1::bigint
  union
  select c.execution_id
  from family f
  cross join lateral (
    select x.execution_id
    from noetl.execution x
    where x.parent_execution_id = f.execution_id
      and x.status = 'RUNNING'
    union all
    select x.execution_id
    from (
      select case when noetl.as_json(e.meta) ->> 'child_execution_id' ~ '^[0-9]{1,18}$'
        then (noetl.as_json(e.meta) ->> 'child_execution_id')::bigint end as child_id
      from noetl.event e
      where e.execution_id = f.execution_id
        and noetl.as_json(e.meta) ? 'child_execution_id'
    ) letter
    join noetl.execution x on x.execution_id = letter.child_id
    where x.parent_execution_id = f.execution_id
  ) c
)
select f.execution_id, coalesce(s.turn, 0) as turns
from family f
left join noetl.execution_state s on s.execution_id = f.execution_id
where not noetl.is_archived(f.execution_id)
order by f.execution_id;

-- name: verify_running
select x.execution_id, 1 as turns
from noetl.execution x
where x.status = 'RUNNING'
  and x.execution_id > $1::bigint
order by x.execution_id
limit $2::int;

-- name: verify_running_of
-- Which of these run.
select x.execution_id
from noetl.execution x
where x.execution_id = any($1::bigint[])
  and x.status = 'RUNNING';
