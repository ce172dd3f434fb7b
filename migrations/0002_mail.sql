-- The mail: which events the broker has not yet read, and the bell that wakes it.
--
-- A notification can be lost; a row cannot. A trigger puts the events that need the broker into the inbox, in the
-- transaction of their writer; the broker deletes them in the transaction that acts on them. The notification carries
-- nothing and only spares the broker its polling.

create table if not exists noetl.inbox (
  mail_id bigint generated always as identity primary key,
  execution_id bigint not null,
  event_id bigint not null
) with (
  -- rows live for milliseconds: vacuum by count, never by a share of the table
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0
);

comment on table noetl.inbox is 'Events that the broker has not decided on yet.';

-- JSON columns are text on the database of a NoETL server; these read either form. Text that is no JSON gives SQL null.
-- Parallel unsafe: a block that catches errors is a subtransaction, which a parallel worker may not begin.
create or replace function noetl.as_json(value jsonb) returns jsonb
language sql immutable parallel safe
as $$ select value $$;

create or replace function noetl.as_json(value text) returns jsonb
language plpgsql immutable parallel unsafe
as $$
begin
  return value::jsonb;
exception when others then
  return null;
end
$$;

-- Whether somebody wrote text there that is no JSON; empty text is nothing.
create or replace function noetl.is_broken(value jsonb) returns boolean
language sql immutable parallel safe
as $$ select false $$;

create or replace function noetl.is_broken(value text) returns boolean
language sql immutable parallel unsafe
as $$ select coalesce(value ~ '\S' and noetl.as_json(value) is null, false) $$;

-- An error may be text for people; then the text is the error.
create or replace function noetl.as_error(value jsonb) returns jsonb
language sql immutable parallel safe
as $$ select value $$;

create or replace function noetl.as_error(value text) returns jsonb
language sql immutable parallel unsafe
as $$ select coalesce(noetl.as_json(value), to_jsonb(value)) $$;

-- The gate (1852794228 is 'noet'): a sleeping broker holds it, a writer who finds it held rings. A writer who finds it
-- free keeps it shared until its commit is visible, so a broker cannot fall asleep over a row it has not seen.
create or replace function noetl.receive_events() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The broker decides as it writes: its own events are no mail.
  if current_setting('noetl.writer', true) = 'broker' then
    return null;
  end if;
  insert into noetl.inbox (execution_id, event_id)
  select execution_id, event_id
  from arrived
  where coalesce(lower(event_type), '') not in ('action_started', 'step_result');
  if found and not pg_try_advisory_xact_lock_shared(1852794228, 1) then
    perform pg_notify('noetl_event', '');
  end if;
  return null;
end
$$;

create or replace trigger noetl_receive_events
after insert on noetl.event
referencing new table as arrived
for each statement execute function noetl.receive_events();

create or replace function noetl.fill_catalog_id() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select x.catalog_id into new.catalog_id
  from noetl.execution x
  where x.execution_id = new.execution_id;
  return new;
end
$$;

create or replace trigger noetl_fill_catalog_id
before insert on noetl.event
for each row when (new.catalog_id is null)
execute function noetl.fill_catalog_id();

-- The data of a result: an envelope (a mapping with `data` and nothing but id, status, error, meta beside it) is unwrapped
-- once; the core does the same.
create or replace function noetl.unwrapped(result jsonb) returns jsonb
language sql immutable parallel safe
as $$
  select case
    when jsonb_typeof(result) = 'object' and result ? 'data'
      and result - array['id', 'status', 'data', 'error', 'meta'] = '{}' then result -> 'data'
    else result
  end
$$;

-- The node of one item of an iterator: `<execution>:<step>#<visit>.<place>`, the visit told even where it is the first.
create or replace function noetl.item_node_id(node_id text, place int) returns text
language sql immutable parallel safe
as $$
  select case when position('#' in node_id) > 0 then node_id else node_id || '#1' end || '.' || place
$$;

revoke all on function noetl.next_id() from public;
revoke all on function noetl.unwrapped(jsonb) from public;
revoke all on function noetl.item_node_id(text, int) from public;
revoke all on function noetl.as_json(jsonb) from public;
revoke all on function noetl.as_json(text) from public;
revoke all on function noetl.is_broken(jsonb) from public;
revoke all on function noetl.is_broken(text) from public;
revoke all on function noetl.as_error(jsonb) from public;
revoke all on function noetl.as_error(text) from public;
revoke all on function noetl.receive_events() from public;
revoke all on function noetl.fill_catalog_id() from public;
