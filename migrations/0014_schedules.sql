-- Schedules: playbooks that start at moments, given by a cron text or a fixed span.
--
-- A broker finds the moments, because a cron text in a time zone needs a library. SQL starts executions and moves rows.
-- There is no leader. In one transaction a broker locks rows that are due, starts an execution for each, and sets its next
-- moment. The idempotency key of the start is the name and the moment, so no moment starts two executions. The table is not
-- named `schedule`, because a NoETL server has one of that name.

create table if not exists noetl.start_schedule (
  name text primary key,
  path text not null,
  version int,
  payload jsonb not null default '{}' check (jsonb_typeof(payload) = 'object'),
  options jsonb,
  cron text,
  every interval check (every >= '1 second'),
  timezone text not null default 'UTC',
  jitter interval not null default '0' check (jitter >= '0'),
  catch_up interval not null default '1 hour' check (catch_up >= '0'),
  overlap text not null default 'skip' check (overlap in ('skip', 'queue', 'cancel', 'allow')),
  declared_in text,
  paused boolean not null default false,
  paused_at timestamptz,
  resumed_at timestamptz,
  since_at timestamptz not null,
  next_at timestamptz,
  due_at timestamptz not null default '-infinity',
  moved_at timestamptz,
  last_at timestamptz,
  last_execution_id bigint,
  started bigint not null default 0,
  skipped bigint not null default 0,
  error text,
  error_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  changed_by text,
  check (num_nonnulls(cron, every) = 1),
  check (not paused or paused_at is not null),
  -- a row that no broker will look at again says why
  check (due_at < 'infinity' or error is not null),
  check (due_at in ('-infinity', 'infinity') or due_at between next_at and next_at + jitter)
);
create index if not exists start_schedule_due on noetl.start_schedule (due_at);
create index if not exists start_schedule_declared on noetl.start_schedule (declared_in) where declared_in is not null;

comment on table noetl.start_schedule is
  'Playbooks that start at moments. Change rows with noetl.put_schedule and the functions beside it.';
comment on column noetl.start_schedule.name is 'The name. A schedule that a playbook declares is named path#name.';
comment on column noetl.start_schedule.path is 'The playbook that it starts.';
comment on column noetl.start_schedule.version is 'The version that it starts; null: the latest at each moment.';
comment on column noetl.start_schedule.payload is
  'The payload of each start. `schedule` is added: the name and the moment.';
comment on column noetl.start_schedule.options is
  'The options of each start, as start_execution takes them; null: none.';
comment on column noetl.start_schedule.cron is 'Five fields, six with seconds first, or @daily and the like.';
comment on column noetl.start_schedule.every is 'A fixed span from moment to moment, in place of cron.';
comment on column noetl.start_schedule.timezone is 'The IANA time zone of cron.';
comment on column noetl.start_schedule.jitter is
  'A start is delayed by a part of this, at most until the next moment. Name and moment decide the part.';
comment on column noetl.start_schedule.catch_up is
  'After a time without a broker, moments that are late by more are skipped, with 0 all. The last of the rest starts.';
comment on column noetl.start_schedule.overlap is
  'If an earlier execution of the schedule lives: skip the start, queue it, cancel the other, allow both.';
comment on column noetl.start_schedule.declared_in is 'The playbook that declares it; null: put by a command or in SQL.';
comment on column noetl.start_schedule.paused is 'Its moments pass without a start, and are counted as skipped.';
comment on column noetl.start_schedule.paused_at is 'When the last pause began.';
comment on column noetl.start_schedule.resumed_at is 'When the last pause ended.';
comment on column noetl.start_schedule.since_at is 'The last moment that passed. The moments after it are still to come.';
comment on column noetl.start_schedule.next_at is 'The next moment; null: a broker has not found it yet, or there is none.';
comment on column noetl.start_schedule.due_at is
  'When a broker looks at it: next_at and its jitter. -infinity: at once; infinity: never, for the reason in `error`.';
