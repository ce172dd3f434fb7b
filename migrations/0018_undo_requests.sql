-- What an operator asks for: the undo of an execution that has ended, its end, and rows that were settled by hand. The last
-- functions erase the values of executions.

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
  perform noetl.refuse_erased($1);
  with recursive below as (
    select c.execution_id, c.erased_at
    from noetl.execution c
    where c.parent_execution_id = $1
    union
    select c.execution_id, c.erased_at
    from below b
    join noetl.execution c on c.parent_execution_id = b.execution_id
  )
  select b.execution_id into other
  from below b
  where b.erased_at is not null
    and exists (select from noetl.undo u where u.execution_id = b.execution_id and u.status in ('open', 'failed', 'unknown'))
  limit 1;
  if found then
    raise exception using errcode = 'NB409',
      message = format('execution %s was erased, so what it did for execution %s cannot be undone', other, $1),
      hint = format('noetl-broker undo %s --settle STEP --reason TEXT closes a step that somebody undid by hand', $1);
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
  execution_id bigint, unknown boolean default false, version int default null, by text default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  caller text := noetl.caller_name($4);
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
    select noetl.as_json(e.context) - array['error', 'answer', 'by'] into before
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
    asked || jsonb_build_object('error', noetl.undo_error($1), 'by', caller));
  return true;
end
$$;

comment on function noetl.undo_execution(bigint, boolean, int, text) is
  'Asks an ended execution to undo what it did. `unknown`: also what may not have happened. `version`: with the `compensate` of that version. False: nothing is left.';

create or replace function noetl.settle_undo(execution_id bigint, step text, reason text, by text default null) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  caller text := noetl.caller_name($4);
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
      source.catalog_id, jsonb_build_object('reason', left($3, noetl.limit_of('reason_chars')), 'by', caller));
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

comment on function noetl.settle_undo(bigint, text, text, text) is
  'Closes what is left to undo of a step, because somebody undid it by hand. Returns the number of visits and items.';

create or replace function noetl.abandon_execution(execution_id bigint, reason text default null, by text default null) returns boolean
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
    jsonb_build_object('reason', left($2, noetl.limit_of('reason_chars')), 'by', noetl.caller_name($3)));
  return true;
end
$$;

comment on function noetl.abandon_execution(bigint, text, text) is
  'Asks the broker to end an undo, and to list what is left. Returns false when none runs.';

