-- What a worker calls: lease, heartbeat, complete, fail.
--
-- A lease is fenced by `attempts`: whoever was leased attempt 3 can only answer for attempt 3. Only the clock of the
-- database decides about leases. Each function changes the job and writes its event in one transaction.

-- The jobs that are to be leased next, locked. While somebody holds an old snapshot no vacuum takes the index entries of
-- jobs long leased away, and each look walks over all of them. So a session whose look was dear starts later for a while: at
-- the first job that it found, among those of its priority and above; where it found all that there was, among all. But
-- three seconds before the look at the latest: hardly a transaction that queues jobs is open for as long. What lies below
-- (of such a one, or queued again by hand with its old time) is found by the next look from the beginning.
create or replace function noetl.choose_jobs(most int, node_types text[], at timestamptz) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  lowest constant int := -2147483648;
  of_types text := coalesce(hashtextextended(node_types::text, 0), 0);
  mark text[] := string_to_array(current_setting('noetl.lease_mark', true), ' ');
  since timestamptz := '-infinity';
  least_priority int := lowest;
  seen_priority int := lowest;
  seen_since timestamptz := 'infinity';
  chosen bigint[] := '{}';
  took interval;
begin
  if mark[3]::numeric > extract(epoch from at) then
    perform set_config('noetl.lease_mark', '', false); -- the clock has stepped back: nothing before the mark was seen
  elsif mark[1] = of_types and extract(epoch from at) < mark[2]::numeric then
    since := to_timestamp(mark[3]::float8);
    least_priority := mark[4];
  end if;
  loop
    chosen := chosen || array(
      select r.queue_id
      from noetl.queue r
      where r.status in ('queued', 'retry')
        and r.priority >= least_priority
        and r.available_at between since and at
        and (node_types is null or r.node_type = any(node_types))
        and (r.priority < seen_priority or r.available_at < seen_since)
      order by r.priority desc, r.available_at, r.queue_id
      limit most - cardinality(chosen)
      for update skip locked
    );
    exit when cardinality(chosen) = most or least_priority = lowest;
    seen_priority := least_priority;
    seen_since := since;
    least_priority := lowest;
    since := '-infinity';
  end loop;
  took := clock_timestamp() - at;
  if since = '-infinity' and took > interval '5 ms' then
    select least(r.available_at, at - interval '3 s'), r.priority
    into since, least_priority
    from noetl.queue r
    where r.queue_id = chosen[1] and cardinality(chosen) = most;
    perform set_config('noetl.lease_mark', concat_ws(' ',
      of_types,
      extract(epoch from at + least(500 * took, interval '20 s')),
      extract(epoch from coalesce(since, at - interval '3 s')),
      coalesce(least_priority, lowest)
    ), false);
  end if;
  return chosen;
end
$$;

comment on function noetl.choose_jobs(int, text[], timestamptz) is
  'For lease_jobs: locks the jobs that are to be leased next, and gives their ids.';

-- (As in end_jobs: a plan made while the table was small would go through all of it for each lease.)
create or replace function noetl.lease_jobs(
  worker_id text,
  max_jobs int default 1,
  lease_seconds int default 60,
  node_types text[] default null
) returns setof noetl.queue
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  chosen bigint[];
  writer text := current_setting('noetl.writer', true);
begin
  if $1 is null or $1 = '' then
    raise exception using errcode = 'NB400', message = 'lease_jobs needs a worker_id',
      hint = 'a name of your own, for example host:process';
  end if;
  if $2 is null or $2 < 1 or $3 is null or $3 < 1 then
    raise exception using errcode = 'NB400',
      message = format('lease_jobs of %s: max_jobs %s and lease_seconds %s must be 1 or more',
        $1, coalesce($2::text, 'null'), coalesce($3::text, 'null'));
  end if;
  chosen := noetl.choose_jobs($2, $4, at);
  perform set_config('noetl.writer', 'worker', true);
  return query
  with leased as (
    update noetl.queue q
    set status = 'leased',
        attempts = q.attempts + 1,
        worker_id = $1,
        lease_until = at + make_interval(secs => $3),
        lease_seconds = $3,
        last_heartbeat = at,
        first_leased_at = coalesce(q.first_leased_at, at),
        -- the log is read by time, so what happens to a job is later than what happened before, whatever the clocks say
        updated_at = greatest(at, q.updated_at + interval '1 microsecond')
    where q.queue_id = any(chosen)
    returning q.*
  ), started as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, created_at, event_type,
      node_id, node_name, node_type, status, meta, worker_id
    )
    select l.execution_id, l.catalog_id, l.event_id, l.updated_at, 'action_started',
      l.node_id, l.node_name, l.node_type, 'RUNNING',
      jsonb_build_object('queue_id', l.queue_id, 'attempt', l.attempts), $1
    from leased l
  )
  select l.*
  from leased l
  order by l.priority desc, l.available_at, l.queue_id;
  perform set_config('noetl.writer', writer, true);
