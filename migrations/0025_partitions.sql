-- Partitions: periods of history, and how a period is archived and restored.
--
-- A period is a range of execution ids, which are time-ordered. Each table of history has one partition a period in the
-- schema noetl_history. Daemons make them ahead of time. Rows without a partition (none was made in time, or another
-- generator makes the ids) go into the default partition. Archiving detaches the partitions of a period into the schema
-- noetl_archive and deletes nothing. The rows of noetl.execution and noetl.execution_state stay. Dropping a period deletes
-- all of it.

create schema if not exists noetl_history;
create schema if not exists noetl_archive;

create table if not exists noetl.period (
  name text primary key,
  first_id bigint not null unique,
  next_id bigint not null check (next_id > first_id),
  archived_at timestamptz,
  dropping_at timestamptz,
  kept bigint[],
  held_by text,
  dropped_at timestamptz
);

comment on table noetl.period is
  'Ranges of execution ids. The history of a period has partitions of its own and is archived as a whole.';
comment on column noetl.period.name is 'The first day of the period in UTC; the suffix of its partitions.';
comment on column noetl.period.first_id is 'The first execution id of the period.';
comment on column noetl.period.next_id is 'The first execution id of the next period.';
comment on column noetl.period.archived_at is 'When its partitions were detached; null: they are attached.';
comment on column noetl.period.dropping_at is
  'When it was marked to be dropped: no undo, fork or retry begins in it. Null: it is not.';
comment on column noetl.period.kept is
  'Its executions whose rows moved to the default partitions, when dropping began; null: it has not begun.';
comment on column noetl.period.held_by is 'Why housekeeping could not drop it; null: nothing is known.';
comment on column noetl.period.dropped_at is 'When the rest of its executions was gone; null: it is not dropped.';

create table if not exists noetl.archived (
  execution_id bigint primary key,
  archived_at timestamptz not null default clock_timestamp()
);

comment on table noetl.archived is 'Executions that were archived row by row, because no period has their rows.';
comment on column noetl.archived.execution_id is 'The execution.';
comment on column noetl.archived.archived_at is 'When its rows were moved into noetl_archive.';

-- Whether the history of an execution is archived.
create or replace function noetl.is_archived(execution_id bigint) returns boolean
language sql stable parallel safe
as $$
  select coalesce((
    select p.archived_at is not null and p.dropped_at is null and $1 < p.next_id
    from noetl.period p
    where p.first_id <= $1
    order by p.first_id desc
    limit 1
  ), false) or exists (select from noetl.archived a where a.execution_id = $1)
$$;

-- The tables of history in the order in which they are detached. A writer needs noetl.event first, so it waits or fails
-- there.
create or replace function noetl.history_tables()
returns table (ordinal int, name text, partitioned boolean)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select t.ordinal::int, t.name, c.relkind = 'p'
  from unnest(array['event', 'turn', 'queue', 'workflow', 'iteration', 'transition', 'workload', 'workbook', 'wait', 'signal_taken',
      'log', 'undo'])
    with ordinality t (name, ordinal)
  join pg_class c on c.relname = t.name and c.relnamespace = 'noetl'::regnamespace
  order by t.ordinal
$$;

-- The lowest id that noetl.next_id() returns at a time.
create or replace function noetl.first_id_at(at timestamptz) returns bigint
language sql immutable parallel safe
as $$
  select greatest((date_part('epoch', at) * 1000)::bigint - 1704067200000, 0) << 20
$$;

-- Makes one missing partition, and returns its name; null: all partitions exist, up to one period ahead. One partition a
-- call: the lock waits for every transaction on the default partition, and all others wait behind it.
create or replace function noetl.add_partition(days int) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
set timezone = 'UTC'
as $$
declare
  begin_id bigint;
  at timestamptz;
  missing record;
  strays boolean;
