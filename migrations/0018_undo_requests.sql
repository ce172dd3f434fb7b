-- What an operator asks for: the undo of an execution that has ended, its end, and rows that were settled by hand.

-- Why an execution cannot be undone now: it, an execution above it, or a fork of it is live, or its parent undoes it.
create or replace function noetl.refuse_undo(execution_id bigint, status text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  other bigint := noetl.live_ancestor($1);
  fork bigint := noetl.live_fork($1);
  parent record;
begin
  if noetl.is_live($2) then
    raise exception using errcode = 'NB409',
      message = case when $2 = 'COMPENSATING' then format('execution %s is undoing what it did', $1)
        else format('execution %s has not ended, it is %s', $1, $2) end,
      hint = noetl.how_to_end($1);
  elsif other is not null then
    raise exception using errcode = 'NB409',
      message = format('execution %s belongs to execution %s, which has not ended', $1, other),
      hint = noetl.how_to_end(other);
  elsif fork is not null then
    raise exception using errcode = 'NB409',
      message = format('execution %s is a fork or a retry of execution %s, and has not ended', fork, $1),
      hint = noetl.how_to_end(fork);
  end if;
  select u.execution_id, u.step, u.status into parent
  from noetl.execution x
  join noetl.undo u on u.execution_id = x.parent_execution_id
    and u.node_id in (x.parent_node_id, noetl.item_node_id(x.parent_node_id, x.parent_index))
    and u.children is null and u.status not in ('superseded', 'unknown')
  where x.execution_id = $1 and x.status = 'COMPLETED'
  limit 1;
  if found then
    raise exception using errcode = 'NB409',
      message = format('step %s of execution %s has a `compensate` of its own, which undoes execution %s',
        parent.step, parent.execution_id, $1),
      hint = case when parent.status in ('done', 'settled') then format('noetl-broker status %s shows its undo', parent.execution_id)
        else format('noetl-broker undo %s undoes it', parent.execution_id) end;
  end if;
end
$$;

-- Inserts an event about an ended execution, which is read as mail.
create or replace function noetl.ask_execution(
  execution_id bigint, event_type text, node_id text, node_name text, catalog_id bigint, context jsonb
) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select set_config('noetl.writer', '', true);
  insert into noetl.event (execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context)
  values ($1, $5, $2, $3, $4, 'playbook', 'PENDING', jsonb_strip_nulls($6));
$$;

-- An execution that may be undone: under its lock and that of its family, so that no second call and no turn is beside.
create or replace function noetl.lock_ended(
  execution_id bigint, out path text, out status text, out undo_status text, out catalog_id bigint, out name text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pg_advisory_xact_lock(noetl.root_of($1));
  perform pg_advisory_xact_lock($1);
  select x.path, x.status, x.undo_status, x.catalog_id, coalesce(c.name, noetl.name_of_path(x.path))
  into path, status, undo_status, catalog_id, name
  from noetl.execution x
  left join noetl.catalog c on c.catalog_id = x.catalog_id
  where x.execution_id = $1;
  if not found then
    perform noetl.refuse_unknown($1);
  elsif noetl.is_archived($1) then
    raise exception using errcode = 'NB404', message = format('execution %s is archived', $1),
      hint = 'its history is in the schema noetl_archive';
  end if;
  perform noetl.hold_period($1);
  perform noetl.refuse_undo($1, status);
end
$$;

create or replace function noetl.undo_execution(
  execution_id bigint, unknown boolean default false, version int default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  source record := noetl.lock_ended($1);
  asked jsonb := jsonb_strip_nulls(jsonb_build_object('unknown', nullif(coalesce($2, false), false), 'version', $3));
  before jsonb;
  used_id bigint;
begin
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
  if source.undo_status = 'undoing' or noetl.is_undo_asked($1) then
    select noetl.as_json(e.context) - array['error', 'answer'] into before
    from noetl.event e
    where e.execution_id = $1 and noetl.kind_of(e.event_type) = 'execution_undo'
    order by e.event_id desc
    limit 1;
    if before is distinct from asked then
      raise exception using errcode = 'NB409',
        message = format('execution %s is being undone with other options: %s', $1, before),
        hint = noetl.how_to_end($1);
    end if;
  elsif not exists (
    select
    from noetl.undo u
    where u.execution_id = $1 and (u.status in ('open', 'failed') or $2 and u.status = 'unknown')
  ) then
    return false;
  else
    update noetl.execution x
    set undo_catalog_id = used_id
    where x.execution_id = $1;
  end if;
  perform noetl.ask_execution($1, 'execution_undo', $1::text, source.name, coalesce(used_id, source.catalog_id),
    asked || jsonb_build_object('error', noetl.undo_error($1)));
  return true;
end
$$;

comment on function noetl.undo_execution(bigint, boolean, int) is
  'Asks an ended execution to undo what it did. `unknown`: also what may not have happened. `version`: with the `compensate` of that version. False: nothing is left.';

create or replace function noetl.settle_undo(execution_id bigint, step text, reason text) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  source record := noetl.lock_ended($1);
  one record;
  settled int := 0;
begin
  if $2 is null or coalesce(trim($3), '') = '' then
    raise exception using errcode = 'NB400', message = format('settle_undo of execution %s needs a step and a reason', $1),
      hint = 'say who undid it, and how';
  elsif source.undo_status = 'undoing' or noetl.is_undo_asked($1) then
    raise exception using errcode = 'NB409', message = format('execution %s is undoing what it did', $1),
      hint = noetl.how_to_end($1);
  end if;
  for one in
    select u.node_id, u.step
    from noetl.undo u
    where u.execution_id = $1 and u.step = $2 and u.status in ('open', 'failed', 'unknown')
    order by u.turn, u.index
  loop
    perform noetl.ask_execution($1, 'undo_settled', noetl.undo_node_id(one.node_id), noetl.undo_step(one.step),
      source.catalog_id, jsonb_build_object('reason', left($3, noetl.limit_of('reason_chars'))));
    settled := settled + 1;
  end loop;
  if settled = 0 then
    raise exception using errcode = 'NB409',
      message = format('nothing of step %s of execution %s is left to undo', $2, $1),
      hint = format('noetl-broker status %s shows what is left', $1);
  end if;
  return settled;
end
$$;

comment on function noetl.settle_undo(bigint, text, text) is
  'Closes what is left to undo of a step, because somebody undid it by hand. Returns the number of visits and items.';

create or replace function noetl.abandon_execution(execution_id bigint, reason text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  execution record;
begin
  select x.status, x.undo_status, x.catalog_id, coalesce(c.name, noetl.name_of_path(x.path)) as name
  into execution
  from noetl.execution x
  left join noetl.catalog c on c.catalog_id = x.catalog_id
  where x.execution_id = $1;
  if not found then
    perform noetl.refuse_unknown($1);
  elsif execution.status <> 'COMPENSATING' and noetl.is_live(execution.status) then
    raise exception using errcode = 'NB409',
      message = format('execution %s is %s; only an undo can be abandoned', $1, execution.status),
      hint = noetl.how_to_end($1);
  elsif execution.status <> 'COMPENSATING' and execution.undo_status is distinct from 'undoing'
    and not noetl.is_undo_asked($1) then
    return false;
  end if;
  perform noetl.ask_execution($1, 'execution_abandon', $1::text, execution.name, execution.catalog_id,
    jsonb_build_object('reason', left($2, noetl.limit_of('reason_chars'))));
  return true;
end
$$;

comment on function noetl.abandon_execution(bigint, text) is
  'Asks the broker to end an undo, and to list what is left. Returns false when none runs.';

revoke all on function
  noetl.refuse_undo(bigint, text), noetl.ask_execution(bigint, text, text, text, bigint, jsonb), noetl.lock_ended(bigint),
  noetl.undo_execution(bigint, boolean, int), noetl.settle_undo(bigint, text, text),
  noetl.abandon_execution(bigint, text)
  from public;
