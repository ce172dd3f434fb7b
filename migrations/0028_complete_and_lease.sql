-- How a worker ends a job and leases the next one with the same commit.
--
-- One commit and one plan less: 0.64 of what two calls cost the server (docs/explanation/performance.md). So a worker in a loop calls these.

-- complete_job and lease_jobs in one statement: one plan to start, one insert of events, one commit. `queue_id` is the job to
-- end, and in the row the job that was leased. Where that statement does not do, the two functions are called: for arguments
-- to refuse, for a result to look at, and while scans start at a mark. A slot of a throttle that the ended job sets free is
-- given at the end of the statement. So if it leased nothing, a second one looks for the job that got the slot.
create or replace function noetl.complete_and_lease(
  inout queue_id bigint,
  worker_id text,
  attempt int,
  result jsonb default null,
  lease_seconds int default 60,
  node_types text[] default null,
  pools text[] default '{default}',
  out yours boolean,
  out execution_id bigint,
  out node_id text,
  out node_name text,
  out node_type text,
  out action text,
  out context jsonb,
  out attempts int,
  out priority int,
  out timeout_seconds float8
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  ended_id constant bigint := $1; -- $1 becomes the leased job
  ended boolean;
  has_limit boolean := true; -- the ended job may have had a slot of a throttle
  chosen bigint[]; -- null: the statement chooses
  writer text;
begin
  if (
    $2 <> '' and $5 >= 1 and $7[1] <> '' and coalesce(current_setting('noetl.lease_mark', true), '') = ''
    and (pg_column_size($4) > noetl.limit_of('small_bytes') or octet_length($4::text) > noetl.limit_of('inflated_bytes'))
      is not true
  ) then
    if cardinality($7) > 1 then
      chosen := noetl.choose_jobs(1, $6, $7, at);
    end if;
    writer := set_config('noetl.writer', 'worker' || pg_trigger_depth(), true);
    with ended as (
      update noetl.queue q
      set status = 'done', draining = q.draining and not (q.stop and noetl.is_undo(q.node_id)),
          lease_until = null, updated_at = greatest(at, q.updated_at + interval '1 microsecond')
      where q.queue_id = ended_id and q.worker_id = $2 and q.attempts = $3 and q.status is not distinct from 'leased'
      returning q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type, q.first_leased_at,
        q.updated_at, q.limit_name is not null as has_limit
    ), leased as (
      update noetl.queue q
      set status = 'leased', attempts = q.attempts + 1, worker_id = $2, lease_seconds = $5,
          lease_until = at + make_interval(secs => $5), last_heartbeat = at,
          first_leased_at = coalesce(q.first_leased_at, at),
          updated_at = greatest(at, q.updated_at + interval '1 microsecond')
      where q.queue_id = coalesce(chosen[1], (
        select r.queue_id
        from noetl.queue r
        where r.pool = $7[1]
          and r.status in ('queued', 'retry')
          and r.available_at <= at
          and ($6 is null or r.node_type = any($6))
        order by r.priority desc, r.available_at, r.queue_id
        limit 1
        for update skip locked
      ))
      returning q.*
    ), events as (
      insert into noetl.event (
        execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
        status, duration, result, meta, worker_id
      )
      select e.execution_id, e.catalog_id, e.event_id, e.updated_at, 'action_completed', e.node_id, e.node_name, e.node_type,
        'COMPLETED', date_part('epoch', at - e.first_leased_at), $4,
        jsonb_build_object('queue_id', ended_id, 'attempt', $3), $2
      from ended e
      union all
      select l.execution_id, l.catalog_id, l.event_id, l.updated_at, 'action_started', l.node_id, l.node_name, l.node_type,
        'RUNNING', null, null, jsonb_build_object('queue_id', l.queue_id, 'attempt', l.attempts), $2
      from leased l
      returning execution_id, event_id, event_type
    ), mail as (
      insert into noetl.inbox (execution_id, event_id)
      select e.execution_id, e.event_id
      from events e
      where e.event_type = 'action_completed'
    )
    select e.has_limit is not null, e.has_limit,
      l.queue_id, l.execution_id, l.node_id, l.node_name, l.node_type, l.action, l.context, l.attempts, l.priority, l.timeout_seconds
    into ended, has_limit,
      queue_id, execution_id, node_id, node_name, node_type, action, context, attempts, priority, timeout_seconds
    from (select) one
    left join ended e on true
    left join leased l on true;
    writer := set_config('noetl.writer', '', true);
    if ended and not pg_try_advisory_xact_lock_shared(hashtext('noetl.lock'), 1) then
      perform pg_notify('noetl_event', '');
    end if;
    if clock_timestamp() - at > interval '10 ms' then
      perform set_config('noetl.lease_mark', 'slow', false); -- the next call measures its scan
    end if;
    yours := ended or noetl.was_answered(ended_id, $2, $3, 'done');
  else
    yours := noetl.complete_job(ended_id, $2, $3, $4);
    queue_id := null;
  end if;
  if queue_id is null and has_limit then
    select l.queue_id, l.execution_id, l.node_id, l.node_name, l.node_type, l.action, l.context, l.attempts, l.priority, l.timeout_seconds
    into queue_id, execution_id, node_id, node_name, node_type, action, context, attempts, priority, timeout_seconds
    from noetl.lease_jobs($2, 1, $5, $6, $7) l;
  end if;
end
$$;

comment on function noetl.complete_and_lease(bigint, text, int, jsonb, int, text[], text[]) is
  'Ends a job with its result and leases the next one, with one commit. `yours` is what complete_job returns. The other columns are of the leased job, null if there is none; `attempts` is its fencing token.';

-- The same for many jobs. A row with `yours` tells of an answer, in the order of the arrays; the others are leased jobs.
create or replace function noetl.complete_jobs_and_lease(
  worker_id text,
  queue_ids bigint[],
  attempts int[],
  results jsonb[] default null,
  max_jobs int default 1,
  lease_seconds int default 60, node_types text[] default null, pools text[] default '{default}'
) returns table (
  queue_id bigint, yours boolean, execution_id bigint, node_id text, node_name text, node_type text, action text,
  context jsonb, attempt int, priority int, timeout_seconds float8
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  ended boolean := false;
  leased int; -- null: lease_jobs leases
  chosen bigint[]; -- null: the statement chooses
  limited boolean := false; -- an ended job may have had a slot of a throttle
  has_limit boolean;
  is_ended boolean;
  writer text;
begin
  if (
    $1 <> '' and $5 >= 1 and $6 >= 1 and $8[1] <> '' and cardinality($2) = cardinality($3) and (cardinality($2) <> cardinality($4)) is not true
    and coalesce(current_setting('noetl.lease_mark', true), '') = ''
    and (pg_column_size($4) > noetl.limit_of('small_bytes') or octet_length($4::text) > noetl.limit_of('inflated_bytes'))
      is not true
  ) then
    leased := 0;
    chosen := case when cardinality($8) > 1 then noetl.choose_jobs($5, $7, $8, at) end;
    writer := set_config('noetl.writer', 'worker' || pg_trigger_depth(), true);
    for queue_id, yours, is_ended, has_limit, execution_id, node_id, node_name, node_type, action, context, attempt, priority, timeout_seconds in
      with ended as (
        update noetl.queue q
        set status = 'done', draining = q.draining and not (q.stop and noetl.is_undo(q.node_id)),
            lease_until = null, updated_at = greatest(at, q.updated_at + interval '1 microsecond')
        where q.queue_id = any($2) and q.worker_id = $1 and q.status is not distinct from 'leased'
          and q.attempts = ($3)[array_position($2, q.queue_id)]
        returning q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type, q.attempts,
          q.first_leased_at, q.updated_at, q.limit_name is not null as has_limit
      ), leased as (
        update noetl.queue q
        set status = 'leased', attempts = q.attempts + 1, worker_id = $1, lease_seconds = $6,
            lease_until = at + make_interval(secs => $6), last_heartbeat = at,
            first_leased_at = coalesce(q.first_leased_at, at),
            updated_at = greatest(at, q.updated_at + interval '1 microsecond')
        where q.queue_id = any(coalesce(chosen, array(
          select r.queue_id
          from noetl.queue r
          where r.pool = $8[1] and r.status in ('queued', 'retry') and r.available_at <= at
            and ($7 is null or r.node_type = any($7))
          order by r.priority desc, r.available_at, r.queue_id
          limit $5
          for update skip locked
        )))
        returning q.*
      ), events as (
        insert into noetl.event (
          execution_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
          status, duration, result, meta, worker_id
        )
        select e.execution_id, e.catalog_id, e.event_id, e.updated_at, 'action_completed', e.node_id, e.node_name, e.node_type,
          'COMPLETED', date_part('epoch', at - e.first_leased_at), ($4)[array_position($2, e.queue_id)],
          jsonb_build_object('queue_id', e.queue_id, 'attempt', e.attempts), $1
        from ended e
        union all
        select l.execution_id, l.catalog_id, l.event_id, l.updated_at, 'action_started', l.node_id, l.node_name, l.node_type,
          'RUNNING', null, null, jsonb_build_object('queue_id', l.queue_id, 'attempt', l.attempts), $1
        from leased l
        returning execution_id, event_id, event_type
      ), mail as (
        insert into noetl.inbox (execution_id, event_id)
        select e.execution_id, e.event_id
        from events e
        where e.event_type = 'action_completed'
      )
      select a.queue_id, e.queue_id is not null or noetl.was_answered(a.queue_id, $1, a.attempt, 'done'), e.queue_id is not null,
        coalesce(e.has_limit, false), null::bigint, null, null, null, null, null::jsonb, null::int, null::int, null::float8
      from unnest($2, $3) a (queue_id, attempt)
      left join ended e on e.queue_id = a.queue_id and e.attempts = a.attempt
      union all
      (
        select l.queue_id, null, false, false, l.execution_id, l.node_id, l.node_name, l.node_type, l.action, l.context, l.attempts,
          l.priority, l.timeout_seconds
        from leased l
        order by l.priority desc, l.available_at, l.queue_id
      )
    loop
      ended := ended or is_ended;
      limited := limited or has_limit;
      leased := leased + (yours is null)::int;
      return next;
    end loop;
    writer := set_config('noetl.writer', '', true);
    if ended and not pg_try_advisory_xact_lock_shared(hashtext('noetl.lock'), 1) then
      perform pg_notify('noetl_event', '');
    end if;
    if clock_timestamp() - at > interval '10 ms' then
      perform set_config('noetl.lease_mark', 'slow', false);
    end if;
  else
    return query
    select c.queue_id, c.yours, null::bigint, null, null, null, null, null::jsonb, null::int, null::int, null::float8
    from noetl.complete_jobs($1, $2, $3, $4) c;
  end if;
  if leased is null or limited and leased < $5 then
    return query
    -- the names are varchar beside a NoETL server
    select l.queue_id, null::boolean, l.execution_id, l.node_id::text, l.node_name::text, l.node_type::text, l.action, l.context,
      l.attempts, l.priority, l.timeout_seconds
    from noetl.lease_jobs($1, $5 - coalesce(leased, 0), $6, $7, $8) l;
  end if;
end
$$;

comment on function noetl.complete_jobs_and_lease(text, bigint[], int[], jsonb[], int, int, text[], text[]) is
  'Ends many jobs and leases up to max_jobs others, with one commit. Rows with `yours` are what complete_jobs returns. The others are leased jobs; `attempt` is the fencing token.';

revoke all on function
  noetl.complete_and_lease(bigint, text, int, jsonb, int, text[], text[]),
  noetl.complete_jobs_and_lease(text, bigint[], int[], jsonb[], int, int, text[], text[])
  from public;
