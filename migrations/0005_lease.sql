-- How a worker leases jobs.
--
-- `attempts` is the fencing token of a lease: a worker that leased attempt 3 can answer for attempt 3 only. Only the
-- clock of the database decides about leases. Each function changes the job and writes its event in one transaction.

-- Locks the next jobs to lease, after a slow scan. While a session holds an old snapshot, vacuum cannot remove the index
-- entries of leased jobs. Each scan then reads all of them. So after a slow scan a session starts the next scans later.
-- They start at the first job that it found. If it found all jobs, they start at the time of the scan. Three seconds are
-- taken off, because transactions that queue jobs are rarely open for longer. The next full scan finds the jobs that it
-- misses. `noetl.lease_mark` is empty where no scan was slow. Then lease_jobs calls this for several pools only.
--
-- Of several pools, it compares the first jobs of each, and locks them in their order. It compares a few more than it
-- needs, because other sessions may have locked some. If all of these are locked, it takes the next jobs of each pool.
create or replace function noetl.choose_jobs(most int, node_types text[], pools text[], at timestamptz) returns bigint[]
language plpgsql
as $$
declare
  lowest constant int := -2147483648;
  of_types text; -- what the mark is for
  mark text[] := string_to_array(current_setting('noetl.lease_mark', true), ' ');
  since timestamptz := '-infinity';
  least_priority int := lowest;
  seen_priority int := lowest;
  seen_since timestamptz := 'infinity';
  chosen bigint[] := '{}';
  one text;
  took interval;
begin
  if mark[1] <> '' then
    of_types := hashtextextended(concat(node_types, pools), 0);
  end if;
  if mark[3]::numeric > extract(epoch from at) then
    mark := null; -- the clock has stepped back
  elsif mark[1] = of_types and extract(epoch from at) < mark[2]::numeric then
    since := to_timestamp(mark[3]::float8);
    least_priority := mark[4];
  end if;
  loop
    if cardinality(pools) > 1 then
      chosen := chosen || array(
        select l.queue_id
        from (
          select f.execution_id, f.node_id, f.priority, f.available_at, f.queue_id
          from (select distinct u.pool from unnest(pools) u (pool)) p
          cross join lateral (
            select r.execution_id, r.node_id, r.priority, r.available_at, r.queue_id
            from noetl.queue r
            where r.pool = p.pool
              and r.status in ('queued', 'retry')
              and r.priority >= least_priority
              and r.available_at between since and at
              and (node_types is null or r.node_type = any(node_types))
              and (r.priority < seen_priority or r.available_at < seen_since)
            order by r.priority desc, r.available_at, r.queue_id
            limit most + 8
          ) f
          order by f.priority desc, f.available_at, f.queue_id
        ) n
        cross join lateral (
          select r.queue_id
          from noetl.queue r
          where r.execution_id = n.execution_id and r.node_id = n.node_id
            and r.status in ('queued', 'retry') and r.available_at <= at
          for update skip locked
        ) l
        order by n.priority desc, n.available_at, n.queue_id
        limit most - cardinality(chosen)
      );
    end if;
    foreach one in array pools loop
      exit when cardinality(chosen) = most;
      chosen := chosen || array(
        select r.queue_id
        from noetl.queue r
        where r.pool = one
          and r.status in ('queued', 'retry')
          and r.priority >= least_priority
          and r.available_at between since and at
          and (node_types is null or r.node_type = any(node_types))
          and (r.priority < seen_priority or r.available_at < seen_since)
          and r.queue_id <> all(chosen)
        order by r.priority desc, r.available_at, r.queue_id
        limit most - cardinality(chosen)
        for update skip locked
      );
    end loop;
    exit when least_priority = lowest or cardinality(chosen) = most;
    seen_priority := least_priority;
    seen_since := since;
    least_priority := lowest;
    since := '-infinity';
  end loop;
  took := clock_timestamp() - at;
  if took < interval '5 ms' and since = '-infinity' then
    if of_types is not null then
      perform set_config('noetl.lease_mark', '', false);
    end if;
  elsif since = '-infinity' then
    select least(r.available_at, at - interval '3 s'), r.priority
    into since, least_priority
    from noetl.queue r
    where r.queue_id = chosen[1] and cardinality(chosen) = most;
    perform set_config('noetl.lease_mark', concat_ws(' ',
      hashtextextended(concat(node_types, pools), 0),
      extract(epoch from at + least(500 * took, interval '20 s')),
      extract(epoch from coalesce(since, at - interval '3 s')),
      coalesce(least_priority, lowest)
    ), false);
  end if;
  return chosen;
