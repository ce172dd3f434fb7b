-- How a worker ends a job, or waits for a child execution that it started.

-- The number of answers that came after their lease was taken over. Such an answer leaves no row, and a counter in a table
-- would make workers wait for each other. A crash of the server may move the sequence by up to 32.
create sequence if not exists noetl.stale_answer_seq;

-- Whether an answer that ended nothing was taken before. A worker may repeat an answer, because the reply to the first one
-- was lost. So the present row decides.
create or replace function noetl.was_answered(queue_id bigint, worker_id text, attempt int, queue_status text)
returns boolean
language sql volatile
as $$
  select coalesce(
    (
      select true
      from noetl.queue q
      where q.queue_id = $1 and q.worker_id = $2 and q.attempts = $3
        and (q.status = $4 or $4 = 'failed' and (q.status in ('retry', 'dead') or q.status = 'cancelled' and q.stop))
      limit 1
    ),
    noetl.is_elsewhere($1) or nextval('noetl.stale_answer_seq') is null
  )
$$;

-- Ends leases that are still held, and puts their events into the inbox. One statement does it all: each further one, and
-- the trigger's, would cost as much. Its callers set a kept plan without sequential scans. A plan made for a small table
-- would scan the whole table. A plan by status would read all leases.
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
language plpgsql
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  writer text := set_config('noetl.writer', 'worker' || pg_trigger_depth(), true);
  ended int;
begin
  with ended as (
    update noetl.queue q
    -- a stopped attempt that fails needs no decision, and a draining one is not tried again
    set status = case
          when $4 <> 'failed' then $4
          when q.stop and q.draining and noetl.is_undo(q.node_id) then 'queued' -- an undo that begins again
          when q.stop then 'cancelled'
          when q.draining then 'dead'
          else $4
        end,
        stop = q.stop and not ($4 = 'failed' and q.draining and noetl.is_undo(q.node_id)),
        draining = q.draining and not (q.stop and noetl.is_undo(q.node_id)),
        lease_until = null, updated_at = greatest(at, q.updated_at + interval '1 microsecond')
    where q.queue_id = any($2) and q.worker_id = $1 and q.status is not distinct from 'leased'
      and q.attempts = ($3)[array_position($2, q.queue_id)]
    returning q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type, q.attempts,
      q.status, q.first_leased_at, q.updated_at, array_position($2, q.queue_id) as ordinal
  ), events as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
      status, duration, result, error, meta, worker_id
    )
    select e.execution_id, e.catalog_id, e.event_id, e.updated_at, $5, e.node_id, e.node_name, e.node_type,
      case when $4 = 'done' then 'COMPLETED' else 'FAILED' end,
      date_part('epoch', at - e.first_leased_at), ($6)[e.ordinal], ($7)[e.ordinal],
      jsonb_strip_nulls(jsonb_build_object('queue_id', e.queue_id, 'attempt', e.attempts, 'retryable', ($8)[e.ordinal],
        'earlier_undo', case when e.status = 'queued' then true end)), $1
    from ended e
    returning execution_id, event_id
  )
  insert into noetl.inbox (execution_id, event_id)
  select e.execution_id, e.event_id
  from events e;
  get diagnostics ended = row_count;
  writer := set_config('noetl.writer', '', true);
  if ended > 0 and not pg_try_advisory_xact_lock_shared(hashtext('noetl.lock'), 1) then
    perform pg_notify('noetl_event', '');
  end if;
  if ended = cardinality($2) then
    return array_fill(true, array[ended]);
  end if;
  return array(
    select noetl.was_answered(a.queue_id, $1, a.attempt, $4)
    from unnest($2, $3) with ordinality a (queue_id, attempt, ordinal)
    order by a.ordinal
  );
end
$$;

