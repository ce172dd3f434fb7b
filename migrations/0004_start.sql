-- What a producer calls: start one execution or many, cancel one.
--
-- Errors have SQLSTATEs of class NB: NB400 a bad argument, NB404 an unknown playbook or execution, NB409 a conflict.
--
-- Functions that write events set the time zone to UTC, because `created_at` of a NoETL server's table has none. They reset
-- `noetl.writer`, because only the broker's own events are not mail. (They reset it with set_config, because only a
-- superuser can create a function with an unknown setting.)

-- An idempotency key stands in an index, which limits its size.
create or replace function noetl.check_key(idempotency_key text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if octet_length($1) > noetl.limit_of('key_bytes') then
    raise exception using errcode = 'NB400',
      message = format('the idempotency key has %s bytes; the limit is %s', octet_length($1), noetl.limit_of('key_bytes')),
      hint = 'send a digest of it';
  end if;
end
$$;

-- The checks of start_execution that need no table.
create or replace function noetl.check_start(path text, payload jsonb, idempotency_key text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if $1 is null then
    raise exception using errcode = 'NB400', message = 'start_execution needs the path of a playbook',
      hint = 'select noetl.start_execution(''examples/weather'', ''{"city": "Paris"}'')';
  end if;
  if length($1) > noetl.limit_of('path_chars') then
    raise exception using errcode = 'NB400',
      message = format('the path %s… has %s characters; the limit is %s', left($1, 40), length($1), noetl.limit_of('path_chars')),
      hint = 'noetl-broker register FILE prints the path of a playbook';
  end if;
  if pg_column_size($2) > noetl.limit_of('small_bytes') and noetl.bytes_past_limit($2) is not null then
    raise exception using errcode = 'NB400',
      message = format('the payload of %s takes %s bytes; the limit max_payload_bytes is %s',
        $1, octet_length($2::text), noetl.limit_of('payload_bytes')),
      hint = 'store large data elsewhere and pass its address';
  end if;
  if jsonb_typeof(coalesce($2, '{}')) <> 'object' then
    raise exception using errcode = 'NB400',
      message = format('the payload of %s is a JSON %s; it must be an object', $1, jsonb_typeof($2)),
      hint = 'wrap it: {"items": [...]}';
  end if;
  if $2 @? '$.**{191}' then
    raise exception using errcode = 'NB400',
      message = format('the payload of %s nests deeper than 190 levels', $1),
      hint = 'pass deep data as text, or store it elsewhere and pass its address';
  end if;
  if noetl.is_inflated($2) then
    raise exception using errcode = 'NB400',
      message = format('the payload of %s has numbers of %s digits in total', $1, octet_length($2::text)),
      hint = 'pass such numbers as text: "1e100000"';
  end if;
  perform noetl.check_key($3);
end
$$;

-- The options of a start. A start costs no call of it if it has none.
create or replace function noetl.check_options(options jsonb) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  unknown text;
begin
  if jsonb_typeof($1) <> 'object' then
    raise exception using errcode = 'NB400', message = format('the options of a start are a JSON %s, not an object', jsonb_typeof($1)),
      hint = 'for example {"bucket_key": "customer-7"}';
  end if;
  select left(o.name, 100) into unknown
  from jsonb_object_keys($1) o (name)
  where o.name not in ('bucket_key', 'tags', 'start_at', 'start_after', 'priority', 'by')
  order by o.name
  limit 1;
  if found then
    raise exception using errcode = 'NB400', message = format('a start has no option %s', unknown),
      hint = 'its options are bucket_key, tags, start_at, start_after, priority and by';
  end if;
  if jsonb_typeof($1 -> 'bucket_key') not in ('string', 'null')
    or octet_length($1 ->> 'bucket_key') not between 1 and noetl.limit_of('key_bytes') then
    raise exception using errcode = 'NB400',
      message = format('the bucket_key %s is no text of 1 to %s bytes', left($1 ->> 'bucket_key', 100), noetl.limit_of('key_bytes')),
      hint = 'it says what belongs together, such as a customer: {"bucket_key": "customer-7"}';
  end if;
  if $1 ? 'tags' then
    perform noetl.check_tags($1 -> 'tags');
  end if;
  if $1 ->> 'priority' is not null and (case jsonb_typeof($1 -> 'priority')
    when 'number' then ($1 ->> 'priority')::numeric not between -2147483648 and 2147483647 or $1 ->> 'priority' !~ '^-?[0-9]+$'
    else true
  end) then
    raise exception using errcode = 'NB400', message = format('the priority %s is no integer', left($1 ->> 'priority', 100)),
      hint = 'for example {"priority": 8}; a higher one is leased first, and the default is 5';
  end if;
end
$$;

-- The tags of a start. `broker/flow/tags.py` has the same bounds.
create or replace function noetl.check_tags(tags jsonb) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  wrong text;
begin
  if jsonb_typeof($1) = 'null' then
    return;
  end if;
  if jsonb_typeof($1) <> 'object' then
    raise exception using errcode = 'NB400', message = format('the tags are a JSON %s, not an object', jsonb_typeof($1)),
      hint = 'for example {"customer": "7"}';
  end if;
  if (select count(*) from jsonb_object_keys($1)) > 16 then
    raise exception using errcode = 'NB400',
      message = format('%s tags are too many; the limit is 16', (select count(*) from jsonb_object_keys($1))),
      hint = 'put the others into the payload';
  end if;
  select case
      when t.key !~ '^[a-z][a-z0-9_.-]{0,62}$'
        then format('the tag %s has a wrong name; it begins with a to z, and has at most 63 of a-z, 0-9, _, . and -', left(t.key, 100))
      when jsonb_typeof(t.value) not in ('string', 'number', 'boolean')
        then format('the tag %s is a JSON %s; it must be text, a number or a boolean', t.key, jsonb_typeof(t.value))
      when length(t.value #>> '{}') > 256
        then format('the tag %s has %s characters; the limit is 256', t.key, length(t.value #>> '{}'))
    end
  into wrong
  from jsonb_each($1) t
  order by 1
  limit 1;
  if wrong is not null then
    raise exception using errcode = 'NB400', message = wrong, hint = 'for example {"customer": "7"}';
  end if;
end
$$;

-- The meta of an execution_start: what its options say to the broker. null: nothing. Each tag has its value as text, so 7 and
-- "7" are the same tag. The moment is given, or that long after now.
create or replace function noetl.start_meta(options jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  after text := $1 ->> 'start_after';
  moment timestamptz;
begin
  if after is not null and $1 ->> 'start_at' is not null then
    raise exception using errcode = 'NB400', message = 'a start has start_at or start_after, not both', hint = 'leave one out';
  end if;
  if after ~ '^[0-9]{1,10}([.][0-9]{1,9})?$' then
    moment := clock_timestamp() + make_interval(secs => after::float8);
  elsif after ~ '^([0-9.]+[wdhms])+$' or after ~ '^P[0-9.WDTHMS]+$' then
    moment := clock_timestamp() + after::interval;
  elsif $1 ->> 'start_at' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{8,20}([Zz]|[+-][0-9]{2}:?[0-9]{2})$' then
    moment := ($1 ->> 'start_at')::timestamptz;
  elsif coalesce(after, $1 ->> 'start_at') is not null then
    raise invalid_datetime_format;
  end if;
  if moment >= timestamptz '9999-12-31Z' then -- the broker cannot read a later one
    raise invalid_datetime_format;
  end if;
  return nullif(jsonb_strip_nulls(jsonb_build_object(
    'tags', case when jsonb_typeof($1 -> 'tags') = 'object'
      then (select jsonb_object_agg(t.key, t.value) from jsonb_each_text($1 -> 'tags') t) end,
    'start_at', to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'priority', $1 -> 'priority'
  )), '{}');
exception when invalid_datetime_format or datetime_field_overflow or interval_field_overflow or invalid_text_representation then
  raise exception using errcode = 'NB400',
    message = format('%s %s is no %s', case when after is null then 'start_at' else 'start_after' end,
      left(coalesce(after, $1 ->> 'start_at'), 100), case when after is null then 'moment' else 'duration' end),
    hint = 'start_at is RFC 3339, such as 2026-03-01T09:00:00Z; start_after is seconds or 90s, 2h30m, 3d';
end
$$;

-- Who calls: `by` as an operator's login says it, such as the console for its user; else the login.
create or replace function noetl.caller_name(by text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if $1 is null then
    return 'login:' || session_user;
  end if;
  if $1 !~ '^(login|token):[^[:space:]].{0,199}$' then
    raise exception using errcode = 'NB400', message = format('by is %L, which is no login:NAME or token:NAME', left($1, 220)),
      hint = 'for example login:ann; without it, it is the login of the session';
  end if;
  if $1 <> 'login:' || session_user
    and not has_function_privilege(session_user, 'noetl.pause_path(text, text, text)', 'execute') then
    raise exception using errcode = '42501', message = format('%s may not act for %s', session_user, $1),
      hint = 'only the role noetl_operator may: leave `by` out';
  end if;
  return $1;
end
$$;

-- The text whose hash is the home of an execution: the first that exists. null: it may live anywhere.
create or replace function noetl.home_text(bucket text, bucket_key text, path text, idempotency_key text) returns text
language sql immutable parallel safe
as $$
  select coalesce($1, $2, $3 || chr(31) || $4)
$$;

-- Raises NB421 for a start, or a schedule, whose home is another bucket.
create or replace function noetl.check_home(bucket text, bucket_key text, path text, idempotency_key text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  home int := noetl.bucket_of_text(noetl.home_text($1, $2, $3, $4), noetl.bucket_count());
begin
  if home <> noetl.bucket_number() then
    raise exception using errcode = 'NB421',
      message = format('what starts %s belongs to bucket %s%s, and this is bucket %s', $3, home,
        case when $1 is not null then format(' (metadata.bucket: %s)', $1)
          when $2 is not null then format(' (bucket_key %s)', $2)
          else format(' (idempotency key %s)', left($4, 100)) end,
        noetl.bucket_number()),
      hint = 'call the function in the schema without a number';
  end if;
end
$$;

-- What a repeated start must have in common with the first one; null: it has no key.
create or replace function noetl.start_digest(payload jsonb, idempotency_key text, bucket_key text) returns bytea
language sql immutable parallel safe
as $$
  select case when $2 is not null
    then sha256(convert_to(coalesce($1, '{}')::text || coalesce(chr(31) || $3, ''), 'UTF8')) end
$$;

-- The latest, or the given, version of a playbook for its start.
create or replace function noetl.find_playbook(
  path text, version int, out catalog_id bigint, out found_version int, out name text, out bucket text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select c.catalog_id, c.version, coalesce(c.name, noetl.name_of_path(c.path)), c.bucket
  into catalog_id, found_version, name, bucket
  from noetl.catalog c
  where c.path = $1 and ($2 is null or c.version = $2) and c.block_of is null
  order by c.version desc
  limit 1;
  if catalog_id is null then
    if exists (select from noetl.catalog c where c.path = $1 and c.block_of is not null) then
      raise exception using errcode = 'NB400',
        message = format('%s is a block: it runs only in executions of its playbook', $1),
        hint = format('start %s', split_part($1, '#', 1));
    end if;
    raise exception using errcode = 'NB404',
      message = format('no playbook %s%s is registered', $1, coalesce(' version ' || $2, '')),
      hint = 'noetl-broker register FILE adds a playbook to the catalog';
  end if;
end
$$;

-- Raises the error of an idempotency key that an earlier execution has: a fork, or one with another payload.
create or replace function noetl.refuse_key(path text, idempotency_key text, execution_id bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source bigint;
begin
  select x.forked_from into source
  from noetl.execution x
  where x.execution_id = $3;
  if source is not null then -- with another workload
    raise exception using errcode = 'NB409',
      message = format('the idempotency key %s of %s is used: execution %s was forked from %s with it',
        left($2, 100), $1, $3, source),
      hint = 'choose another key';
  end if;
  raise exception using errcode = 'NB409',
    message = format('the idempotency key %s of %s is used: execution %s was started with another payload or bucket_key',
      left($2, 100), $1, $3),
    hint = 'send the same payload and bucket_key, or choose another key';
end
$$;

-- What stands for an idempotency key that was erased.
create or replace function noetl.erased_key(idempotency_key text) returns text
language sql immutable parallel safe
as $$
  select case when length($1) = 71 and starts_with($1, 'sha256:') then $1 else 'sha256:' || encode(sha256(convert_to($1, 'UTF8')), 'hex') end
$$;

-- Writes the key of an execution. If an earlier execution has it, writes nothing and returns that one and its digest. It
-- waits for a transaction that writes the same key. It loops, because the key of a dropped execution may be deleted
-- between both statements.
create or replace function noetl.take_key(
  path text, idempotency_key text, inout digest bytea, inout execution_id bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  earlier record;
begin
  loop
    insert into noetl.start_key (idempotency_key, path, digest, execution_id)
    select $2, $1, $3, $4
    where not exists (
      select from noetl.start_key k where k.idempotency_key = noetl.erased_key($2) and k.path = $1
    )
    on conflict (idempotency_key, path) do nothing;
    exit when found;
    select k.digest, k.execution_id into earlier
    from noetl.start_key k
    where k.idempotency_key in ($2, noetl.erased_key($2)) and k.path = $1;
    if found then
      digest := earlier.digest;
      execution_id := earlier.execution_id;
      return;
    end if;
  end loop;
end
$$;

-- After a start with keys that earlier executions have: the caller may see what came of them.
create or replace function noetl.add_repeater(path text, idempotency_keys text[], caller text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  with repeated as (
    select k.idempotency_key
    from noetl.start_key k
    join noetl.execution x on x.execution_id = k.execution_id
    where k.path = $1 and k.idempotency_key = any($2) and x.started_by is distinct from $3
      and (k.repeated_by is null or $3 <> all(k.repeated_by) and cardinality(k.repeated_by) < 100)
    order by k.idempotency_key
    for no key update of k
  )
  update noetl.start_key k
  set repeated_by = array_append(k.repeated_by, $3)
  from repeated r
  where k.path = $1 and k.idempotency_key = r.idempotency_key
$$;

create or replace function noetl.start_execution(
  path text,
  payload jsonb default '{}',
  version int default null,
  idempotency_key text default null,
  options jsonb default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  playbook record;
  earlier record;
  id bigint;
  digest bytea;
  meta jsonb;
  letter jsonb;
  writer text; -- assigned, because `perform` runs a statement
begin
  perform noetl.check_start($1, $2, $4);
  if $5 is not null then
    perform noetl.check_options($5);
    meta := noetl.start_meta($5);
  end if;
  playbook := noetl.find_playbook($1, $3);
  if noetl.bucket_number() is not null then
    perform noetl.check_home(playbook.bucket, $5 ->> 'bucket_key', $1, $4);
  end if;
  id := noetl.next_id();
  if $4 is not null then
    digest := noetl.start_digest($2, $4, $5 ->> 'bucket_key');
    earlier := noetl.take_key($1, $4, digest, id);
    if earlier.execution_id <> id then
      if earlier.digest <> digest then
        perform noetl.refuse_key($1, $4, earlier.execution_id);
      end if;
      perform noetl.add_repeater($1, array[$4], noetl.caller_name($5 ->> 'by'));
      return earlier.execution_id;
    end if;
  end if;
  insert into noetl.execution (execution_id, catalog_id, path, version, idempotency_key, tags, started_by)
  values (id, playbook.catalog_id, $1, playbook.found_version, $4, meta -> 'tags', noetl.caller_name($5 ->> 'by'));
  -- One statement writes the event and its mail. The trigger's own statement would cost as much again.
  letter := jsonb_build_object('path', $1, 'version', playbook.found_version, 'workload', coalesce($2, '{}'));
  writer := set_config('noetl.writer', 'worker' || pg_trigger_depth(), true);
  with started as (
    insert into noetl.event (
      execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context, meta
    ) values (
      id, playbook.catalog_id, 'execution_start', id::text, playbook.name, 'playbook', 'STARTED', letter, meta
    )
    returning event_id
  )
  insert into noetl.inbox (execution_id, event_id, oversize)
  select id, s.event_id, case
    when pg_column_size(letter) > noetl.limit_of('small_bytes')
      then noetl.oversize_of('execution_start', noetl.bytes_past_limit(letter), null, null)
  end
  from started s;
  writer := set_config('noetl.writer', '', true);
  if not pg_try_advisory_xact_lock_shared(hashtext('noetl.lock'), 1) then
    perform pg_notify('noetl_event', '');
  end if;
  return id;
end
$$;

comment on function noetl.start_execution(text, jsonb, int, text, jsonb) is
  'Starts an execution of the latest (or the given) version of a playbook and returns its id. The same idempotency key: the same id; with another payload NB409. `options`: {"bucket_key": text, "tags": {name: text, number or boolean}, "start_at": moment or "start_after": duration, "priority": integer, "by": text}.';

-- The checks of start_executions that need no table. An error names the number of the payload, counted from 1.
create or replace function noetl.check_starts(path text, payloads jsonb[], idempotency_keys text[]) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  given record;
  ordinal bigint;
  complaint text;
  remedy text;
begin
  perform noetl.check_start($1, null, null);
  if $2 is null then
    raise exception using errcode = 'NB400', message = format('start_executions of %s needs payloads', $1),
      hint = 'select noetl.start_executions(''examples/weather'', array[''{"city": "Paris"}'', ''{"city": "Rome"}'']::jsonb[])';
  end if;
  if cardinality($2) > noetl.limit_of('starts') then
    raise exception using errcode = 'NB400',
      message = format('start_executions of %s: %s payloads are too many; the limit is %s',
        $1, cardinality($2), noetl.limit_of('starts')),
      hint = 'call it several times';
  end if;
  if cardinality($2) <> cardinality($3) then
    raise exception using errcode = 'NB400',
      message = format('start_executions of %s: %s payloads and %s idempotency_keys must be equally many',
        $1, cardinality($2), cardinality($3)),
      hint = 'a start without a key has null as its key';
  end if;
  for given in select g.payload, g.key, g.ordinal from unnest($2, $3) with ordinality g (payload, key, ordinal) loop
    ordinal := given.ordinal;
    perform noetl.check_start($1, given.payload, given.key);
  end loop;
exception when sqlstate 'NB400' then
  get stacked diagnostics complaint = message_text, remedy = pg_exception_hint;
  raise exception using errcode = 'NB400', hint = remedy,
    message = case when ordinal is null then '' else format('payload %s of %s: ', ordinal, cardinality($2)) end || complaint;
end
$$;
comment on function noetl.check_starts(text, jsonb[], text[]) is
  'Checks payloads and keys as start_executions does first, and starts nothing. Raises NB400.';

-- Many starts in one transaction, with one notification. Keys are inserted in their order: two calls with the same keys
-- wait for each other instead of a deadlock.
create or replace function noetl.start_executions(
  path text,
  payloads jsonb[],
  idempotency_keys text[] default null,
  version int default null,
  options jsonb default null
) returns bigint[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  playbook record;
  ids bigint[];
  digests bytea[];
  meta jsonb;
  earlier bigint[];
  refused record;
  caller text := noetl.caller_name($5 ->> 'by');
begin
  perform noetl.check_starts($1, $2, $3);
  if $5 is not null then
    perform noetl.check_options($5);
    meta := noetl.start_meta($5);
  end if;
  playbook := noetl.find_playbook($1, $4);
  if noetl.bucket_number() is not null then
    perform noetl.check_home(playbook.bucket, $5 ->> 'bucket_key', $1, g.key)
    from unnest($3) g (key);
  end if;
  ids := array(select noetl.next_id() from generate_series(1, cardinality($2)));
  if $3 is not null then
    digests := array(
      select noetl.start_digest(g.payload, g.key, $5 ->> 'bucket_key')
      from unnest($2, $3) with ordinality g (payload, key, ordinal)
      order by g.ordinal
    );
    loop -- as in take_key
      insert into noetl.start_key (idempotency_key, path, digest, execution_id)
      select g.key, $1, g.digest, g.id
      from unnest(ids, $3, digests) g (id, key, digest)
      where g.key is not null
        and not exists (
          select from noetl.start_key k where k.idempotency_key = noetl.erased_key(g.key) and k.path = $1
        )
      order by g.key, g.id
      on conflict (idempotency_key, path) do nothing;
      earlier := array(
        select (
          select k.execution_id
          from noetl.start_key k
          where k.idempotency_key in (g.key, noetl.erased_key(g.key)) and k.path = $1
          limit 1
        )
        from unnest($3) with ordinality g (key, ordinal)
        order by g.ordinal
      );
      exit when not exists (select from unnest($3, earlier) g (key, id) where g.key is not null and g.id is null);
    end loop;
    select g.key, x.execution_id
    into refused
    from unnest($3, digests) with ordinality g (key, digest, ordinal)
    cross join lateral (
      select k.execution_id, k.digest
      from noetl.start_key k
      where k.idempotency_key in (g.key, noetl.erased_key(g.key)) and k.path = $1
      limit 1
    ) x
    where x.digest <> g.digest
    order by g.ordinal
    limit 1;
    if found then
      perform noetl.refuse_key($1, refused.key, refused.execution_id);
    end if;
    if ids <> earlier then
      perform noetl.add_repeater($1, $3, caller);
    end if;
  end if;
  insert into noetl.execution (execution_id, catalog_id, path, version, idempotency_key, tags, started_by)
  select g.id, playbook.catalog_id, $1, playbook.found_version, g.key, meta -> 'tags', caller
  from unnest(ids, $3, earlier) g (id, key, earlier)
  where coalesce(g.earlier, g.id) = g.id;
  perform set_config('noetl.writer', '', true);
  insert into noetl.event (
    execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context, meta
  )
  select g.id, playbook.catalog_id, 'execution_start', g.id::text, playbook.name, 'playbook', 'STARTED',
    jsonb_build_object('path', $1, 'version', playbook.found_version, 'workload', coalesce(g.payload, '{}')), meta
  from unnest(ids, $2, earlier) with ordinality g (id, payload, earlier, ordinal)
  where coalesce(g.earlier, g.id) = g.id
  order by g.ordinal;
  return array(
    select coalesce(g.earlier, g.id)
    from unnest(ids, earlier) with ordinality g (id, earlier, ordinal)
    order by g.ordinal
  );
end
$$;

comment on function noetl.start_executions(text, jsonb[], text[], int, jsonb) is
  'Starts many executions of a playbook in one transaction; returns their ids in the order of the payloads. All start, or none. `options`: of each.';

create or replace function noetl.cancel_execution(execution_id bigint, reason text default null, by text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  caller text := noetl.caller_name($3);
  execution record;
begin
  -- A child that a worker announced and that is not started yet. Its start and the end of its parent need one of these
  -- locks.
  perform pg_advisory_xact_lock(x.execution_id), pg_advisory_xact_lock_shared(x.parent_execution_id)
  from noetl.execution x
  where x.execution_id = $1 and noetl.is_live(x.status) and x.path is null and x.parent_node_id is not null;
  select x.status, x.catalog_id, x.path is null and x.parent_node_id is not null as is_announced,
    coalesce(c.name, noetl.name_of_path(x.path)) as name
  into execution
  from noetl.execution x
  left join noetl.catalog c on c.catalog_id = x.catalog_id
  where x.execution_id = $1;
  if not found then
    perform noetl.refuse_unknown($1);
  end if;
  if not noetl.is_live(execution.status) or execution.status = 'COMPENSATING' then
    return false;
  end if;
  perform set_config('noetl.writer', '', true);
  if execution.is_announced then
    -- It has no turns that could end it. So it ends here, and its parent gets the answer of a cancelled child.
    with ended as (
      update noetl.execution x
      set status = 'CANCELLED', ended_at = clock_timestamp(),
          error = jsonb_build_object('message', coalesce(nullif(left($2, noetl.limit_of('reason_chars')), ''), 'cancelled'))
      where x.execution_id = $1 and noetl.is_live(x.status) and x.path is null
      returning x.execution_id, x.parent_execution_id, x.parent_event_id, x.parent_node_id, x.parent_index, x.error
    )
    insert into noetl.event (
      execution_id, parent_event_id, event_type, node_id, node_name, node_type, status, context, error, meta
    )
    select e.parent_execution_id, e.parent_event_id, 'execution_failed', e.parent_node_id,
      format('%s[%s]', q.node_name, e.parent_index), 'playbook', 'FAILED', jsonb_build_object('by', caller),
      e.error || jsonb_build_object('type', 'child_cancelled', 'child_step', null, 'child_execution_id', e.execution_id),
      jsonb_build_object(
        'child_execution_id', e.execution_id, 'attempt', 1, 'retryable', false, 'index', e.parent_index
      )
    from ended e
    left join noetl.queue q on q.execution_id = e.parent_execution_id and q.node_id = e.parent_node_id;
  else
    insert into noetl.event (
      execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context
    ) values (
      $1, execution.catalog_id, 'execution_cancel', $1::text, execution.name, 'playbook', 'CANCELLED',
      jsonb_strip_nulls(jsonb_build_object('reason', left($2, noetl.limit_of('reason_chars')), 'by', caller))
    );
  end if;
  return true;
end
$$;

comment on function noetl.cancel_execution(bigint, text, text) is
  'Asks the broker to cancel an execution. Returns false when it has already ended, or is undoing what it did.';

-- What an execution came to, for whoever started it, or repeated its start. A child is its parent's.
create or replace function noetl.outcome(
  execution_id bigint, by text default null,
  out status text, out result jsonb, out error jsonb, out path text, out version int
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  caller text := noetl.caller_name($2);
  sees_all boolean := $2 is null and has_function_privilege(session_user, 'noetl.pause_path(text, text, text)', 'execute');
begin
  select x.status, x.result, x.error, x.path, x.version
  into status, result, error, path, version
  from noetl.execution x
  where x.execution_id = $1 and (
    sees_all
    or exists (
      with recursive line as (
        select x.parent_execution_id, x.started_by
        union all
        select p.parent_execution_id, p.started_by
        from line l
        join noetl.execution p on p.execution_id = l.parent_execution_id
        where l.started_by is null
      )
      select from line l where l.started_by = caller
    )
    or exists (
      select
      from noetl.start_key k
      where k.path = x.path and k.idempotency_key = x.idempotency_key and caller = any(k.repeated_by)
    )
  );
  if not found then
    perform noetl.is_elsewhere($1);
    raise exception using errcode = 'NB404', message = format('no execution %s that %s started', $1, caller),
      hint = 'only its starter and operators see what an execution came to';
  end if;
end
$$;

comment on function noetl.outcome(bigint, text) is
  'The status, result and error of an execution, for whoever started it, or repeated its start; for operators, of each. `by`: who asks through the console.';

revoke all on function
  noetl.caller_name(text), noetl.add_repeater(text, text[], text), noetl.outcome(bigint, text), noetl.check_key(text), noetl.check_start(text, jsonb, text), noetl.check_options(jsonb), noetl.check_tags(jsonb),
  noetl.start_meta(jsonb), noetl.find_playbook(text, int),
  noetl.home_text(text, text, text, text), noetl.check_home(text, text, text, text), noetl.start_digest(jsonb, text, text),
  noetl.refuse_key(text, text, bigint), noetl.erased_key(text), noetl.take_key(text, text, bytea, bigint), noetl.start_execution(text, jsonb, int, text, jsonb),
  noetl.check_starts(text, jsonb[], text[]), noetl.start_executions(text, jsonb[], text[], int, jsonb),
  noetl.cancel_execution(bigint, text, text)
  from public;
