-- What the other files share: limits, event types, node ids, and how stored values are read.

-- Python has the same numbers (tests/store/test_shared_constants.py compares them).
create or replace function noetl.limit_of(name text) returns int
language sql immutable parallel safe
as $$
  select case name
    when 'payload_bytes' then 16777216 -- of an event's context, result or meta as JSON text
    when 'result_bytes' then 2097152 -- of a result as JSON text
    when 'warned_result_bytes' then 262144
    when 'batch_bytes' then 4194304 -- of what one transaction loads beside small values
    when 'error_bytes' then 65536 -- of an error as JSON text
    when 'form_bytes' then 65536 -- of a filled form of an approval as JSON text
    when 'log_bytes' then 65536 -- of the log of an attempt: half for its first part, half for its last one
    when 'log_rows' then 2000
    when 'progress_bytes' then 4096 -- of a report of progress as JSON text
    when 'inflated_bytes' then 65536 -- of a value as JSON text that may be small as it is stored
    when 'small_bytes' then 8192 -- of a stored value, compressed or not, that no limit concerns
    when 'path_chars' then 1024
    when 'name_chars' then 255 -- of a signal or a limit
    when 'key_bytes' then 1024 -- of a signal or of a start
    when 'type_chars' then 100 -- of an event type
    when 'node_chars' then 1024 -- of a node id or name, and of who decides an approval
    when 'reason_chars' then 4000 -- of a reason or an error message
    when 'item_errors' then 10000 -- of the failed items of one iterator
    when 'item_index' then 1000000
    when 'starts' then 10000 -- of one call
    when 'rate' then 1000000 -- of jobs that begin in a second
  end
$$;

-- The canonical name of an event type, which has several spellings in any case; null stays null.
create or replace function noetl.kind_of(event_type text) returns text
language sql immutable parallel safe
as $$
  select case lower(left(event_type, 40))
    when 'execution_started' then 'execution_start'
    when 'playbook_started' then 'execution_start'
    when 'action_error' then 'action_failed'
    when 'execution_completed' then 'execution_complete'
    when 'playbook_completed' then 'execution_complete'
    else lower(left(event_type, 40))
  end
$$;

-- Whether the broker decides on events of this kind.
create or replace function noetl.is_mail(event_type text) returns boolean
language sql immutable parallel safe
as $$
  select coalesce(noetl.kind_of(event_type), '') not in ('action_started', 'step_result')
$$;

-- The name of a playbook without one: the last part of its path.
create or replace function noetl.name_of_path(path text) returns text
language sql immutable parallel safe
as $$
  select regexp_replace(path, '^.*/', '')
$$;

-- A node is a visit of a step, an item of an iterator, or the undo of one of these. The first visit is `<execution>:<step>`,
-- a later one `<execution>:<step>#<visit>`, an item `<execution>:<step>#<visit>.<index>`. An undo has `!undo` at its end, and
-- always the number of the visit. Python has the same rules in nodes.py (tests/store/test_shared_constants.py compares them).
-- Functions of one expression are inlined, so they cost a plan nothing.
create or replace function noetl.visit_name(step text, visit int) returns text
language sql immutable parallel safe
as $$
  select step || case when visit = 1 then '' else '#' || visit end
$$;

create or replace function noetl.node_id(execution_id bigint, step text, visit int) returns text
language sql immutable parallel safe
as $$
  select execution_id || ':' || noetl.visit_name(step, visit)
$$;

-- How the node ids of the items of a visit begin, and those of their undos.
create or replace function noetl.items_prefix(node_id text) returns text
language sql immutable parallel safe
as $$
  select case when position('#' in node_id) > 0 then node_id else node_id || '#1' end || '.'
$$;

create or replace function noetl.item_node_id(node_id text, index int) returns text
language sql immutable parallel safe
as $$
  select noetl.items_prefix(node_id) || index
$$;

-- Whether a node is that of an item, or of its undo.
create or replace function noetl.is_item(node_id text) returns boolean
language sql immutable parallel safe
as $$
  select node_id ~ '#[0-9]+[.][0-9]{1,9}(!undo)?$'
$$;

-- The step and the visit of a node; no row if the text is no node.
create or replace function noetl.parse_node(node_id text) returns table (step text, visit int)
language sql immutable parallel safe
as $$
  select m.parts[1], coalesce(m.parts[2], '1')::int
  from regexp_match(node_id, '^[^:]*:([^#]+)(?:#([0-9]{1,9})(?:[.][0-9]{1,9})?(?:!undo)?)?$') m (parts)
  where coalesce(m.parts[2], '1')::int > 0 and m.parts is not null
$$;

-- The visit and the index of an item's node; no row for the node of a visit.
create or replace function noetl.parse_item(node_id text) returns table (visit_node_id text, index int)
language sql immutable parallel safe
as $$
  select regexp_replace(m.parts[1], '#1$', ''), m.parts[2]::int
  from regexp_match(node_id, '^(.*#[0-9]+)[.]([0-9]{1,9})$') m (parts)
  where m.parts is not null
$$;

-- The name of the job that undoes a visit of a step.
create or replace function noetl.undo_step(step text) returns text
language sql immutable parallel safe
as $$
  select step || '!undo'
$$;

-- The node of the job that undoes a visit or an item. It always has the number of the visit.
create or replace function noetl.undo_node_id(node_id text) returns text
language sql immutable parallel safe
as $$
  select noetl.undo_step(case when position('#' in node_id) > 0 then node_id else node_id || '#1' end)
$$;

-- Whether a node is that of a job that undoes something. A step may be called `x!undo`, but its name has no `#`.
create or replace function noetl.is_undo(node_id text) returns boolean
language sql immutable parallel safe
as $$
  select coalesce(node_id ~ '#[0-9]+([.][0-9]+)?!undo$', false)
