-- The mail: which events the broker has not yet read, and the bell that wakes it.
--
-- A notification can be lost; a row cannot. A trigger puts the events that need the broker into the inbox, in the
-- transaction of their writer; the broker deletes them in the transaction that acts on them. The notification carries
-- nothing and only spares the broker its polling.

create table if not exists noetl.inbox (
  mail_id bigint generated always as identity primary key,
  execution_id bigint not null,
  event_id bigint not null,
  adopts boolean not null default false,
  oversize text
) with (
  -- rows live for milliseconds: vacuum by count, never by a share of the table
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0
);

-- Of an execution there may be any number of mails before its last; these few are looked for in each claim.
create index if not exists inbox_adopts on noetl.inbox (execution_id) where adopts;

comment on table noetl.inbox is 'Events that the broker has not decided on yet.';
comment on column noetl.inbox.oversize is
  'What of the event is larger than the broker reads, and its bytes: `context 50000012`. Its writer has measured it.';
comment on column noetl.inbox.adopts is 'A worker has started a child: what the worker says after that is not decided on before.';

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
as $$ select coalesce(value ~ '[^[:space:]]' and noetl.as_json(value) is null, false) $$;

-- About how many bytes a value is to whoever reads it, from what the table says of it: to unpack it would cost what is to be
-- saved. What is compressed is as a rule a tenth of itself, and may be far less.
create or replace function noetl.weight(value anyelement) returns bigint
language sql stable parallel safe
as $$
  select coalesce(pg_column_size(value)::bigint * case when pg_column_compression(value) is null then 1 else 10 end, 0)
$$;

-- A number of ten bytes may be read as a hundred thousand digits (1e100000), so that what is small where it is stored is more
-- than a broker's memory where it is read: such a value is refused at the door. What a double can be takes 16 bytes for
-- 327 digits at most, other text grows to the sixfold. (A list of the value alone, because a value on its own may come
-- compressed.)
create or replace function noetl.is_inflated(value jsonb) returns boolean
language sql immutable parallel safe
as $$
  select coalesce(
    octet_length($1::text) > 65536 and octet_length($1::text) > 32 * pg_column_size(jsonb_build_array($1)), false
  )
$$;

-- How many bytes a value has as JSON text, where it is more than the broker reads of one event; null: it is not. To unpack
-- it is dear, so only what may be as much is unpacked.
-- (In plpgsql, because what is put into the statement of a trigger costs each of its callers the making of it.)
create or replace function noetl.bytes_past_limit(value jsonb) returns int
language plpgsql stable parallel safe
as $$
declare
  bytes int;
begin
  if pg_column_size(value) > (case when pg_column_compression(value) is null then 1048576 else 8192 end) then
    bytes := octet_length(value::text);
  end if;
  return case when bytes > 16777216 then bytes end;
end
$$;

create or replace function noetl.bytes_past_limit(value text) returns int
language plpgsql stable parallel safe
as $$
begin
  return case when octet_length(value) > 16777216 then octet_length(value) end;
end
$$;