end
$$;

-- One statement with a kept plan: planning it again, and each further statement, would cost as much as running it. Without
-- enable_seqscan = off, a plan made while the table was small would scan all of it for each lease.
create or replace function noetl.lease_jobs(
  worker_id text,
  max_jobs int default 1,
  lease_seconds int default 60,
  node_types text[] default null,
  pools text[] default '{default}'
) returns setof noetl.queue
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  chosen bigint[]; -- null: the statement chooses
  writer text; -- assigned, because `perform` runs a statement
begin
  if $1 is null or $1 = '' then
    raise exception using errcode = 'NB400', message = 'lease_jobs needs a worker_id',
      hint = 'a name that nobody can guess, for example host:process:8f2c41';
  end if;
  if $2 is null or $2 < 1 or $3 is null or $3 < 1 then
    raise exception using errcode = 'NB400',
      message = format('lease_jobs of %s: max_jobs %s and lease_seconds %s must be 1 or more',
        $1, coalesce($2::text, 'null'), coalesce($3::text, 'null'));
  end if;
  if ($5[1] <> '') is not true then
    raise exception using errcode = 'NB400', message = format('lease_jobs of %s: pools %s must name a pool', $1, coalesce($5::text, 'null')),
      hint = 'for example pools => ''{gpu,default}''';
  end if;
  if current_setting('noetl.lease_mark', true) <> '' or cardinality($5) > 1 then
    chosen := noetl.choose_jobs($2, $4, $5, at);
  end if;
  writer := set_config('noetl.writer', 'worker' || pg_trigger_depth(), true);
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
        -- events of a job are ordered by time, even where the clock steps back
        updated_at = greatest(at, q.updated_at + interval '1 microsecond')
    where q.queue_id = any(coalesce(chosen, array(
      select r.queue_id
      from noetl.queue r
      where r.pool = $5[1]
        and r.status in ('queued', 'retry')
        and r.available_at <= at
        and ($4 is null or r.node_type = any($4))
      order by r.priority desc, r.available_at, r.queue_id
      limit $2
      for update skip locked
    )))
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
  writer := set_config('noetl.writer', '', true);
  if chosen is null and clock_timestamp() - at > interval '10 ms' then
    perform set_config('noetl.lease_mark', 'slow', false); -- the next call measures its scan
  end if;
end
$$;

comment on function noetl.lease_jobs(text, int, int, text[], text[]) is
  'Leases up to max_jobs jobs of these types (null: all) and pools for lease_seconds. `attempts` of each row is the fencing token.';

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
  -- Programs that lease by an update of their own set no length.
  update noetl.queue q
  set lease_until = at + make_interval(secs => coalesce($4, q.lease_seconds, 60)),
      lease_seconds = coalesce($4, q.lease_seconds),
      last_heartbeat = at
  where q.queue_id = $1 and q.worker_id = $2 and q.attempts = $3 and q.status is not distinct from 'leased'
    and not q.stop;
  return found or noetl.is_elsewhere($1);
end
$$;

comment on function noetl.heartbeat_job(bigint, text, int, int) is
  'Extends a lease to lease_seconds from now (null: by its length). Returns false when the lease is not yours, or nobody wants the result: stop.';

revoke all on function
  noetl.choose_jobs(int, text[], text[], timestamptz), noetl.lease_jobs(text, int, int, text[], text[]),
  noetl.heartbeat_job(bigint, text, int, int)
  from public;
