-- What becomes due: lost leases and timeouts. Also steps back of the server's clock. 0010_waits.sql has timers.

-- A turn never waits for a worker that holds a job.
create table if not exists noetl.job_to_cancel (
  execution_id bigint not null,
  node_id text not null,
  draining boolean not null default false,
  primary key (execution_id, node_id)
);

comment on table noetl.job_to_cancel is
  'Jobs that were locked when the broker cancelled them. The reaper cancels them, or tells their workers to stop.';
comment on column noetl.job_to_cancel.execution_id is 'The execution.';
comment on column noetl.job_to_cancel.node_id is 'The visit or the item of the job.';
comment on column noetl.job_to_cancel.draining is
  'Its execution undoes nothing before the job has ended. So its worker is not told to stop.';

-- What a NoETL server did to a job: it leased it, or wrote its end, whose event is missing. compat_noetl.sql replaces
-- this function.
create or replace function noetl.server_job(job noetl.queue)
returns table (is_leased boolean, ended_status text, ended_at timestamptz)
language sql stable
as $$
  select null::boolean, null::text, null::timestamptz
  where false
$$;

-- Whether a lease that ran out is lost, so that the job may be queued again. compat_noetl.sql replaces this function: a
-- lease of a NoETL server is lost after a grace, or with its worker pool. `grace_seconds` null: no grace ends it.
create or replace function noetl.is_lease_lost(job noetl.queue, at timestamptz, grace_seconds float8) returns boolean
language sql stable
as $$
  select job.lease_until < at
$$;

-- Actions that ran longer than their timeout, also where their lease was lost and the job is queued again. The timeout of a
-- stopped job decides nothing.
create or replace function noetl.reap_timeouts(max_rows int, at timestamptz) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  timed_out int;
  any_leased boolean;
  overdue bigint[] := array(
    select r.queue_id
    from noetl.queue r
    where r.status in ('leased', 'delegated', 'queued', 'held')
      and not r.stop
      and r.timeout_seconds is not null
      and r.first_leased_at is not null
      and r.first_leased_at + make_interval(secs => r.timeout_seconds) < at
    limit max_rows
    for update skip locked
  );
begin
  if overdue = '{}' then -- an idle broker asks each second
    return 0;
  end if;
  with late as (
    update noetl.queue q
    set status = case when q.draining then 'dead' else 'failed' end, stop = q.status = 'leased', held_for = null, lease_until = null, updated_at = at
    where q.queue_id = any(overdue)
    returning q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type,
      q.attempts, q.timeout_seconds, q.worker_id, q.stop
  ), failures as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, error, meta, worker_id
    )
    select l.execution_id, l.catalog_id, l.event_id, 'action_failed', l.node_id, l.node_name, l.node_type, 'FAILED',
      jsonb_build_object('message', format('timeout: the action ran longer than %s s', l.timeout_seconds), 'type', 'timeout'),
      jsonb_build_object('queue_id', l.queue_id, 'attempt', l.attempts, 'retryable', true), l.worker_id
    from late l
  )
  select count(*), coalesce(bool_or(l.stop), false)
  into timed_out, any_leased
  from late l;
  if any_leased then
    perform noetl.notify_cancel();
  end if;
  return timed_out;
end
$$;

-- The jobs of lost leases, locked together with their executions: no turn may end or cancel them meanwhile. An execution
-- that a broker is deciding on waits for another poll.
create or replace function noetl.lock_lost_leases(max_rows int, since timestamptz, at timestamptz, grace_seconds float8)
returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  expired bigint[] := '{}';
  busy bigint[] := '{}';
  found bigint[];
  missed bigint[];
begin
  loop
    select coalesce(array_agg(d.queue_id) filter (where d.is_held), '{}'),
      array_agg(d.execution_id) filter (where not d.is_held)
    into found, missed
    from (
      select c.queue_id, c.execution_id, pg_try_advisory_xact_lock(c.execution_id) as is_held
      from (
        select r.queue_id, r.execution_id
        from noetl.queue r
        where r.status = 'leased' and r.lease_until >= since and r.lease_until < at
          and r.queue_id <> all(expired)
          and r.execution_id <> all(busy)
          and noetl.is_lease_lost(row(r.*)::noetl.queue, at, grace_seconds)
        order by r.lease_until
        limit max_rows - cardinality(expired)
        for update skip locked
      ) c
    ) d;
    expired := expired || found;
    exit when missed is null;
    busy := busy || missed;
  end loop;
  return expired;