-- What follows from a failure says its error again: the step's end, the execution's, the parent's. So one of more than 64 KiB
-- is cut where it is read: its message and its type, a few others of its fields, the small ones first.
create or replace function noetl.shorten_error(error jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when octet_length($1::text) <= 65536 then $1
    else jsonb_build_object('original_bytes', octet_length($1::text)) || case jsonb_typeof($1)
      when 'object' then coalesce((
        select jsonb_object_agg(f.key, case
          when octet_length(f.value::text) <= 500 then f.value
          else to_jsonb(left(f.value #>> '{}', case f.key when 'message' then 4000 else 500 end))
        end)
        from (
          select e.key, e.value
          from jsonb_each($1) e
          where octet_length(e.key) <= 100
          order by e.key in ('message', 'type') desc, octet_length(e.value::text), e.key
          limit 10
        ) f
      ), '{}')
      else jsonb_build_object('message', left($1 #>> '{}', 4000))
    end
  end
$$;

-- An error may be text for people; then the text is the error. (Its own size says nothing: ten bytes hold 1e100000.)
create or replace function noetl.as_error(value jsonb) returns jsonb
language sql immutable parallel safe
as $$ select case when value is not null then noetl.shorten_error(value) end $$;

create or replace function noetl.as_error(value text) returns jsonb
language sql immutable parallel unsafe
as $$ select noetl.as_error(coalesce(noetl.as_json(value), to_jsonb(value))) $$;

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
  insert into noetl.inbox (execution_id, event_id, adopts, oversize)
  select m.execution_id, m.event_id, m.kind = 'iteration_started' and m.oversize is null, m.oversize
  from (
    select a.execution_id, a.event_id, coalesce(lower(left(a.event_type, 40)), '') as kind,
      case when pg_column_size(a.context) > 8192 or pg_column_size(a.meta) > 8192 or pg_column_size(a.error) > 8192
        then coalesce(
          -- of an action's end the broker reads no context
          'context ' || case when lower(left(a.event_type, 6)) <> 'action' then noetl.bytes_past_limit(a.context) end,
          'meta ' || noetl.bytes_past_limit(a.meta),
          'error ' || noetl.bytes_past_limit(a.error)
        )
      end as oversize
    from arrived a
  ) m
  where m.kind not in ('action_started', 'step_result');
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
  select coalesce(x.catalog_id, (
    -- a child whose playbook is not in the catalog: on the database of a NoETL server each event names a version
    select p.catalog_id
    from noetl.execution p
    where p.execution_id = x.parent_execution_id and x.path is not null
  ))
  into new.catalog_id
  from noetl.execution x
  where x.execution_id = new.execution_id;
  return new;
end
$$;

create or replace trigger noetl_fill_catalog_id
before insert on noetl.event
for each row when (new.catalog_id is null)
execute function noetl.fill_catalog_id();

-- The data of a result: an envelope (a mapping with `data` and nothing but id, status, error, meta, duration beside it) is
-- unwrapped once; the core does the same.
create or replace function noetl.unwrapped(result jsonb) returns jsonb
language sql immutable parallel safe
as $$
  select case
    when jsonb_typeof(result) = 'object' and result ? 'data'
      and result - array['id', 'status', 'data', 'error', 'meta', 'duration'] = '{}' then result -> 'data'
    else result
  end
$$;

-- The node of one item of an iterator: `<execution>:<step>#<visit>.<place>`, the visit told even where it is the first.
create or replace function noetl.item_node_id(node_id text, place int) returns text
language sql immutable parallel safe
as $$
  select case when position('#' in node_id) > 0 then node_id else node_id || '#1' end || '.' || place
$$;

-- Beside a NoETL server: that server says itself in the queue how a job ended, and the event of it comes apart from that,
-- over a line that may lose it. Its word is kept until it is clear whether the event came: `noetl.reap_ended_jobs` looks.
create table if not exists noetl.ended_job (
  queue_id bigint primary key,
  status text not null check (status in ('done', 'retry', 'dead')),
  ended_at timestamptz not null default clock_timestamp()
);
create index if not exists ended_job_age on noetl.ended_job (ended_at);

comment on table noetl.ended_job is
  'Jobs whose end a NoETL server wrote into the queue, until the broker has decided on their event, or on the row.';

-- Whoever writes as broker or worker does so through our own functions; else it is that server. It knows no fence: what
-- the broker has decided about a job meanwhile stands.
create or replace function noetl.receive_job() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  execution record;
begin
  select x.status, coalesce(x.rules ->> 'retry_owner', 'broker') as retry_owner
  into execution
  from noetl.execution x
  where x.execution_id = old.execution_id and x.rules is not null;
  if new.status = 'leased' then
    new.foreign_attempt := new.attempts;
  end if;
  if not found then
    return new; -- of an execution from before this broker
  end if;
  if new.status = 'leased' then
    new.first_leased_at := coalesce(old.first_leased_at, clock_timestamp()); -- the timeout of the step counts from here
    return new;
  end if;
  if old.status <> 'leased' then
    new.status := old.status;
    new.available_at := old.available_at;
    new.lease_until := old.lease_until;
    return new;
  end if;
  if execution.status <> 'RUNNING' then
    new.status := case when new.status = 'retry' then 'cancelled' else new.status end; -- nobody waits for it any more
    return new;
  end if;
  insert into noetl.ended_job as j (queue_id, status)
  values (old.queue_id, new.status)
  on conflict (queue_id) do update
  set status = excluded.status, ended_at = excluded.ended_at;
  if new.status = 'retry' then
    new.first_leased_at := null;
  end if;
  if new.status <> 'done' and execution.retry_owner = 'broker' then
    new.status := 'failed'; -- until the broker has decided
  end if;
  return new;
end
$$;

-- Beside a NoETL server: its API takes how an execution stands from its latest event by `created_at`, whatever that is of.
-- So what anybody writes while an execution runs says RUNNING, and what comes after its end is dated before it; when it came
-- then stands in its `meta`. (Events of turns are the core's: the last one of each says how the execution stands.)
-- Whoever ends the execution at this moment has its lock. That server waits for the lock for a moment; others may not, who
-- hold what that broker waits for: their event is dated so early that the end comes after it. The lock is given back at once,
-- with the block: a broker that has it later has a later time too.
create or replace function noetl.show_status() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '500ms'
as $$
declare
  writer text := coalesce(current_setting('noetl.writer', true), '');
  is_free boolean := false;
  ended timestamptz;
  last timestamptz;
begin
  if writer = 'broker' and noetl.as_json(new.meta) ? 'turn' then
    return new;
  end if;
  select x.ended_at
  into ended
  from noetl.execution x
  where x.execution_id = new.execution_id;
  if not found then
    return new; -- of an execution from before this broker, or its start
  end if;
  if ended is null and lower(new.event_type) in ('execution_start', 'execution_started', 'playbook_started') then
    return new;
  end if;
  if ended is null then
    begin
      if writer = '' then
        perform pg_advisory_xact_lock_shared(new.execution_id);
        is_free := true;
      else
        is_free := pg_try_advisory_xact_lock_shared(new.execution_id);
      end if;
      select x.ended_at, s.last_at
      into ended, last
      from noetl.execution x
      left join noetl.execution_state s on s.execution_id = x.execution_id
      where x.execution_id = new.execution_id;
      raise exception using errcode = 'NB000';
    exception
      when sqlstate 'NB000' or lock_not_available then
        null; -- the lock is free again
    end;
  end if;
  if ended is not null then
    if new.created_at >= ended then
      if jsonb_typeof(coalesce(noetl.as_json(new.meta), '{}')) = 'object' then
        new.meta := coalesce(noetl.as_json(new.meta), '{}') || jsonb_build_object('came_at', new.created_at);
      end if;
      new.created_at := ended - interval '1 microsecond';
    end if;
    return new;
  end if;
  new.status := 'RUNNING';
  if not is_free then
    new.created_at := least(
      new.created_at, greatest(last + interval '1 microsecond', new.created_at - interval '1 second')
    );
  end if;
  return new;
end
$$;

-- That server's catalog takes no kind that it has not heard of; it tells itself when it first registers something.
create or replace function noetl.know_kind() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into noetl.resource (name)
  values ('Playbook')
  on conflict do nothing;
  return new;
end
$$;

do $$
begin
  if to_regclass('noetl.resource') is null then
    return; -- no NoETL server has been here
  end if;
  create or replace trigger noetl_receive_job
  before update of status on noetl.queue
  for each row
  when (new.status in ('leased', 'done', 'retry', 'dead') and coalesce(current_setting('noetl.writer', true), '') = '')
  execute function noetl.receive_job();
  create or replace trigger noetl_show_status
  before insert on noetl.event
  for each row execute function noetl.show_status();
  create or replace trigger noetl_know_kind
  before insert on noetl.catalog
  for each row
  when (new.kind = 'Playbook')
  execute function noetl.know_kind();
end
$$;

revoke all on function noetl.next_id() from public;
revoke all on function noetl.unwrapped(jsonb) from public;
revoke all on function noetl.item_node_id(text, int) from public;
revoke all on function noetl.as_json(jsonb) from public;
revoke all on function noetl.as_json(text) from public;
revoke all on function noetl.is_broken(jsonb) from public;
revoke all on function noetl.is_broken(text) from public;
revoke all on function noetl.weight(anyelement) from public;
revoke all on function noetl.is_inflated(jsonb) from public;
revoke all on function noetl.bytes_past_limit(jsonb) from public;
revoke all on function noetl.bytes_past_limit(text) from public;
revoke all on function noetl.shorten_error(jsonb) from public;
revoke all on function noetl.as_error(jsonb) from public;
revoke all on function noetl.as_error(text) from public;
revoke all on function noetl.receive_events() from public;
revoke all on function noetl.fill_catalog_id() from public;
revoke all on function noetl.receive_job() from public;
revoke all on function noetl.show_status() from public;
revoke all on function noetl.know_kind() from public;
