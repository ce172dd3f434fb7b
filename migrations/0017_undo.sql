-- Undo: which actions an execution undoes when it fails or is cancelled, and how an operator continues after a failed undo.
--
-- The broker writes a row in the turn that reads a success. So the state of the core keeps only a count. A row ends once:
-- it is done, failed or unknown, or another execution has taken it over.

-- Partitioned, because the rows live as long as the history of their execution.
create table if not exists noetl.undo (
  execution_id bigint not null,
  node_id text not null,
  step text not null,
  visit int not null check (visit > 0),
  index int check (index >= 0),
  turn int not null,
  status text not null default 'open'
    check (status in ('open', 'running', 'done', 'failed', 'unknown', 'superseded', 'taken')),
  child_execution_id bigint,
  inputs jsonb,
  result jsonb,
  taken_by bigint,
  error jsonb,
  ended_at timestamptz,
  primary key (execution_id, node_id),
  check ((status = 'taken') = (taken_by is not null))
) partition by range (execution_id);
-- one undo at a time, the last success first
create index if not exists undo_open on noetl.undo (execution_id, turn) where status = 'open';
-- what is left in executions that failed or were cancelled
create index if not exists undo_left on noetl.undo (execution_id)
  where ended_at is not null and status in ('open', 'failed', 'unknown');

comment on table noetl.undo is
  'One row per visit or item that has a `compensate` and reported success, or whose outcome is unknown.';
comment on column noetl.undo.execution_id is 'Its execution; of a row that was taken over, the undo execution.';
comment on column noetl.undo.node_id is 'The visit or the item.';
comment on column noetl.undo.step is 'The step.';
comment on column noetl.undo.visit is 'The number of the visit.';
comment on column noetl.undo.index is 'The index of the item, from 0; null: the visit itself.';
comment on column noetl.undo.turn is
  'The turn that read the success. The highest is undone first. Rows that were taken over are numbered anew, in that order.';
comment on column noetl.undo.status is
  'open; running: its undo has begun; done; failed; unknown: whether it happened is not known; superseded: the `compensate` of its whole step replaces it; taken: another execution undoes it.';
comment on column noetl.undo.child_execution_id is 'A completed child whose own rows are to be undone.';
comment on column noetl.undo.inputs is
  'Of rows that were taken over: {action, item, total} of the visit or the item. The job of other rows has them.';
comment on column noetl.undo.result is 'Of rows that were taken over: the data. The event of other rows has it.';
comment on column noetl.undo.taken_by is 'The execution that undoes it instead.';
comment on column noetl.undo.error is 'Why its undo failed.';
comment on column noetl.undo.ended_at is
  'When its undo ended, or its execution failed or was cancelled and left it; null: neither happened.';

-- The job of an item, or what its child was started with.
create or replace function noetl.item_action(execution_id bigint, visit_node_id text, index int) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select q.action::jsonb
      from noetl.queue q
      where q.execution_id = $1 and q.node_id = noetl.item_node_id($2, $3)
    ),
    (
      select jsonb_build_object('args', noetl.as_json(e.context) -> 'workload')
      from noetl.iteration i
      join noetl.turn t on t.execution_id = i.child_execution_id and t.turn = 1
      join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
      where i.execution_id = $1 and i.node_id = $2 and i.index = $3
    ),
    '{}'
  )
$$;

-- What the templates of an undo read of the visit or the item beside its result: {action, item, total}.
create or replace function noetl.undo_inputs(undone noetl.undo) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(undone.inputs, jsonb_strip_nulls(jsonb_build_object(
    'action', case
      when undone.index is null then (
        select q.action::jsonb
        from noetl.queue q
        where q.execution_id = undone.execution_id and q.node_id = undone.node_id
      )
      else noetl.item_action(
        undone.execution_id, noetl.node_id(undone.execution_id, undone.step, undone.visit), undone.index
      )
    end,
    'total', case when undone.index is not null then (
      select count(*)
      from noetl.iteration i
      where i.execution_id = undone.execution_id
        and i.node_id = noetl.node_id(undone.execution_id, undone.step, undone.visit)
    ) end
  )) || case when undone.index is null then '{}' else jsonb_build_object('item', (
    select i.item
    from noetl.iteration i
    where i.execution_id = undone.execution_id
      and i.node_id = noetl.node_id(undone.execution_id, undone.step, undone.visit) and i.index = undone.index
  )) end)
$$;

-- The data that templates see: the visit's `output`, or what the worker or the child answered.
create or replace function noetl.undo_result(undone noetl.undo) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when undone.inputs is not null then undone.result -- taken over before, and its turn is numbered anew
    else (
      -- the event of an unknown row may be the success: then only the end of its undo is not known
      select case
        when o.event_id is not null then noetl.unwrapped(noetl.as_json(o.result))
        when noetl.kind_of(e.event_type) in ('action_completed', 'execution_complete', 'iterator_completed')
          then noetl.unwrapped(noetl.as_json(e.result))
      end
      from noetl.turn t
      left join noetl.event o
        on o.execution_id = t.execution_id and o.event_id = t.result_event_id
          and o.event_type in ('step_completed', 'step_failed') -- it keeps the `output` of a visit whose next failed
      left join noetl.event e
        on e.execution_id = t.execution_id and e.event_id = t.event_id
      where t.execution_id = undone.execution_id and t.turn = undone.turn
    )
  end
$$;

