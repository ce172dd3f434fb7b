-- History by age: the partitions of a period of execution ids, and how a period leaves.
--
-- A period is a range of execution ids, which are time-ordered. Each table of history has a partition for it in the schema
-- noetl_history, made ahead by the daemons; what belongs to no period (nobody made it in time; ids of another generator)
-- goes into the default partition. Archiving detaches a whole period into the schema noetl_archive and deletes nothing. The
-- rows of noetl.execution and noetl.execution_state stay: two small ones an execution, with its idempotency key.

create schema if not exists noetl_history;
create schema if not exists noetl_archive;

create table if not exists noetl.period (
  name text primary key,
  first_id bigint not null unique,
  next_id bigint not null check (next_id > first_id),
  archived_at timestamptz
);

comment on table noetl.period is 'Ranges of execution ids whose history has partitions of its own, and is archived as a whole.';
comment on column noetl.period.name is 'The day on which it begins, in UTC; the names of its partitions end in it.';
comment on column noetl.period.first_id is 'The first id that belongs to it.';
comment on column noetl.period.archived_at is 'When its partitions were detached; null: they are in use.';
comment on column noetl.period.next_id is 'The first id that belongs to it no more.';

-- Executions of no period, moved row by row.
create table if not exists noetl.archived (
  execution_id bigint primary key,
  archived_at timestamptz not null default clock_timestamp()
);

comment on column noetl.archived.execution_id is 'The execution.';
comment on column noetl.archived.archived_at is 'When its rows were moved.';
comment on table noetl.archived is 'Executions that were archived one by one, because their tables have no partitions of a period.';

create or replace function noetl.is_archived(execution_id bigint) returns boolean
language sql stable parallel safe
as $$
  select coalesce((
    select p.archived_at is not null and $1 < p.next_id
    from noetl.period p
    where p.first_id <= $1
    order by p.first_id desc
    limit 1
  ), false) or exists (select from noetl.archived a where a.execution_id = $1)
$$;

-- The tables of history in the order in which they leave: what writes to an execution first meets the first of them.
create or replace function noetl.history_tables()
returns table (place int, name text, partitioned boolean)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select t.place::int, t.name, c.relkind = 'p'
  from unnest(array['event', 'turn', 'queue', 'workflow', 'iteration', 'transition', 'workload', 'workbook'])
    with ordinality t (name, place)
  join pg_class c on c.relname = t.name and c.relnamespace = 'noetl'::regnamespace
  order by t.place
$$;

create or replace function noetl.first_id_at(at timestamptz) returns bigint
language sql immutable parallel safe
as $$
  select greatest((date_part('epoch', at) * 1000)::bigint - 1704067200000, 0) << 20
$$;

-- Makes one partition that is missing, in the caller's transaction, and says which; null: all are there, up to one period
-- ahead. One at a time, because it waits for a moment in which nobody uses the default partition of the table: not for long,
-- because all others then wait behind it.
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
      message = format('a period of %s days cannot be made; it takes 1 to 3660', coalesce($1::text, 'null'));
  end if;
  -- one at a time; whoever comes second finds nothing to do
  if not pg_try_advisory_xact_lock(1852794228, 7) then
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
    order by p.first_id, t.place
  loop
    -- What came before its partition stays where it is, and so does what belongs to it: Postgres would not have both.
    execute format('select exists (select from noetl_history.%I where execution_id >= $1 and execution_id < $2)',
      missing.name || '_default') into strays using missing.first_id, missing.next_id;
    continue when strays;
    -- Postgres reads all of the default partition before it takes another one, and nobody may use it meanwhile. A large one
    -- (of ids that another generator makes, say) goes on growing instead, and leaves row by row.
    continue when pg_relation_size(format('noetl_history.%I', missing.name || '_default')) > 64 << 20;
    -- room in each page for the rows that change twice: their new versions need no entries in the index
    execute format('create table noetl_history.%I (like noetl.%I including all) with (fillfactor = %s)',
      missing.partition, missing.name, case when missing.name in ('workflow', 'iteration') then 70 else 100 end);
    if missing.name = 'transition' then
      -- it has no primary key, and from a table that is published Postgres deletes no row that nothing identifies
      execute format('alter table noetl_history.%I replica identity full', missing.partition);
    end if;
    execute format('alter table noetl.%I attach partition noetl_history.%I for values from (%s) to (%s)',
      missing.name, missing.partition, missing.first_id, missing.next_id);
    return missing.partition;
  end loop;
  return null;
end
$$;

comment on function noetl.add_partition(int) is
  'Makes the next missing partition of a period of so many days and returns its name; null: none is missing.';

-- As the owner: a partition leaves its table, and the schema of those that are in use. It waits for those who use the table
-- for a second at most, while others wait behind it.
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

-- Gives a table of the archive the columns that its table of history has got since, with what that gives to rows that say
-- nothing; returns all columns of the table of history, to be named in one insert and one returning.
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

-- Before the way back: reads the whole partition, to be sure that all of it belongs to its period, while nobody waits for it.
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

