-- What the broker calls: take mail under locks, and see to what time alone brings about.

-- Mail that is left for another claim. Of the executions that carry more than 16 KiB 4 MiB come together, the first whatever it
-- carries; of what one of them carries beside failures 4 MiB, the first whatever its size, and nothing that comes after that.
-- A function, because a claim that has less (all but a few) would otherwise prepare for it all the same, which costs one of a
-- single mail a tenth.
create or replace function noetl.too_large_together(
  executions bigint[], mails bigint[], bytes bigint[], results bigint[], newest boolean
) returns bigint[]
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as materialized (
    select u.execution_id, u.mail_id, u.bytes, r.so_far > 4194304 and r.so_far > u.result_bytes as is_left
    from unnest(executions, mails, bytes, results) u (execution_id, mail_id, bytes, result_bytes)
    join (
      select w.mail_id, sum(w.result_bytes) over (partition by w.execution_id order by w.mail_id) as so_far
      from unnest(executions, mails, results) w (execution_id, mail_id, result_bytes)
    ) r on r.mail_id = u.mail_id
  ), executions_left as (
    select o.execution_id
    from (
      select g.execution_id, g.bytes,
        sum(g.bytes) over (order by case when newest then - g.first_mail else g.first_mail end) as together
      from (
        select k.execution_id, sum(k.bytes) as bytes, min(k.mail_id) as first_mail
        from given k
        where not k.is_left
        group by k.execution_id
        having sum(k.bytes) > 16384
      ) g
    ) o
    where o.together > 4194304 and o.together > o.bytes
  )
  select array_agg(k.mail_id)
  from given k
  where k.is_left or k.execution_id in (select x.execution_id from executions_left x)
$$;