end
$$;

comment on function noetl.lease_jobs(text, int, int, text[]) is
  'Leases up to max_jobs jobs of the given types (null: all) for lease_seconds; `attempts` of each row is the fencing token.';

-- The same, each job by itself: for whoever was refused a lease because somebody has put a trigger or a constraint on our tables
-- that will not have the start of one job. That one fails, and the broker decides what comes of it. A function of its own: a
-- block that catches errors costs a lease of one job a twentieth. What is deferred to the commit is checked at the end of each
-- block. A job that may not be changed at all is passed over; so that it keeps nobody from the others, more are looked at.
create or replace function noetl.lease_singly(
  worker_id text,
  max_jobs int default 1,
  lease_seconds int default 60,
  node_types text[] default null
) returns setof noetl.queue
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  chosen bigint;
  job noetl.queue;
  leased int := 0;
  refusal text;
  deferred text;
  check_deferred text := '';
  writer text := current_setting('noetl.writer', true);
begin
  if $1 is null or $1 = '' or $2 is null or $2 < 1 or $3 is null or $3 < 1 then
    raise exception using errcode = 'NB400',
      message = format('lease_singly of %L: max_jobs %s and lease_seconds %s must be 1 or more',
        $1, coalesce($2::text, 'null'), coalesce($3::text, 'null')),
      hint = 'the worker_id is a name of your own, for example host:process';
  end if;
  select string_agg(format('%I.%I', c.nspname, c.conname), ', ')
  into deferred
  from (
    select n.nspname, k.conname
    from pg_constraint k
    join pg_namespace n on n.oid = k.connamespace
    group by n.nspname, k.conname
    having bool_or(k.condeferred) and bool_and(k.condeferrable)
  ) c;
  if deferred is not null then
    check_deferred := format('set constraints %1$s immediate; set constraints %1$s deferred', deferred);
    begin
      execute check_deferred;
    exception when others then
      check_deferred := ''; -- what the caller did before this, and may still mend, is no job's fault
    end;
  end if;
  perform set_config('noetl.writer', 'worker', true);
  foreach chosen in array noetl.choose_jobs(least($2, 1000000000) + 100, $4, at) loop
    exit when leased = $2;
    begin
      update noetl.queue q
      set status = 'leased', attempts = q.attempts + 1, worker_id = $1,
          lease_until = at + make_interval(secs => $3), lease_seconds = $3, last_heartbeat = at,
          first_leased_at = coalesce(q.first_leased_at, at),
          updated_at = greatest(at, q.updated_at + interval '1 microsecond')
      where q.queue_id = chosen
      returning q.* into job;
      insert into noetl.event (
        execution_id, catalog_id, parent_event_id, created_at, event_type,
        node_id, node_name, node_type, status, meta, worker_id
      ) values (
        job.execution_id, job.catalog_id, job.event_id, job.updated_at, 'action_started',
        job.node_id, job.node_name, job.node_type, 'RUNNING',
        jsonb_build_object('queue_id', job.queue_id, 'attempt', job.attempts), $1
      );
      execute check_deferred;
      leased := leased + 1;
      return next job;
      continue;
    exception when data_exception or program_limit_exceeded or integrity_constraint_violation
      or with_check_option_violation or plpgsql_error then
      refusal := sqlerrm;
    end;
    begin
      with refused as (
        update noetl.queue q
        set status = 'failed', attempts = q.attempts + 1, worker_id = $1,
            updated_at = greatest(at, q.updated_at + interval '1 microsecond')
        where q.queue_id = chosen
        returning q.*
      )
      insert into noetl.event (
        execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type, status, error,
        meta, worker_id
      )
      select r.execution_id, r.catalog_id, r.event_id, r.updated_at, 'action_failed', r.node_id, r.node_name, r.node_type,
        'FAILED',
        jsonb_build_object('message', format('the database refused the start of the action: %s', refusal),
          'type', 'refused_start'),
        jsonb_build_object('queue_id', r.queue_id, 'attempt', r.attempts, 'retryable', false), $1
      from refused r;
      execute check_deferred;
      continue;
    exception when data_exception or program_limit_exceeded or integrity_constraint_violation
      or with_check_option_violation or plpgsql_error then
      null;
    end;
    begin
      -- nor will it have the failure: the job keeps out of the way of the others for a while
      update noetl.queue q
      set available_at = at + interval '1 minute'
      where q.queue_id = chosen;
      execute check_deferred;
    exception when data_exception or program_limit_exceeded or integrity_constraint_violation
      or with_check_option_violation or plpgsql_error then
      null; -- nor that
    end;
  end loop;
  perform set_config('noetl.writer', writer, true);
