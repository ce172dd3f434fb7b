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

do $$
begin
  create table if not exists noetl_history.undo_default partition of noetl.undo default;
  while noetl.add_partition(30) is not null loop
  end loop;
end
$$;

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

comment on function noetl.item_action(bigint, text, int) is
  'The action of an item''s job. Of an item that a child runs: {args: the payload of the child}.';

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

comment on function noetl.undo_inputs(noetl.undo) is
  'For take_over_undo: what the templates of an undo read of the visit or the item, as {action, item, total}.';

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

comment on function noetl.undo_result(noetl.undo) is 'The result of a visit or an item that is to be undone.';

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

comment on function noetl.undo_executions(bigint) is
  'The execution itself, and the undo executions that took over rows of it.';

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

comment on function noetl.undo_origin(bigint) is
  'The execution whose actions an undo execution undoes; null for any other execution.';

-- Rows that were taken over are numbered anew, some of them twice. Their order is that of the successes.
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

comment on function noetl.success_turn(noetl.undo) is
  'The turn that read the success of a visit or an item, in the execution that did it.';

-- Each attempt at an undo gets the same error, because a service may refuse a repeated request that differs.
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

comment on function noetl.undo_error(bigint) is
  'Why an execution is undone, for the templates of undos: the error with which its undo began, or with which it ended.';

