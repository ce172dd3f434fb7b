-- What a producer calls: start an execution, cancel one.
--
-- Errors are of class NB: NB400 a bad argument, NB404 an unknown playbook or execution, NB409 a conflict.
--
-- Whatever writes an event does so in UTC: on the database of a NoETL server `created_at` has no zone. And it says that it
-- is not the broker, whatever its caller says: events of the broker are no mail.

create or replace function noetl.start_execution(
  path text,
  payload jsonb default '{}',
  version int default null,
  idempotency_key text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set noetl.writer = ''
as $$
#variable_conflict use_column
declare
  playbook record;
  id bigint;
begin
  if $1 is null then
    raise exception using errcode = 'NB400', message = 'start_execution needs the path of a playbook',
      hint = 'select noetl.start_execution(''examples/weather'', ''{"city": "Paris"}'')';
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
    select x.execution_id into id
    from noetl.execution x
    where x.path = $1 and x.idempotency_key = $4;
    return id;
  end if;
  insert into noetl.event (
    execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context
  ) values (
    id, playbook.catalog_id, 'execution_start', id::text, playbook.name, 'playbook', 'STARTED',
    jsonb_build_object('path', $1, 'version', playbook.version, 'workload', coalesce($2, '{}'))
  );
  return id;
end
$$;

comment on function noetl.start_execution(text, jsonb, int, text) is
  'Starts an execution of the latest (or the given) version of a playbook and returns its id; the same idempotency key gives the same id.';

create or replace function noetl.cancel_execution(execution_id bigint, reason text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set noetl.writer = ''
as $$
#variable_conflict use_column
declare
  execution record;
begin
  select x.status, x.catalog_id, coalesce(c.name, regexp_replace(x.path, '^.*/', '')) as name
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
  insert into noetl.event (
    execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context
  ) values (
    $1, execution.catalog_id, 'execution_cancel', $1::text, execution.name, 'playbook', 'CANCELLED',
    jsonb_strip_nulls(jsonb_build_object('reason', $2))
  );
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
  if has_table_privilege('noetl.event'::regclass, 'insert') then
    return null;
  end if;
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
for each statement execute function noetl.check_producer();

revoke all on function noetl.check_producer() from public;
revoke all on function noetl.start_execution(text, jsonb, int, text) from public;
revoke all on function noetl.cancel_execution(bigint, text) from public;