end
$$;

comment on function noetl.lease_singly(text, int, int, text[]) is
  'As lease_jobs; a job whose start the database refuses fails alone, where lease_jobs would fail with it: for after such an error.';

create or replace function noetl.heartbeat_job(
  queue_id bigint,
  worker_id text,
  attempt int,
  lease_seconds int default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
begin
  if $4 < 1 then
    raise exception using errcode = 'NB400',
      message = format('heartbeat_job of job %s: lease_seconds %s must be 1 or more, or null', $1, $4);
  end if;
  -- Whoever leases by statements of its own says no length; a NoETL server leases for a minute.
  update noetl.queue q
  set lease_until = at + make_interval(secs => coalesce($4, q.lease_seconds, 60)),
      lease_seconds = coalesce($4, q.lease_seconds),
      last_heartbeat = at
  where q.queue_id = $1 and q.worker_id = $2 and q.attempts = $3 and q.status is not distinct from 'leased';
  return found;
end
$$;

comment on function noetl.heartbeat_job(bigint, text, int, int) is
  'Prolongs a lease by lease_seconds from now, and by as long from then on; null: by its own length; false: it is not yours, stop.';

-- How many answers came after their lease was taken over. A refused answer leaves no row, and a counter in a table would
-- make refused workers wait for each other; a sequence does neither. (A crash of the server may move it by up to 32.)
create sequence if not exists noetl.stale_answer_seq;

-- One end of jobs for all ways, so that the fence stands in one place. (Jobs are found by their ids whatever a planner
-- thinks: a plan that was made while the table was small would go through all of it, one that looks for `status = 'leased'`
-- through all leases.)
create or replace function noetl.end_jobs(
  worker_id text,
  queue_ids bigint[],
  attempts int[],
  queue_status text,
  event_type text,
  results jsonb[],
  errors jsonb[],
  retryable boolean[]
) returns boolean[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  ended int;
  writer text := current_setting('noetl.writer', true);
begin
  perform set_config('noetl.writer', 'worker', true);
  with ended as (
    update noetl.queue q
    set status = $4, lease_until = null, updated_at = greatest(at, q.updated_at + interval '1 microsecond')
    where q.queue_id = any($2) and q.worker_id = $1 and q.status is not distinct from 'leased'
      and q.attempts = ($3)[array_position($2, q.queue_id)]
    returning q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type, q.attempts,
      q.first_leased_at, q.updated_at, array_position($2, q.queue_id) as place
  )
  insert into noetl.event (
    execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
    status, duration, result, error, meta, worker_id
  )
  select e.execution_id, e.catalog_id, e.event_id, e.updated_at, $5, e.node_id, e.node_name, e.node_type,
    case when $4 = 'done' then 'COMPLETED' else 'FAILED' end,
    date_part('epoch', at - e.first_leased_at), ($6)[e.place], ($7)[e.place],
    jsonb_strip_nulls(jsonb_build_object('queue_id', e.queue_id, 'attempt', e.attempts, 'retryable', ($8)[e.place])), $1
  from ended e;
  get diagnostics ended = row_count;
  perform set_config('noetl.writer', writer, true);
  if ended = cardinality($2) then
    return array_fill(true, array[ended]);
  end if;
  -- The same answer again from the same worker, whose first answer was lost on the way, is true again; so it is looked for
  -- what stands there now, whoever wrote it.
  return array(
    select coalesce(
      (
        select true
        from noetl.queue q
        where q.queue_id = a.queue_id and q.worker_id = $1 and q.attempts = a.attempt
          and (q.status = $4 or $4 = 'failed' and q.status in ('retry', 'dead'))
        limit 1
      ),
      nextval('noetl.stale_answer_seq') is null
    )
    from unnest($2, $3) with ordinality a (queue_id, attempt, ordinal)
    order by a.ordinal
  );
end
$$;

-- For those that may be too large: one of 2 MiB takes more than 8 KiB, however it is compressed, or is inflated.
create or replace function noetl.check_large_result(queue_id bigint, result jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  bytes int := octet_length($2::text);
begin
  if bytes > 2097152 then
    raise exception using errcode = 'NB400', constraint = 'max_result_bytes',
      message = format('the result of job %s takes %s bytes; the limit max_result_bytes is 2097152', $1, bytes),
      hint = 'keep the data elsewhere and answer with where it is';
  elsif noetl.is_inflated($2) then
    raise exception using errcode = 'NB400',
      message = format('the result of job %s holds numbers of %s digits together', $1, bytes),
      hint = 'answer with such numbers as text: "1e100000"';
  elsif bytes > 262144 then
    raise warning 'the result of job % takes % bytes; past 2097152 it is refused', $1, bytes;
  end if;
end
$$;

create or replace function noetl.complete_job(
  queue_id bigint,
  worker_id text,
  attempt int,
  result jsonb default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_column_size($4) > 8192 or octet_length($4::text) > 65536 then
    perform noetl.check_large_result($1, $4);
  end if;
  return (noetl.end_jobs($2, array[$1], array[$3], 'done', 'action_completed', array[$4], null, null))[1];
end
$$;

comment on function noetl.complete_job(bigint, text, int, jsonb) is
  'Ends a job with its result; false when the lease was taken over: nothing changed. Repeated: true again, nothing changed.';

create or replace function noetl.complete_jobs(
  worker_id text,
  queue_ids bigint[],
  attempts int[],
  results jsonb[] default null
) returns table (queue_id bigint, yours boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  if cardinality($2) is distinct from cardinality($3) or cardinality($2) <> cardinality($4) then
    raise exception using errcode = 'NB400',
      message = format('complete_jobs of %s: %s queue_ids, %s attempts and %s results must be as many',
        $1, cardinality($2), cardinality($3), cardinality($4));
  end if;
  perform noetl.check_large_result(r.queue_id, r.result)
  from unnest($2, $4) r (queue_id, result)
  where pg_column_size(r.result) > 8192 or octet_length(r.result::text) > 65536;
  return query
  select a.queue_id, a.yours
  from unnest($2, noetl.end_jobs($1, $2, $3, 'done', 'action_completed', $4, null, null)) a (queue_id, yours);
end
$$;

comment on function noetl.complete_jobs(text, bigint[], int[], jsonb[]) is
  'Ends many jobs with their results, the three arrays side by side; says of each what complete_job would say.';

create or replace function noetl.fail_job(
  queue_id bigint,
  worker_id text,
  attempt int,
  error jsonb,
  retryable boolean default true
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  shortened jsonb := noetl.as_error($4);
begin
  if $4 is null or jsonb_typeof($4) <> 'object' or jsonb_typeof($4 -> 'message') is distinct from 'string' then
    raise exception using errcode = 'NB400',
      message = format('the error of job %s must be an object with a message, it is %s', $1, coalesce(left($4::text, 100), 'null')),
      hint = 'for example {"message": "connection refused", "status_code": 503}';
  end if;
  if shortened <> $4 then
    raise warning 'the error of job % takes % bytes; past 65536 it is shortened', $1, shortened -> 'original_bytes';
  end if;
  return (
    noetl.end_jobs($2, array[$1], array[$3], 'failed', 'action_failed', null, array[shortened], array[coalesce($5, true)])
  )[1];
end
$$;

comment on function noetl.fail_job(bigint, text, int, jsonb, boolean) is
  'Ends an attempt with an error; the broker decides whether it is tried again. retryable false: it is not.';

create or replace function noetl.wait_for_child(
  queue_id bigint,
  worker_id text,
  attempt int,
  child_execution_id bigint,
  index int default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  writer text := current_setting('noetl.writer', true);
begin
  if $4 is null or $5 not between 0 and 1000000 then
    raise exception using errcode = 'NB400',
      message = format('wait_for_child of job %s: child %s and index %s must be an execution and 0 to 1000000, or null',
        $1, coalesce($4::text, 'null'), coalesce($5::text, 'null'));
  end if;
  -- The lease stays as it is while we speak for it.
  perform from noetl.queue q
  where q.queue_id = $1 and q.worker_id = $2 and q.attempts = $3 and q.status is not distinct from 'leased'
  for share;
  if not found then
    return false;
  end if;
  perform set_config('noetl.writer', '', true);
  insert into noetl.event (
    execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, context, meta, worker_id
  )
  select q.execution_id, q.catalog_id, q.event_id, 'iteration_started', q.node_id, q.node_name, q.node_type, 'RUNNING',
    jsonb_strip_nulls(jsonb_build_object('child_execution_id', $4, 'index', $5)),
    jsonb_build_object('queue_id', $1, 'attempt', $3), $2
  from noetl.queue q
  where q.queue_id = $1;
  perform set_config('noetl.writer', writer, true);
  return true;
end
$$;

comment on function noetl.wait_for_child(bigint, text, int, bigint, int) is
  'Has the step of a leased job wait for a child that the worker started; `index`: its place, null: the next; false: the lease is not yours.';

revoke all on function noetl.wait_for_child(bigint, text, int, bigint, int) from public;
-- The execution that stands above all others of a family: it has no parent, or one that is not here.
create or replace function noetl.root_of(execution_id bigint) returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with recursive above as (
    select x.execution_id, x.parent_execution_id
    from noetl.execution x
    where x.execution_id = $1
    union
    select p.execution_id, p.parent_execution_id
    from above a
    join noetl.execution p on p.execution_id = a.parent_execution_id
  )
  select coalesce(
    (
      select a.execution_id
      from above a
      where not exists (select from above p where p.execution_id = a.parent_execution_id)
      limit 1
    ),
    $1
  )
$$;

-- The same, locked: while it is, nobody else gives it a parent, so that no two adopt each other at one moment. (Each statement
-- of a volatile function sees what was committed until then.)
create or replace function noetl.lock_root(execution_id bigint) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  root bigint;
begin
  loop
    root := noetl.root_of($1);
    perform from noetl.execution x where x.execution_id = root for no key update;
    exit when noetl.root_of($1) = root;
  end loop;
  return root;
end
$$;

-- The W3C traceparent under which a worker tells what it did for a node: the trace is made from the id of the root
-- execution, the span from the node; broker/spans.py makes the same.
create or replace function noetl.traceparent(execution_id bigint, node_id text) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '00-%s-%s-01',
    left(encode(sha256(convert_to('trace:' || noetl.root_of($1), 'UTF8')), 'hex'), 32),
    left(encode(sha256(convert_to('span:' || coalesce($2, $1::text), 'UTF8')), 'hex'), 16)
  )
$$;

revoke all on function noetl.root_of(bigint) from public;
revoke all on function noetl.lock_root(bigint) from public;
revoke all on function noetl.traceparent(bigint, text) from public;
revoke all on function noetl.choose_jobs(int, text[], timestamptz) from public;
revoke all on function noetl.lease_jobs(text, int, int, text[]) from public;
revoke all on function noetl.lease_singly(text, int, int, text[]) from public;
revoke all on function noetl.heartbeat_job(bigint, text, int, int) from public;
revoke all on function noetl.end_jobs(text, bigint[], int[], text, text, jsonb[], jsonb[], boolean[]) from public;
revoke all on function noetl.check_large_result(bigint, jsonb) from public;
revoke all on function noetl.complete_jobs(text, bigint[], int[], jsonb[]) from public;
revoke all on function noetl.complete_job(bigint, text, int, jsonb) from public;
revoke all on function noetl.fail_job(bigint, text, int, jsonb, boolean) from public;
