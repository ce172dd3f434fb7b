-- Beside a NoETL server, whose tables, queue and workers this broker uses: see docs/how-to/beside-noetl.md.
--
-- `migrate` applies this file, as the last one, only where there are tables of such a server. A queue of our own needs
-- nothing of it. It may be applied again.

alter table noetl.queue add column if not exists foreign_attempt int;

comment on column noetl.queue.foreign_attempt is
  'The attempt that the NoETL server leased to a worker of its own, which sends no heartbeat. Other attempts are our leases.';

-- The server sets the status of a job in the queue. The event with the result comes separately, and may be lost. A row here
-- waits for that event, and noetl.reap_ended_jobs handles those that wait too long.
create table if not exists noetl.ended_job (
  queue_id bigint primary key,
  status text not null check (status in ('done', 'retry', 'dead')),
  ended_at timestamptz not null default clock_timestamp()
);

create index if not exists ended_job_age on noetl.ended_job (ended_at);

comment on table noetl.ended_job is
  'Jobs that a NoETL server ended in the queue. A row stays until the broker has decided on the job''s event, or on the row.';
comment on column noetl.ended_job.queue_id is 'The job.';
comment on column noetl.ended_job.status is 'The status that the server set: done, retry, dead.';
comment on column noetl.ended_job.ended_at is 'When the server set it.';

-- All other updates of the queue, not by the broker or our functions, are the server's. It knows no fencing token, so what
-- the broker has decided about a job is kept.
create or replace function noetl.receive_job() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  execution record;
begin
  select noetl.is_live(x.status) or x.undo_status is not distinct from 'undoing' as works,
    coalesce(x.rules ->> 'retry_owner', 'broker') as retry_owner
  into execution
  from noetl.execution x
  where x.execution_id = old.execution_id and x.rules is not null;
  if new.status = 'leased' then
    new.foreign_attempt := new.attempts;
  end if;
  if not found then
    return new; -- an execution from before this broker
  end if;
  if new.status = 'leased' then
    new.first_leased_at := coalesce(old.first_leased_at, clock_timestamp()); -- for the timeout of the step
    return new;
  end if;
  if old.status <> 'leased' then
    new.status := old.status;
    new.available_at := old.available_at;
    new.lease_until := old.lease_until;
    return new;
  end if;
  if not execution.works or old.stop then
    new.status := case when new.status = 'retry' then 'cancelled' else new.status end;
    return new;
  end if;
  insert into noetl.ended_job as j (queue_id, status)
  values (old.queue_id, new.status)
  on conflict (queue_id) do update
  set status = excluded.status, ended_at = excluded.ended_at;
  if new.status = 'retry' then
    new.first_leased_at := null;
  end if;
  if new.status <> 'done' and execution.retry_owner = 'broker' then
    new.status := 'failed'; -- until the broker has decided
  end if;
  return new;
end
$$;

-- The API of the server shows the status of the latest event by `created_at`. So an event that is inserted while the
-- execution runs gets the status RUNNING. An event after the end gets an earlier time than the end; `came_at` in its meta
-- is the true time. The core sets the status of the events of turns. The lock of the execution shows whether a broker is
-- ending it right now. The server waits for that lock for a moment. A broker or worker must not wait, because the other
-- broker may wait for it. Its event gets an earlier time than the end. The exception releases the lock at once, and a
-- broker that takes it later has a later time.
create or replace function noetl.show_status() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '500ms'
as $$
declare
  writer text := coalesce(current_setting('noetl.writer', true), '');
  is_free boolean := false;
  ended timestamptz;
  last timestamptz;
