-- Signals: facts that producers send, and the waits that take them.
--
-- A sender inserts a signal and a request, and matches nobody. A wait that begins, or that is open again, gets a request too. A
-- broker matches in a transaction that began after the commit of the request. So it sees the signal and the wait. Whichever of
-- both was committed last, its request finds the other. At most one signal is under way to a wait: the wait is `signalled` until
-- a turn says whether it took the signal.

create sequence if not exists noetl.signal_seq;

-- bucket.sql replaces it.
create or replace function noetl.next_signal_id() returns bigint
language sql volatile parallel unsafe
as $$
  select noetl.next_number('noetl.signal_seq')
$$;

-- Few rows, and they live until they are taken or too old. So the table has no partitions.
-- The limits are those of noetl.limit_of: a call in a check would be planned at each insert. A test compares them.
create table if not exists noetl.signal (
  signal_id bigint primary key default noetl.next_signal_id(),
  name text not null check (length(name) between 1 and 255),
  key text not null check (octet_length(key) <= 1024),
  payload jsonb,
  sent_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  idempotency_key text,
  execution_id bigint,
  hops int not null default 0,
  sent_by text
);
create unique index if not exists signal_idempotency on noetl.signal (name, key, idempotency_key)
  where idempotency_key is not null;
create index if not exists signal_key on noetl.signal (key, signal_id);
create index if not exists signal_expiry on noetl.signal (expires_at);
create index if not exists signal_of_execution on noetl.signal (signal_id) where execution_id is not null;

comment on table noetl.signal is 'Signals that were sent. Send one with noetl.send_signal or noetl.signal_execution.';
comment on column noetl.signal.sent_by is 'Who sent it: login:NAME or token:NAME. Null: a step.';
comment on column noetl.signal.signal_id is 'The order in which waits take signals.';
comment on column noetl.signal.name is 'What happened.';
comment on column noetl.signal.key is
  'What it is about, such as the number of an order. Of signal_execution: the execution id.';
comment on column noetl.signal.payload is 'The result of a wait that takes it.';
comment on column noetl.signal.sent_at is 'When it was sent.';
comment on column noetl.signal.expires_at is
  'No wait takes it from then on. infinity: it is kept until its execution ends.';
comment on column noetl.signal.idempotency_key is 'One signal of this name and key, as long as it is kept.';
comment on column noetl.signal.execution_id is 'The execution that it was sent to; null: whoever waits for the key.';
comment on column noetl.signal.hops is 'How many executions sent signals that led to this one.';

-- Its rows live as long as the history of their execution, so it is partitioned.
create table if not exists noetl.signal_taken (
  execution_id bigint not null,
  signal_id bigint not null,
  event_id bigint not null,
  primary key (execution_id, signal_id)
) partition by range (execution_id);

comment on table noetl.signal_taken is 'The signals that each execution got. Each signal comes to an execution once.';
comment on column noetl.signal_taken.execution_id is 'The execution.';
comment on column noetl.signal_taken.signal_id is 'The signal.';
comment on column noetl.signal_taken.event_id is 'The execution_signal event that brought it. Any other one is doubled.';

create table if not exists noetl.on_signal (
  path text not null,
  name text not null,
  condition text,
  since_at timestamptz not null default clock_timestamp(),
  primary key (path, name)
);
create index if not exists on_signal_name on noetl.on_signal (name);

comment on table noetl.on_signal is 'Playbooks that signals start, as metadata.on_signal of the latest version says.';
comment on column noetl.on_signal.path is 'The playbook.';
comment on column noetl.on_signal.name is 'The name of the signals.';
comment on column noetl.on_signal.condition is 'The `when`; null: each signal of the name.';
comment on column noetl.on_signal.since_at is 'Only signals that are sent later start executions; infinity: an author declared it, and no operator has resumed the path.';

create sequence if not exists noetl.match_request_seq;

create table if not exists noetl.match_request (
  request_id bigint primary key default noetl.next_number('noetl.match_request_seq'),
  signal_id bigint,
  execution_id bigint,
  node_id text,
  path text,
  last_execution_id bigint not null default 0,
  last_node_id text not null default '',
  created_at timestamptz not null default clock_timestamp(),
  check (num_nonnulls(signal_id, execution_id) = 1)
) with (
  -- rows live for milliseconds, as in noetl.inbox
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0
);
-- Most requests are of waits. The others are found without reading those.
create index if not exists match_request_starts on noetl.match_request (request_id) where path is not null;
create index if not exists match_request_waits on noetl.match_request (request_id) where path is null;

comment on table noetl.match_request is 'What a broker still has to match: signals that were sent, and waits that are open.';
comment on column noetl.match_request.request_id is 'The order in which requests are worked on.';
comment on column noetl.match_request.signal_id is 'The signal whose receivers are to be found.';
comment on column noetl.match_request.execution_id is 'The execution of the wait for which a signal is to be found.';
comment on column noetl.match_request.node_id is 'The node of that wait.';
comment on column noetl.match_request.path is 'A playbook that the signal may start; null: the receivers are waits.';
comment on column noetl.match_request.last_execution_id is 'Of a signal with many receivers: the last one that is done.';
comment on column noetl.match_request.last_node_id is 'The node of that receiver.';
comment on column noetl.match_request.created_at is 'When it was written.';

-- Wakes the brokers that sleep: lock 5 is their gate, as lock 1 is that of the mail.
create or replace function noetl.notify_matchers() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('noetl.quiet', true) is distinct from 'on' and not pg_try_advisory_xact_lock_shared(hashtext('noetl.lock'), 5) then
    perform pg_notify('noetl_match', '');
  end if;
