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
       | (nextval('noetl.id_seq'::regclass) & 16383) << 6
       | {number}
$$;

comment on function noetl.next_id() is
  'A new id: 41 bits of milliseconds since 2024, 14 bits of a counter, and 6 bits with the number of the bucket.';