-- Called for results that may be too large: 2 MiB takes more than 8 KiB when compressed, or is inflated.
create or replace function noetl.check_large_result(queue_id bigint, result jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  bytes int := octet_length($2::text);
begin
  if bytes > noetl.limit_of('result_bytes') then
    raise exception using errcode = 'NB400', constraint = 'max_result_bytes',
      message = format('the result of job %s takes %s bytes; the limit max_result_bytes is %s',
        $1, bytes, noetl.limit_of('result_bytes')),
      hint = 'store the data elsewhere and answer with its address';
  elsif noetl.is_inflated($2) then
    raise exception using errcode = 'NB400',
      message = format('the result of job %s has numbers of %s digits in total', $1, bytes),
      hint = 'answer with such numbers as text: "1e100000"';
  elsif bytes > noetl.limit_of('warned_result_bytes') then
    raise warning 'the result of job % takes % bytes; the limit is %', $1, bytes, noetl.limit_of('result_bytes');
  end if;
end
$$;

-- `stopped`: leased, but nobody wants the result. The row lock waits for a transaction that is about to end the lease. So
-- the answer is final, also after a COMMIT without a reply.
create or replace function noetl.attempt_status(queue_id bigint, worker_id text, attempt int) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  answer text;
begin
  select
    case
      when q.status = 'done' then 'completed'
      when q.status is distinct from 'leased' then 'lost'
      when q.stop then 'stopped'
      else 'leased'
    end
  into answer
  from noetl.queue q
  where q.queue_id = $1 and q.worker_id = $2 and q.attempts = $3
  for no key update;
  if answer is null then
    perform noetl.is_elsewhere($1);
  end if;
  return coalesce(answer, 'lost');
end
$$;

comment on function noetl.attempt_status(bigint, text, int) is
  'What became of an attempt: leased, stopped, completed or lost. Ask it when the reply to a COMMIT was lost.';

create or replace function noetl.complete_job(
  queue_id bigint,
  worker_id text,
  attempt int,
  result jsonb default null,
  only_once boolean default false
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  writer text;
begin
  if $5 then
    writer := noetl.attempt_status($1, $2, $3);
    if writer <> 'leased' or current_setting('transaction_isolation') <> 'read committed' then
      raise exception using errcode = 'NB409', constraint = 'only_once',
        message = format('job %s, attempt %s of %s: the lease is %s, in a %s transaction; only_once wrote nothing',
          $1, $3, coalesce($2, 'null'), writer, current_setting('transaction_isolation')),
        hint = 'roll back; only_once needs the lease, and a read committed transaction';
    end if;
  end if;
  if pg_column_size($4) > noetl.limit_of('small_bytes') or octet_length($4::text) > noetl.limit_of('inflated_bytes') then
    perform noetl.check_large_result($1, $4);
  end if;
  writer := set_config('noetl.writer', 'worker' || pg_trigger_depth(), true);
  -- end_jobs for one job, without its arrays
  with ended as (
    update noetl.queue q
    set status = 'done', draining = q.draining and not (q.stop and noetl.is_undo(q.node_id)),
        lease_until = null, updated_at = greatest(at, q.updated_at + interval '1 microsecond')
    where q.queue_id = $1 and q.worker_id = $2 and q.attempts = $3 and q.status is not distinct from 'leased'
    returning q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type, q.first_leased_at, q.updated_at
  ), events as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
      status, duration, result, meta, worker_id
    )
    select e.execution_id, e.catalog_id, e.event_id, e.updated_at, 'action_completed', e.node_id, e.node_name, e.node_type,
      'COMPLETED', date_part('epoch', at - e.first_leased_at), $4, jsonb_build_object('queue_id', $1, 'attempt', $3), $2
    from ended e
    returning execution_id, event_id
  )
  insert into noetl.inbox (execution_id, event_id)
  select e.execution_id, e.event_id
  from events e;
  writer := set_config('noetl.writer', '', true);
  if not found then
    return noetl.was_answered($1, $2, $3, 'done');
  end if;
  if not pg_try_advisory_xact_lock_shared(hashtext('noetl.lock'), 1) then
    perform pg_notify('noetl_event', '');
  end if;
  return true;
end
$$;

comment on function noetl.complete_job(bigint, text, int, jsonb, boolean) is
  'Ends a job with its result. Returns false when the lease was taken over. Repeated: true again, nothing changes. With only_once it raises NB409 unless this call ends the lease. So rows of the same transaction are written once.';

