-- name: verify_by_hash
-- For the rest of the transaction. The checks join the rows of one page of executions. With index scans and hash joins
-- their cost depends on the page only, whatever the planner estimates. A nested loop over 100,000 items would take too
-- long.
select set_config(name, setting, true)
from (
  values ('enable_nestloop', 'off'), ('enable_mergejoin', 'off'), ('enable_seqscan', 'off'), ('jit', 'off'),
    ('max_parallel_workers_per_gather', '0'), ('plan_cache_mode', 'force_custom_plan'), ('work_mem', '64MB')
) wanted (name, setting);

-- name: verify_one_by_one
-- Re-running turns reads one execution at a time, with pauses between statements.
select set_config(name, setting, true)
from (
  values ('enable_nestloop', 'on'), ('idle_in_transaction_session_timeout', '0')
) wanted (name, setting);

-- name: verify_everything
-- Executions by age, with their number of turns. A row without path and state is a child that was never started.
select x.execution_id, coalesce(s.turn, 0) as turns
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where x.execution_id > $1::bigint
  and (x.path is not null or s.execution_id is not null)
  and {part.not_archived x}
order by x.execution_id
limit $2::int;

-- name: verify_without_row
-- Executions with turns and without a row: a person deleted it. A state without a row is no fault by itself, because
-- events of unknown executions have turns too.
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
-- The executions of a filter. With a time: those with a turn or a start since then, and those with mail. Neither time
-- is indexed: the table of states is read, and ids are time-ordered. `noetl.is_archived` would be called for each state.
with since as materialized (
  select coalesce(
    {filter.since}::timestamptz, clock_timestamp() - make_interval(secs => {filter.since_seconds}::float8),
    timestamptz '2000-01-01 00:00Z'
  ) as at
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
  and {part.chosen}
  and {part.not_archived c}
order by c.execution_id;

-- name: verify_family
-- An execution and all executions below it: running children by their index, ended ones by their answers.
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
      and noetl.is_live(x.status)
    union all
    select x.execution_id
    from (
      select case when noetl.as_json(e.meta) ->> 'child_execution_id' ~ '^[0-9]{1,18}$'
        then (noetl.as_json(e.meta) ->> 'child_execution_id')::bigint end as child_id
      from noetl.event e
      where e.execution_id = f.execution_id
        and noetl.as_json(e.meta) ? 'child_execution_id'
    ) a
    join noetl.execution x on x.execution_id = a.child_id
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
where noetl.is_live(x.status)
  and x.execution_id > $1::bigint
order by x.execution_id
limit $2::int;

-- name: verify_running_of
-- Which of these are running.
select x.execution_id
from noetl.execution x
where x.execution_id = any($1::bigint[])
  and noetl.is_live(x.status);
