-- Undo: which actions an execution undoes when it fails or is cancelled, and how it goes on after its end.
--
-- The broker writes a row in the turn that reads a success. So the state of the core keeps only a count. An undo after the
-- end is asked for by an event, `execution_undo`, of an operator or of the parent.

-- Partitioned, because the rows live as long as the history of their execution.
create table if not exists noetl.undo (
  execution_id bigint not null,
  node_id text not null,
  step text not null,
  visit int not null check (visit > 0),
  index int check (index >= 0),
  turn int not null,
  status text not null default 'open'
    check (status in ('open', 'running', 'done', 'failed', 'unknown', 'superseded', 'settled')),
  unsure boolean not null default false,
  children bigint[],
  error jsonb,
  ended_at timestamptz,
  primary key (execution_id, node_id)
) partition by range (execution_id);
-- one undo at a time, the last success first
create index if not exists undo_open on noetl.undo (execution_id, turn) where status = 'open';

comment on table noetl.undo is
  'One row per visit or item that has a `compensate` and reported success, or whose outcome is unknown.';
comment on column noetl.undo.execution_id is 'Its execution.';
comment on column noetl.undo.node_id is 'The visit or the item.';
comment on column noetl.undo.step is 'The step.';
comment on column noetl.undo.visit is 'The number of the visit.';
comment on column noetl.undo.index is 'The index of the item, from 0; null: the visit itself.';
comment on column noetl.undo.turn is 'The turn that read the success. The highest is undone first.';
comment on column noetl.undo.status is
  'open; running: its undo has begun; done; failed; unknown: whether it happened is not known; superseded: the `compensate` of its whole step replaces it; settled: by hand.';
comment on column noetl.undo.unsure is 'It never reported a success, so its undo sees no result.';
comment on column noetl.undo.children is 'Child executions of it that undo what they did, the last one first; null: it has a `compensate`.';
comment on column noetl.undo.error is 'Why its undo failed.';
comment on column noetl.undo.ended_at is 'When its undo ended; null: it did not.';

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

-- Why an execution is undone, for the templates of undos. Each attempt at an undo gets the same error, because a service
-- may refuse a repeated request that differs.
create or replace function noetl.undo_error(execution_id bigint) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      -- an error without a type is that of a cancel; after an undo that failed, the status does not say so
      select case when x.status = 'CANCELLED' or noetl.as_json(x.error) ->> 'type' = 'compensation'
        then '{"type": "cancelled"}' else '{}'::jsonb end || noetl.as_json(e.error)
      from noetl.event e
      join noetl.execution x on x.execution_id = e.execution_id
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

-- Whether an undo is asked for that the broker has not read yet.
create or replace function noetl.is_undo_asked(execution_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from noetl.inbox i
    join noetl.event e on e.execution_id = i.execution_id and e.event_id = i.event_id
    where i.execution_id = $1 and noetl.kind_of(e.event_type) = 'execution_undo'
  )
$$;

-- An execution above this one that has not ended; null: there is none.
create or replace function noetl.live_ancestor(execution_id bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive above as (
    select x.parent_execution_id
    from noetl.execution x
    where x.execution_id = $1
    union
    select p.parent_execution_id
    from above a
    join noetl.execution p on p.execution_id = a.parent_execution_id
  )
  select x.execution_id
  from above a
  join noetl.execution x on x.execution_id = a.parent_execution_id
  where noetl.is_live(x.status)
  limit 1
$$;

-- An execution that has not ended and took over results of this one: a fork or a retry, at any level; null: there is none.
create or replace function noetl.live_fork(execution_id bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive forks as (
    select f.execution_id, f.status
    from noetl.execution f
    where f.forked_from = $1
    union
    select f.execution_id, f.status
    from forks s
    join noetl.execution f on f.forked_from = s.execution_id
  )
  select s.execution_id
  from forks s
  where noetl.is_live(s.status)
  limit 1
$$;

-- Executions below one that undoes, or that left something: it may ask them to undo what they did.
create or replace function noetl.below_undos() returns setof bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive below as (
    select c.execution_id
    from noetl.execution x
    join noetl.execution c on c.parent_execution_id = x.execution_id
    where x.status = 'COMPENSATING' or x.undo_status in ('undoing', 'left')
    union
    select c.execution_id
    from below b
    join noetl.execution c on c.parent_execution_id = b.execution_id
  )
  select b.execution_id
  from below b
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

-- Nothing begins with values that were erased.
create or replace function noetl.refuse_erased(execution_id bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if (select x.erased_at is not null from noetl.execution x where x.execution_id = $1) then
    raise exception using errcode = 'NB409', message = format('execution %s was erased: its values are gone', $1),
      hint = format('noetl-broker status %s shows what is kept', $1);
  end if;
end
$$;

-- A fork never takes over a result that was undone. `results` are those of its plan.
create or replace function noetl.refuse_undone_results(execution_id bigint, results jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  undone record;
begin
  if exists (
    select
    from noetl.execution x
    where x.execution_id = $1 and (x.status = 'COMPENSATING' or x.undo_status = 'undoing')
  ) or noetl.is_undo_asked($1) then
    raise exception using errcode = 'NB409',
      message = format('execution %s is undoing what it did, so its results cannot be taken over', $1),
      hint = noetl.how_to_end($1);
  end if;
  select u.step, u.visit into undone
  from jsonb_array_elements($2) r (result)
  join noetl.undo u
    on u.execution_id = $1 and u.step = r.result ->> 'step' and u.visit = (r.result ->> 'visit')::int
  where not r.result ? 'set'
    and (u.status in ('running', 'done', 'failed', 'settled') or exists (
      select
      from noetl.undo c
      where c.execution_id = any(u.children) and c.status in ('running', 'done', 'failed', 'settled')
    ))
  order by u.turn
  limit 1;
  if found then
    raise exception using errcode = 'NB409',
      message = format('step %s of execution %s was undone, so a fork cannot take over its result',
        noetl.visit_name(undone.step, undone.visit), $1),
      hint = format('fork from %s or from a step before it', undone.step);
  end if;
end
$$;

revoke all on function
  noetl.item_action(bigint, text, int), noetl.undo_error(bigint), noetl.is_undo_asked(bigint),
  noetl.live_ancestor(bigint), noetl.live_fork(bigint), noetl.below_undos(), noetl.is_over(bigint, text),
  noetl.refuse_erased(bigint), noetl.refuse_undone_results(bigint, jsonb)
  from public;