begin
  if writer = 'broker' and noetl.as_json(new.meta) ? 'turn' then
    return new;
  end if;
  select x.ended_at
  into ended
  from noetl.execution x
  where x.execution_id = new.execution_id;
  if not found then
    return new; -- an execution from before this broker, or its start
  end if;
  if ended is null and noetl.kind_of(new.event_type) = 'execution_start' then
    return new;
  end if;
  if ended is null then
    begin
      if writer = '' then
        perform pg_advisory_xact_lock_shared(new.execution_id);
        is_free := true;
      else
        is_free := pg_try_advisory_xact_lock_shared(new.execution_id);
      end if;
      select x.ended_at, s.last_at
      into ended, last
      from noetl.execution x
      left join noetl.execution_state s on s.execution_id = x.execution_id
      where x.execution_id = new.execution_id;
      raise exception using errcode = 'NB000';
    exception
      when sqlstate 'NB000' or lock_not_available then
        null; -- this has released the lock
    end;
  end if;
  if ended is not null then
    if new.created_at >= ended then
      if jsonb_typeof(coalesce(noetl.as_json(new.meta), '{}')) = 'object' then
        new.meta := coalesce(noetl.as_json(new.meta), '{}') || jsonb_build_object('came_at', new.created_at);
      end if;
      new.created_at := ended - interval '1 microsecond';
    end if;
    return new;
  end if;
  new.status := 'RUNNING';
  if not is_free then
    new.created_at := least(
      new.created_at, greatest(last + interval '1 microsecond', new.created_at - interval '1 second')
    );
  end if;
  return new;
end
$$;

-- The catalog of the server refers to known kinds. The server inserts Playbook when it registers its first playbook.
create or replace function noetl.know_kind() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into noetl.resource (name)
  values ('Playbook')
  on conflict do nothing;
  return new;
end
$$;

-- This function and the next one replace those of 0009_reap.sql.
create or replace function noetl.server_job(job noetl.queue)
returns table (is_leased boolean, ended_status text, ended_at timestamptz)
language sql stable
as $$
  select job.foreign_attempt = job.attempts, j.status, j.ended_at
  from (select) job_row
  left join noetl.ended_job j on j.queue_id = job.queue_id
$$;

-- The server's workers lease for 60 s, send no heartbeats for jobs, and work for as long as they need. Such a lease is
-- lost after the grace, or with the worker's pool. A pool is lost once the server has called it offline for half a
-- minute. The server does so after a minute without the pool's heartbeat, and right after its own start. Where no
-- server is registered, the heartbeat itself decides. A worker may name its pool in its events; otherwise all pools
-- must be lost.
create or replace function noetl.is_lease_lost(job noetl.queue, at timestamptz, grace_seconds float8) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  is_known boolean := exists (select from noetl.execution x where x.execution_id = job.execution_id);
  lost_pools text[];
  living_pools bigint;
  own_pool text;
begin
  if job.lease_until >= at then
    return false;
  end if;
  if job.foreign_attempt is distinct from job.attempts then
    return job.lease_seconds is not null or is_known; -- else the server's own broker leased it before this broker came
  end if;
  if not is_known then
    return false; -- an execution from before this broker
  end if;
  if job.lease_until < at - make_interval(secs => grace_seconds) then
    return true;
  end if;
  if to_regclass('noetl.runtime') is null then
    return false;
  end if;
  select array_agg(p.name) filter (where p.is_lost), count(*) filter (where not p.is_lost)
  into lost_pools, living_pools
  from (
    select r.name,
      r.status = 'offline' and r.updated_at < at - interval '30 s'
        or r.heartbeat < at - interval '1 minute'
          and not exists (select from noetl.runtime s where s.kind = 'server_api') as is_lost
    from noetl.runtime r
    where r.kind = 'worker_pool'
  ) p;
  if lost_pools is null then
    return false;
  end if;
  select noetl.as_json(e.meta) ->> 'worker_pool'
  into own_pool
  from noetl.event e
  where e.execution_id = job.execution_id and e.node_id = job.node_id and noetl.kind_of(e.event_type) = 'action_started'
  order by e.created_at desc
  limit 1;
  return coalesce(own_pool = any(lost_pools), living_pools = 0);
