-- Executions that undo what is left of another one: what they take over, who starts them, and when they are refused.

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

revoke all on function
  noetl.take_over_undo(bigint, bigint, boolean), noetl.start_undo(bigint, boolean, bigint, text, bigint, jsonb, bigint),
  noetl.refuse_undo(bigint, text), noetl.refuse_undone_results(bigint, jsonb),
  noetl.undo_execution(bigint, boolean, int), noetl.abandon_execution(bigint, text)
  from public;
