-- How jobs with a throttle get their slots.

-- Locks a key of a throttle for the transaction, if nobody else has it. The first number is the key space of these locks;
-- the second one is made of the name and the key.
create or replace function noetl.try_lock_throttle(name text, key text) returns boolean
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select pg_try_advisory_xact_lock(hashtext('noetl.throttle_lock'), hashtext($1 || chr(31) || $2))
$$;

-- Leaves a request for a key, and wakes a broker for it.
create or replace function noetl.request_release(name text, key text, due_at timestamptz, begun_at timestamptz default null)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into noetl.release_request (name, key, due_at, begun_at)
  values ($1, $2, coalesce($3, clock_timestamp()), $4);
  if current_setting('noetl.quiet', true) is distinct from 'on' and pg_notification_queue_usage() < 0.9 then
    perform pg_notify('noetl_throttle', '');
  end if;
end
$$;

-- Takes jobs that began out of the bucket of a key. The caller has the lock of the key.
create or replace function noetl.empty_bucket(lim noetl.limit, key text, begun timestamptz[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  filled_at timestamptz;
  one timestamptz;
begin
  select b.full_at into filled_at from noetl.throttle_bucket b where b.name = lim.name and b.key = $2;
  foreach one in array begun loop
    filled_at := greatest(filled_at, one) + make_interval(secs => 1 / lim.rate);
  end loop;
  insert into noetl.throttle_bucket (name, key, full_at)
  values (lim.name, $2, filled_at)
  on conflict (name, key) do update
  set full_at = excluded.full_at;
end
$$;

-- Notifies workers of jobs that become available at these moments: how many seconds from now, empty for now.
create or replace function noetl.notify_workers_at(moments timestamptz[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- a notification that finds the queue full would fail the commit
  if $1 is null or current_setting('noetl.quiet', true) = 'on' or pg_notification_queue_usage() >= 0.9 then
    return;
  end if;
  perform pg_notify('noetl_job', case when r.seconds > 0 then r.seconds::text else '' end)
  from (
    select distinct ceil(extract(epoch from m.at - clock_timestamp()) * 1000) / 1000 as seconds
    from unnest($1) m (at)
    order by seconds
    limit 100
  ) r;
end
$$;

-- Gives slots to the next held jobs of a key: highest priority first, then the oldest. Returns how many, or -1 if another
-- transaction has the key; then nothing is done. With a rate, the bucket must have room for the next job and for all jobs
-- that are ready. The next job becomes available when the bucket has this room. `is_lease`: other jobs of the same lease
-- may not be in the bucket yet, as many as `burst`.
create or replace function noetl.release_jobs(name text, key text, is_lease boolean default false, most int default 1000)
returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off -- jobs are found by their keys, however many there are
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  at timestamptz;
  lim noetl.limit;
  begun timestamptz[];
  full_at timestamptz;
  leased int;
  ready int;
  burst int;
  room int := most;
  released int;
  moments timestamptz[];
begin
  -- an older snapshot would not see the slots that others took
  if current_setting('transaction_isolation') <> 'read committed' or not noetl.try_lock_throttle($1, $2) then
    return -1;
  end if;
  at := clock_timestamp();
  select l.* into lim from noetl.limit l where l.name = $1;
  with done as (
    delete from noetl.release_request k
    where k.request_id = any(array(
      select r.request_id
      from noetl.release_request r
      where r.name = $1 and r.key = $2 and (r.due_at <= at or r.begun_at is not null)
      for update skip locked
    ))
    returning k.begun_at
  )
  select array_agg(d.begun_at order by d.begun_at) filter (where d.begun_at is not null)
  into begun
  from done d;
  if begun is not null and lim.rate is not null then
    perform noetl.empty_bucket(lim, $2, begun);
  end if;
  if lim.name is not null then
    select count(*) filter (where q.status = 'leased'), count(*) filter (where q.status <> 'leased')
    into leased, ready
    from noetl.queue q
    where q.limit_name = $1 and q.limit_key = $2 and q.status in ('queued', 'retry', 'leased');
    room := least(room, lim.concurrency - leased - ready);
    if lim.rate is not null then
      burst := noetl.burst_of(lim);
      room := least(room, burst - ready);
      select b.full_at into full_at from noetl.throttle_bucket b where b.name = $1 and b.key = $2;
    end if;
  end if;
  if room <= 0 then
    return 0;
  end if;
  with next as materialized (
    select r.execution_id, r.node_id, row_number() over (order by r.priority desc, r.available_at, r.queue_id) as ordinal
    from (
      select q.execution_id, q.node_id, q.priority, q.available_at, q.queue_id
      from noetl.queue q
      where q.limit_name = $1 and q.limit_key = $2 and q.status = 'held' and q.held_for = array['limit']
        and q.available_at <= at
      order by q.priority desc, q.available_at, q.queue_id
      limit room
      for update skip locked
    ) r
  ), placed as (
    -- a job is available from now on: a worker may start its scans after the jobs that it has seen
    update noetl.queue q
    set status = case when q.attempts > 0 and q.first_leased_at is null then 'retry' else 'queued' end,
        held_for = null,
        available_at = greatest(
          at, full_at - make_interval(secs => (case when is_lease then 1 else burst - ready end - n.ordinal) / lim.rate)
        ),
        updated_at = greatest(at, q.updated_at + interval '1 microsecond')
    from next n
    where q.execution_id = n.execution_id and q.node_id = n.node_id
    returning q.available_at
  ), start_timeouts as (
    -- they count while a worker may lease the job
    update noetl.timer t
    set due_at = at + (t.due_at - t.created_at), created_at = at
    from next n
    where t.execution_id = n.execution_id and t.node_id = n.node_id and t.purpose = 'start_timeout'
  )
  select count(*), array_agg(p.available_at)
  into released, moments
  from placed p;
  if released = most then
    perform noetl.request_release($1, $2, at); -- there may be more
  end if;
  perform noetl.notify_workers_at(moments);
  return released;
end
$$;

-- Gives slots, or leaves a request for later.
create or replace function noetl.release_jobs_or_request(name text, key text, is_lease boolean default false) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if noetl.release_jobs($1, $2, $3) = -1 then
    perform noetl.request_release($1, $2, null);
  end if;
end
$$;

-- A job with a throttle changed. A job that became ready without release_jobs, such as a retry, is held and asks for a slot. A
-- change that frees a slot gives it to the next job. Its condition is false for jobs without a throttle.
create or replace function noetl.throttled_job_changed() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  is_ready boolean := new.status in ('queued', 'retry');
  had_slot boolean := old.status in ('queued', 'retry', 'leased');
begin
  if (old.status, old.held_for) is not distinct from (new.status, new.held_for) then
    return null;
  end if;
  if is_ready and old.status not in ('queued', 'retry') and old.held_for is distinct from array['limit'] then
    update noetl.queue q
    set status = 'held', held_for = array['limit']
    where q.execution_id = new.execution_id and q.node_id = new.node_id;
    perform noetl.release_jobs_or_request(new.limit_name, new.limit_key);
  elsif new.status = 'held' and new.held_for = array['limit'] and new.available_at > clock_timestamp() then
    perform noetl.request_release(new.limit_name, new.limit_key, new.available_at);
  elsif new.status = 'leased' then
    if exists (select from noetl.limit l where l.name = new.limit_name and l.rate is not null) then
      insert into noetl.release_request (name, key, begun_at)
      values (new.limit_name, new.limit_key, new.last_heartbeat);
      perform noetl.release_jobs_or_request(new.limit_name, new.limit_key, is_lease => true);
    end if;
  elsif had_slot and not is_ready or new.status = 'held' and new.held_for = array['limit'] then
    perform noetl.release_jobs_or_request(new.limit_name, new.limit_key);
  end if;
  return null;
end
$$;

create or replace trigger noetl_watch_throttled
  after update on noetl.queue
  for each row
  -- short, because each update of a job pays for planning it
  when (old.limit_name is not null)
  execute function noetl.throttled_job_changed();

-- Holds new jobs of this transaction, and gives slots to those that have one. A throttle that nobody made yet gets the numbers
-- of the playbook. Of many keys the later ones are worked on after the commit.
create or replace function noetl.throttle_jobs(
  executions bigint[], nodes text[], names text[], keys text[], concurrencies int[], rates float8[], bursts int[]
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set timezone = 'UTC'
as $$
declare
  most_keys constant int := 100;
  one record;
begin
  insert into noetl.limit (name, concurrency, rate, burst)
  select distinct on (n.name) n.name, n.concurrency, n.rate, n.burst
  from unnest(names, concurrencies, rates, bursts) n (name, concurrency, rate, burst)
  where not exists (select from noetl.limit l where l.name = n.name)
  order by n.name
  on conflict do nothing;
  update noetl.queue q
  set limit_name = n.name, limit_key = n.key, status = 'held', held_for = array['limit']
  from unnest(executions, nodes, names, keys) n (execution_id, node_id, name, key)
  where q.execution_id = n.execution_id and q.node_id = n.node_id and q.status = 'queued';
  for one in
    select n.name, n.key, row_number() over (order by n.name, n.key) as ordinal
    from unnest(names, keys) n (name, key)
    group by n.name, n.key
  loop
    if one.ordinal <= most_keys then
      perform noetl.release_jobs_or_request(one.name, one.key);
    else
      perform noetl.request_release(one.name, one.key, null);
    end if;
  end loop;
end
$$;

-- Works on requests that are due. Returns how many slots it gave, how many keys it worked on, and when the next request is due.
-- A key that another transaction has is worked on again.
create or replace function noetl.release_requested(max_rows int, out released int, out worked_on int, out next_at timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set timezone = 'UTC'
as $$
declare
  one record;
  slots int;
begin
  released := 0;
  worked_on := 0;
  with spread as (
    delete from noetl.release_request k
    where k.request_id = any(array(
      select r.request_id
      from noetl.release_request r
      where r.key is null and r.due_at <= clock_timestamp()
      limit max_rows
      for update skip locked
    ))
    returning k.name
  )
  insert into noetl.release_request (name, key)
  select distinct s.name, held.key
  from spread s
  cross join lateral (
    select q.limit_key
    from noetl.queue q
    where q.limit_name = s.name and q.status = 'held' and q.held_for = array['limit']
    offset 0 -- no scan of the queue where no throttle has changed
  ) held (key);
  for one in
    select k.name, k.key
    from (
      select r.name, r.key
      from noetl.release_request r
      where r.key is not null and r.due_at <= clock_timestamp()
      order by r.due_at
      limit max_rows
    ) k
    group by k.name, k.key
    order by k.name, k.key
  loop
    slots := noetl.release_jobs(one.name, one.key);
    if slots >= 0 then
      released := released + slots;
      worked_on := worked_on + 1;
    end if;
  end loop;
  select min(k.due_at)
  into next_at
  from noetl.release_request k;
end
$$;

-- Looks at the next keys that have held jobs, also at keys without a request. Drops buckets that are full. Returns how many
-- slots it gave: each is a slot that nobody gave before. `last_name` is null after the last key.
create or replace function noetl.sweep_throttles(
  max_keys int, after_name text, after_key text, out released int, out last_name text, out last_key text
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set timezone = 'UTC'
as $$
declare
  one record;
begin
  released := 0;
  last_name := coalesce(after_name, '');
  last_key := coalesce(after_key, '');
  for step in 1..max_keys loop
    select q.limit_name, q.limit_key
    into one
    from noetl.queue q
    where (q.limit_name, q.limit_key) > (last_name, last_key)
      and q.limit_name is not null and q.status = 'held' and q.held_for = array['limit']
    order by q.limit_name, q.limit_key
    limit 1;
    if not found then
      last_name := null;
      exit;
    end if;
    last_name := one.limit_name;
    last_key := one.limit_key;
    released := released + greatest(noetl.release_jobs(last_name, last_key), 0);
  end loop;
  delete from noetl.throttle_bucket b
  where (b.name, b.key) in (
    select f.name, f.key
    from noetl.throttle_bucket f
    where f.full_at < clock_timestamp() - interval '1 minute'
    limit max_keys
    for update skip locked
  );
end
$$;

revoke all on function
  noetl.try_lock_throttle(text, text), noetl.request_release(text, text, timestamptz, timestamptz),
  noetl.empty_bucket(noetl.limit, text, timestamptz[]), noetl.notify_workers_at(timestamptz[]),
  noetl.release_jobs(text, text, boolean, int), noetl.release_jobs_or_request(text, text, boolean),
  noetl.throttled_job_changed(), noetl.throttle_jobs(bigint[], text[], text[], text[], int[], float8[], int[]),
  noetl.release_requested(int), noetl.sweep_throttles(int, text, text)
  from public;