end
$$;

-- Of these ended jobs, those whose visit or item still waits. `completed`: the server set `done`. `decided`: the worker
-- owns retries, so `dead` is final. `unread`: the execution has mail or a dead letter, which may be the missing event.
-- `heard`: an event carries the result (`step_result`) or the error (a failure that was recorded only).
create or replace function noetl.waiting_ended_jobs(queue_ids bigint[])
returns table (
  queue_id bigint, execution_id bigint, catalog_id bigint, event_id bigint, node_id text, node_name text, node_type text,
  attempts int, worker_id text, completed boolean, decided boolean, unread boolean, heard boolean, result jsonb, error jsonb
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with unread as materialized (
    -- the inbox is read once whatever the plan is: after an outage of the broker both are long
    select q.execution_id
    from noetl.queue q
    where q.queue_id = any(queue_ids)
    intersect
    select i.execution_id
    from noetl.inbox i
  ), jobs as materialized (
    select q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type, q.attempts, q.worker_id,
      q.status = 'done' as completed, x.rules ->> 'retry_owner' = 'worker' as decided,
      q.execution_id in (select u.execution_id from unread u)
        or exists (select from noetl.dead_letter l where l.execution_id = q.execution_id) as unread
    from noetl.queue q
    join noetl.execution x on x.execution_id = q.execution_id
    join noetl.execution_state s on s.execution_id = q.execution_id
    left join lateral noetl.parse_item(q.node_id) item on true
    where q.queue_id = any(queue_ids)
      and noetl.is_live(x.status)
      and (q.status = 'done'
        or q.status = 'failed' and x.rules ->> 'retry_owner' is distinct from 'worker'
        or q.status = 'dead' and x.rules ->> 'retry_owner' = 'worker')
      and exists (
        select
        from json_array_elements(
          case when json_typeof(s.tokens -> 'tokens') = 'array' then s.tokens -> 'tokens' end
        ) token
        where coalesce(item.visit_node_id, q.node_id)
            = noetl.node_id(s.execution_id, token ->> 'step', (token ->> 'visit')::int)
          and token -> 'answered' is null
      )
      and (item.index is null or exists (
        select
        from noetl.iteration i
        where i.execution_id = q.execution_id and i.node_id = item.visit_node_id and i.index = item.index
          and i.status = 'RUNNING'
      ))
  )
  select b.queue_id, b.execution_id, b.catalog_id, b.event_id, b.node_id, b.node_name, b.node_type, b.attempts, b.worker_id,
    b.completed, b.decided, b.unread, e.event_id is not null, e.result, coalesce(e.error, e.result -> 'error')
  from jobs b
  left join lateral (
    select f.event_id, noetl.as_json(f.result) as result, noetl.as_error(f.error) as error
    from noetl.event f
    left join noetl.turn t on t.execution_id = f.execution_id and t.event_id = f.event_id
    where f.execution_id = b.execution_id
      and f.node_id = b.node_id
      and not b.unread
      and case when b.completed then noetl.kind_of(f.event_type) = 'step_result'
        else noetl.kind_of(f.event_type) = 'action_failed' and t.outcome = 'recorded' end
    order by t.turn desc nulls last, f.created_at desc
    limit 1
  ) e on true
$$;

-- Writes the event of steps whose job the server ended and whose event is missing for grace_seconds. `done`: the action
-- completed, with the step_result if that came; otherwise the attempt failed. Where the worker owns retries, `dead` is
-- final, and an error that was reported before is its reason. Handles at most max_rows, and returns the number of
-- events.
create or replace function noetl.reap_ended_jobs(max_rows int, grace_seconds float8) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  at timestamptz := clock_timestamp();
  written int;
begin
  perform set_config('noetl.writer', '', true);
  if not exists (select from noetl.ended_job) then
    return 0; -- what follows is slow where the tables are not analyzed yet
  end if;
  update noetl.ended_job j
  set ended_at = at
  where j.ended_at > at; -- the clock has stepped back
  with due as materialized (
    select j.queue_id, j.status, j.ended_at < at - make_interval(secs => grace_seconds) as overdue
    from noetl.ended_job j
    where j.ended_at < at - make_interval(secs => grace_seconds) or j.status in ('dead', 'retry')
    order by j.ended_at
    limit max_rows
    for update skip locked
  ), jobs as materialized (
    select w.*, d.status as queue_status, d.overdue
    from noetl.waiting_ended_jobs(array(select d.queue_id from due d)) w
    join due d on d.queue_id = w.queue_id
  ), lost as materialized (
    select b.*
    from jobs b
    where not b.unread
      and (b.overdue or b.decided and not b.completed and b.heard)
  ), events as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, result, error, meta, worker_id
    )
    select l.execution_id, l.catalog_id, l.event_id,
      case when l.completed then 'action_completed' else 'action_failed' end, l.node_id, l.node_name, l.node_type,
      case when l.completed then 'COMPLETED' else 'FAILED' end,
      -- where an event has no error, the core reads it from the result
      case when l.completed or l.heard and coalesce(l.error #>> '{}', '') = '' then l.result end,
      case
        when l.completed then null
        when jsonb_typeof(l.error) = 'object' then l.error
        when l.error #>> '{}' <> '' then jsonb_build_object('message', l.error #>> '{}')
        when not l.heard then jsonb_build_object(
          'message', format('its job was set to %s, and no event says why', l.queue_status), 'type', 'missing_event'
        )
      end,
      jsonb_strip_nulls(jsonb_build_object(
        'queue_id', l.queue_id, 'attempt', l.attempts, 'queue_status', l.queue_status,
        'retryable', case when not l.completed then not l.decided end
      )),
      l.worker_id
    from lost l
    returning 1
  ), in_vain as (
    -- the server queued it again while the broker ended the execution or cancelled the item
    update noetl.queue q
    set status = 'cancelled', updated_at = at
    from due d
    where q.queue_id = d.queue_id
      and q.status = 'retry'
      and (
        exists (
          select
          from noetl.execution x
          where x.execution_id = q.execution_id and not noetl.is_live(x.status) and x.undo_status is distinct from 'undoing'
        )
        or q.stop
      )
  ), postponed as (
    update noetl.ended_job j
    set ended_at = at
    from jobs b
    where j.queue_id = b.queue_id and b.unread and b.overdue
  ), cleared as (
    delete from noetl.ended_job j
    using due d
    where j.queue_id = d.queue_id
      -- the end of the execution may not be committed yet
      and (d.overdue or d.status <> 'retry')
      and (
        not exists (select from jobs b where b.queue_id = d.queue_id)
        or exists (select from lost l where l.queue_id = d.queue_id)
      )
  )
  select count(*) into written from events;
  return written;
end
$$;

-- The server's own broker made no such triggers. They are made only on its tables, also where this file is applied by hand.
do $$
begin
  if to_regclass('noetl.resource') is null then
    return;
  end if;
  create or replace trigger noetl_receive_job
  before update of status on noetl.queue
  for each row
  when (new.status in ('leased', 'done', 'retry', 'dead') and coalesce(current_setting('noetl.writer', true), '') = '')
  execute function noetl.receive_job();
  create or replace trigger noetl_show_status
  before insert on noetl.event
  for each row execute function noetl.show_status();
  create or replace trigger noetl_know_kind
  before insert on noetl.catalog
  for each row
  when (new.kind = 'Playbook')
  execute function noetl.know_kind();
end
$$;

revoke all on function
  noetl.receive_job(), noetl.show_status(), noetl.know_kind(), noetl.server_job(noetl.queue),
  noetl.is_lease_lost(noetl.queue, timestamptz, float8),
  noetl.waiting_ended_jobs(bigint[]), noetl.reap_ended_jobs(int, float8)
  from public;