-- Claim by row, then by lock, then look: three statements of one volatile function, so that under READ COMMITTED each
-- has a snapshot of its own and the last one sees what the previous holder of the lock committed. Mail whose execution
-- another broker holds comes back with `locked` false: it stays, and a miss is not an empty inbox. So does mail that was
-- claimed before the start of its execution, which somebody else is claiming or nobody has yet: a cancel must not be lost.
-- So does mail that writes or reads the row of another execution, a child's or a parent's, which another broker holds: a row is
-- written by whoever has the lock of its execution, so nobody waits for one while others wait for his.
-- And so does what would make the batch too large for the broker's memory: payloads, states and results beside
-- failures of 4 MiB together, whole executions at a time, the first of them whatever its size. The many that have little to
-- carry wait for none of them.
create or replace function noetl.take_mail(max_mail int, newest boolean, from_mail_id bigint)
returns table (
  mail_id bigint, execution_id bigint, event_id bigint, locked boolean, at timestamptz, waited float8,
  event_type text, node_id text, node_name text,
  context jsonb, result jsonb, result_left boolean, error jsonb, meta jsonb, broken boolean, bytes_over int, oversize text,
  job_attempts int,
  catalog_id bigint, path text, version int, name text, rules json, turn int, tokens json,
  parent_execution_id bigint, parent_event_id bigint, parent_node_id text, parent_index int, workload jsonb
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  mails bigint[];
  executions bigint[];
  events bigint[];
  locks boolean[];
  adopting boolean[];
  sizes text[];
  behind bigint[];
  fresh bigint[];
  starting bigint[];
  start_events bigint[];
  start_sizes text[];
  parents bigint[];
  held_up bigint[];
  early bigint[];
  starts text[] := array['execution_start', 'execution_started', 'playbook_started'];
begin
  -- Events written from here to the commit are the broker's own: the trigger on the event table lets them pass.
  perform set_config('noetl.writer', 'broker', true);

  if newest then
    select array_agg(m.mail_id), array_agg(m.execution_id), array_agg(m.event_id), array_agg(m.adopts), array_agg(m.oversize)
    into mails, executions, events, adopting, sizes
    from (
      select i.mail_id, i.execution_id, i.event_id, i.adopts, i.oversize
      from noetl.inbox i
      where i.mail_id >= from_mail_id
      order by i.mail_id desc
      limit max_mail
      for update skip locked
    ) m;
  else
    select array_agg(m.mail_id), array_agg(m.execution_id), array_agg(m.event_id), array_agg(m.adopts), array_agg(m.oversize)
    into mails, executions, events, adopting, sizes
    from (
      select i.mail_id, i.execution_id, i.event_id, i.adopts, i.oversize
      from noetl.inbox i
      where i.mail_id >= from_mail_id
      order by i.mail_id
      limit max_mail
      for update skip locked
    ) m;
  end if;
  if mails is null then
    return;
  end if;

  -- All mail of an execution or none: its holder may let go between two of the tries.
  select array_agg(l.is_held order by l.place)
  into locks
  from (
    select u.place, bool_and(pg_try_advisory_xact_lock(u.execution_id)) over (partition by u.execution_id) as is_held
    from unnest(executions) with ordinality u (execution_id, place)
  ) l;

  -- The word of a worker about a child that it started: the child is given its parent.
  if true = any(adopting) then
    select array_agg(u.is_held and coalesce(pg_try_advisory_xact_lock(c.child_id), true) order by u.place)
    into locks
    from unnest(executions, events, locks, adopting) with ordinality u (execution_id, event_id, is_held, adopts, place)
    left join lateral (
      select (noetl.as_json(e.context) ->> 'child_execution_id')::bigint as child_id
      from noetl.event e
      where u.is_held and u.adopts and e.execution_id = u.execution_id and e.event_id = u.event_id
        and noetl.as_json(e.context) ->> 'child_execution_id' ~ '^[0-9]{1,18}$'
    ) c on true;
  end if;

  -- Of these executions somebody else is claiming such a word, or holds its child: the last word of the worker, which came
  -- after that, waits for it; so does one that a claim of the newest mail came upon before that.
  select array_agg(i.execution_id)
  into behind
  from noetl.inbox i
  where i.adopts
    and i.execution_id = any(executions)
    and i.mail_id <> all(array(select u.mail_id from unnest(mails, locks) u (mail_id, is_held) where u.is_held));

  select array_agg(u.execution_id)
  into fresh
  from unnest(executions, locks) u (execution_id, is_held)
  where u.is_held
    and not exists (select from noetl.execution x where x.execution_id = u.execution_id and x.rules is not null);
  if fresh is not null then
    -- An execution_start that somebody inserted by hand has no execution row yet, or one by which a parent waits for it.
    select array_agg(h.execution_id), array_agg(h.event_id), array_agg(h.parent_execution_id), array_agg(h.oversize)
    into starting, start_events, parents, start_sizes
    from (
      select v.execution_id, v.event_id, m.oversize,
        coalesce(x.parent_execution_id, v.parent_execution_id, case
          when m.oversize is null and noetl.as_json(v.meta) ->> 'parent_execution_id' ~ '^[0-9]{1,18}$'
            then (noetl.as_json(v.meta) ->> 'parent_execution_id')::bigint
        end) as parent_execution_id
      from unnest(executions, events, sizes) m (execution_id, event_id, oversize)
      join noetl.event v on v.execution_id = m.execution_id and v.event_id = m.event_id
      left join noetl.execution x on x.execution_id = v.execution_id
      where lower(left(v.event_type, 40)) = any(starts)
        and v.execution_id = any(fresh)
        and x.path is null
    ) h;
  end if;
  if starting is not null then
    -- Whoever ends the parent, or gives up the child, has the parent's lock; many may start its children at once.
    select array_agg(u.execution_id)
    into held_up
    from unnest(starting, parents) u (execution_id, parent_execution_id)
    where not pg_try_advisory_xact_lock_shared(u.parent_execution_id);

    -- It is cancelled where that parent, or somebody else, has ended it or given it up before there was anything to cancel.
    with begun as (
      insert into noetl.execution as x (execution_id, catalog_id, path, version, started_at, parent_execution_id)
      select distinct on (e.execution_id)
        e.execution_id, c.catalog_id, coalesce(c.path, e.path), coalesce(c.version, e.version), e.created_at,
        e.parent_execution_id
      from (
        select b.execution_id, b.event_id, v.catalog_id, b.parent_execution_id,
          least(greatest(v.created_at::timestamptz, '1900-01-01Z'), '9000-01-01Z') as created_at,
          case when length(v.context ->> 'path') <= 1024 then v.context ->> 'path' end as path,
          case when v.context ->> 'version' ~ '^[0-9]{1,9}$' then (v.context ->> 'version')::int end as version
        from unnest(starting, start_events, parents, start_sizes) b (execution_id, event_id, parent_execution_id, oversize)
        join lateral (
          select w.catalog_id, w.created_at, case when b.oversize is null then noetl.as_json(w.context) end as context
          from noetl.event w
          where w.execution_id = b.execution_id and w.event_id = b.event_id
        ) v on true
        where (b.execution_id = any(held_up)) is not true
      ) e
      left join lateral (
        select k.catalog_id, k.path, k.version
        from noetl.catalog k
        where k.catalog_id = e.catalog_id
          or (e.catalog_id is null and k.path = e.path and (e.version is null or k.version = e.version))
        order by k.version desc
        limit 1
      ) c on true
      order by e.execution_id, e.event_id
      on conflict (execution_id) do update
      set catalog_id = excluded.catalog_id, path = excluded.path, version = excluded.version,
          started_at = excluded.started_at, status = 'RUNNING',
          parent_execution_id = excluded.parent_execution_id
      where x.path is null and x.status <> 'FAILED' -- one that failed for want of a path stays as it ended
      returning execution_id, catalog_id, path, ended_at, parent_execution_id, error
    ), cancels as (
      insert into noetl.event (
        execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context
      )
      select b.execution_id, noetl.next_id(), b.catalog_id, 'execution_cancel', b.execution_id::text,
        regexp_replace(b.path, '^.*/', ''), 'playbook', 'CANCELLED',
        jsonb_build_object('reason', coalesce(b.error ->> 'message', 'its parent ended or gave it up'))
      from begun b
      where b.ended_at is not null
        or exists (
          select
          from noetl.execution p
          where p.execution_id = b.parent_execution_id and p.status in ('FAILED', 'CANCELLED')
        )
      returning execution_id, event_id
    )
    insert into noetl.inbox (execution_id, event_id)
    select c.execution_id, c.event_id
    from cancels c;
  end if;
  if fresh is not null then
    -- Those that have taken no turn, and whose start is on its way, or claimed by somebody else.
    select array_agg(b.execution_id)
    into early
    from (
      select distinct f.execution_id
      from unnest(fresh) f (execution_id)
      where not exists (select from noetl.execution_state s where s.execution_id = f.execution_id)
      offset 0 -- before any event is looked at: one that never starts may have many
    ) n
    join noetl.event b on b.execution_id = n.execution_id
    where lower(left(b.event_type, 40)) = any(starts)
      and b.event_id <> all(events)
      and not exists (
        select
        from noetl.dead_letter d
        where d.execution_id = b.execution_id and d.event_id = b.event_id
      )
      -- beside a NoETL server: what ran before this broker took over has a start that was never mail
      and (
        exists (select from noetl.execution x where x.execution_id = b.execution_id)
        or exists (select from noetl.inbox i where i.execution_id = b.execution_id and i.event_id = b.event_id)
      );
  end if;

  return query
  with found as materialized (
    -- no type of ours, no step's name and no node of one is as long
    select u.mail_id, u.execution_id, u.event_id, left(e.event_type, 100) as event_type,
      left(e.node_id, 1024) as node_id, left(e.node_name, 1024) as node_name, e.context,
      -- a NoETL server's column has no bounds, and infinity is nothing to reckon with
      case when e.created_at is not null
        then least(greatest(e.created_at::timestamptz, '1900-01-01Z'), '9000-01-01Z') end as created_at,
      e.result, e.error, e.meta, s.turn, s.last_at, s.tokens, u.is_held,
      lower(left(e.event_type, 40)) in ('action_failed', 'action_error') as fails,
      u.oversize,
      case
        when not u.is_held then 0
        when u.oversize is not null then noetl.weight(s.tokens)
        when lower(left(e.event_type, 40)) in ('action_failed', 'action_error') then noetl.weight(s.tokens) + noetl.weight(e.result)
        when lower(left(e.event_type, 40)) like 'action%' then noetl.weight(s.tokens)
        else noetl.weight(s.tokens) + noetl.weight(e.context)
      end as bytes
    from unnest(mails, executions, events, locks, sizes) u (mail_id, execution_id, event_id, is_held, oversize)
    left join noetl.event e on e.execution_id = u.execution_id and e.event_id = u.event_id
    left join noetl.execution_state s on s.execution_id = u.execution_id
  ), large as (
    select case
      when sum(f.bytes::float8) > 4194304 then noetl.too_large_together(
        array(select f.execution_id from found f), array(select f.mail_id from found f),
        array(select f.bytes from found f),
        array(select case when f.fails and f.is_held then noetl.weight(f.result) else 0 end from found f), newest
      )
    end as mails
    from found f
  )
  select m.mail_id, m.execution_id, m.event_id,
    m.comes
      and (m.execution_id = any(held_up)) is not true
      and (
        m.execution_id = any(behind) and lower(m.event_type) in ('action_completed', 'action_failed', 'action_error')
      ) is not true
      and (m.execution_id = any(early) and (lower(m.event_type) = any(starts)) is not true) is not true,
    -- later than the event, and than all that the execution has written, whatever the clocks say
    greatest(clock_timestamp(), m.created_at + interval '1 microsecond', m.last_at + interval '1 microsecond'),
    -- what comes after the end is dated before it beside a NoETL server
    coalesce(case when x.ended_at is null then date_part('epoch', clock_timestamp() - m.created_at) end, 0),
    m.event_type::text, m.node_id::text, m.node_name::text,
    case when m.comes and m.oversize is null and lower(m.event_type) not like 'action%' then noetl.as_json(m.context) end,
    -- a large result stays in the table until a template names it; beside a failure it is read as the event is
    case
      when pg_column_size(m.result) <= 8192 or m.comes and m.fails and octet_length(m.result::text) <= 2097152
        then noetl.as_json(m.result)
    end,
    coalesce(pg_column_size(m.result) > 8192 and not m.fails, false),
    case
      when m.oversize is null or m.error is null then noetl.as_error(m.error)
      else jsonb_build_object('message', format('the error was not read: the event is too large (%s bytes)', m.oversize))
    end,
    case when m.oversize is null then noetl.as_json(m.meta) end,
    noetl.is_broken(m.result) or m.oversize is null and noetl.is_broken(m.context),
    -- noetl.complete_job refuses it; this one was inserted by hand
    case
      when m.comes and pg_column_size(m.result) > 8192 and (m.fails or lower(m.event_type) = 'action_completed')
        and octet_length(m.result::text) > 2097152 then octet_length(m.result::text)
    end,
    case when m.comes then m.oversize end,
    case when m.fails then (
      select q.attempts
      from noetl.queue q
      where q.execution_id = m.execution_id and q.node_id = m.node_id
    ) end,
    x.catalog_id, x.path, x.version, coalesce(c.name, regexp_replace(x.path, '^.*/', '')), x.rules,
    m.turn, case when m.comes then m.tokens end,
    x.parent_execution_id, x.parent_event_id, x.parent_node_id, x.parent_index,
    -- nearly every playbook reads a small workload at every turn; a large one is loaded where a template names it
    case when pg_column_size(x.workload) <= 2048 then x.workload end
  from (
    select f.*, f.is_held and (f.mail_id = any((select l.mails from large l)::bigint[])) is not true as comes
    from found f
  ) m
  left join noetl.execution x on x.execution_id = m.execution_id
  left join noetl.catalog c on c.catalog_id = x.catalog_id;
end
$$;

-- Jobs that were withdrawn while another transaction held them, as that of a worker that leased them and had not committed: of
-- an execution that ended, or of an item that was given up. Nobody waits for whoever holds them; the reaper looks again.
create table if not exists noetl.withdrawn_job (
  execution_id bigint not null,
  node_id text not null,
  primary key (execution_id, node_id)
);

comment on table noetl.withdrawn_job is
  'Jobs that somebody held when the broker withdrew them: cancelled once they are free, if they are still in the queue then.';

-- Beside a NoETL server: whether a lease that it gave, and that ran out at this moment, is lost. Its workers lease for 60 s, send
-- no heartbeat for a job, and work on for as long as they need. It is lost after the grace, or with the worker's pool.
-- A pool is lost once that server has called it offline for half a minute. The server does so when the pool's heartbeat has been
-- missing for a minute, and right after its own start. Where no server has registered, the heartbeat itself decides. A worker may
-- name its pool in what it reports; if it does not, all pools must be lost.
create or replace function noetl.is_lease_lost(
  execution_id bigint, node_id text, ran_out_at timestamptz, at timestamptz, grace_seconds float8
) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  lost_pools text[];
  living_pools bigint;
  own_pool text;
begin
  if not exists (select from noetl.execution x where x.execution_id = $1) then
    return false; -- of an execution from before this broker
  end if;
  if $3 < $4 - make_interval(secs => $5) then
    return true;
  end if;
  if to_regclass('noetl.runtime') is null then
    return false;
  end if;
  select array_agg(p.name) filter (where p.is_lost), count(*) filter (where not p.is_lost)
  into lost_pools, living_pools
  from (
    select r.name,
      r.status = 'offline' and r.updated_at < $4 - interval '30 s'
        or r.heartbeat < $4 - interval '1 minute'
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
  where e.execution_id = $1 and e.node_id = $2 and lower(e.event_type) = 'action_started'
  order by e.created_at desc
  limit 1;
  return coalesce(own_pool = any(lost_pools), living_pools = 0);
end
$$;

-- The latest moment that a reaper has seen on the server's clock. Where the clock steps back (it was wrong, or another server
-- took over), what was due is due again only hours later, and nothing else would say so. The first look writes the row: a
-- restore of the data brings its own.
create table if not exists noetl.clock (
  is_only boolean primary key default true check (is_only),
  seen_at timestamptz not null default clock_timestamp(),
  stepped_at timestamptz,
  behind_seconds double precision,
  ahead_until timestamptz,
  steps int not null default 0,
  is_pulling boolean not null default false
);
comment on table noetl.clock is 'One row: the latest time that a broker saw on the clock of the server, and its last step back.';

-- Whether the server's clock has stepped back by more than a second, and what was written before that with times that lie
-- ahead of it. Those are pulled back by as much: jobs that wait for a worker or for their delay, leases, timeouts, deadlines.
-- A lease is given its whole length again, since its worker works. All is done with the step itself but for the jobs in the
-- queue. A million may be ready, so each call sees to max_rows of them, and the last call to those with a delay. A row says by
-- its own times that it was written before the step. (Its updated_at stays: what happens to it later must be later in the log.)
-- `look_at_jobs`: look as well for jobs that were written while no reaper was there to see the time.
-- Returns by how many seconds it stepped back, if it did just now, and how many rows were pulled back; another reaper may be
-- at it.
create or replace function noetl.mind_clock(max_rows int, look_at_jobs boolean default false)
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
  if not found then -- another reaper has it, or nobody has looked yet
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
  if look_at_jobs or latest > at + interval '1 second' then
    select greatest(latest, max(w.written_at))
    into latest
    from (
      select greatest(q.created_at, q.updated_at) as written_at from noetl.queue q where q.status in ('queued', 'retry')
      union all
      select greatest(q.updated_at, q.last_heartbeat) from noetl.queue q where q.status = 'leased'
      union all
      select q.updated_at from noetl.queue q where q.status = 'delegated'
    ) w
    where w.written_at > greatest(at, noted.ahead_until) + interval '1 second';
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
    perform set_config('noetl.writer', 'broker', true); -- beside a NoETL server its trigger minds who writes a job

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
    where q.status = 'leased' and q.last_heartbeat is null and q.lease_until > latest; -- beside a NoETL server
    get diagnostics moved = row_count;
    pulled := pulled + moved;
    update noetl.queue q
    set first_leased_at = q.first_leased_at - behind
    where q.status in ('leased', 'delegated', 'queued') and q.timeout_seconds is not null and q.first_leased_at > at;
    update noetl.execution_state s
    set deadline_at = s.deadline_at - behind
    where s.deadline_at > at and s.last_at > at;
    get diagnostics moved = row_count;
    pulled := pulled + moved;
    update noetl.ended_job j
    set ended_at = at
    where j.ended_at > at;
  end if;

  perform set_config('noetl.writer', 'broker', true);
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
    -- At the end: what is left of its delay must not be taken for a job that is ready.
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

-- What time brings about: leases that ran out, actions and executions that took too long. At most max_rows of each.
-- Leases that ran out before `since` are left for another call: while somebody holds an old snapshot, the index still names
-- all that have ended since, and to walk over them with each look would take ever longer.
-- `alone`: of one job or execution and no other, for whoever was refused all of it because somebody has put a trigger or a
-- constraint on our tables that will not have one row. `foreign_grace_seconds`: after which a lease that a NoETL server gave
-- is lost, see above.
create or replace function noetl.reap(
  max_rows int, max_lost_leases int, since timestamptz default '-infinity', alone bigint default null,
  foreign_grace_seconds float8 default 900
) returns table (requeued int, lost int, timed_out int, overdue int, woken int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  at timestamptz := clock_timestamp();
  expired bigint[] := '{}';
  busy bigint[] := '{}';
  found bigint[];
  missed bigint[];
begin
  perform set_config('noetl.writer', '', true);
  with late as (
    update noetl.queue q
    set status = 'failed', lease_until = null, updated_at = at
    where q.queue_id = any(array(
      select r.queue_id
      from noetl.queue r
      where r.status in ('leased', 'delegated', 'queued') -- again, its lease was lost
        and r.timeout_seconds is not null
        and r.first_leased_at is not null
        and r.first_leased_at + make_interval(secs => r.timeout_seconds) < at
        and (alone is null or r.queue_id = alone)
      limit max_rows
      for update skip locked
    ))
    returning q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type,
      q.attempts, q.timeout_seconds, q.worker_id
  ), told as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, error, meta, worker_id
    )
    select l.execution_id, l.catalog_id, l.event_id, 'action_failed', l.node_id, l.node_name, l.node_type, 'FAILED',
      jsonb_build_object('message', format('timeout: the action ran longer than %s s', l.timeout_seconds), 'type', 'timeout'),
      jsonb_build_object('queue_id', l.queue_id, 'attempt', l.attempts, 'retryable', true), l.worker_id
    from late l
    returning 1
  )
  select count(*) into timed_out from told;

  -- Under the lock of its execution, and looked at after that: nobody ends or gives up meanwhile what is queued again here.
  -- The leases of one that is being decided on wait for another look, and keep none of the others from theirs.
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
          and (alone is null or r.queue_id = alone)
          and (
            r.foreign_attempt is distinct from r.attempts
              and ( -- neither our functions gave it nor do we know the execution: it is of a NoETL server's own broker
                r.lease_seconds is not null
                or exists (select from noetl.execution x where x.execution_id = r.execution_id)
              )
            or noetl.is_lease_lost(r.execution_id, r.node_id, r.lease_until, at, foreign_grace_seconds)
          )
        order by r.lease_until
        limit max_rows - cardinality(expired)
        for update skip locked
      ) c
    ) d;
    expired := expired || found;
    exit when missed is null;
    busy := busy || missed;
  end loop;

  with ended as (
    update noetl.queue q
    set status = case
          when exists (
            select
            from noetl.execution x
            where x.execution_id = q.execution_id and x.status <> 'RUNNING'
          ) then 'cancelled' -- nobody waits for it any more
          when exists (
            select
            from noetl.iteration i
            where q.node_id ~ '#[0-9]+[.][0-9]{1,9}$'
              and i.execution_id = q.execution_id
              and i.node_id = regexp_replace(q.node_id, '(#1)?[.][0-9]+$', '')
              and i.place = substring(q.node_id from '[.]([0-9]{1,9})$')::int
              and i.status = 'CANCELLED'
          ) then 'cancelled' -- nor for this item
          when q.lost_leases < max_lost_leases then 'queued'
          else 'failed'
        end,
        -- queued again, it is ready from now on: workers need not look for jobs that are older than what they saw
        available_at = at,
        lost_leases = q.lost_leases + 1, lease_until = null, updated_at = at
    where q.queue_id = any(expired)
    returning q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type,
      q.attempts, q.status, q.lost_leases, q.worker_id
  ), told as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, error, meta, worker_id
    )
    select l.execution_id, l.catalog_id, l.event_id, 'action_failed', l.node_id, l.node_name, l.node_type, 'FAILED',
      jsonb_build_object('message', format('lost its lease %s times: the workers died or did not answer', l.lost_leases),
        'type', 'lost_lease'),
      jsonb_build_object('queue_id', l.queue_id, 'attempt', l.attempts, 'retryable', false), l.worker_id
    from ended l
    where l.status = 'failed'
    returning 1
  )
  select (select count(*) from ended l where l.status = 'queued'), (select count(*) from told)
  into requeued, lost;

  with past as (
    update noetl.execution_state s
    set deadline_at = null
    where s.execution_id = any(array(
      select d.execution_id
      from noetl.execution_state d
      where d.deadline_at < at
        and (alone is null or d.execution_id = alone)
      limit max_rows
      for update skip locked
    ))
    returning s.execution_id
  ), told as (
    insert into noetl.event (execution_id, catalog_id, event_type, node_id, node_name, node_type, status)
    select x.execution_id, x.catalog_id, 'execution_deadline', x.execution_id::text,
      coalesce(c.name, regexp_replace(x.path, '^.*/', '')), 'playbook', 'FAILED'
    from past p
    join noetl.execution x on x.execution_id = p.execution_id
    left join noetl.catalog c on c.catalog_id = x.catalog_id
    where x.status = 'RUNNING'
    returning 1
  )
  select count(*) into overdue from told;

  -- The pause after a failed child is over: the broker hears of it as of any event.
  with due as (
    update noetl.queue q
    set available_at = 'infinity', first_leased_at = at, updated_at = at
    where q.queue_id = any(array(
      select r.queue_id
      from noetl.queue r
      where r.status = 'delegated' and r.available_at <= at
        and (alone is null or r.queue_id = alone)
      order by r.available_at
      limit max_rows
      for update skip locked
    ))
    returning q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type, q.attempts
  ), told as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, meta
    )
    select d.execution_id, d.catalog_id, d.event_id, 'child_due', d.node_id, d.node_name, d.node_type, 'PENDING',
      jsonb_build_object('attempt', d.attempts + 1)
    from due d
    returning 1
  )
  select count(*) into woken from told;

  -- Whoever leased a job while it was withdrawn has it, and works in vain; one that was let go is nobody's.
  if exists (select from noetl.withdrawn_job) then
    with free as materialized (
      select q.execution_id, q.node_id
      from noetl.withdrawn_job w
      join noetl.queue q on q.execution_id = w.execution_id and q.node_id = w.node_id
      where alone is null or q.queue_id = alone
      limit max_rows
      for update of q skip locked
    ), cancelled as (
      update noetl.queue q
      set status = 'cancelled', updated_at = at
      from free f
      where q.execution_id = f.execution_id and q.node_id = f.node_id
        and q.status in ('queued', 'retry', 'failed', 'delegated')
    )
    delete from noetl.withdrawn_job w
    where exists (select from free f where f.execution_id = w.execution_id and f.node_id = w.node_id)
      or not exists (select from noetl.queue q where q.execution_id = w.execution_id and q.node_id = w.node_id);
  end if;

  -- a notification that finds the queue full would fail the commit
  if requeued > 0 and pg_notification_queue_usage() < 0.9 then
    perform pg_notify('noetl_job', '');
  end if;
  return next;
