-- The schema of an installation with buckets: it has no executions, and routes calls to the buckets `noetl_0` to `noetl_N`.
-- `migrate` applies it before the buckets are made, and again when they are. `{buckets}` is their number.

create schema if not exists noetl;

create table if not exists noetl.bucket (
  number int primary key check (number between 0 and 63),
  schema text not null unique,
  made_at timestamptz not null default clock_timestamp()
);

comment on table noetl.bucket is 'The buckets of this installation: each is a schema with a complete broker.';
comment on column noetl.bucket.number is 'The low 6 bits of its ids.';
comment on column noetl.bucket.schema is 'Its schema.';
comment on column noetl.bucket.made_at is 'When it was complete for the first time.';

create table if not exists noetl.home (
  path text primary key,
  bucket text not null
);

comment on table noetl.home is 'The playbooks with metadata.bucket.';
comment on column noetl.home.path is 'The playbook.';
comment on column noetl.home.bucket is 'Its metadata.bucket: all its executions live in the bucket of this text.';

create or replace function noetl.bucket_count() returns int
language sql immutable parallel safe
as $$
  select {buckets}
$$;

create or replace function noetl.bucket_of_text(text text, buckets int) returns int
language sql immutable parallel safe
as $$
  select (('x' || left(md5($1), 8))::bit(32)::bigint % $2)::int
$$;

create or replace function noetl.bucket_of(path text, bucket_key text default null, idempotency_key text default null)
returns int
language sql stable parallel safe
as $$
  select noetl.bucket_of_text(
    coalesce((select h.bucket from noetl.home h where h.path = $1), $2, $1 || chr(31) || $3), noetl.bucket_count()
  )
$$;

comment on function noetl.bucket_of(text, text, text) is
  'The bucket in which a start will live; null: in any of them.';

-- For a start that says nothing of its home.
create or replace function noetl.any_bucket() returns int
language sql volatile
as $$
  select floor(random() * noetl.bucket_count())::int
$$;

-- The schema of a bucket, by its number or by an id of it.
create or replace function noetl.schema_of(id bigint) returns text
language plpgsql stable parallel safe
as $$
declare
  found text;
begin
  select b.schema into found
  from noetl.bucket b
  where b.number = $1 & 63;
  if found is null then
    raise exception using errcode = 'NB404', message = format('the id %s is of no bucket', coalesce($1::text, 'null')),
      hint = format('this installation has the buckets 0 to %s', noetl.bucket_count() - 1);
  end if;
  return found;
end
$$;

-- The schema of the bucket that has a schedule, or should have it: the home of its playbook, else the bucket of its name.
create or replace function noetl.schema_of_schedule(name text, path text default null) returns text
language plpgsql stable
as $$
declare
  home int := noetl.bucket_of($2, $1);
  bucket text;
  found boolean;
begin
  for bucket in select b.schema from noetl.bucket b order by b.number <> home, b.number loop
    execute format('select exists (select from %I.start_schedule s where s.name = $1)', bucket) into found using $1;
    if found then
      return bucket;
    end if;
  end loop;
  return noetl.schema_of(home);
end
$$;

-- The schema where a schedule is to be put. For a playbook of another home, it moves there.
create or replace function noetl.settle_schedule(name text, path text) returns text
language plpgsql volatile
as $$
declare
  home text := noetl.schema_of(noetl.bucket_of($2, $1));
  before text := noetl.schema_of_schedule($1, $2);
begin
  if before <> home then
    execute format('select %I.delete_schedule($1)', before) using $1;
  end if;
  return home;
end
$$;

-- The functions that route, by what says to which schemas: the id, which is the first argument of most; the home of a start, of
-- a signal, of a schedule. What is set is set in all buckets, in one transaction. They have the arguments, defaults and
-- comments of the functions of a bucket, and the rights of the caller there.
do $make$
declare
  of_id text := 'select noetl.schema_of($1)';
  of_schedule text := 'select noetl.schema_of_schedule($1)';
  of_all text := 'select b.schema from noetl.bucket b order by b.number';
  made record;
