-- What a producer calls: start an execution, cancel one. And what an operator calls: put mail back, fork an execution.
--
-- Errors are of class NB: NB400 a bad argument, NB404 an unknown playbook or execution, NB409 a conflict.
--
-- Whatever writes an event does so in UTC: on the database of a NoETL server `created_at` has no zone. And it says that it
-- is not the broker, whatever its caller says: events of the broker are no mail. (It says so for as long as it writes them:
-- only a superuser may give a function a setting that Postgres does not know, and the owner of the database migrates. Then it
-- is said again what was said before: a trigger that somebody put on our tables may call it while the broker writes.)

create or replace function noetl.start_execution(
  path text,
  payload jsonb default '{}',
  version int default null,
  idempotency_key text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  playbook record;
  earlier record;
  id bigint;
  writer text := current_setting('noetl.writer', true);
begin
  if $1 is null then
    raise exception using errcode = 'NB400', message = 'start_execution needs the path of a playbook',
      hint = 'select noetl.start_execution(''examples/weather'', ''{"city": "Paris"}'')';
  end if;
  if length($1) > 1024 then
    raise exception using errcode = 'NB400',
      message = format('the path %s… has %s characters; it may have 1024', left($1, 40), length($1)),
      hint = 'noetl-broker register FILE tells the path of a playbook';
  end if;
  if pg_column_size($2) > 8192 and noetl.bytes_past_limit($2) is not null then
    raise exception using errcode = 'NB400',
      message = format('the payload of %s takes %s bytes; the limit max_payload_bytes is 16777216', $1, octet_length($2::text)),
      hint = 'pass large data where it can be found';
  end if;
  if jsonb_typeof(coalesce($2, '{}')) <> 'object' then
    raise exception using errcode = 'NB400',
      message = format('the payload of %s is a JSON %s; it must be an object', $1, jsonb_typeof($2)),
      hint = 'wrap it: {"items": [...]}';
  end if;
  if $2 @? '$.**{191}' then
    raise exception using errcode = 'NB400',
      message = format('the payload of %s nests deeper than 190 levels', $1),
      hint = 'pass deep data as text, or where it can be found';
  end if;
  if noetl.is_inflated($2) then
    raise exception using errcode = 'NB400',
      message = format('the payload of %s holds numbers of %s digits together', $1, octet_length($2::text)),
      hint = 'pass such numbers as text: "1e100000"';
  end if;
  if octet_length($4) > 1024 then -- it stands in an index
    raise exception using errcode = 'NB400',
      message = format('the idempotency key has %s bytes; it may have 1024', octet_length($4)),
      hint = 'send a digest of it';
  end if;
  select c.catalog_id, c.version, coalesce(c.name, regexp_replace(c.path, '^.*/', '')) as name
  into playbook
  from noetl.catalog c
  where c.path = $1 and ($3 is null or c.version = $3)
  order by c.version desc
  limit 1;
  if not found then
    raise exception using errcode = 'NB404',
      message = format('no playbook %s%s is registered', $1, coalesce(' version ' || $3, '')),
      hint = 'noetl-broker register FILE adds a playbook to the catalog';
  end if;

  id := noetl.next_id();
  insert into noetl.execution (execution_id, catalog_id, path, version, idempotency_key)
  values (id, playbook.catalog_id, $1, playbook.version, $4)
  on conflict (path, idempotency_key) where idempotency_key is not null do nothing;
  if not found then
    select x.execution_id, x.forked_from into earlier
    from noetl.execution x
    where x.path = $1 and x.idempotency_key = $4;
    if earlier.forked_from is not null then -- it has another workload than is asked for
      raise exception using errcode = 'NB409',
        message = format('the idempotency key %s of %s has been used: execution %s was forked from %s with it',
          left($4, 100), $1, earlier.execution_id, earlier.forked_from),
        hint = 'choose another key';
    end if;
    return earlier.execution_id;
  end if;
  perform set_config('noetl.writer', '', true);
  insert into noetl.event (
    execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context
  ) values (
    id, playbook.catalog_id, 'execution_start', id::text, playbook.name, 'playbook', 'STARTED',
    jsonb_build_object('path', $1, 'version', playbook.version, 'workload', coalesce($2, '{}'))
  );
  perform set_config('noetl.writer', writer, true);
  return id;
end
$$;

comment on function noetl.start_execution(text, jsonb, int, text) is
  'Starts an execution of the latest (or the given) version of a playbook and returns its id; the same idempotency key gives the same id.';

create or replace function noetl.cancel_execution(execution_id bigint, reason text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  execution record;
  writer text := current_setting('noetl.writer', true);
begin
  -- A child that a worker told of and that nobody has started. Whoever starts it or ends its parent has one of these locks.
  perform pg_advisory_xact_lock(x.execution_id), pg_advisory_xact_lock_shared(x.parent_execution_id)
  from noetl.execution x
  where x.execution_id = $1 and x.status = 'RUNNING' and x.path is null and x.parent_node_id is not null;
  select x.status, x.catalog_id, x.path is null and x.parent_node_id is not null as is_unborn,
    coalesce(c.name, regexp_replace(x.path, '^.*/', '')) as name
  into execution
  from noetl.execution x
  left join noetl.catalog c on c.catalog_id = x.catalog_id
  where x.execution_id = $1;
  if not found then
    raise exception using errcode = 'NB404', message = format('no execution %s', $1),
      hint = 'noetl-broker executions lists them';
  end if;
  if execution.status <> 'RUNNING' then
    return false;
  end if;
  perform set_config('noetl.writer', '', true);
  if execution.is_unborn then
    -- No turn can end it, so it ends here, and the step that waits for it is told as by a child that was cancelled.
    with ended as (
      update noetl.execution x
      set status = 'CANCELLED', ended_at = clock_timestamp(),
          error = jsonb_build_object('message', coalesce(nullif(left($2, 4000), ''), 'cancelled'))
      where x.execution_id = $1 and x.status = 'RUNNING' and x.path is null
      returning x.execution_id, x.parent_execution_id, x.parent_event_id, x.parent_node_id, x.parent_index, x.error
    )
    insert into noetl.event (
      execution_id, parent_event_id, event_type, node_id, node_name, node_type, status, error, meta
    )
    select e.parent_execution_id, e.parent_event_id, 'execution_failed', e.parent_node_id,
      format('%s[%s]', q.node_name, e.parent_index), 'playbook', 'FAILED',
      e.error || jsonb_build_object('type', 'child_cancelled', 'child_step', null, 'child_execution_id', e.execution_id),
      jsonb_build_object(
        'child_execution_id', e.execution_id, 'attempt', 1, 'retryable', false, 'index', e.parent_index
      )
    from ended e
    left join noetl.queue q on q.execution_id = e.parent_execution_id and q.node_id = e.parent_node_id;
  else
    insert into noetl.event (
      execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context
    ) values (
      $1, execution.catalog_id, 'execution_cancel', $1::text, execution.name, 'playbook', 'CANCELLED',
      jsonb_strip_nulls(jsonb_build_object('reason', left($2, 4000)))
    );
  end if;
  perform set_config('noetl.writer', writer, true);
  return true;
end
$$;

comment on function noetl.cancel_execution(bigint, text) is
  'Asks the broker to cancel an execution; false when it has already ended.';

-- Who may write all of an event may write any: the broker, the owner, a NoETL server. Who was granted some of its columns
-- alone is a producer, who asks for executions and their ends, and for nothing in the broker's or a worker's name. With the
-- rights of whoever inserts: what a function above writes is its owner's.
create or replace function noetl.check_producer() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  refused text;
begin
  select coalesce(a.event_type, 'no type') into refused
  from arrived a
  where coalesce(lower(a.event_type), '')
    not in ('execution_start', 'execution_started', 'playbook_started', 'execution_cancel')
  limit 1;
  if found then
    raise exception using errcode = '42501',
      message = format('%s may insert execution_start and execution_cancel into noetl.event, not %L',
        current_user, left(refused, 100)),
      hint = 'workers answer with noetl.complete_job and noetl.fail_job';
  end if;
  if current_setting('noetl.writer', true) = 'broker' then
    raise exception using errcode = '42501',
      message = format('%s may not write events in the name of the broker', current_user),
      hint = 'reset noetl.writer';
  end if;
  return null;
end
$$;

create or replace trigger noetl_check_producer
after insert on noetl.event
referencing new table as arrived
for each statement when (not has_table_privilege('noetl.event'::regclass, 'insert'))
execute function noetl.check_producer();

revoke all on function noetl.check_producer() from public;

-- With the rights of its owner: a producer has none on what reads the columns, which are text on the database of a NoETL server.
create or replace function noetl.check_digits() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  refused record;
begin
  select left(a.event_type, 100) as event_type, a.execution_id, v.name, v.size, v.most into refused
  from arrived a
  cross join lateral (values
    ('context', noetl.bytes_past_limit(a.context), 16777216), ('result', noetl.bytes_past_limit(a.result), 16777216),
    ('meta', noetl.bytes_past_limit(a.meta), 16777216), ('event_type', length(a.event_type), 100),
    ('node_id', length(a.node_id), 1024), ('node_name', length(a.node_name), 1024)
  ) v (name, size, most)
  where v.size > v.most
  limit 1;
  if found then
    raise exception using errcode = 'NB400',
      message = format('the %s of %s for execution %s is %s long; it may be %s',
        refused.name, refused.event_type, refused.execution_id, refused.size, refused.most),
      hint = 'pass large data where it can be found';
  end if;
  select left(a.event_type, 100) as event_type, a.execution_id into refused
  from arrived a
  where length(noetl.as_json(a.context) ->> 'path') > 1024
  limit 1;
  if found then
    raise exception using errcode = 'NB400',
      message = format('the path in the context of %s for execution %s has more than 1024 characters',
        refused.event_type, refused.execution_id),
      hint = 'noetl-broker register FILE tells the path of a playbook';
  end if;
  select a.event_type, a.execution_id, v.name into refused
  from arrived a
  cross join lateral (values
    ('context', noetl.as_json(a.context)), ('result', noetl.as_json(a.result)), ('meta', noetl.as_json(a.meta))
  ) v (name, value)
  where noetl.is_inflated(v.value)
  limit 1;
  if found then
    raise exception using errcode = 'NB400',
      message = format('the %s of %s for execution %s holds numbers of a hundred thousand digits or so',
        refused.name, left(refused.event_type, 100), refused.execution_id),
      hint = 'pass such numbers as text: "1e100000"';
  end if;
  return null;
end
$$;

create or replace trigger noetl_check_digits
after insert on noetl.event
referencing new table as arrived
for each statement when (not has_table_privilege('noetl.event'::regclass, 'insert'))
execute function noetl.check_digits();

revoke all on function noetl.check_digits() from public;

-- Mail comes back: what was set aside, and events that ask for a decision and have neither a turn nor mail (somebody has
-- emptied the inbox). The lock of the execution keeps two callers, or a caller and a broker, from doing it twice: locked
-- in one statement, looked at in the next.
create or replace function noetl.put_back(execution_id bigint) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  letters int;
begin
  perform pg_advisory_xact_lock($1);
  with back as (
    delete from noetl.dead_letter d
    where d.execution_id = $1
    returning d.event_id
  )
  insert into noetl.inbox (execution_id, event_id, adopts, oversize)
  select $1, m.event_id, coalesce(r.kind = 'iteration_started' and r.oversize is null, false), r.oversize
  from (
    select event_id
    from back
    union
    select e.event_id
    from noetl.event e
    where e.execution_id = $1
      -- beside a NoETL server: what ran before this broker took over stays decided
      and exists (select from noetl.execution x where x.execution_id = $1)
      and coalesce(lower(e.event_type), '') not in ('action_started', 'step_result')
      and not coalesce(noetl.as_json(e.meta) ? 'turn', false)
      and not exists (select from noetl.turn t where t.execution_id = $1 and t.event_id = e.event_id)
      and not exists (select from noetl.dead_letter d where d.execution_id = $1 and d.event_id = e.event_id)
  ) m
  left join lateral (
    select lower(left(e.event_type, 40)) as kind, coalesce(
      'context ' || case when lower(left(e.event_type, 6)) <> 'action' then noetl.bytes_past_limit(e.context) end,
      'meta ' || noetl.bytes_past_limit(e.meta),
      'error ' || noetl.bytes_past_limit(e.error)
    ) as oversize
    from noetl.event e
    where e.execution_id = $1 and e.event_id = m.event_id
  ) r on true
  where not exists (select from noetl.inbox i where i.execution_id = $1 and i.event_id = m.event_id)
  order by m.event_id;
  get diagnostics letters = row_count;
  if letters > 0 and not pg_try_advisory_xact_lock_shared(1852794228, 1) then
    perform pg_notify('noetl_event', '');
  elsif letters = 0 and noetl.is_archived($1) then
    raise exception using errcode = 'NB404', message = format('execution %s is archived', $1),
      hint = 'its history is in the schema noetl_archive';
  elsif letters = 0 and not exists (select from noetl.event e where e.execution_id = $1) then
    raise exception using errcode = 'NB404', message = format('no execution %s', $1),
      hint = 'noetl-broker executions lists them';
  end if;
  return letters;
end
$$;

comment on function noetl.put_back(bigint) is
  'Gives the mail of an execution that was set aside or lost back to the broker; returns how many events. Repeated: 0.';

-- A new execution that takes over results of another one. `plan` is made by the command line, which follows the history
-- through the rules of the broker: {execution_id, turn, results, visits, total, enter, …}. A result is named by the turn
-- that read it, by its event, or given (`set`); it is copied here, and becomes an event of the new execution.
create or replace function noetl.fork_execution(
  execution_id bigint,
  plan jsonb,
  catalog_id bigint default null,
  idempotency_key text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  source record;
  playbook record;
  earlier record;
  id bigint;
  start_id bigint := noetl.next_id();
  begun timestamptz := clock_timestamp();
  results jsonb;
  writer text := current_setting('noetl.writer', true);
begin
  if $2 is null or jsonb_typeof($2) <> 'object' or jsonb_typeof($2 -> 'results') is distinct from 'array' then
    raise exception using errcode = 'NB400', message = format('the plan of a fork of %s is no plan', $1),
      hint = 'noetl-broker fork and noetl-broker retry make one';
  end if;
  if octet_length($4) > 1024 then -- it stands in an index
    raise exception using errcode = 'NB400',
      message = format('the idempotency key has %s bytes; it may have 1024', octet_length($4)),
      hint = 'send a digest of it';
  end if;
  select x.catalog_id, x.path, x.version, x.workload, (
    select noetl.as_json(e.context) -> 'workload'
    from noetl.turn t
    join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
    where t.execution_id = $1 and lower(e.event_type) in ('execution_start', 'execution_started', 'playbook_started')
    order by t.turn
    limit 1
  ) as payload
  into source
  from noetl.execution x
  where x.execution_id = $1;
  if not found then
    raise exception using errcode = 'NB404', message = format('no execution %s', $1),
      hint = 'noetl-broker executions lists them';
  end if;
  if noetl.is_archived($1) then
    raise exception using errcode = 'NB404', message = format('execution %s is archived', $1),
      hint = 'its history is in the schema noetl_archive';
  end if;
  select c.catalog_id, c.path, c.version, coalesce(c.name, regexp_replace(c.path, '^.*/', '')) as name
  into playbook
  from noetl.catalog c
  where c.catalog_id = coalesce($3, source.catalog_id)
    or (coalesce($3, source.catalog_id) is null and c.path = source.path
      and (source.version is null or c.version = source.version))
  order by c.version desc
  limit 1;
  if not found then
    raise exception using errcode = 'NB404',
      message = format('the catalog has no playbook for a fork of %s (%s)', $1, coalesce(source.path, 'without a path')),
      hint = 'noetl-broker register FILE adds a playbook to the catalog';
  end if;

  id := noetl.next_id();
  insert into noetl.execution (execution_id, catalog_id, path, version, idempotency_key, forked_from)
  values (id, playbook.catalog_id, playbook.path, playbook.version, $4, $1)
  on conflict (path, idempotency_key) where idempotency_key is not null do nothing;
  if not found then
    select x.execution_id, x.forked_from into earlier
    from noetl.execution x
    where x.path = playbook.path and x.idempotency_key = $4;
    if earlier.forked_from is distinct from $1 then
      raise exception using errcode = 'NB409',
        message = format('the idempotency key %s of %s has been used: execution %s was %s with it',
          left($4, 100), playbook.path, earlier.execution_id, coalesce('forked from ' || earlier.forked_from, 'started')),
        hint = 'choose another key';
    end if;
    return earlier.execution_id;
  end if;

  perform set_config('noetl.writer', '', true);
  with named as materialized (
    select r.place, r.result ->> 'step' as step, (r.result ->> 'visit')::int as visit, r.result ->> 'status' as status,
      r.result ? 'set' as is_set, r.result -> 'set' as value, noetl.next_id() as event_id, coalesce(
        (r.result ->> 'source')::bigint,
        (
          select coalesce(t.result_event_id, t.event_id)
          from noetl.turn t
          where t.execution_id = $1 and t.turn = (r.result ->> 'turn')::int
        )
      ) as source_id
    from jsonb_array_elements($2 -> 'results') with ordinality r (result, place)
  ), copied as (
    insert into noetl.event (
      execution_id, event_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
      status, result, error, context, meta
    )
    select id, n.event_id, playbook.catalog_id, start_id, begun + n.place * interval '1 microsecond', 'step_result',
      id || ':' || n.step || case when n.visit > 1 then '#' || n.visit else '' end, n.step, e.node_type, n.status,
      case when n.is_set then n.value when n.status = 'COMPLETED' then noetl.as_json(e.result) end,
      case when n.status <> 'COMPLETED' then coalesce(noetl.as_json(e.error), '{"message": "the action failed"}') end,
      f.context,
      jsonb_strip_nulls(jsonb_build_object(
        'taken_from', case when not n.is_set then jsonb_build_object('execution_id', $1, 'event_id', n.source_id) end,
        'set', case when n.is_set then true end
      ))
    from named n
    left join noetl.event e on e.execution_id = $1 and e.event_id = n.source_id and not n.is_set
    -- the failed items of an iterator, as `load_failed` of the broker has them: the fork has no rows of the items
    left join lateral (
      select coalesce(
        (
          select jsonb_build_object('failed', coalesce(
            jsonb_agg(jsonb_build_object('index', i.place, 'error', i.error) order by i.place)
              filter (where i.status = 'FAILED'),
            '[]'
          ))
          from noetl.iteration i
          where i.execution_id = $1 and i.node_id = e.node_id
          having count(*) > 0
        ),
        case when e.event_type = 'step_result' and noetl.as_json(e.context) ? 'failed'
          then jsonb_build_object('failed', noetl.as_json(e.context) -> 'failed') end
      ) as context
    ) f on true
    returning 1
  ), steps as (
    -- the broker's first turn finds here which event has the result of a step
    insert into noetl.workflow (execution_id, step_id, step_name, result_visit, result_event_id)
    select distinct on (n.step) id, n.step, n.step, n.visit, n.event_id
    from named n
    order by n.step, n.visit desc
    returning 1
  )
  select coalesce(jsonb_agg(
    jsonb_strip_nulls(jsonb_build_object(
      'step', n.step, 'visit', n.visit, 'status', n.status, 'event_id', n.event_id,
      'source', case when not n.is_set then n.source_id end
    )) order by n.place
  ), '[]')
  into results
  from named n;

  insert into noetl.event (
    execution_id, event_id, catalog_id, created_at, event_type, node_id, node_name, node_type, status, context, meta
  ) values (
    id, start_id, playbook.catalog_id, begun, 'execution_start', id::text, playbook.name, 'playbook', 'STARTED',
    jsonb_build_object(
      'path', playbook.path, 'version', playbook.version,
      'workload', coalesce(source.workload, source.payload, '{}')
    ),
    jsonb_build_object('forked_from', $1, 'fork', $2 || jsonb_build_object('execution_id', $1, 'results', results))
  );
  perform set_config('noetl.writer', writer, true);
  return id;
end
$$;

comment on function noetl.fork_execution(bigint, jsonb, bigint, text) is
  'Starts an execution that takes over results of another one; the same idempotency key gives the same id.';

revoke all on function noetl.start_execution(text, jsonb, int, text) from public;
revoke all on function noetl.cancel_execution(bigint, text) from public;
revoke all on function noetl.put_back(bigint) from public;
revoke all on function noetl.fork_execution(bigint, jsonb, bigint, text) from public;