comment on column noetl.start_schedule.moved_at is 'When a broker looked at it last.';
comment on column noetl.start_schedule.last_at is 'The last moment that started an execution.';
comment on column noetl.start_schedule.last_execution_id is 'That execution.';
comment on column noetl.start_schedule.started is 'How many moments have started an execution.';
comment on column noetl.start_schedule.skipped is 'How many moments were skipped: too late, or during a pause.';
comment on column noetl.start_schedule.error is 'What went wrong last; null: the last moment started an execution.';
comment on column noetl.start_schedule.error_at is 'When it went wrong.';
comment on column noetl.start_schedule.created_at is 'When it was put.';
comment on column noetl.start_schedule.updated_at is 'When it was last put, paused or resumed.';
comment on column noetl.start_schedule.changed_by is 'Who did that: login:NAME or token:NAME.';

-- The checks of put_schedule that need no table. Only a broker can judge all of a cron text and a time zone.
create or replace function noetl.check_schedule(
  name text, payload jsonb, cron text, every interval, timezone text, jitter interval, catch_up interval, overlap text,
  declared_in text
) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  wrong text;
  remedy text;
begin
  if coalesce(name, '') = '' or octet_length(name) > 900 then
    wrong := 'the name has ' || coalesce(octet_length(name), 0) || ' bytes';
    remedy := 'give it a name of 1 to 900 bytes';
  elsif strpos(name, '#') > 0 and declared_in is null then
    wrong := 'the name has a #, which names of schedules in playbooks have';
    remedy := 'choose another name, or declare it under metadata.schedule of the playbook';
  elsif declared_in is not null and not starts_with(name, declared_in || '#') then
    wrong := format('the playbook %s declares it under another name', left(declared_in, 100));
    remedy := 'name it path#name';
  elsif num_nonnulls(cron, every) <> 1 then
    wrong := case when cron is null then 'it has neither cron nor every' else 'it has both cron and every' end;
    remedy := 'give one of them: cron => ''0 2 * * *'', or every => ''15 minutes''';
  elsif cron is not null and (length(cron) > 200 or cron !~ '^[[:space:]]*(@[a-zA-Z]+|[^[:space:]]+([[:space:]]+[^[:space:]]+){4,5})[[:space:]]*$') then
    wrong := format('the cron text %L is wrong', left(cron, 60));
    remedy := 'write five fields (minute hour day month weekday), six with seconds first, or @daily';
  elsif every is not null and (extract(year from every) <> 0 or extract(month from every) <> 0
      or every not between '1 second' and '3660 days') then
    wrong := format('every is %s', every);
    remedy := 'give a span of 1 second to 3660 days without months, such as ''15 minutes''';
  elsif timezone is null or timezone = '' or length(timezone) > 64 then
    wrong := format('its time zone has %s characters', coalesce(length(timezone), 0));
    remedy := 'write an IANA name, such as Europe/Berlin';
  elsif every is not null and timezone <> 'UTC' then
    wrong := format('it has a time zone (%s), but no cron', left(timezone, 60));
    remedy := 'leave timezone out: every counts seconds';
  elsif jitter is null or jitter not between '0' and '366 days' or catch_up is null
      or catch_up not between '0' and '3660 days' then
    wrong := format('jitter is %s and catch_up %s', coalesce(jitter::text, 'null'), coalesce(catch_up::text, 'null'));
    remedy := 'give spans of 0 or more, such as ''5 minutes''';
  elsif overlap is null or overlap not in ('skip', 'queue', 'cancel', 'allow') then
    wrong := format('overlap is %s', coalesce(left(overlap, 20), 'null'));
    remedy := 'write skip (the default), queue, cancel or allow';
  elsif jsonb_typeof(payload) is distinct from 'object' or payload ? 'schedule' then
    wrong := case when payload ? 'schedule' then 'the payload has a key schedule, which the broker sets'
      else format('the payload is a JSON %s', coalesce(jsonb_typeof(payload), 'null')) end;
    remedy := 'give an object without it: {"city": "Paris"}';
  end if;
  if wrong is not null then
    raise exception using errcode = 'NB400', message = format('the schedule %s: %s', left(coalesce(name, ''), 100), wrong),
      hint = remedy;
  end if;
