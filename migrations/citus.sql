-- What a bucket on a node of Citus has beside bucket.sql: it is applied after that, to a distributed schema. `{number}` is its
-- number, `{anchor}` the shard of noetl.event. Citus moves all shards of a schema together, and their names stay.

-- Citus brings a sequence to all nodes if a default of a table names it.
create table if not exists noetl.sequences (
  stale_answer bigint primary key default nextval('noetl.stale_answer_seq'),
  id bigint default nextval('noetl.id_seq'),
  pause bigint default nextval('noetl.pause_seq'),
  slot bigint default nextval('noetl.slot_seq'),
  signal bigint default nextval('noetl.signal_seq')
);

comment on table noetl.sequences is 'Always empty: it makes Citus bring the sequences to all nodes.';

-- Numbers that order things must rise when the bucket moves, too. But each node has a range of a sequence of its own. So they are
-- made of the node's clock, which never steps back: milliseconds since 2024, then so many bits of a counter.
create or replace function noetl.clock_number(bits int) returns bigint
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  now text := citus_get_node_clock()::text; -- (milliseconds,counter)
begin
  return ((split_part(substr(now, 2), ',', 1)::bigint - 1704067200000) << $1) + rtrim(split_part(now, ',', 2), ')')::bigint;
end
$$;

create or replace function noetl.next_number(of regclass) returns bigint
language sql volatile parallel unsafe
as $$
  select noetl.clock_number(16)
$$;

create or replace function noetl.next_id() returns bigint
language sql volatile parallel unsafe
as $$
  select noetl.clock_number(14) << 6 | {number}
$$;

-- The guard. A statement that names a shard evades the lock with which Citus keeps writers away from a move. So each transaction
-- takes that lock before its first write, and looks after that whether the shard is here. A look before the lock would see the
-- placement from before the move that the lock waits for.
create or replace function noetl.stay() returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('noetl.here', true) = 'yes' then
    return;
  end if;
  perform lock_shard_metadata(5, array[{anchor}]); -- a share lock, as Citus' own writes take it
  if not exists (
    select
    from pg_dist_placement p
    join pg_dist_local_group g on g.groupid = p.groupid
    where p.shardid = {anchor}
  ) then
    raise exception using errcode = 'NB503', message = 'the bucket noetl is on another node',
      hint = 'call it outside of a transaction, insert a start at the coordinator, or connect to that node';
  end if;
  perform set_config('noetl.here', 'yes', true);
end
$$;

create or replace function noetl.stay_here() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform noetl.stay();
  return null;
end
$$;

do $$
declare
  guarded regclass;
begin
  for guarded in
    select c.oid
    from pg_dist_partition d -- has no shards, which a coordinator may have beside the tables
    join pg_class c on c.oid = d.logicalrelid
    where c.relnamespace = 'noetl'::regnamespace
      and not c.relispartition
      and c.relname not in ('schema_version', 'period', 'sequences') -- migrate and archive write them at the coordinator
  loop
    execute format(
      $trigger$
        create or replace trigger aa_noetl_stay before insert or update or delete on %s for each statement
        when (current_setting('noetl.here', true) is distinct from 'yes') execute function noetl.stay_here()
      $trigger$, guarded
    );
  end loop;
end
$$;

-- Citus inserts the defaults of these columns with the row, so a producer may insert them here. It still has no say in them.
create or replace function noetl.fill_own_columns() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.event_id := noetl.next_id();
  new.created_at := clock_timestamp();
  return new;
end
$$;

create or replace trigger noetl_fill_own_columns
before insert on noetl.event
for each row when (not has_table_privilege('noetl.event'::regclass, 'insert'))
execute function noetl.fill_own_columns();

revoke all on function noetl.fill_own_columns() from public;
