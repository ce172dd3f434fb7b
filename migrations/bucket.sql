-- What makes the schema of a broker a bucket: it is applied after all others, in a bucket only. `{number}` is its number,
-- `{buckets}` how many there are.
--
-- The low 6 bits of its ids are its number. The sequence has no cache: the counter has 14 bits, so it could come round to a
-- number that a session has kept.
create or replace function noetl.bucket_number() returns int
language sql immutable parallel safe
as $$
  select {number}
$$;

create or replace function noetl.bucket_count() returns int
language sql immutable parallel safe
as $$
  select {buckets}
$$;

alter sequence noetl.id_seq cache 1;

create or replace function noetl.next_id() returns bigint
language sql volatile parallel unsafe
as $$
  select ((date_part('epoch', clock_timestamp()) * 1000)::bigint - 1704067200000) << 20
       | ((nextval('noetl.id_seq'::regclass) & 16383) << 6)
       | {number}
$$;

comment on function noetl.next_id() is
  'A new id: 41 bits of milliseconds since 2024, 14 bits of a counter, and 6 bits with the number of the bucket.';

-- Whoever inserts `execution_start` into the table chooses the bucket with the id.
create or replace function noetl.refuse_elsewhere() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if noetl.kind_of(new.event_type) = 'execution_start' then
    perform noetl.is_elsewhere(new.execution_id);
  end if;
  return new;
end
$$;

create or replace trigger noetl_refuse_elsewhere
before insert on noetl.event
for each row when ((new.execution_id & 63) <> {number})
execute function noetl.refuse_elsewhere();

-- Signals of a key come to the waits of all buckets: `run` copies them. A copy keeps the id of its signal, so it is written
-- once. The low 6 bits of their ids are the number of their bucket.
create or replace function noetl.next_signal_id() returns bigint
language sql volatile parallel unsafe
as $$
  select noetl.next_number('noetl.signal_seq') << 6 | {number}
$$;

-- The clocks of two servers differ.
create or replace function noetl.latest_sent_at(signal_id bigint, sent_at timestamptz) returns timestamptz
language sql stable parallel safe
as $$
  select case when ($1 & 63) = {number} then $2 else $2 + interval '1 second' end
$$;

create table if not exists noetl.signal_copy (
  target int not null,
  signal_id bigint not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (target, signal_id)
) with (
  -- rows live for milliseconds, as in noetl.match_request
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0
);

comment on table noetl.signal_copy is 'Signals that a broker still has to copy to another bucket.';
comment on column noetl.signal_copy.target is 'The number of that bucket.';
comment on column noetl.signal_copy.signal_id is 'The signal; signals of one bucket arrive in the order of their ids.';
comment on column noetl.signal_copy.created_at is 'When it was written, with the signal.';

create or replace function noetl.leave_copies() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into noetl.signal_copy (target, signal_id)
  select n, new.signal_id
  from generate_series(0, {buckets} - 1) n
  where n <> {number};
  return null;
end
$$;

-- Not of a copy, and not of a signal to one execution.
create or replace trigger noetl_leave_copies after insert on noetl.signal
for each row when (new.execution_id is null and (new.signal_id & 63) = {number})
execute function noetl.leave_copies();

revoke all on function noetl.refuse_elsewhere(), noetl.leave_copies() from public;