end
$$;

-- Queues the jobs of lost leases again, or fails them.
create or replace function noetl.reap_leases(
  max_rows int, max_lost_leases int, since timestamptz, at timestamptz, grace_seconds float8, out requeued int, out lost int
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  expired bigint[] := noetl.lock_lost_leases(max_rows, since, at, grace_seconds);
begin
  requeued := 0;
  lost := 0;
  if expired = '{}' then
    return;
  end if;
  with ended as (
    update noetl.queue q
    set status = case
          when q.stop and q.draining and noetl.is_undo(q.node_id) then 'queued' -- an undo that begins again
          when q.stop then 'cancelled'
          when exists (
            select
            from noetl.execution x
            where x.execution_id = q.execution_id and not noetl.is_live(x.status) and x.undo_status is distinct from 'undoing'
          ) then 'cancelled'
          when q.lost_leases >= max_lost_leases then 'failed'
          when q.draining then 'dead'
          when exists (select from noetl.execution x where x.execution_id = q.execution_id and x.status = 'PAUSED') then 'held'
          else 'queued'
        end,
        held_for = case
          when not q.stop and not q.draining and q.lost_leases < max_lost_leases
            and exists (select from noetl.execution x where x.execution_id = q.execution_id and x.status = 'PAUSED')
            then array['pause']
        end,
        stop = q.stop and not (q.draining and noetl.is_undo(q.node_id)),
        draining = q.draining and not (q.stop and noetl.is_undo(q.node_id)),
        available_at = at, -- so that workers need not look for jobs that are older than those they saw
        lost_leases = q.lost_leases + 1, lease_until = null, updated_at = at
    where q.queue_id = any(expired)
    returning q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type,
      q.attempts, q.status, q.lost_leases, q.worker_id
  ), failures as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, error, meta, worker_id
    )
    select l.execution_id, l.catalog_id, l.event_id, 'action_failed', l.node_id, l.node_name, l.node_type, 'FAILED',
      jsonb_build_object('message', format('lost its lease %s times: the workers died or did not answer', l.lost_leases),
        'type', 'lost_lease'),
      jsonb_build_object('queue_id', l.queue_id, 'attempt', l.attempts, 'retryable', false), l.worker_id
    from ended l
    where l.status in ('failed', 'dead')
    returning 1
  )
  select (select count(*) from ended l where l.status in ('queued', 'held')), (select count(*) from failures)
  into requeued, lost;
end
$$;

-- Cancels the jobs of noetl.job_to_cancel. A worker that leased such a job is told to stop, unless its visit is draining.
-- A draining visit hears of its cancelled job.
create or replace function noetl.reap_jobs_to_cancel(max_rows int, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  any_leased boolean;
begin
  if not exists (select from noetl.job_to_cancel) then
    return;
  end if;
  with free as materialized (
    select q.execution_id, q.node_id, q.status as was, w.draining
    from noetl.job_to_cancel w
    join noetl.queue q on q.execution_id = w.execution_id and q.node_id = w.node_id
    limit max_rows
    for update of q skip locked
  ), cancelled as (
    update noetl.queue q
    set status = case
          when q.status = 'leased' then q.status
          when f.draining and q.status = 'failed' then 'dead' -- its event is on the way
          else 'cancelled'
        end,
        stop = q.status = 'leased' and not f.draining,
        draining = f.draining and q.status = 'leased',
        held_for = null,
        updated_at = case when q.status = 'leased' then q.updated_at else at end
    from free f
    where q.execution_id = f.execution_id and q.node_id = f.node_id
      and q.status in ('queued', 'retry', 'held', 'failed', 'delegated', 'leased')
    returning q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type, q.attempts, q.stop,
      f.draining and f.was in ('queued', 'retry', 'held') as answers
  ), answered as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, error, meta
    )
    select c.execution_id, c.catalog_id, c.event_id, 'action_failed', c.node_id, c.node_name, c.node_type, 'FAILED',
      noetl.cancelled_error(), jsonb_build_object('queue_id', c.queue_id, 'attempt', c.attempts + 1, 'retryable', false)
    from cancelled c
    where c.answers
  ), handled as (
    delete from noetl.job_to_cancel w
    where exists (select from free f where f.execution_id = w.execution_id and f.node_id = w.node_id)
      or not exists (select from noetl.queue q where q.execution_id = w.execution_id and q.node_id = w.node_id)
  )
  select coalesce(bool_or(c.stop), false)
  into any_leased
  from cancelled c;
  if any_leased then
    perform noetl.notify_cancel();
  end if;