end
$$;

-- Beside a NoETL server: steps whose job that server has ended and whose event has not come for grace_seconds. The row
-- decides in its place: `done`, the action completed, with the `step_result` if that came through; else the attempt
-- failed. Where the worker decides about retries, `dead` is the decision, and the error that was told before is its
-- reason. At most max_rows; returns how many steps were decided so. `alone`: as for reap.
create or replace function noetl.reap_ended_jobs(
  max_rows int, grace_seconds float8, alone bigint default null
) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  at timestamptz := clock_timestamp();
  told int;
begin
  perform set_config('noetl.writer', '', true);
  if not exists (select from noetl.ended_job) then
    return 0; -- as ever without such a server, and what follows is dear where the tables are not analyzed yet
  end if;
  with due as materialized (
    select j.queue_id, j.status, j.ended_at < at - make_interval(secs => grace_seconds) as overdue
    from noetl.ended_job j
    where (j.ended_at < at - make_interval(secs => grace_seconds) or j.status in ('dead', 'retry'))
      and (alone is null or j.queue_id = alone)
    order by j.ended_at
    limit max_rows
    for update skip locked
  ), unread as materialized (
    -- The mail is read once, and no plan can make it more often: after a broker was away there is much of both.
    select q.execution_id
    from due d
    join noetl.queue q on q.queue_id = d.queue_id
    intersect
    select i.execution_id
    from noetl.inbox i
  ), jobs as materialized (
    select d.queue_id, d.status as queue_status, d.overdue, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name,
      q.node_type, q.attempts, q.worker_id, q.status = 'done' as completed, x.rules ->> 'retry_owner' = 'worker' as decided,
      q.execution_id in (select u.execution_id from unread u)
        or exists (select from noetl.dead_letter l where l.execution_id = q.execution_id) as unread
    from due d
    join noetl.queue q on q.queue_id = d.queue_id
    join noetl.execution x on x.execution_id = q.execution_id
    join noetl.execution_state s on s.execution_id = q.execution_id
    cross join lateral (
      -- of an item `<execution>:<step>#<visit>.<place>`, the visit that it belongs to
      select case when q.node_id ~ '#[0-9]+[.][0-9]+$'
        then regexp_replace(regexp_replace(q.node_id, '[.][0-9]+$', ''), '#1$', '') else q.node_id end as node_id,
        substring(q.node_id from '#[0-9]+[.]([0-9]+)$')::int as place
    ) visit
    where x.status = 'RUNNING'
      and (q.status = 'done'
        or q.status = 'failed' and x.rules ->> 'retry_owner' is distinct from 'worker'
        or q.status = 'dead' and x.rules ->> 'retry_owner' = 'worker')
      and exists (
        select
        from json_array_elements(
          case when json_typeof(s.tokens -> 'tokens') = 'array' then s.tokens -> 'tokens' end
        ) token
        where visit.node_id = s.execution_id || ':' || (token ->> 'step')
            || case when token ->> 'visit' = '1' then '' else '#' || (token ->> 'visit') end
          and token -> 'answered' is null
      )
      and (visit.place is null or exists (
        select
        from noetl.iteration i
        where i.execution_id = q.execution_id and i.node_id = visit.node_id and i.place = visit.place
          and i.status = 'RUNNING'
      ))
  ), heard as materialized (
    select b.queue_id, b.queue_status, b.overdue, b.execution_id, b.catalog_id, b.event_id, b.node_id, b.node_name,
      b.node_type, b.attempts, b.worker_id, b.completed, b.decided, e.event_type, noetl.as_json(e.result) as result,
      noetl.as_error(e.error) as error
    from jobs b
    left join lateral (
      select f.event_type, f.result, f.error
      from noetl.event f
      left join noetl.turn t on t.execution_id = f.execution_id and t.event_id = f.event_id
      where f.execution_id = b.execution_id
        and f.node_id = b.node_id
        and case when b.completed then lower(f.event_type) = 'step_result'
          else lower(f.event_type) in ('action_failed', 'action_error') and t.outcome = 'recorded' end
      order by t.turn desc nulls last, f.created_at desc
      limit 1
    ) e on true
    where not b.unread
  ), lost as materialized (
    select h.queue_id, h.queue_status, h.execution_id, h.catalog_id, h.event_id, h.node_id, h.node_name, h.node_type,
      h.attempts, h.worker_id, h.completed, h.decided, h.result, coalesce(h.error, h.result -> 'error') as error,
      h.event_type is not null as heard
    from heard h
    where h.overdue
      or h.decided and not h.completed and h.event_type is not null
  ), told_of as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, result, error, meta, worker_id
    )
    select l.execution_id, l.catalog_id, l.event_id,
      case when l.completed then 'action_completed' else 'action_failed' end, l.node_id, l.node_name, l.node_type,
      case when l.completed then 'COMPLETED' else 'FAILED' end,
      -- an error that is not told beside its result is read from that by the core
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
    -- that server had it tried again at the moment when the broker ended its execution, or gave its item up
    update noetl.queue q
    set status = 'cancelled', updated_at = at
    from due d
    where q.queue_id = d.queue_id
      and q.status = 'retry'
      and (
        exists (
          select
          from noetl.execution x
          where x.execution_id = q.execution_id and x.status <> 'RUNNING'
        )
        or exists (
          select
          from noetl.iteration i
          where q.node_id ~ '#[0-9]+[.][0-9]{1,9}$'
            and i.execution_id = q.execution_id
            and i.node_id = regexp_replace(q.node_id, '(#1)?[.][0-9]+$', '')
            and i.place = substring(q.node_id from '[.]([0-9]{1,9})$')::int
            and i.status = 'CANCELLED'
        )
      )
  ), waiting as (
    -- what the broker has not read may be the event
    update noetl.ended_job j
    set ended_at = at
    from jobs b
    where j.queue_id = b.queue_id and b.unread and b.overdue
  ), cleared as (
    delete from noetl.ended_job j
    using due d
    where j.queue_id = d.queue_id
      -- who ends the execution at this moment may not have committed it yet
      and (d.overdue or d.status <> 'retry')
      and (
        not exists (select from jobs b where b.queue_id = d.queue_id)
        or exists (select from lost l where l.queue_id = d.queue_id)
      )
  )
  select count(*) into told from told_of;
  return told;
end
$$;

revoke all on function noetl.too_large_together(bigint[], bigint[], bigint[], bigint[], boolean) from public;
revoke all on function noetl.take_mail(int, boolean, bigint) from public;
revoke all on function noetl.mind_clock(int, boolean) from public;
revoke all on function noetl.is_lease_lost(bigint, text, timestamptz, timestamptz, float8) from public;
revoke all on function noetl.reap(int, int, timestamptz, bigint, float8) from public;
revoke all on function noetl.reap_ended_jobs(int, float8, bigint) from public;