end
$$;

-- Refuses a signal that cannot be sent.
create or replace function noetl.check_signal(name text, key text, payload jsonb, idempotency_key text, keep interval)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if $1 is null or length($1) not between 1 and noetl.limit_of('name_chars') then
    raise exception using errcode = 'NB400',
      message = format('the name of the signal has %s characters; it must have 1 to %s',
        coalesce(length($1), 0), noetl.limit_of('name_chars')),
      hint = 'select noetl.send_signal(''payment'', ''order-42'', ''{"amount": 5}'')';
  end if;
  if $2 is null or octet_length($2) > noetl.limit_of('key_bytes') then
    raise exception using errcode = 'NB400',
      message = case when $2 is null then format('the signal %s has no key', $1)
        else format('the key of the signal %s has %s bytes; the limit is %s', $1, octet_length($2), noetl.limit_of('key_bytes')) end,
      hint = 'the key says what the signal is about, such as the number of an order';
  end if;
  if pg_column_size($3) > noetl.limit_of('small_bytes') and octet_length($3::text) > noetl.limit_of('result_bytes') then
    raise exception using errcode = 'NB400',
      message = format('the payload of the signal %s takes %s bytes; the limit is %s',
        $1, octet_length($3::text), noetl.limit_of('result_bytes')),
      hint = 'store large data elsewhere and pass its address';
  end if;
  if $3 @? '$.**{191}' or noetl.is_inflated($3) then
    raise exception using errcode = 'NB400',
      message = format('the payload of the signal %s nests deeper than 190 levels, or has numbers that are too long', $1),
      hint = 'pass such data as text';
  end if;
  if $5 is not null and ($5 <= '0' or $5 > '3660 days') then
    raise exception using errcode = 'NB400', message = format('the signal %s would be kept for %s', $1, $5),
      hint = 'give a span of up to 3660 days: keep => interval ''7 days''';
  end if;
  perform noetl.check_key($4);
end
$$;

-- Inserts a signal that was checked, with its request. Returns the id of the earlier one for a repeated idempotency key.
create or replace function noetl.insert_signal(
  name text, key text, payload jsonb, idempotency_key text, expires_at timestamptz, execution_id bigint, sent_by text
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  id bigint;
  earlier record;
begin
  loop
    insert into noetl.signal (name, key, payload, idempotency_key, expires_at, execution_id, sent_by)
    values ($1, $2, $3, $4, $5, $6, $7)
    on conflict (name, key, idempotency_key) where idempotency_key is not null do nothing
    returning signal_id into id;
    exit when id is not null;
    -- a signal that is too old stays until a sweep, and its key conflicts until then
    delete from noetl.signal s
    where s.name = $1 and s.key = $2 and s.idempotency_key = $4 and s.expires_at <= clock_timestamp();
    continue when found;
    select s.signal_id, s.payload into earlier
    from noetl.signal s
    where s.name = $1 and s.key = $2 and s.idempotency_key = $4;
    continue when not found;
    if earlier.payload is distinct from $3 then
      raise exception using errcode = 'NB409',
        message = format('the idempotency key %s of the signal %s is used: signal %s has another payload',
          left($4, 100), $1, earlier.signal_id),
        hint = 'send the same payload, or choose another key';
    end if;
    return earlier.signal_id;
  end loop;
  insert into noetl.match_request (signal_id) values (id);
  perform noetl.notify_matchers();
  return id;
end
$$;

create or replace function noetl.send_signal(
  name text, key text, payload jsonb default null, idempotency_key text default null, keep interval default '7 days',
  by text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  home int;
begin
  perform noetl.check_signal($1, $2, $3, $4, $5);
  if noetl.bucket_number() is not null and $4 is not null then
    home := noetl.bucket_of_text($1 || chr(31) || $2, noetl.bucket_count());
    if home <> noetl.bucket_number() then
      raise exception using errcode = 'NB421',
        message = format('the signal %s of the key %s has an idempotency key, so it belongs to bucket %s, and this is bucket %s',
          $1, left($2, 100), home, noetl.bucket_number()),
        hint = 'call send_signal in the schema without a number';
    end if;
  end if;
  return noetl.insert_signal($1, $2, $3, $4, clock_timestamp() + coalesce($5, '7 days'), null, noetl.caller_name($6));
end
$$;

comment on function noetl.send_signal(text, text, jsonb, text, interval, text) is
  'Sends a signal to whoever waits for its name and key, now or until `keep` is over. Returns its id.';

create or replace function noetl.signal_execution(
  execution_id bigint, name text, payload jsonb default null, idempotency_key text default null, by text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  status text;
begin
  perform noetl.check_signal($2, $1::text, $3, $4, null);
  select x.status into status
  from noetl.execution x
  where x.execution_id = $1;
  if not found then
    perform noetl.refuse_unknown($1);
  end if;
  if not noetl.is_live(status) then
    return null;
  end if;
  return noetl.insert_signal($2, $1::text, $3, $4, 'infinity', $1, noetl.caller_name($5));
end
$$;

comment on function noetl.signal_execution(bigint, text, jsonb, text, text) is
  'Sends a signal to one execution, which is kept until that ends. Returns its id; null for an execution that has ended.';

revoke all on function
  noetl.next_signal_id(), noetl.notify_matchers(), noetl.check_signal(text, text, jsonb, text, interval),
  noetl.insert_signal(text, text, jsonb, text, timestamptz, bigint, text),
  noetl.send_signal(text, text, jsonb, text, interval, text), noetl.signal_execution(bigint, text, jsonb, text, text)
  from public;
