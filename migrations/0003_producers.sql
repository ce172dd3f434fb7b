-- What a producer calls: start an execution, cancel one.
--
-- Errors are of class NB: NB400 a bad argument, NB404 an unknown playbook or execution, NB409 a conflict.
--
-- Whatever writes an event does so in UTC: on the database of a NoETL server `created_at` has no zone.

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

revoke all on function noetl.start_execution(text, jsonb, int, text) from public;
revoke all on function noetl.cancel_execution(bigint, text) from public;