create or replace function noetl.complete_jobs(
  worker_id text,
  queue_ids bigint[],
  attempts int[],
  results jsonb[] default null
) returns table (queue_id bigint, yours boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set timezone = 'UTC'
as $$
#variable_conflict use_column
begin
  if cardinality($2) is distinct from cardinality($3) or cardinality($2) <> cardinality($4) then
    raise exception using errcode = 'NB400',
      message = format('complete_jobs of %s: %s queue_ids, %s attempts and %s results must be equally many',
        $1, coalesce(cardinality($2)::text, 'no'), coalesce(cardinality($3)::text, 'no'), coalesce(cardinality($4)::text, 'no'));
  end if;
  if pg_column_size($4) > noetl.limit_of('small_bytes') or octet_length($4::text) > noetl.limit_of('inflated_bytes') then
    perform noetl.check_large_result(r.queue_id, r.result)
    from unnest($2, $4) r (queue_id, result)
    where pg_column_size(r.result) > noetl.limit_of('small_bytes') or octet_length(r.result::text) > noetl.limit_of('inflated_bytes');
  end if;
  return query
  select a.queue_id, a.yours
  from unnest($2, noetl.end_jobs($1, $2, $3, 'done', 'action_completed', $4, null, null)) a (queue_id, yours);
end
$$;

comment on function noetl.complete_jobs(text, bigint[], int[], jsonb[]) is
  'Ends many jobs with their results, given as three parallel arrays. Returns for each what complete_job would.';

create or replace function noetl.fail_job(
  queue_id bigint,
  worker_id text,
  attempt int,
  error jsonb,
  retryable boolean default true
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set timezone = 'UTC'
as $$
declare
  shortened jsonb := noetl.as_error($4);
begin
  if $4 is null or jsonb_typeof($4) <> 'object' or jsonb_typeof($4 -> 'message') is distinct from 'string' then
    raise exception using errcode = 'NB400',
      message = format('the error of job %s must be an object with a message; it is %s', $1, coalesce(left($4::text, 100), 'null')),
      hint = 'for example {"message": "connection refused", "status_code": 503}';
  end if;
  if shortened <> $4 then
    raise warning 'the error of job % takes % bytes; over % it is shortened',
      $1, shortened -> 'original_bytes', noetl.limit_of('error_bytes');
  end if;
  return (
    noetl.end_jobs($2, array[$1], array[$3], 'failed', 'action_failed', null, array[shortened], array[coalesce($5, true)])
  )[1];
end
$$;

comment on function noetl.fail_job(bigint, text, int, jsonb, boolean) is
  'Ends an attempt with an error. The broker decides whether it is retried; never if retryable is false.';

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
begin
  if $4 is null or $5 not between 0 and noetl.limit_of('item_index') then
    raise exception using errcode = 'NB400',
      message = format('wait_for_child of job %s: child %s must be an execution, and index %s 0 to %s or null',
        $1, coalesce($4::text, 'null'), coalesce($5::text, 'null'), noetl.limit_of('item_index'));
  end if;
  -- This lock keeps the lease until the commit.
  perform from noetl.queue q
  where q.queue_id = $1 and q.worker_id = $2 and q.attempts = $3 and q.status is not distinct from 'leased'
  for share;
  if not found then
    return noetl.is_elsewhere($1);
  end if;
  -- a child that the worker has not started yet has no row
  perform noetl.is_elsewhere($4), (
    select noetl.refuse_unknown($4)
    from noetl.period p
    where p.first_id <= $4 and $4 < p.next_id and p.dropped_at is not null
      and not exists (select from noetl.execution x where x.execution_id = $4)
  );
  perform set_config('noetl.writer', '', true);
  insert into noetl.event (
    execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, context, meta, worker_id
  )
  select q.execution_id, q.catalog_id, q.event_id, 'iteration_started', q.node_id, q.node_name, q.node_type, 'RUNNING',
    jsonb_strip_nulls(jsonb_build_object('child_execution_id', $4, 'index', $5)),
    jsonb_build_object('queue_id', $1, 'attempt', $3), $2
  from noetl.queue q
  where q.queue_id = $1;
  return true;
end
$$;

comment on function noetl.wait_for_child(bigint, text, int, bigint, int) is
  'Makes the step of a leased job wait for a child that the worker started. `index`: of its result, null: the next. False: not your lease.';

revoke all on function
  noetl.was_answered(bigint, text, int, text),
  noetl.end_jobs(text, bigint[], int[], text, text, jsonb[], jsonb[], boolean[]),
  noetl.check_large_result(bigint, jsonb), noetl.complete_job(bigint, text, int, jsonb, boolean),
  noetl.attempt_status(bigint, text, int),
  noetl.complete_jobs(text, bigint[], int[], jsonb[]), noetl.fail_job(bigint, text, int, jsonb, boolean),
  noetl.wait_for_child(bigint, text, int, bigint, int)
  from public;