begin
  for made in
    select p.proname as name, w.schemas, pg_get_function_arguments(p.oid) as arguments,
      pg_get_function_identity_arguments(p.oid) as identity, pg_get_function_result(p.oid) as result,
      obj_description(p.oid) as comment,
      (select string_agg('$' || n, ', ' order by n) from generate_series(1, p.pronargs) n) as places
    from (
      select unnest(array[
        'cancel_execution', 'signal_execution', 'pause_execution', 'resume_execution', 'ask_to_hold', 'decide_approval',
        'decision_of', 'put_back', 'fork_execution', 'undo_execution', 'settle_undo', 'abandon_execution', 'erase_execution', 'traceparent',
        'heartbeat_job', 'attempt_status', 'complete_job', 'fail_job', 'wait_for_child', 'log_job', 'report_progress'
      ]), of_id
      union all
      select unnest(array['pause_schedule', 'resume_schedule', 'delete_schedule']), of_schedule
      union all
      select unnest(array[
        'pause_path', 'resume_path', 'put_throttle', 'delete_throttle', 'announce_step_types', 'remove_step_types',
        'create_api_token', 'revoke_api_token'
      ]), of_all
      union all
      values
        ('start_execution', 'select noetl.schema_of(coalesce(noetl.bucket_of($1, $5 ->> ''bucket_key'', $4), noetl.any_bucket()))'),
        ('send_signal', 'select noetl.schema_of(coalesce(noetl.bucket_of_text($1 || chr(31) || $2, noetl.bucket_count()), 0))'),
        ('put_schedule', 'select noetl.settle_schedule($1, $2)')
    ) w (name, schemas)
    join pg_proc p on p.proname = w.name and p.pronamespace = to_regnamespace('noetl_0') -- at first, it is not there
  loop
    execute format('drop function if exists noetl.%I(%s)', made.name, made.identity);
    execute format(
      $function$
        create function noetl.%1$I(%2$s) returns %3$s
        language plpgsql
        as $body$
        declare
          answer %3$s;
          bucket text;
        begin
          for bucket in %4$s loop
            execute format('select %%I.%1$I(%5$s)', bucket) into answer using %5$s;
          end loop;
          return answer;
        end
        $body$
      $function$,
      made.name, made.arguments, made.result, made.schemas, made.places
    );
    execute format('comment on function noetl.%I(%s) is %L', made.name, made.identity, made.comment);
  end loop;
end
$make$;

-- Starts of one call may live in several buckets; on plain Postgres the call is one transaction all the same.
create or replace function noetl.start_executions(
  path text,
  payloads jsonb[],
  idempotency_keys text[] default null,
  version int default null,
  options jsonb default null
) returns bigint[]
language plpgsql
as $$
declare
  anywhere int := noetl.any_bucket();
  ids bigint[] := array_fill(null::bigint, array[coalesce(cardinality($2), 0)]);
  part record;
  made bigint[];
begin
  -- with the numbers of the payloads in this call
  execute format('select %I.check_starts($1, $2, $3)', noetl.schema_of(anywhere)) using $1, $2, $3;
  if cardinality($2) = 0 then -- the bucket still checks the playbook and the options
    execute format('select %I.start_executions($1, $2, $3, $4, $5)', noetl.schema_of(anywhere)) into ids using $1, $2, $3, $4, $5;
    return ids;
  end if;
  for part in
    select coalesce(noetl.bucket_of($1, $5 ->> 'bucket_key', g.key), anywhere) as bucket,
      array_agg(g.payload order by g.ordinal) as payloads, array_agg(g.ordinal order by g.ordinal) as ordinals,
      case when $3 is not null then array_agg(g.key order by g.ordinal) end as keys
    from unnest($2, $3) with ordinality g (payload, key, ordinal)
    group by 1
    order by 1
  loop
    execute format('select %I.start_executions($1, $2, $3, $4, $5)', noetl.schema_of(part.bucket))
    into made using $1, part.payloads, part.keys, $4, $5;
    for n in 1 .. cardinality(made) loop
      ids[part.ordinals[n]] := made[n];
    end loop;
  end loop;
  return ids;
end
$$;

create or replace function noetl.outcome(
  execution_id bigint, by text default null,
  out status text, out result jsonb, out error jsonb, out path text, out version int
)
language plpgsql
as $$
begin
  execute format('select o.status, o.result, o.error, o.path, o.version from %I.outcome($1, $2) o', noetl.schema_of($1))
  into status, result, error, path, version using $1, $2;
end
$$;

-- On Citus, a function passes a call on to another node only if it opens no transaction for it.
do $$
declare
  one regprocedure;
begin
  if to_regclass('pg_catalog.pg_dist_placement') is null then
    return;
  end if;
  for one in
    select p.oid
    from pg_proc p
    join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
    where p.pronamespace = 'noetl'::regnamespace
  loop
    execute format('alter function %s set citus.function_opens_transaction_block to off', one);
  end loop;
end
$$;