end
$$;

-- The options of a schedule's starts: those of start_execution that do not say for whom, when or where.
create or replace function noetl.check_schedule_options(name text, options jsonb) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  wrong text := (select min(o) from unnest(array['bucket_key', 'by', 'start_after', 'start_at']) o where $2 ? o);
begin
  perform noetl.check_options($2);
  if wrong is not null then
    raise exception using errcode = 'NB400', message = format('the schedule %s: its options have a %s', left($1, 100), wrong),
      hint = 'leave it out: the schedule says when, it starts for nobody, and an execution lives where its schedule is';
  end if;
end
$$;

create or replace function noetl.put_schedule(
  name text,
  path text,
  cron text default null,
  every interval default null,
  payload jsonb default '{}',
  timezone text default 'UTC',
  version int default null,
  jitter interval default '0',
  catch_up interval default '1 hour',
  overlap text default 'skip',
  declared_in text default null,
  options jsonb default null,
  by text default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
begin
  perform noetl.check_schedule($1, $5, $3, $4, $6, $8, $9, $10, $11);
  perform noetl.check_start($2, $5, null);
  if $12 is not null then
    perform noetl.check_schedule_options($1, $12);
  end if;
  if not exists (select from noetl.catalog c where c.path = $2 and ($7 is null or c.version = $7) and c.block_of is null) then
    raise exception using errcode = 'NB404',
      message = format('no playbook %s%s is registered', $2, coalesce(' version ' || $7, '')),
      hint = 'noetl-broker register FILE adds a playbook to the catalog';
  end if;
  if noetl.bucket_number() is not null then -- the latest version says where its executions begin, whatever they start
    perform noetl.check_home((noetl.find_playbook($2, null)).bucket, $1, $2, null);
  end if;
  insert into noetl.start_schedule as s (
    name, path, version, payload, cron, every, timezone, jitter, catch_up, overlap, declared_in, options, since_at, changed_by
  )
  values (
    $1, $2, $7, $5, btrim(regexp_replace($3, '[[:space:]]+', ' ', 'g')), make_interval(secs => extract(epoch from $4)::float8), $6,
    make_interval(secs => extract(epoch from $8)::float8), make_interval(secs => extract(epoch from $9)::float8), $10, $11, $12,
    date_trunc('second', clock_timestamp()), noetl.caller_name($13)
  )
  -- another timing counts from now; the same keeps its moments
  on conflict (name) do update
  set path = excluded.path, version = excluded.version, payload = excluded.payload, cron = excluded.cron,
      every = excluded.every, timezone = excluded.timezone, jitter = excluded.jitter, catch_up = excluded.catch_up,
      overlap = excluded.overlap, declared_in = excluded.declared_in, options = excluded.options, due_at = '-infinity', error = null, error_at = null,
      since_at = case
        when (s.cron, s.every, s.timezone) is distinct from
          (excluded.cron, excluded.every, excluded.timezone) then excluded.since_at
        else s.since_at
      end,
      updated_at = clock_timestamp(), changed_by = excluded.changed_by
  where (
    s.path, s.version, s.payload, s.cron, s.every, s.timezone, s.jitter, s.catch_up, s.overlap, s.declared_in, s.options
  ) is distinct from (
    excluded.path, excluded.version, excluded.payload, excluded.cron, excluded.every, excluded.timezone, excluded.jitter,
    excluded.catch_up, excluded.overlap, excluded.declared_in, excluded.options
  );
  if not found then
    return false;
  end if;
  perform pg_notify('noetl_timer', '');
  return true;
end
$$;

comment on function
  noetl.put_schedule(text, text, text, interval, jsonb, text, int, interval, interval, text, text, jsonb, text) is
  'Makes a schedule or changes it; the same arguments change nothing. Returns whether something changed.';

-- Locks the row of a schedule, and refuses an unknown name.
create or replace function noetl.lock_schedule(name text) returns noetl.start_schedule
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  own noetl.start_schedule;
begin
  select s.*
  into own
  from noetl.start_schedule s
  where s.name = $1
  for update;
  if own.name is null then
    raise exception using errcode = 'NB404', message = format('no schedule %s', left($1, 100)),
      hint = 'noetl-broker schedule list lists them';
  end if;
  return own;
end
$$;

create or replace function noetl.pause_schedule(name text, by text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  own noetl.start_schedule := noetl.lock_schedule($1);
begin
  if own.paused then
    return false;
  end if;
  -- a broker that has not yet passed the moments of an earlier pause takes both pauses for one
  update noetl.start_schedule s
  set paused = true, updated_at = clock_timestamp(), changed_by = noetl.caller_name($2),
      paused_at = case when own.next_at < own.resumed_at then own.paused_at else clock_timestamp() end
  where s.name = $1;
  return true;
end
$$;

comment on function noetl.pause_schedule(text, text) is
  'Lets the moments of a schedule pass without a start. Returns false if it is paused already.';

create or replace function noetl.resume_schedule(name text, by text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  own noetl.start_schedule := noetl.lock_schedule($1);
begin
  if not own.paused then
    return false;
  end if;
  update noetl.start_schedule s
  set paused = false, resumed_at = clock_timestamp(), updated_at = clock_timestamp(), changed_by = noetl.caller_name($2)
  where s.name = $1;
  return true;
end
$$;

comment on function noetl.resume_schedule(text, text) is
  'Ends the pause of a schedule; moments of the pause are skipped. Returns false if it is not paused.';

create or replace function noetl.delete_schedule(name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  own noetl.start_schedule := noetl.lock_schedule($1);
begin
  if own.declared_in is not null then
    raise exception using errcode = 'NB409',
      message = format('the playbook %s declares the schedule %s', own.declared_in, left($1, 100)),
      hint = 'take it out of metadata.schedule and register the playbook, or pause it';
  end if;
  delete from noetl.start_schedule s
  where s.name = $1;
  return true;
end
$$;

comment on function noetl.delete_schedule(text) is
  'Deletes a schedule. Refuses a schedule that a playbook declares.';

-- Deletes the schedules that the playbook no longer declares; returns their names.
create or replace function noetl.drop_undeclared_schedules(path text, names text[]) returns setof text
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  delete from noetl.start_schedule s
  where s.declared_in = $1 and s.name <> all($2)
  returning s.name
$$;

-- The key of the execution that a moment starts.
create or replace function noetl.schedule_key(name text, moment timestamptz) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select format('schedule:%s@%s', $1, to_char($2 at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
$$;

-- `at` is the moment as the payload has it. `is_new` is false if the moment has an execution already. `alone`: the start
-- asks for the slot of the schedule, unless that allows overlap; nobody started it. Else `by` did.
create or replace function noetl.start_scheduled(
  name text, moment timestamptz, at text, alone boolean, by text default null, out execution_id bigint, out is_new boolean
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  own record;
  key text := noetl.schedule_key($1, $2);
  options jsonb;
begin
  -- the lock lets no other session start the same moment meanwhile
  select s.path, s.version, s.payload, s.overlap, s.options
  into own
  from noetl.start_schedule s
  where s.name = $1
  for no key update;
  if not found then
    raise exception using errcode = 'NB404', message = format('no schedule %s', left($1, 100)),
      hint = 'noetl-broker schedule list lists them';
  end if;
  select k.execution_id
  into execution_id
  from noetl.start_key k
  where k.idempotency_key in (key, noetl.erased_key(key)) and k.path = own.path;
  is_new := not found;
  if is_new then
    options := nullif(coalesce(own.options, '{}')
      || case when noetl.bucket_number() is null then '{}' else jsonb_build_object('bucket_key', $1) end -- it lives where the schedule is
      || case when $4 then '{}' else jsonb_build_object('by', noetl.caller_name($5)) end, '{}');
    execution_id := noetl.start_execution(
      own.path, own.payload || jsonb_build_object('schedule', jsonb_build_object('name', $1, 'at', $3)), own.version, key, options
    );
    if $4 then
      update noetl.execution x
      set started_by = null
      where x.execution_id = start_scheduled.execution_id;
    end if;
    if $4 and own.overlap <> 'allow' then
      update noetl.event e
      set meta = coalesce(e.meta, '{}') || jsonb_build_object('overlap', jsonb_build_object('schedule', $1, 'word', own.overlap))
      where e.execution_id = start_scheduled.execution_id;
    end if;
  end if;
end
$$;

comment on function noetl.start_scheduled(text, timestamptz, text, boolean, text) is
  'Starts the execution of a moment, unless it has one. `alone`: its overlap counts.';

-- After a step back of the clock: lets a broker look at the schedules that were moved later than `at`. Some may have an
-- earlier moment now. Returns their number.
create or replace function noetl.move_schedules_again(at timestamptz) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  moved int;
begin
  update noetl.start_schedule s
  set due_at = '-infinity'
  where s.moved_at > at and s.due_at < 'infinity';
  get diagnostics moved = row_count;
  if moved > 0 then
    perform pg_notify('noetl_timer', '');
  end if;
  return moved;
end
$$;

-- The schedules that are due, locked.
create or replace function noetl.lock_due_schedules(max_rows int) returns setof noetl.start_schedule
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select s.*
  from noetl.start_schedule s
  where s.due_at <= (select clock_timestamp())
  order by s.due_at
  limit $1
  for update skip locked
$$;

-- Moves schedules whose rows the transaction has locked. The arrays have one entry for each: `starts` is the moment that
-- starts an execution (null: none), `faults` says why there is no timing. A start that fails is noted in the row. Gives
-- what became of each start.
create or replace function noetl.move_schedules(
  names text[], starts timestamptz[], texts text[], skipped int[], sinces timestamptz[], nexts timestamptz[],
  dues timestamptz[], faults text[]
) returns table (name text, execution_id bigint, is_new boolean, fault text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  planned record;
begin
  for planned in
    select p.*
    from unnest($1, $2, $3, $4, $5, $6, $7, $8) p (name, start, at, skipped, since_at, next_at, due_at, fault)
    order by p.name
  loop
    name := planned.name;
    execution_id := null;
    is_new := false;
    fault := planned.fault;
    if planned.start is not null then
      begin
        select s.execution_id, s.is_new
        into execution_id, is_new
        from noetl.start_scheduled(planned.name, planned.start, planned.at, true) s;
      exception when others then
        -- a fault of the server or the connection is no fault of the schedule: the whole move is repeated
        if left(sqlstate, 2) in ('08', '25', '40', '53', '55', '57', '58', 'XX') then
          raise;
        end if;
        execution_id := null;
        fault := left(format('the moment %s did not start: %s', planned.at, sqlerrm), noetl.limit_of('reason_chars'));
      end;
    end if;
    update noetl.start_schedule s
    set since_at = planned.since_at, next_at = planned.next_at, due_at = planned.due_at, moved_at = clock_timestamp(),
        last_at = case when execution_id is null then s.last_at else planned.start end,
        last_execution_id = coalesce(execution_id, s.last_execution_id),
        started = s.started + is_new::int, skipped = s.skipped + planned.skipped,
        error = coalesce(fault, case when execution_id is null then s.error end),
        error_at = case when fault is not null then clock_timestamp() when execution_id is null then s.error_at end
    where s.name = planned.name;
    return next;
  end loop;
end
$$;

revoke all on function
  noetl.check_schedule(text, jsonb, text, interval, text, interval, interval, text, text),
  noetl.check_schedule_options(text, jsonb),
  noetl.put_schedule(text, text, text, interval, jsonb, text, int, interval, interval, text, text, jsonb, text),
  noetl.lock_schedule(text), noetl.pause_schedule(text, text), noetl.resume_schedule(text, text), noetl.delete_schedule(text),
  noetl.drop_undeclared_schedules(text, text[]), noetl.schedule_key(text, timestamptz),
  noetl.start_scheduled(text, timestamptz, text, boolean, text), noetl.move_schedules_again(timestamptz),
  noetl.lock_due_schedules(int),
  noetl.move_schedules(text[], timestamptz[], text[], int[], timestamptz[], timestamptz[], timestamptz[], text[])
  from public;