-- Moves what is left of an execution, and of its undo executions that ended, into a new one. Two callers at once get each row
-- once: the second one waits for the row, and then it is taken.
create or replace function noetl.take_over_undo(
  source_id bigint, new_id bigint, with_unknown boolean, out rows int, out unknown int
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  with taken as (
    update noetl.undo u
    set status = 'taken', taken_by = $2
    from noetl.undo_executions($1) s
    where u.execution_id = s.execution_id and not s.is_live
      and (u.status in ('open', 'failed') or $3 and u.status in ('unknown', 'running'))
    returning u.execution_id, u.node_id
  ), moved as (
    insert into noetl.undo (execution_id, node_id, step, visit, index, turn, child_execution_id, inputs, result)
    select $2, $2 || substr(u.node_id, position(':' in u.node_id)), u.step, u.visit, u.index,
      row_number() over (order by noetl.success_turn(u), u.index nulls first, u.node_id), u.child_execution_id,
      noetl.undo_inputs(u), noetl.undo_result(u)
    from taken k
    join noetl.undo u on u.execution_id = k.execution_id and u.node_id = k.node_id
  )
  select count(*), count(*) filter (where u.status in ('unknown', 'running'))
  into rows, unknown
  from taken k
  join noetl.undo u on u.execution_id = k.execution_id and u.node_id = k.node_id; -- as it was before
end
$$;

comment on function noetl.take_over_undo(bigint, bigint, boolean) is
  'Moves what is left to undo of an execution into another one. Returns how many rows, and how many of unknown outcome.';

-- Starts the execution that undoes what is left of another one. With `parent_id`, `parent_node` and `parent_event`, the parent
-- waits for its answer. Of `start_meta`, `undo` may have the error for the templates. The caller writes the mail of the start
-- if its own events are not mail. `used_id` is the catalog id of another version of its playbook; null: it has the same one.
create or replace function noetl.start_undo(
  source_id bigint, with_unknown boolean, parent_id bigint, parent_node text, parent_event bigint, start_meta jsonb,
  used_id bigint,
  out new_id bigint, out event_id bigint, out rows int
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  unknown int;
begin
  new_id := noetl.next_id();
  event_id := noetl.next_id();
  insert into noetl.execution (
    execution_id, catalog_id, path, version, forked_from, parent_execution_id, parent_event_id, parent_node_id
  )
  select new_id, coalesce($7, x.catalog_id), x.path, coalesce(c.version, x.version), $1, $3, $5, $4
  from noetl.execution x
  left join noetl.catalog c on c.catalog_id = $7
  where x.execution_id = $1;
  select t.rows, t.unknown
  into rows, unknown
  from noetl.take_over_undo($1, new_id, $2) t;
  insert into noetl.event (
    execution_id, event_id, catalog_id, parent_event_id, parent_execution_id, event_type, node_id, node_name, node_type,
    status, context, meta
  )
  select new_id, event_id, n.catalog_id, $5, $3, 'execution_start', new_id::text,
    coalesce(c.name, noetl.name_of_path(x.path)), 'playbook', 'STARTED',
    jsonb_build_object('path', x.path, 'version', n.version, 'workload', coalesce(x.workload, '{}')),
    coalesce($6, '{}') || jsonb_build_object(
      'forked_from', $1,
      'undo', jsonb_build_object('execution_id', $1, 'origin', coalesce(noetl.undo_origin($1), $1), 'rows', rows,
        'unknown', unknown, 'error', noetl.undo_error($1)) || coalesce($6 -> 'undo', '{}')
    )
  from noetl.execution x
  join noetl.execution n on n.execution_id = new_id
  left join noetl.catalog c on c.catalog_id = n.catalog_id
  where x.execution_id = $1;
end
$$;

comment on function noetl.start_undo(bigint, boolean, bigint, text, bigint, jsonb, bigint) is
  'For the broker and noetl.undo_execution: starts an execution that undoes what is left of another one.';

-- Whether an execution is an undo execution: it began with rows of another one.
create or replace function noetl.is_undo_execution(execution_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from noetl.undo u where u.execution_id = $1 and u.inputs is not null)
$$;

comment on function noetl.is_undo_execution(bigint) is 'Whether an execution is an undo execution: it began with rows of another one.';

create or replace function noetl.brought_back_as(execution_id bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select max(f.execution_id)
  from noetl.execution f
  where f.forked_from = $1 and not noetl.is_undo_execution(f.execution_id)
$$;

comment on function noetl.brought_back_as(bigint) is
  'The latest retry or fork of an execution; null: there is none. An undo execution is none.';

-- Whether an execution undoes something, or will do so when its start is read.
create or replace function noetl.undoes(execution_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from noetl.execution x where x.execution_id = $1 and x.status = 'COMPENSATING')
    or noetl.is_undo_execution($1)
$$;

comment on function noetl.undoes(bigint) is 'Whether an execution undoes something, or will do so when its start is read.';

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

comment on function noetl.live_undo(bigint) is
  'An execution that undoes something of this one or of a child of it, and has not ended; null: there is none.';

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

comment on function noetl.live_ancestor(bigint) is
  'An execution that has not ended: a parent at any level, or an undo execution of one; null: there is none.';

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

comment on function noetl.children_to_undo() is
  'For archive: completed children that an execution above them undoes, or has left to undo.';

-- Why an execution cannot be undone now: it, an execution above it or a child of it is live or is being undone.
create or replace function noetl.refuse_undo(execution_id bigint, status text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  other bigint;
  reason text;
begin
  if noetl.is_live($2) then
    other := $1;
    reason := case when $2 = 'COMPENSATING' then format('execution %s is undoing what it did', $1)
      else format('execution %s has not ended, it is %s', $1, $2) end;
  end if;
  if other is null then
    other := noetl.live_ancestor($1);
    reason := format('execution %s belongs to execution %s, which has not ended', $1, other);
  end if;
  if other is null then
    select s.execution_id into other
    from noetl.undo_executions($1) s
    where s.is_live
    limit 1;
    reason := format('execution %s is being undone by %s', $1, other);
  end if;
  if other is null then
    other := noetl.live_undo($1);
    reason := format('execution %s cannot be undone while %s undoes a child of it', $1, other);
  end if;
  if other is not null then
    raise exception using errcode = 'NB409', message = reason,
      hint = case
        when noetl.undoes(other)
          then format('noetl-broker status %s shows how far it is; noetl-broker abandon %s ends it', other, other)
        when other = $1 then format('noetl-broker cancel %s ends it, and undoes what it did', other)
        else format('noetl-broker cancel %s ends it, and undoes what it and its children did', other)
      end;
  end if;
end
$$;

comment on function noetl.refuse_undo(bigint, text) is
  'For undo_execution: raises an error if an execution, one above it or a child of it is live or is being undone.';

-- A fork never takes over a result that was undone. `results` are those of its plan.
create or replace function noetl.refuse_undone_results(execution_id bigint, results jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  undone record;
begin
  if exists (select from noetl.execution x where x.execution_id = $1 and x.status = 'COMPENSATING') then
    raise exception using errcode = 'NB409',
      message = format('execution %s is undoing what it did, so its results cannot be taken over', $1),
      hint = format('noetl-broker status %s shows how far it is; noetl-broker abandon %s ends it', $1, $1);
  end if;
  select u.step, u.visit into undone
  from jsonb_array_elements($2) r (result)
  join noetl.undo u
    on u.execution_id = $1 and u.step = r.result ->> 'step' and u.visit = (r.result ->> 'visit')::int
  where not r.result ? 'set'
    and (u.status in ('running', 'done', 'failed', 'taken') or exists (
      select
      from noetl.undo c
      where c.execution_id = u.child_execution_id and c.status in ('running', 'done', 'failed', 'taken')
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

comment on function noetl.refuse_undone_results(bigint, jsonb) is
  'For fork_execution: raises an error if one of these results was undone.';

create or replace function noetl.undo_execution(
  execution_id bigint, unknown boolean default false, version int default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  source record;
  started record;
  doubtful int;
  used_id bigint;
begin
  -- locks out a second call, calls for the same family, and turns of the execution
  perform pg_advisory_xact_lock(noetl.root_of(coalesce(noetl.undo_origin($1), $1)));
  perform pg_advisory_xact_lock($1);
  select x.path, x.status, noetl.is_archived($1) as is_archived
  into source
  from noetl.execution x
  where x.execution_id = $1;
  if not found then
    raise exception using errcode = 'NB404', message = format('no execution %s', $1),
      hint = 'noetl-broker executions lists them';
  elsif source.is_archived then
    raise exception using errcode = 'NB404', message = format('execution %s is archived', $1),
      hint = 'its history is in the schema noetl_archive';
  end if;
  perform noetl.refuse_undo($1, source.status);
  if $3 is not null then
    select c.catalog_id into used_id
    from noetl.catalog c
    where c.path = source.path and c.version = $3;
    if not found then
      raise exception using errcode = 'NB404',
        message = format('no playbook %s version %s is registered', source.path, $3),
        hint = 'noetl-broker register FILE registers a version';
    end if;
  end if;
  perform set_config('noetl.writer', '', true);
  started := noetl.start_undo($1, coalesce($2, false), null, null, null, null, used_id);
  if started.rows = 0 then
    select count(*) into doubtful
    from noetl.undo_executions($1) s
    join noetl.undo u on u.execution_id = s.execution_id
    where u.status in ('unknown', 'running');
    raise exception using errcode = 'NB409',
      message = case when doubtful > 0
        then format('nothing of execution %s is left to undo but %s of unknown outcome', $1, doubtful)
        else format('nothing of execution %s is left to undo', $1) end,
      hint = case when doubtful > 0 then format('noetl-broker undo %s --unknown undoes these too', $1)
        else format('noetl-broker status %s shows what was undone', $1) end;
  end if;
  return started.new_id;
end
$$;

comment on function noetl.undo_execution(bigint, boolean, int) is
  'Starts an execution that undoes what is left of an ended one. `unknown`: also actions that may not have happened. `version`: another version of its playbook. Returns the id.';

create or replace function noetl.abandon_execution(execution_id bigint, reason text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  execution record;
begin
  select x.status, x.catalog_id, coalesce(c.name, noetl.name_of_path(x.path)) as name
  into execution
  from noetl.execution x
  left join noetl.catalog c on c.catalog_id = x.catalog_id
  where x.execution_id = $1;
  if not found then
    raise exception using errcode = 'NB404', message = format('no execution %s', $1),
      hint = 'noetl-broker executions lists them';
  elsif not noetl.is_live(execution.status) then
    return false;
  elsif not noetl.undoes($1) then
    raise exception using errcode = 'NB409',
      message = format('execution %s is %s; only an undo can be abandoned', $1, execution.status),
      hint = format('noetl-broker cancel %s ends it, and undoes what it did', $1);
  end if;
  perform set_config('noetl.writer', '', true);
  insert into noetl.event (execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context)
  values (
    $1, execution.catalog_id, 'execution_abandon', $1::text, execution.name, 'playbook', 'PENDING',
    jsonb_strip_nulls(jsonb_build_object('reason', left($2, noetl.limit_of('reason_chars'))))
  );
  return true;
end
$$;

comment on function noetl.abandon_execution(bigint, text) is
  'Asks the broker to end an undo: the execution fails, and lists what is left. Returns false when it has already ended.';

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

comment on function noetl.is_over(bigint, text) is
  'For verify: whether a visit has ended without a success, or its execution undoes what it did or has done so.';

-- For readers, without values.
create or replace view noetl.undos as
select u.execution_id, u.node_id, u.step, u.visit, u.index, u.turn, u.status, u.child_execution_id, u.taken_by, u.ended_at
from noetl.undo u;

comment on view noetl.undos is 'For readers: what is to be undone, without values.';

revoke all on function
  noetl.item_action(bigint, text, int), noetl.undo_origin(bigint), noetl.undo_inputs(noetl.undo), noetl.undo_result(noetl.undo),
  noetl.undo_executions(bigint), noetl.success_turn(noetl.undo), noetl.take_over_undo(bigint, bigint, boolean),
  noetl.start_undo(bigint, boolean, bigint, text, bigint, jsonb, bigint), noetl.refuse_undo(bigint, text),
  noetl.undo_error(bigint),
  noetl.is_undo_execution(bigint), noetl.brought_back_as(bigint), noetl.undoes(bigint), noetl.live_undo(bigint), noetl.live_ancestor(bigint), noetl.children_to_undo(), noetl.is_over(bigint, text),
  noetl.refuse_undone_results(bigint, jsonb), noetl.undo_execution(bigint, boolean, int), noetl.abandon_execution(bigint, text)
  from public;