begin
  if $1 is null or $1 < 1 or $1 > 3660 then
    raise exception using errcode = 'NB400',
      message = format('a period must have 1 to 3660 days, not %s', coalesce($1::text, 'null'));
  end if;
  -- another session is making the partition
  if not pg_try_advisory_xact_lock(hashtext('noetl.lock'), 7) then
    return null;
  end if;
  loop
    select max(p.next_id)
    into begin_id
    from noetl.period p;
    begin_id := coalesce(begin_id, noetl.first_id_at(date_trunc('day', now())));
    at := timestamptz '2024-01-01Z' + (begin_id >> 20) * interval '1 millisecond';
    exit when at > now() + make_interval(days => $1);
    insert into noetl.period (name, first_id, next_id)
    values (to_char(at, 'YYYYMMDD'), begin_id, noetl.first_id_at(at + make_interval(days => $1)));
  end loop;
  for missing in
    select t.name, p.first_id, p.next_id, t.name || '_' || p.name as partition
    from noetl.period p
    cross join noetl.history_tables() t
    where p.archived_at is null
      and t.partitioned
      and p.next_id > noetl.first_id_at(now())
      and to_regclass(format('noetl_history.%I', t.name || '_' || p.name)) is null
    order by p.first_id, t.ordinal
  loop
    -- Postgres refuses a partition for rows that are in the default partition. Those rows stay there.
    execute format('select exists (select from noetl_history.%I where execution_id >= $1 and execution_id < $2)',
      missing.name || '_default') into strays using missing.first_id, missing.next_id;
    continue when strays;
    -- Postgres reads the whole default partition under an exclusive lock. A large one keeps its rows, which are archived one
    -- by one.
    continue when pg_relation_size(format('noetl_history.%I', missing.name || '_default')) > 64 << 20;
    -- free space in each page makes updates HOT: they write no index
    execute format('create table noetl_history.%I (like noetl.%I including all) with (fillfactor = %s)',
      missing.partition, missing.name, case when missing.name in ('workflow', 'iteration') then 70 else 100 end);
    if missing.name = 'transition' then
      -- without a primary key, Postgres deletes no rows of a table that is published
      execute format('alter table noetl_history.%I replica identity full', missing.partition);
    end if;
    execute format('alter table noetl.%I attach partition noetl_history.%I for values from (%s) to (%s)',
      missing.name, missing.partition, missing.first_id, missing.next_id);
    return missing.partition;
  end loop;
  return null;
end
$$;

-- Detaches a partition and moves it to noetl_archive; called as the owner. It waits at most a second for the
-- transactions that use the table, while others wait behind it.
create or replace function noetl.detach_partition(table_name text, period_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
begin
  execute format('alter table noetl.%I detach partition noetl_history.%I', $1, $1 || '_' || $2);
  execute format('alter table noetl_history.%I set schema noetl_archive', $1 || '_' || $2);
end
$$;

-- Adds to an archived table the columns that its table of history has got since, with their defaults. Returns the
-- columns of the table of history, as a list for an insert.
create or replace function noetl.archived_columns(history regclass, archive regclass) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  missing text;
begin
  for missing in
    select format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
      || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid) || case when a.attnotnull then ' not null' else '' end, '')
    from pg_attribute a
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum and a.attgenerated = ''
    where a.attrelid = $1
      and a.attnum > 0
      and not a.attisdropped
      and not exists (select from pg_attribute o where o.attrelid = $2 and o.attname = a.attname)
    order by a.attnum
  loop
    execute format('alter table %s add column %s', $2, missing);
  end loop;
  return (
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
    from pg_attribute a
    where a.attrelid = $1
      and a.attnum > 0
      and not a.attisdropped
  );
end
$$;