-- The way back. A partition without the constraint of bound_partition is read while nobody may use the default one. Rows
-- that came while it was away (a late answer changes nothing, but it is kept) go with it.
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
    to_regclass(format('noetl_history.%I', $1 || '_default')), to_regclass(format('noetl_archive.%I', $1))
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

-- Executions with rows in tables without periods: the default partitions, and a NoETL server's own tables. A page of them
-- by id; those that are `over` ended before `cutoff` with all their family, and nothing waits to be read of them.
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
        and x.status <> ''RUNNING''
        and x.ended_at < $2
        and p.status is distinct from ''RUNNING''
    ) and not exists (
      select from noetl.period r
      where r.first_id <= w.execution_id and w.execution_id < r.next_id and r.archived_at is null
    ) and not exists (
      select from noetl.execution c where c.parent_execution_id = w.execution_id and c.status = ''RUNNING''
    ) and not exists (
      select from noetl.inbox i where i.execution_id = w.execution_id
    ) and not exists (
      select from noetl.dead_letter d where d.execution_id = w.execution_id
    ) and not exists (
      select from noetl.queue q where q.execution_id = w.execution_id and q.status = ''leased''
    )
    from (%s) w
    order by w.execution_id
    limit $3', pages
  ) using $1, $2, $3;
end
$$;

-- Moves the rows of these executions out of tables without periods into noetl_archive; gives their number. Where an event
-- came since it was asked who is over, it fails with 40001: what is not read yet must be found when it is.
create or replace function noetl.archive_rows(execution_ids bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  source record;
  columns text;
  moved bigint;
  total bigint := 0;
begin
  for source in
    select t.name,
      case when t.partitioned then format('noetl_history.%I', t.name || '_default') else format('noetl.%I', t.name) end as place
    from noetl.history_tables() t
  loop
    if to_regclass(format('noetl_archive.%I', source.name)) is null then
      execute format('create table noetl_archive.%I (like noetl.%I)', source.name, source.name);
      execute format('alter table noetl_archive.%I replica identity full', source.name);
    end if;
    columns := noetl.archived_columns(source.place::regclass, format('noetl_archive.%I', source.name)::regclass);
    execute format(
      'with moved as (
        delete from %s where execution_id = any($1) returning %s
      )
      insert into noetl_archive.%3$I (%2$s) select %2$s from moved', source.place, columns, source.name
    ) using $1;
    get diagnostics moved = row_count;
    total := total + moved;
    -- Asked after the events are gone: an event that went with them has its mail by now, one that comes later stays.
    if source.name = 'event' and (
      exists (select from noetl.inbox i where i.execution_id = any($1))
      or exists (select from noetl.dead_letter d where d.execution_id = any($1))
    ) then
      raise exception using errcode = '40001', message = 'an event has come for an execution that was to be archived';
    end if;
  end loop;
  insert into noetl.archived (execution_id)
  select a.execution_id
  from unnest($1) a (execution_id)
  where not noetl.is_archived(a.execution_id);
  return total;
end
$$;

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
  if exists (select from noetl.history_tables() t where t.name = 'queue' and t.partitioned) then
    -- workers name a job by its id alone
    create index if not exists queue_by_id on noetl.queue (queue_id);
  end if;
  while noetl.add_partition(30) is not null loop
  end loop;
end
$$;

comment on function noetl.is_archived(bigint) is 'Whether the history of an execution has left the tables.';
comment on function noetl.history_tables() is 'The tables that are partitioned by periods, in the order in which they leave.';
comment on function noetl.first_id_at(timestamptz) is 'The least id that noetl.next_id() gives at a moment.';
comment on function noetl.detach_partition(text, text) is 'For archive: moves the partition of a period out of a table into noetl_archive.';
comment on function noetl.attach_partition(text, text) is 'For archive --restore: brings the partition of a period back into its table.';
comment on function noetl.bound_partition(text, text) is
  'For archive --restore: makes sure that all rows of an archived partition belong to its period, before it is attached.';
comment on function noetl.archived_columns(regclass, regclass) is
  'For archive: gives a table of noetl_archive the columns that its table has got since, and lists them all.';
comment on function noetl.executions_without_period(bigint, timestamptz, int) is
  'For archive: a page of executions with rows in tables without periods, and whether they may leave.';
comment on function noetl.archive_rows(bigint[]) is
  'For archive: moves the rows of executions out of tables without periods; gives their number.';

revoke all on function noetl.is_archived(bigint) from public;
revoke all on function noetl.history_tables() from public;
revoke all on function noetl.first_id_at(timestamptz) from public;
revoke all on function noetl.add_partition(int) from public;
revoke all on function noetl.detach_partition(text, text) from public;
revoke all on function noetl.attach_partition(text, text) from public;
revoke all on function noetl.bound_partition(text, text) from public;
revoke all on function noetl.archived_columns(regclass, regclass) from public;
revoke all on function noetl.executions_without_period(bigint, timestamptz, int) from public;
revoke all on function noetl.archive_rows(bigint[]) from public;