-- An execution and the executions that took over what it had to undo, each with whether it is live.
create or replace function noetl.undo_executions(execution_id bigint) returns table (execution_id bigint, is_live boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive takers as (
    select $1 as execution_id
    union
    select u.taken_by
    from takers k
    join noetl.undo u on u.execution_id = k.execution_id
    where u.taken_by is not null
  )
  select k.execution_id, noetl.is_live(x.status)
  from takers k
  join noetl.execution x on x.execution_id = k.execution_id
$$;

-- The execution whose actions an undo execution undoes; null: it is none.
create or replace function noetl.undo_origin(execution_id bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select (noetl.as_json(e.meta) #>> '{undo,origin}')::bigint
  from noetl.execution x
  join noetl.turn t on t.execution_id = x.execution_id and t.turn = 1
  join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
  where x.execution_id = $1 and x.forked_from is not null
$$;

-- The turn that read the success of a visit or an item, in the execution that did it. Rows that were taken over are
-- numbered anew, some of them twice. Their order is that of the successes.
create or replace function noetl.success_turn(undone noetl.undo) returns int
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select o.turn
      from noetl.undo o
      where o.execution_id = x.origin and o.node_id = x.origin || substr(undone.node_id, position(':' in undone.node_id))
    ),
    undone.turn
  )
  from (select coalesce(noetl.undo_origin(undone.execution_id), undone.execution_id) as origin) x
$$;

-- Why an execution is undone, for the templates of undos. Each attempt at an undo gets the same error, because a service
-- may refuse a repeated request that differs.
create or replace function noetl.undo_error(execution_id bigint) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select noetl.as_json(e.error)
      from noetl.event e
      where e.execution_id = $1 and e.event_type = 'execution_compensating'
      limit 1
    ),
    (
      select noetl.as_json(x.error)
      from noetl.execution x
      where x.execution_id = $1
    ),
    jsonb_build_object('message', 'it is undone after it completed', 'type', 'undo')
  )
$$;

-- Whether an execution is an undo execution: it began with rows of another one.
create or replace function noetl.is_undo_execution(execution_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from noetl.undo u where u.execution_id = $1 and u.inputs is not null)
$$;

-- The latest retry or fork of an execution; null: there is none. An undo execution is none.
create or replace function noetl.recovered_as(execution_id bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select max(f.execution_id)
  from noetl.execution f
  where f.forked_from = $1 and not noetl.is_undo_execution(f.execution_id)
$$;

-- Whether an execution undoes something, or will do so when its start is read.
create or replace function noetl.undoes(execution_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from noetl.execution x where x.execution_id = $1 and x.status = 'COMPENSATING')
    or noetl.is_undo_execution($1)
$$;

-- An execution that undoes something of this one or of a child of it, and has not ended; null: there is none.
create or replace function noetl.live_undo(execution_id bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive undone as (
    select $1 as execution_id
    union
    select n.execution_id
    from undone d
    join noetl.undo u on u.execution_id = d.execution_id
    cross join lateral (values (u.taken_by), (u.child_execution_id)) n (execution_id)
    where n.execution_id is not null
  )
  select x.execution_id
  from undone d
  join noetl.execution x on x.execution_id = d.execution_id
  where d.execution_id <> $1 and noetl.is_live(x.status)
  limit 1
$$;

-- An execution that has not ended: a parent at any level, or an undo execution of one; null: there is none.
create or replace function noetl.live_ancestor(execution_id bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive above as (
    select x.parent_execution_id
    from noetl.execution x
    where x.execution_id in ($1, noetl.undo_origin($1))
    union
    select p.parent_execution_id
    from above a
    join noetl.execution p on p.execution_id = a.parent_execution_id
  )
  select s.execution_id
  from above a
  cross join lateral noetl.undo_executions(a.parent_execution_id) s
  where s.is_live
  limit 1
$$;

-- Children that completed and that are still to be undone, because an execution above them undoes, or left something.
create or replace function noetl.children_to_undo() returns setof bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive undone as (
    (
      select u.child_execution_id
      from noetl.undo u
      where u.ended_at is not null and u.status in ('open', 'failed', 'unknown') and u.child_execution_id is not null
      union
      select u.child_execution_id
      from noetl.execution x
      join noetl.undo u on u.execution_id = x.execution_id
      where x.status = 'COMPENSATING' and u.status in ('open', 'running') and u.child_execution_id is not null
    )
    union
    select u.child_execution_id
    from undone d
    join noetl.undo u on u.execution_id = d.child_execution_id
    where u.status = 'open' and u.child_execution_id is not null
  )
  select d.child_execution_id
  from undone d
$$;

-- Whether a visit has ended without a success, or its execution undoes what it did or has done so.
create or replace function noetl.is_over(execution_id bigint, node_id text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from noetl.event e
    where e.execution_id = $1
      and (e.event_type = 'execution_compensating' or e.event_type in ('step_failed', 'step_cancelled') and e.node_id = $2)
  )
$$;

revoke all on function
  noetl.item_action(bigint, text, int), noetl.undo_inputs(noetl.undo), noetl.undo_result(noetl.undo),
  noetl.undo_executions(bigint), noetl.undo_origin(bigint), noetl.success_turn(noetl.undo), noetl.undo_error(bigint),
  noetl.is_undo_execution(bigint), noetl.recovered_as(bigint), noetl.undoes(bigint), noetl.live_undo(bigint),
  noetl.live_ancestor(bigint), noetl.children_to_undo(), noetl.is_over(bigint, text)
  from public;