$$;

-- The JSON columns of a NoETL server are text. These functions read both; text that is not JSON gives null.
-- Parallel unsafe: a block that catches errors is a subtransaction, which a parallel worker must not begin.
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

-- Whether a text is neither JSON nor empty.
create or replace function noetl.is_broken(value jsonb) returns boolean
language sql immutable parallel safe
as $$ select false $$;

create or replace function noetl.is_broken(value text) returns boolean
language sql immutable parallel unsafe
as $$ select coalesce(value ~ '[^[:space:]]' and noetl.as_json(value) is null, false) $$;

-- The approximate size of a value in memory, without decompressing it. Compressed values count tenfold.
create or replace function noetl.weight(value anyelement) returns bigint
language sql stable parallel safe
as $$
  select coalesce(pg_column_size(value)::bigint * case when pg_column_compression(value) is null then 1 else 10 end, 0)
$$;

-- Whether a value is far larger as text than stored. A number of ten stored bytes may have a hundred thousand digits as
-- text (1e100000). Such values are refused. A double needs 16 bytes for at most 327 digits; other text grows to six
-- times its size. (The value is measured inside a list, because by itself it may be compressed.)
create or replace function noetl.is_inflated(value jsonb) returns boolean
language sql immutable parallel safe
as $$
  select coalesce(
    octet_length($1::text) > noetl.limit_of('inflated_bytes')
      and octet_length($1::text) > 32 * pg_column_size(jsonb_build_array($1)),
    false
  )
$$;

-- The size of a value as JSON text where it is over the limit of an event, else null. Only values that may be that large are
-- decompressed. In plpgsql, because an inlined expression adds to the planning time of each statement that fires a trigger.
create or replace function noetl.bytes_past_limit(value jsonb) returns int
language plpgsql stable parallel safe
as $$
declare
  bytes int;
begin
  if pg_column_size(value) > (
    case when pg_column_compression(value) is null then 1048576 else noetl.limit_of('small_bytes') end
  ) then
    bytes := octet_length(value::text);
  end if;
  return case when bytes > noetl.limit_of('payload_bytes') then bytes end;
end
$$;

create or replace function noetl.bytes_past_limit(value text) returns int
language plpgsql stable parallel safe
as $$
begin
  return case when octet_length(value) > noetl.limit_of('payload_bytes') then octet_length(value) end;
end
$$;

-- An error is repeated in the end of its step, of its execution and of the parent. So a large one is shortened where it is
-- read: to its message, its type and its smallest other fields.
create or replace function noetl.shorten_error(error jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when octet_length($1::text) <= noetl.limit_of('error_bytes') then $1
    else jsonb_build_object('original_bytes', octet_length($1::text)) || case jsonb_typeof($1)
      when 'object' then coalesce((
        select jsonb_object_agg(f.key, case
          when octet_length(f.value::text) <= 500 then f.value
          else to_jsonb(left(f.value #>> '{}', case f.key when 'message' then noetl.limit_of('reason_chars') else 500 end))
        end)
        from (
          select e.key, e.value
          from jsonb_each($1) e
          where octet_length(e.key) <= 100
          order by e.key in ('message', 'type') desc, octet_length(e.value::text), e.key
          limit 10
        ) f
      ), '{}')
      else jsonb_build_object('message', left($1 #>> '{}', noetl.limit_of('reason_chars')))
    end
  end
$$;

-- The error of an event, shortened. Text that is not JSON is a message. The stored size says nothing: ten bytes hold
-- 1e100000.
create or replace function noetl.as_error(value jsonb) returns jsonb
language sql immutable parallel safe
as $$ select case when value is not null then noetl.shorten_error(value) end $$;

create or replace function noetl.as_error(value text) returns jsonb
language sql immutable parallel unsafe
as $$ select noetl.as_error(coalesce(noetl.as_json(value), to_jsonb(value))) $$;

-- The error of an attempt that never was: the job was cancelled before a worker leased it.
create or replace function noetl.cancelled_error() returns jsonb
language sql immutable parallel safe
as $$
  select jsonb_build_object('message', 'the job was cancelled, because its execution ends', 'type', 'cancelled')
$$;

-- The data of a result. An envelope is unwrapped once, as in the core. It is an object with `data` whose other keys are
-- among id, status, error, meta and duration. If it has `id` or `status`, its status is one that NoETL's worker sends.
create or replace function noetl.unwrapped(result jsonb) returns jsonb
language sql immutable parallel safe
as $$
  select case
    when jsonb_typeof(result) = 'object' and result ? 'data'
      and result - array['id', 'status', 'data', 'error', 'meta', 'duration'] = '{}'
      and (result ->> 'status' in ('success', 'error') or not result ?| array['id', 'status']) then result -> 'data'
    else result
  end
$$;

revoke all on function
  noetl.limit_of(text), noetl.kind_of(text), noetl.is_mail(text), noetl.name_of_path(text), noetl.visit_name(text, int),
  noetl.node_id(bigint, text, int), noetl.items_prefix(text), noetl.item_node_id(text, int), noetl.is_item(text),
  noetl.parse_node(text), noetl.parse_item(text), noetl.undo_step(text), noetl.undo_node_id(text), noetl.is_undo(text),
  noetl.as_json(jsonb), noetl.as_json(text), noetl.is_broken(jsonb), noetl.is_broken(text), noetl.weight(anyelement),
  noetl.is_inflated(jsonb), noetl.bytes_past_limit(jsonb), noetl.bytes_past_limit(text), noetl.shorten_error(jsonb),
  noetl.as_error(jsonb), noetl.as_error(text), noetl.cancelled_error(), noetl.unwrapped(jsonb)
  from public;
