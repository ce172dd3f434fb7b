-- The mail: which events the broker has not decided on yet, and the notification that wakes it.
--
-- A trigger puts events that need the broker into the inbox, in the transaction of their writer. The broker deletes the
-- rows in the transaction that acts on them. The notification carries nothing: a lost notification loses no mail.

create sequence if not exists noetl.mail_seq;

create table if not exists noetl.inbox (
  mail_id bigint primary key default noetl.next_number('noetl.mail_seq'),
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
-- Each claim looks for these few rows, among any number of rows of the same execution.
create index if not exists inbox_adopts on noetl.inbox (execution_id) where adopts;

comment on table noetl.inbox is 'Events that the broker has not decided on yet.';
comment on column noetl.inbox.mail_id is 'A counter without a reliable order.';
comment on column noetl.inbox.execution_id is 'The execution.';
comment on column noetl.inbox.event_id is 'The event.';
comment on column noetl.inbox.adopts is
  'The event says that a worker started a child. Later answers of that worker wait until it is decided on.';
comment on column noetl.inbox.oversize is
  'The part of the event that is larger than the broker reads, and its size in bytes: `context 50000012`.';

create table if not exists noetl.dead_letter (
  event_id bigint not null,
  execution_id bigint not null,
  reason text not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (execution_id, event_id)
);

comment on table noetl.dead_letter is
  'Events that the broker set aside because of a fault of the program, not of the playbook.';
comment on column noetl.dead_letter.event_id is 'The event.';
comment on column noetl.dead_letter.execution_id is 'The execution.';
comment on column noetl.dead_letter.reason is 'The error of the program.';
comment on column noetl.dead_letter.created_at is 'When it was set aside.';

-- The part of an event that is too large for the broker, as `context 50000012`; null: none is. The arguments are what
-- bytes_past_limit says of the parts. The broker does not read the context of an action's end.
create or replace function noetl.oversize_of(event_type text, context_bytes int, meta_bytes int, error_bytes int) returns text
language sql immutable parallel safe
as $$
  select coalesce(
    'context ' || case when lower(left(event_type, 6)) <> 'action' then context_bytes end,
    'meta ' || meta_bytes,
    'error ' || error_bytes
  )
$$;

-- hashtext('noetl.lock') is 'noet', the key space of our locks that are no execution ids. Lock 1 is the gate: a sleeping broker holds
-- it, and a writer that finds it held notifies. A writer that finds it free keeps it shared until its commit. So no broker
-- sleeps before it sees the row.
create or replace function noetl.receive_events() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The broker decides as it writes: its own events are not mail. The functions of workers and producers write the mail of
  -- their own events. A trigger of a user may insert other events meanwhile: they need mail here. It may also call such a
  -- function. So these functions say at which depth of triggers they are.
  if current_setting('noetl.writer', true) in ('broker', 'worker' || pg_trigger_depth() - 1) then
    return null;
  end if;
  insert into noetl.inbox (execution_id, event_id, adopts, oversize)
  select m.execution_id, m.event_id, m.kind = 'iteration_started' and m.oversize is null, m.oversize
  from (
    select a.execution_id, a.event_id, coalesce(noetl.kind_of(a.event_type), '') as kind,
      case when greatest(pg_column_size(a.context), pg_column_size(a.meta), pg_column_size(a.error)) > noetl.limit_of('small_bytes')
        then noetl.oversize_of(
          a.event_type, noetl.bytes_past_limit(a.context), noetl.bytes_past_limit(a.meta), noetl.bytes_past_limit(a.error)
        )
      end as oversize
    from arrived a
    where noetl.is_mail(a.event_type)
  ) m;
  if found and not pg_try_advisory_xact_lock_shared(hashtext('noetl.lock'), 1) then
    perform pg_notify('noetl_event', '');
  end if;
  return null;
end
$$;

create or replace trigger noetl_receive_events
after insert on noetl.event
referencing new table as arrived
for each statement execute function noetl.receive_events();

-- For workers and for clients that wait for an end: at most one notification of each kind a transaction.
create or replace function noetl.notify(has_jobs boolean, has_ends boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('noetl.quiet', true) = 'on' then
    return;
  end if;
  if has_jobs then
    perform pg_notify('noetl_job', '');
  end if;
  if has_ends then
    perform pg_notify('noetl_end', '');
  end if;
end
$$;

-- For workers that hold a lease: some of them shall stop. They look at once, not at their next heartbeat.
create or replace function noetl.notify_cancel() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- a notification that finds the queue full would fail the commit
  if current_setting('noetl.quiet', true) = 'on' or pg_notification_queue_usage() >= 0.9 then
    return;
  end if;
  perform pg_notify('noetl_cancel', '');
end
$$;

-- Sets the catalog_id of an event to the one of its execution.
create or replace function noetl.fill_catalog_id() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select coalesce(x.catalog_id, (
    -- The playbook of a child may not be registered. The tables of a NoETL server need a version in each event.
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

-- A role that may insert all columns of noetl.event may insert any event: the broker, the owner, a NoETL server. A role
-- with some columns is a producer. It may start and cancel executions, but not write as the broker or a worker. The trigger
-- checks its condition with the rights of the inserting role, so the functions that producers call may insert.
create or replace function noetl.check_producer() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  refused text;
begin
  select coalesce(a.event_type, 'no type') into refused
  from arrived a
  where coalesce(noetl.kind_of(a.event_type), '') not in ('execution_start', 'execution_cancel')
  limit 1;
  if found then
    raise exception using errcode = '42501',
      message = format('%s may insert execution_start and execution_cancel into noetl.event, not %L',
        session_user, left(refused, 100)),
      hint = 'workers answer with noetl.complete_job and noetl.fail_job';
  end if;
  if current_setting('noetl.writer', true) <> '' then
    raise exception using errcode = '42501',
      message = format('%s may not write events as the %s', session_user, current_setting('noetl.writer')),
      hint = 'reset noetl.writer';
  end if;
  select a.event_type into refused
  from arrived a
  where noetl.kind_of(a.event_type) = 'execution_cancel' and noetl.as_json(a.context) ? 'by'
  limit 1;
  if found then
    raise exception using errcode = '42501', message = format('%s may not say who cancels', session_user),
      hint = 'leave `by` out of its context; noetl.cancel_execution writes it';
  end if;
  return null;
end
$$;

create or replace trigger noetl_check_producer
after insert on noetl.event
referencing new table as arrived
for each statement when (not has_table_privilege('noetl.event'::regclass, 'insert'))
execute function noetl.check_producer();

-- Events of producers must not be too large, or have numbers that are too long. It runs with the rights of its owner: a
-- producer may not call the functions that read the columns.
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
    ('context', noetl.bytes_past_limit(a.context), noetl.limit_of('payload_bytes')),
    ('result', noetl.bytes_past_limit(a.result), noetl.limit_of('payload_bytes')),
    ('meta', noetl.bytes_past_limit(a.meta), noetl.limit_of('payload_bytes')),
    ('event_type', length(a.event_type), noetl.limit_of('type_chars')),
    ('node_id', length(a.node_id), noetl.limit_of('node_chars')),
    ('node_name', length(a.node_name), noetl.limit_of('node_chars'))
  ) v (name, size, most)
  where v.size > v.most
  limit 1;
  if found then
    raise exception using errcode = 'NB400',
      message = format('the %s of %s for execution %s has size %s; the limit is %s',
        refused.name, refused.event_type, refused.execution_id, refused.size, refused.most),
      hint = 'store large data elsewhere and pass its address';
  end if;
  select left(a.event_type, 100) as event_type, a.execution_id into refused
  from arrived a
  where length(noetl.as_json(a.context) ->> 'path') > noetl.limit_of('path_chars')
  limit 1;
  if found then
    raise exception using errcode = 'NB400',
      message = format('the path in the context of %s for execution %s has more than %s characters',
        refused.event_type, refused.execution_id, noetl.limit_of('path_chars')),
      hint = 'noetl-broker register FILE prints the path of a playbook';
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
      message = format('the %s of %s for execution %s has numbers that are too long as text',
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

-- Mail is lost where somebody deleted it and its event has no turn. The lock of the execution keeps a broker or a second
-- caller from doing it twice. It is taken in a statement of its own, so that the next one sees what its last holder
-- wrote.
create or replace function noetl.put_back(execution_id bigint) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  given_back int;
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
      -- beside a NoETL server, executions from before this broker have no row
      and exists (select from noetl.execution x where x.execution_id = $1)
      and noetl.is_mail(e.event_type)
      and not coalesce(noetl.as_json(e.meta) ? 'turn', false)
      and not exists (select from noetl.turn t where t.execution_id = $1 and t.event_id = e.event_id)
      and not exists (select from noetl.dead_letter d where d.execution_id = $1 and d.event_id = e.event_id)
  ) m
  left join lateral (
    select noetl.kind_of(e.event_type) as kind, noetl.oversize_of(
      e.event_type, noetl.bytes_past_limit(e.context), noetl.bytes_past_limit(e.meta), noetl.bytes_past_limit(e.error)
    ) as oversize
    from noetl.event e
    where e.execution_id = $1 and e.event_id = m.event_id
  ) r on true
  where not exists (select from noetl.inbox i where i.execution_id = $1 and i.event_id = m.event_id)
  order by m.event_id;
  get diagnostics given_back = row_count;
  if given_back > 0 and not pg_try_advisory_xact_lock_shared(hashtext('noetl.lock'), 1) then
    perform pg_notify('noetl_event', '');
  elsif given_back = 0 and noetl.is_archived($1) then
    raise exception using errcode = 'NB404', message = format('execution %s is archived', $1),
      hint = 'its history is in the schema noetl_archive';
  elsif given_back = 0 and not exists (select from noetl.event e where e.execution_id = $1) then
    perform noetl.refuse_unknown($1);
  end if;
  return given_back;
end
$$;

comment on function noetl.put_back(bigint) is
  'Puts the dead letters and lost mail of an execution back into the inbox. Returns the number of events. Repeated: 0.';

revoke all on function
  noetl.oversize_of(text, int, int, int), noetl.receive_events(), noetl.notify(boolean, boolean), noetl.notify_cancel(),
  noetl.fill_catalog_id(), noetl.check_producer(), noetl.check_digits(), noetl.put_back(bigint)
  from public;