-- What `erase` does with each column of each table. `becomes`: kept; erased; digest: a SHA-256 stands for it; removed: the row is
-- deleted. `value`: what an update writes. noetl.erase_execution makes its statements of these rows, in this order.
create or replace function noetl.erasure() returns table (table_name text, column_name text, becomes text, value text)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select d.table_name, c.name, d.becomes, d.value
  from (
    values
      ('event', 'kept', null, 'execution_id event_id catalog_id parent_event_id parent_execution_id created_at event_type node_id node_type status duration worker_id'),
      ('event', 'erased', 'case when noetl.kind_of(event_type) = ''execution_signal'' then ''erased'' else node_name end', 'node_name'),
      ('event', 'erased', 'noetl.without_values(noetl.as_json(context), ''{path,version,index,signal_id}'')', 'context'),
      ('event', 'erased', 'null', 'result'),
      ('event', 'erased', 'noetl.without_values(noetl.as_json(meta), ''{turn,queue_id,attempt,index,arcs,child_execution_id,taken_from,signal_id}'')
        || coalesce(jsonb_build_object(''fork'', noetl.without_values(noetl.as_json(meta) -> ''fork'', ''{visits}'')), ''{}'')', 'meta'),
      ('event', 'erased', 'noetl.without_values(noetl.as_json(error), ''{}'') || ''{"message": "erased"}''', 'error'),
      ('turn', 'kept', null, 'execution_id turn event_id outcome decided_at result_event_id'),
      ('turn', 'erased', 'null', 'note facts'),
      ('queue', 'kept', null, 'queue_id execution_id catalog_id node_id node_name node_type status priority attempts max_attempts available_at lease_until worker_id last_heartbeat parent_execution_id parent_event_id event_id created_at updated_at held_for timeout_seconds first_leased_at lost_leases lease_seconds stop draining limit_name pool'),
      ('queue', 'erased', '''{}''', 'action'),
      ('queue', 'erased', 'null', 'context progress limit_key'),
      ('workload', 'kept', null, 'execution_id timestamp'),
      ('workload', 'erased', 'null', 'data'),
      ('workflow', 'kept', null, 'execution_id step_id step_name step_type description raw_config ordinal status visits started_at ended_at result_visit result_event_id'),
      ('transition', 'kept', null, 'execution_id from_step to_step condition with_params ordinal'),
      ('workbook', 'kept', null, 'execution_id task_id task_name task_type raw_config'),
      ('iteration', 'kept', null, 'execution_id node_id index status child_execution_id result_event_id failures failed_attempt unsure'),
      ('iteration', 'erased', 'null', 'item'),
      ('iteration', 'erased', 'noetl.without_values(error, ''{}'') || ''{"message": "erased"}''', 'error'),
      ('wait', 'kept', null, 'execution_id node_id step kind status since_at began_at ended_at'),
      ('wait', 'erased', '''{}''', 'request'),
      ('wait', 'erased', 'null', 'names key details'),
      ('undo', 'kept', null, 'execution_id node_id step visit index turn status unsure children ended_at'),
      ('undo', 'erased', 'noetl.without_values(error, ''{}'') || ''{"message": "erased"}''', 'error'),
      ('signal_taken', 'kept', null, 'execution_id signal_id event_id'),
      ('log', 'removed', null, 'execution_id node_id attempt ordinal step level created_at first_byte message'),
      ('dead_letter', 'kept', null, 'event_id execution_id created_at'),
      ('dead_letter', 'erased', '''erased''', 'reason'),
      ('signal', 'removed', null, 'signal_id name key payload sent_at expires_at idempotency_key execution_id hops sent_by'),
      -- before `execution`, where its key is looked up
      ('start_key', 'kept', null, 'path execution_id created_at'),
      ('start_key', 'digest', 'noetl.erased_key(idempotency_key)', 'idempotency_key'),
      ('start_key', 'digest', null, 'digest'),
      ('start_key', 'erased', 'null', 'repeated_by'),
      ('execution_state', 'kept', null, 'execution_id turn last_at'),
      ('execution_state', 'erased', 'json_build_object(''status'', tokens -> ''status'', ''seen'', tokens -> ''seen'', ''total'', tokens -> ''total'')', 'tokens'),
      ('execution', 'kept', null, 'execution_id catalog_id path version status started_at admitted_at waits_for_slot ended_at late_at parent_execution_id parent_event_id parent_node_id parent_index forked_from rules undo_status undo_catalog_id'),
      ('execution', 'kept', 'coalesce(erased_at, clock_timestamp())', 'erased_at'),
      ('execution', 'kept', 'coalesce(erased_by, $3)', 'erased_by'),
      ('execution', 'digest', 'noetl.erased_key(idempotency_key)', 'idempotency_key'),
      ('execution', 'erased', 'null', 'workload result tags started_by'),
      ('execution', 'erased', 'noetl.without_values(error, ''{step}'') || ''{"message": "erased"}''', 'error'),
      -- no row of an execution that has ended, or no value of one
      ('catalog', 'kept', null, 'catalog_id path version kind content payload meta created_at name bucket block_of registered_by'),
      ('inbox', 'kept', null, 'mail_id execution_id event_id adopts oversize'),
      ('job_to_cancel', 'kept', null, 'execution_id node_id draining'),
      ('unheld_job', 'kept', null, 'execution_id node_id'),
      ('timer', 'kept', null, 'timer_id execution_id node_id step purpose due_at is_moment created_at'),
      ('place', 'kept', null, 'path key max_held version held is_waited_for is_passed'),
      ('slot_claim', 'kept', null, 'execution_id path key number label is_pair created_at held_at cancelled_at'),
      ('limit', 'kept', null, 'name concurrency rate burst created_at updated_at changed_by'),
      ('throttle_bucket', 'kept', null, 'name key full_at'),
      ('release_request', 'kept', null, 'request_id name key due_at begun_at'),
      ('on_signal', 'kept', null, 'path name condition since_at'),
      ('match_request', 'kept', null, 'request_id signal_id execution_id node_id path last_execution_id last_node_id created_at'),
      ('start_schedule', 'kept', null, 'name path version payload options cron every timezone jitter catch_up overlap declared_in paused paused_at resumed_at since_at next_at due_at moved_at last_at last_execution_id started skipped error error_at created_at updated_at changed_by'),
      ('path_pause', 'kept', null, 'path reason paused_at paused_by'),
      ('clock', 'kept', null, 'is_only seen_at stepped_at behind_seconds ahead_until steps is_pulling'),
      ('period', 'kept', null, 'name first_id next_id archived_at dropping_at kept held_by dropped_at'),
      ('archived', 'kept', null, 'execution_id archived_at'),
      ('step_type', 'kept', null, 'name added_at added_by'),
      ('api_token', 'kept', null, 'name digest role created_at created_by expires_at revoked_at revoked_by'),
      ('worker', 'kept', null, 'worker_id host version pools types slots leased since seen'),
      ('figure', 'kept', null, 'path hour version step sampled counts summed_at'),
      ('schema_version', 'kept', null, 'version name checksum applied_at serves_from program'),
      ('signal_copy', 'kept', null, 'target signal_id created_at'),
      ('ended_job', 'kept', null, 'queue_id status ended_at')
  ) d (table_name, becomes, value, column_names)
  cross join lateral unnest(string_to_array(d.column_names, ' ')) c (name)
$$;

-- These keys of an object: the broker writes their values itself. Null for null.
create or replace function noetl.without_values(document jsonb, kept text[]) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when $1 is not null then coalesce(
    (select jsonb_object_agg(k.name, $1 -> k.name) from unnest($2) k (name) where $1 -> k.name is not null), '{}'
  ) end
$$;

-- The executions that are erased with one, and why they cannot be (null: they can). They are what it started, its forks and
-- retries, and what started because one of them failed.
create or replace function noetl.plan_erasure(execution_id bigint, out family bigint[], out reason text, out remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  found record;
  which text;
begin
  with recursive below as (
    select $1 as id
    union
    select c.execution_id
    from below b
    cross join lateral (
      select x.execution_id from noetl.execution x where x.parent_execution_id = b.id
      union all
      select x.execution_id from noetl.execution x where x.forked_from = b.id
      union all
      select k.execution_id
      from noetl.start_key k
      join noetl.execution_state s on s.execution_id = k.execution_id and s.tokens ->> 'on_failure' = b.id::text
      where k.idempotency_key = 'on_failure ' || b.id
      offset 0 -- a fence: each is looked up by its index
    ) c
  )
  select array_agg(b.id order by b.id) into family
  from below b;
  with recursive above as (
    select x.parent_execution_id as id
    from noetl.execution x
    where x.execution_id = $1
    union
    select x.parent_execution_id
    from above a
    join noetl.execution x on x.execution_id = a.id
  )
  select w.* into found
  from (
    select x.execution_id as id, x.status, m.is_below, case
        when noetl.is_live(x.status) and x.status <> 'COMPENSATING' then 'live'
        when x.status = 'COMPENSATING' or x.undo_status = 'undoing' or noetl.is_undo_asked(m.id) then 'undoing'
        when x.undo_status = 'left' then 'left'
        when m.is_below and exists (select from noetl.inbox i where i.execution_id = m.id) then 'unread'
        when m.is_below and exists (select from noetl.queue q where q.execution_id = m.id and q.status = 'leased') then 'leased'
      end as because
    from (
      select f.id, true as is_below
      from unnest(family) f (id)
      union all
      select a.id, false
      from above a
    ) m
    join noetl.execution x on x.execution_id = m.id
  ) w
  where w.because is not null
  order by w.id <> $1, w.id
  limit 1;
  if found.id is null then
    return;
  end if;
  which := case when found.id = $1 then 'it' when found.is_below then format('execution %s, which is erased with it,', found.id)
    else format('execution %s, which it belongs to,', found.id) end;
  reason := which || case found.because
    when 'live' then ' has not ended: it is ' || found.status
    when 'undoing' then ' is undoing what it did'
    when 'left' then ' has something left to undo'
    when 'unread' then ' has events that no broker has read'
    else ' has a job that a worker holds'
  end;
  remedy := case found.because
    when 'left' then format('noetl-broker undo %s goes on with it', found.id)
    when 'unread' then 'erase it when a broker has read them'
    when 'leased' then 'erase it when the worker has stopped'
    else noetl.how_to_end(found.id)
  end;
end
$$;

-- Erases those of the executions that can be: [{execution_id, executions, reason, remedy}] says how many were erased with each,
-- or why not. Their statements are made once for all of them.
create or replace function noetl.erase_executions(execution_ids bigint[], by text default null) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  -- in a bucket all of them, because signals were copied
  schemas constant text[] := coalesce(
    (select array_agg(regexp_replace('noetl', '[0-9]+$', '') || n) from generate_series(0, noetl.bucket_count() - 1) n),
    array['noetl']
  );
  caller text := noetl.caller_name($2);
  plans jsonb;
  families bigint[] := '{}';
  locked bigint[];
  erased bigint[];
  one record;
  found bigint[];
  signals bigint[];
  is_copied boolean;
begin
  loop -- nobody forks one that is locked
    locked := families;
    select coalesce(jsonb_agg(to_jsonb(p) || jsonb_build_object('execution_id', x.execution_id)), '[]') into plans
    from noetl.execution x
    cross join lateral noetl.plan_erasure(x.execution_id) p
    where x.execution_id = any($1);
    families := array(select f.id::bigint from jsonb_path_query(plans, '$[*].family[*]') f (id));
    exit when families <@ locked;
    perform pg_advisory_xact_lock(m.id)
    from (select distinct f.id from unnest(families || array(select noetl.root_of(i.id) from unnest($1) i (id))) f (id) order by 1) m;
  end loop;
  erased := array(select distinct f.id::bigint from jsonb_path_query(plans, '$[*] ? (@.reason == null).family[*]') f (id));
  for one in
    select p.nspname as schema, format('%I.%I', p.nspname, p.relname) as name, d.table_name as of,
      bool_or(d.becomes = 'removed') as is_removed,
      string_agg(format('%I = (%s)::%s', d.column_name, d.value, format_type(a.atttypid, a.atttypmod)), ', ') as changes
    from noetl.erasure() with ordinality d (table_name, column_name, becomes, value, ordinal)
    join (
      select c.oid, n.nspname, c.relname, regexp_replace(c.relname, '_(without_period|[0-9]{8})$', '') as name
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and n.nspname = any(schemas || array['noetl', 'noetl_archive'])
    ) p on p.name = d.table_name
    join pg_attribute a on a.attrelid = p.oid and a.attname = d.column_name and not a.attisdropped
    where (d.value is not null or d.becomes = 'removed')
      and (
        p.nspname = 'noetl' and p.relname = d.table_name
        or d.table_name = 'signal' and p.relname = d.table_name
        or p.nspname = 'noetl_archive' and p.relname = d.table_name || '_without_period'
        or p.nspname = 'noetl_archive' and exists (
          select
          from noetl.period r
          join unnest(erased) f (id) on f.id >= r.first_id and f.id < r.next_id
          where p.relname = d.table_name || '_' || r.name
        )
      )
    group by p.nspname, p.relname, d.table_name
    order by min(d.ordinal)
  loop
    if one.of = 'event' then
      execute format(
        'select array_agg(s.id::bigint)
        from %s e
        cross join lateral (
          select case e.event_type when ''execution_start'' then noetl.as_json(e.meta) else noetl.as_json(e.context) end ->> ''signal_id''
        ) s (id)
        where e.execution_id = any($1) and e.event_type in (''execution_start'', ''execution_signal'') and s.id ~ ''^[0-9]{1,18}$''',
        one.name
      ) into found using erased;
      signals := signals || found;
    elsif one.of = 'signal' and noetl.bucket_number() is not null then
      execute format('select exists (select from %I.signal_copy c where c.signal_id = any($1))', one.schema)
      into is_copied using signals;
      if is_copied then
        raise exception using errcode = 'NB409',
          message = 'a signal that one of the executions took is being copied to other buckets',
          hint = 'erase them again in a moment';
      end if;
    end if;
    execute format(
      case when one.is_removed then 'delete from %1$s where %3$s' else 'update %1$s set %2$s where %3$s' end,
      one.name, one.changes, case one.of
        when 'signal' then 'signal_id = any($2) or key = any($1::text[]) and execution_id = any($1)'
        when 'start_key' then 'execution_id = any($1) and (idempotency_key, path) in
          (select x.idempotency_key, x.path from noetl.execution x where x.execution_id = any($1))'
        else 'execution_id = any($1)'
      end
    ) using erased, signals, caller;
  end loop;
  return (
    select coalesce(jsonb_agg(p.plan - 'family' || jsonb_build_object('executions', jsonb_array_length(p.plan -> 'family'))), '[]')
    from jsonb_array_elements(plans) p (plan)
  );
end
$$;

create or replace function noetl.erase_execution(execution_id bigint, preview boolean default false, by text default null) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  planned record;
  done jsonb;
begin
  if not exists (select from noetl.execution x where x.execution_id = $1) then
    perform noetl.is_elsewhere($1);
    raise exception using errcode = 'NB404', message = format('no execution %s', $1),
      hint = 'noetl-broker executions lists them';
  elsif $2 then
    planned := noetl.plan_erasure($1);
    return jsonb_build_object('executions', cardinality(planned.family), 'refused', planned.reason);
  end if;
  done := noetl.erase_executions(array[$1], $3) -> 0;
  if done ->> 'reason' is not null then
    raise exception using errcode = 'NB409', message = format('execution %s cannot be erased: %s', $1, done ->> 'reason'),
      hint = done ->> 'remedy';
  end if;
  return jsonb_build_object('executions', done -> 'executions');
end
$$;


comment on function noetl.erase_executions(bigint[], text) is
  'Erases many as erase_execution does, and says of each how many it erased, or what refuses it.';

comment on function noetl.erase_execution(bigint, boolean, text) is
  'Erases the values of an ended execution, of what it started and of its forks; statuses, times and names of steps stay. `preview`: says how many, and what refuses it.';

revoke all on function
  noetl.refuse_undo(bigint, text), noetl.ask_execution(bigint, text, text, text, bigint, jsonb), noetl.lock_ended(bigint),
  noetl.undo_execution(bigint, boolean, int, text), noetl.settle_undo(bigint, text, text, text),
  noetl.abandon_execution(bigint, text, text), noetl.erasure(), noetl.without_values(jsonb, text[]), noetl.plan_erasure(bigint),
  noetl.erase_executions(bigint[], text), noetl.erase_execution(bigint, boolean, text)
  from public;