-- Checks, before a restore, that all rows of a partition belong to its period. It reads the whole partition while
-- nobody waits.
create or replace function noetl.bound_partition(table_name text, period_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
  part regclass := format('noetl_archive.%I', $1 || '_' || $2);
begin
  perform noetl.archived_columns(format('noetl.%I', $1)::regclass, part);
  if not exists (select from pg_constraint c where c.conrelid = part and c.conname = 'in_period') then
    execute (
      select format('alter table %s add constraint in_period check (execution_id >= %s and execution_id < %s)',
        part, p.first_id, p.next_id)
      from noetl.period p
      where p.name = $2
    );
  end if;
end
$$;

-- Restores a partition. Without the constraint of bound_partition, Postgres reads all of it under an exclusive lock.
-- Rows that were written meanwhile to the default partition move into it.
create or replace function noetl.attach_partition(table_name text, period_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
  period record;
  whole regclass := format('noetl.%I', $1);
  part regclass := format('noetl_archive.%I', $1 || '_' || $2);
  columns text := noetl.archived_columns(whole, part);
  others regclass;
begin
  select p.first_id, p.next_id
  into period
  from noetl.period p
  where p.name = $2;
  foreach others in array array[
    to_regclass(format('noetl_history.%I', $1 || '_default')), to_regclass(format('noetl_archive.%I', $1 || '_without_period'))
  ]
  loop
    continue when others is null;
    perform noetl.archived_columns(whole, others);
    execute format(
      'with late as (
        delete from %s where execution_id >= $1 and execution_id < $2 returning %s
      )
      insert into %3$s (%2$s) select %2$s from late', others, columns, part
    ) using period.first_id, period.next_id;
  end loop;
  execute format('alter table noetl_archive.%I set schema noetl_history', $1 || '_' || $2);
  execute format('alter table noetl.%I attach partition noetl_history.%I for values from (%s) to (%s)',
    $1, $1 || '_' || $2, period.first_id, period.next_id);
  execute format('alter table %s drop constraint if exists in_period', part);
end
$$;

-- A page of the executions with rows outside of periods: in default partitions or in a NoETL server's tables. `over`:
-- the execution and its family ended before `cutoff`, and it has no mail.
create or replace function noetl.executions_without_period(after bigint, cutoff timestamptz, most int)
returns table (execution_id bigint, over boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  pages text;
begin
  select string_agg(format(
    '(select distinct execution_id from %s where execution_id > $1 order by execution_id limit $3)',
    case when t.partitioned then format('noetl_history.%I', t.name || '_default') else format('noetl.%I', t.name) end
  ), ' union ')
  into pages
  from noetl.history_tables() t;
  return query execute format(
    'select w.execution_id, exists (
      select
      from noetl.execution x
      left join noetl.execution p on p.execution_id = x.parent_execution_id
      where x.execution_id = w.execution_id
        and not noetl.is_live(x.status)
        and x.ended_at < $2
        and noetl.is_live(p.status) is not true
    ) and not exists (
      select from noetl.period r
      where r.first_id <= w.execution_id and w.execution_id < r.next_id and r.archived_at is null and r.dropped_at is null
    ) and not exists (
      select from noetl.execution c where c.parent_execution_id = w.execution_id and noetl.is_live(c.status)
    ) and not exists (
      select from noetl.inbox i where i.execution_id = w.execution_id
    ) and not exists (
      select from noetl.dead_letter d where d.execution_id = w.execution_id
    ) and not exists (
      select from noetl.queue q where q.execution_id = w.execution_id and q.status = ''leased''
    ) and not exists (
      select from noetl.execution x where x.execution_id = w.execution_id and x.undo_status in (''undoing'', ''left'')
    ) and noetl.live_ancestor(w.execution_id) is null and w.execution_id not in (select noetl.below_undos())
    from (%s) w
    order by w.execution_id
    limit $3', pages
  ) using $1, $2, $3;
end
$$;

-- Moves the rows of executions outside of periods into noetl_archive, and returns their number. It fails with 40001
-- where mail came since the execution was found to be over.
create or replace function noetl.archive_rows(execution_ids bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  source record;
  strays text;
  columns text;
  moved bigint;
  total bigint := 0;
begin
  for source in
    select t.name,
      case when t.partitioned then format('noetl_history.%I', t.name || '_default') else format('noetl.%I', t.name) end as relation
    from noetl.history_tables() t
  loop
    strays := source.name || '_without_period';
    if to_regclass(format('noetl_archive.%I', strays)) is null then
      execute format('create table noetl_archive.%I (like noetl.%I)', strays, source.name);
      execute format('alter table noetl_archive.%I replica identity full', strays);
    end if;
    columns := noetl.archived_columns(source.relation::regclass, format('noetl_archive.%I', strays)::regclass);
    execute format(
      'with moved as (
        delete from %s where execution_id = any($1) returning %s
      )
      insert into noetl_archive.%3$I (%2$s) select %2$s from moved', source.relation, columns, strays
    ) using $1;
    get diagnostics moved = row_count;
    total := total + moved;
    -- After the delete: an event that was moved has its mail by now, and a later one stays.
    if source.name = 'event' and (
      exists (select from noetl.inbox i where i.execution_id = any($1))
      or exists (select from noetl.dead_letter d where d.execution_id = any($1))
    ) then
      raise exception using errcode = '40001', message = 'mail has come for an execution that was about to be archived';
    end if;
  end loop;
  -- Citus plans this at the coordinator, where is_archived finds no tables.
  insert into noetl.archived (execution_id)
  select x.execution_id
  from noetl.execution x
  where x.execution_id = any($1)
    and not exists (
      select
      from noetl.period p
      where p.first_id <= x.execution_id and x.execution_id < p.next_id and p.archived_at is not null
    )
  on conflict do nothing;
  return total;
end
$$;

-- For an undo, fork or retry: keeps the period of the execution until the transaction ends. Raises NB409 if it is marked to
-- be dropped.
create or replace function noetl.hold_period(execution_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  period noetl.period;
begin
  select p.* into period
  from noetl.period p
  where p.first_id <= $1 and $1 < p.next_id
  for share;
  if period.dropping_at is not null and $1 <> all(coalesce(period.kept, '{}')) then
    raise exception using errcode = 'NB409',
      message = format('execution %s is about to be dropped, with its period %s', $1, period.name),
      hint = 'all of its executions ended longer ago than the setting keep; no undo, fork or retry begins there';
  end if;
end
$$;

-- Marks a period: `drop`: it will be dropped; `stay`: it will not, because of `reason`; `dropped`: all of it is gone. A period
-- whose dropping has begun does not stay. It waits for each undo, fork and retry that begins in the period.
create or replace function noetl.mark_period(period_name text, mark text, reason text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
as $$
declare
  period noetl.period;
  history record;
  strays regclass;
begin
  update noetl.period p
  set dropping_at = case $2 when 'stay' then null else coalesce(p.dropping_at, now()) end,
      dropped_at = case when $2 = 'dropped' then now() end,
      held_by = $3
  where p.name = $1 and p.dropped_at is null and (p.kept is null) = ($2 <> 'dropped')
  returning p.* into period;
  if not found or $2 <> 'dropped' then
    return found;
  end if;
  for history in select t.name from noetl.history_tables() t loop
    strays := to_regclass(format('noetl_archive.%I', history.name || '_without_period'));
    if strays is not null then
      execute format('delete from %s where execution_id >= $1 and execution_id < $2', strays)
      using period.first_id, period.next_id;
    end if;
  end loop;
  return true;
end
$$;

-- Takes a partition from a marked period: the first call detaches it, the next one deletes it. The rows of `kept` move to the
-- default partition. Others wait for its lock, so a call waits at most 50 ms for it and moves few rows.
create or replace function noetl.drop_partition(table_name text, period_name text, kept bigint[]) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
as $$
declare
  part text := $1 || '_' || $2;
  columns text;
begin
  -- two statements: Citus refuses to join the periods with a function
  if not exists (select from noetl.period p where p.name = $2 and p.dropping_at is not null and p.dropped_at is null)
    or not exists (select from noetl.history_tables() t where t.name = $1) then
    raise exception using errcode = 'NB409', message = format('the period %s is not marked to be dropped, or has no table %s', $2, $1);
  end if;
  if to_regclass(format('noetl_history.%I', part)) is null then
    execute format('drop table if exists noetl_archive.%I', part);
  else
    execute format('alter table noetl.%I detach partition noetl_history.%I', $1, part);
    execute format('alter table noetl_history.%I set schema noetl_archive', part);
    if cardinality($3) > 0 then
      columns := noetl.archived_columns(format('noetl.%I', $1)::regclass, format('noetl_archive.%I', part)::regclass);
      execute format('insert into noetl_history.%I (%s) overriding system value select %2$s from noetl_archive.%3$I where execution_id = any($1)',
        $1 || '_default', columns, part) using $3;
    end if;
  end if;
  update noetl.period p
  set kept = $3
  where p.name = $2 and p.kept is null;
end
$$;

-- Deletes all rows of ended executions, but not their idempotency keys. Returns the number of executions. One with mail stays.
create or replace function noetl.drop_executions(execution_ids bigint[]) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  ids bigint[];
  one text;
begin
  ids := array(
    select x.execution_id
    from noetl.execution x
    where x.execution_id = any($1)
      and not noetl.is_live(x.status)
      and x.undo_status is distinct from 'undoing'
      and not exists (select from noetl.inbox i where i.execution_id = x.execution_id)
  );
  for one in select t.name from noetl.history_tables() t loop
    execute format('delete from noetl.%I where execution_id = any($1)', one) using ids;
  end loop;
  delete from noetl.timer t where t.execution_id = any(ids);
  delete from noetl.archived a where a.execution_id = any(ids);
  delete from noetl.execution_state s where s.execution_id = any(ids);
  delete from noetl.execution x where x.execution_id = any(ids);
  return cardinality(ids);
end
$$;

-- Drops a page of the executions outside of periods that ended before `cutoff`. Returns their number, and where the next call goes
-- on; null: there are no more.
create or replace function noetl.drop_without_period(
  after bigint, cutoff timestamptz, most int, out dropped int, out last_id bigint
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  ids bigint[];
begin
  select max(w.execution_id), array_agg(w.execution_id) filter (where w.over)
  into last_id, ids
  from noetl.executions_without_period($1, $2, $3) w;
  dropped := noetl.drop_executions(ids);
end
$$;

-- Each table of history has a default partition, and those of the present period and the next one.
do $$
declare
  whole record;
begin
  for whole in
    select t.name
    from noetl.history_tables() t
    where t.partitioned
  loop
    execute format('create table if not exists noetl_history.%I partition of noetl.%I default with (fillfactor = %s)',
      whole.name || '_default', whole.name, case when whole.name in ('workflow', 'iteration') then 70 else 100 end);
  end loop;
  alter table if exists noetl_history.transition_default replica identity full;
  while noetl.add_partition(30) is not null loop
  end loop;
end
$$;

revoke all on function
  noetl.is_archived(bigint), noetl.history_tables(), noetl.first_id_at(timestamptz), noetl.add_partition(int),
  noetl.detach_partition(text, text), noetl.archived_columns(regclass, regclass), noetl.bound_partition(text, text),
  noetl.attach_partition(text, text), noetl.executions_without_period(bigint, timestamptz, int),
  noetl.archive_rows(bigint[]), noetl.hold_period(bigint), noetl.mark_period(text, text, text),
  noetl.drop_partition(text, text, bigint[]), noetl.drop_executions(bigint[]),
  noetl.drop_without_period(bigint, timestamptz, int)
  from public;