end
$$;

-- Handles at most max_rows of each kind. Leases that ran out before `since` wait for another call. While a session holds an
-- old snapshot, the index keeps the entries of ended leases. To read them takes longer and longer.
create or replace function noetl.reap(
  max_rows int, max_lost_leases int, since timestamptz default '-infinity', foreign_grace_seconds float8 default 900
) returns table (requeued int, lost int, timed_out int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  at timestamptz := clock_timestamp();
begin
  perform set_config('noetl.writer', '', true);
  timed_out := noetl.reap_timeouts(max_rows, at);
  select l.requeued, l.lost
  into requeued, lost
  from noetl.reap_leases(max_rows, max_lost_leases, since, at, foreign_grace_seconds) l;
  perform noetl.reap_jobs_to_cancel(max_rows, at);
  perform noetl.reap_holds(max_rows);
  -- a notification that finds the queue full would fail the commit
  if requeued > 0 and pg_notification_queue_usage() < 0.9 then
    perform pg_notify('noetl_job', '');
  end if;
  return next;
end
$$;

-- After the server's clock steps back (it was wrong, or another server took over), due times lie in the future. Nothing
-- else reveals it. The first poll of a reaper inserts the row.
create table if not exists noetl.clock (
  is_only boolean primary key default true check (is_only),
  seen_at timestamptz not null default clock_timestamp(),
  stepped_at timestamptz,
  behind_seconds double precision,
  ahead_until timestamptz,
  steps int not null default 0,
  is_pulling boolean not null default false
);

comment on table noetl.clock is
  'One row: the latest time that a broker saw on the server''s clock, and the clock''s last step back.';
comment on column noetl.clock.is_only is 'Always true: there is one row.';
comment on column noetl.clock.seen_at is 'The latest time that a reaper saw. Updated at most twice a second.';
comment on column noetl.clock.stepped_at is 'When the last step back was noticed, by the clock after it; null: never.';
comment on column noetl.clock.behind_seconds is 'How far the clock stepped back then.';
comment on column noetl.clock.ahead_until is
  'Times up to this one that lie ahead of the clock were written before the step.';
comment on column noetl.clock.steps is 'The number of steps back.';
comment on column noetl.clock.is_pulling is 'Whether jobs that were ready before the step are still being pulled back.';

-- The latest time on rows of jobs that is more than a second after the given times; null: none.
create or replace function noetl.latest_ahead(at timestamptz, noted timestamptz) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select max(w.written_at)
  from (
    select greatest(q.created_at, q.updated_at) as written_at from noetl.queue q where q.status in ('queued', 'retry')
    union all
    select greatest(q.updated_at, q.last_heartbeat) from noetl.queue q where q.status = 'leased'
    union all
    select q.updated_at from noetl.queue q where q.status = 'delegated'
  ) w
  where w.written_at > greatest(at, noted) + interval '1 second'
$$;

-- After a clock stepped back from `latest` to `at`: moves due times back by `behind` (timers, leases, timeouts).
-- A lease gets its whole length again, because its worker is at work. A row's own times say that it was written before the
-- step; `updated_at` stays, because later changes must be later in the log. Returns the number of rows.
create or replace function noetl.pull_back(at timestamptz, latest timestamptz, behind interval) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  pulled int := 0;
  moved int;
begin
  update noetl.queue q
  set available_at = q.available_at - behind
  where q.status = 'delegated' and q.available_at > at and q.available_at < 'infinity' and q.updated_at > at;
  get diagnostics moved = row_count;
  pulled := pulled + moved;
  update noetl.queue q
  set lease_until = at + (q.lease_until - q.last_heartbeat), last_heartbeat = at
  where q.status = 'leased' and q.last_heartbeat > at and q.lease_until > q.last_heartbeat;
  get diagnostics moved = row_count;
  pulled := pulled + moved;
  update noetl.queue q
  set lease_until = q.lease_until - behind
  where q.status = 'leased' and q.last_heartbeat is null and q.lease_until > latest; -- leased by another program
  get diagnostics moved = row_count;
  pulled := pulled + moved;
  update noetl.queue q
  set first_leased_at = q.first_leased_at - behind
  where q.status in ('leased', 'delegated', 'queued', 'held') and q.timeout_seconds is not null and q.first_leased_at > at;
  update noetl.timer t
  set due_at = t.due_at - behind
  where t.due_at > at and t.created_at > at and not t.is_moment;
  get diagnostics moved = row_count;
  pulled := pulled + moved;
  update noetl.throttle_bucket b
  set full_at = b.full_at - behind
  where b.full_at > at;
  update noetl.release_request k
  set due_at = k.due_at - behind
  where k.due_at > at;
  get diagnostics moved = row_count;
  return pulled + moved + noetl.move_schedules_again(at);
end
$$;

-- If the server's clock has stepped back by more than a second, moves due times back. A million jobs may be ready, so each
-- call moves max_rows of them. The last call moves those with a delay. `check_jobs`: look also at the times on jobs,
-- which may have been written while no reaper ran. Returns by how many seconds the clock stepped back (null: it did not)
-- and the number of rows pulled back.
create or replace function noetl.mind_clock(max_rows int, check_jobs boolean default false)
returns table (stepped_seconds float8, pulled int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
as $$
declare
  at timestamptz;
  noted noetl.clock;
  latest timestamptz;
  behind interval;
  moved int;
begin
  pulled := 0;
  select c.is_only, c.seen_at, c.stepped_at, c.behind_seconds, c.ahead_until, c.steps, c.is_pulling
  into noted
  from noetl.clock c
  for update skip locked;
  at := clock_timestamp(); -- under the lock: nobody has written a later one since
  if not found then -- another reaper holds the row, or there is none yet
    insert into noetl.clock (is_only)
    values (true)
    on conflict do nothing;
    get diagnostics moved = row_count;
    if moved = 0 then
      return next;
      return;
    end if;
    noted.seen_at := at;
    noted.steps := 0;
    noted.is_pulling := false;
  end if;
  latest := noted.seen_at;
  if check_jobs or latest > at + interval '1 second' then
    latest := greatest(latest, noetl.latest_ahead(at, noted.ahead_until));
  end if;
  if latest <= at + interval '1 second' then
    if at > noted.seen_at + interval '500 ms' then
      update noetl.clock
      set seen_at = at;
    end if;
    if not noted.is_pulling then
      return next;
      return;
    end if;
  else
    behind := latest - at;
    stepped_seconds := extract(epoch from behind);
    noted.ahead_until := greatest(noted.ahead_until, latest);
    update noetl.clock
    set seen_at = at, stepped_at = at, behind_seconds = stepped_seconds, ahead_until = noted.ahead_until,
        steps = noted.steps + 1, is_pulling = true;
  end if;

  perform set_config('noetl.writer', 'broker', true);
  if behind is not null then
    pulled := noetl.pull_back(at, latest, behind);
  end if;
  update noetl.queue q
  set available_at = at
  where q.queue_id = any(array(
    select r.queue_id
    from noetl.queue r
    where r.status in ('queued', 'retry')
      and r.available_at > at and r.available_at <= noted.ahead_until + interval '1 second' and r.updated_at > at
    order by r.available_at
    limit max_rows
    for update skip locked
  ));
  get diagnostics moved = row_count;
  pulled := pulled + moved;
  if moved < max_rows then
    update noetl.clock
    set is_pulling = false;
    -- last: otherwise the rest of a delay would look like the time of a job that is ready
    update noetl.queue q
    set available_at = q.available_at - coalesce(behind, make_interval(secs => noted.behind_seconds))
    where q.status in ('queued', 'retry')
      and q.available_at > noted.ahead_until + interval '1 second' and q.available_at < 'infinity' and q.updated_at > at;
    get diagnostics moved = row_count;
    pulled := pulled + moved;
  end if;
  if pulled > 0 and pg_notification_queue_usage() < 0.9 then
    perform pg_notify('noetl_job', '');
  end if;
  return next;
end
$$;

revoke all on function
  noetl.server_job(noetl.queue), noetl.is_lease_lost(noetl.queue, timestamptz, float8),
  noetl.reap_timeouts(int, timestamptz), noetl.lock_lost_leases(int, timestamptz, timestamptz, float8),
  noetl.reap_leases(int, int, timestamptz, timestamptz, float8), noetl.reap_jobs_to_cancel(int, timestamptz),
  noetl.reap(int, int, timestamptz, float8), noetl.latest_ahead(timestamptz, timestamptz),
  noetl.pull_back(timestamptz, timestamptz, interval), noetl.mind_clock(int, boolean)
  from public;
