-- How a broker brings signals to waits, and starts executions by signals.

-- The start of the execution whose waits count `since` from: of a fork, that of the original.
create or replace function noetl.original_start(execution_id bigint) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive origins as (
    select x.forked_from, x.started_at, 1 as forks
    from noetl.execution x
    where x.execution_id = $1
    union all
    select x.forked_from, x.started_at, o.forks + 1
    from origins o
    join noetl.execution x on x.execution_id = o.forked_from
    where o.forks < 1000
  )
  select o.started_at
  from origins o
  order by o.forks desc
  limit 1
$$;

-- The latest time at which a signal may have been sent, by the clock of this server; `since` counts by it. A copy in a bucket
-- may have been sent by the clock of another server: bucket.sql replaces this. A plan contains its text instead of a call.
create or replace function noetl.latest_sent_at(signal_id bigint, sent_at timestamptz) returns timestamptz
language sql stable parallel safe
as $$
  select $2
$$;

-- The open waits for these requests, at most max_waits and one more, in the order of the requests.
create or replace function noetl.receivers(requests bigint[], max_waits int)
returns table (request_id bigint, execution_id bigint, node_id text)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select l.request_id, w.execution_id, w.node_id
  from (
    select k.request_id, k.signal_id, k.execution_id, k.node_id, k.last_execution_id, k.last_node_id, s.name, s.key, s.sent_at
    from noetl.match_request k
    left join noetl.signal s on s.signal_id = k.signal_id
    where k.request_id = any(requests)
    order by k.request_id
  ) l
  cross join lateral (
    (
      select t.execution_id, t.node_id
      from noetl.wait t
      where l.signal_id is not null
        and t.kind = 'signal' and t.status = 'open' and t.key = l.key
        and l.name = any(t.names) and t.since_at <= noetl.latest_sent_at(l.signal_id, l.sent_at)
        and (t.execution_id, t.node_id) > (l.last_execution_id, l.last_node_id)
      order by t.execution_id, t.node_id
      limit max_waits + 1
    )
    union all
    select t.execution_id, t.node_id
    from noetl.wait t
    where t.execution_id = l.execution_id and t.node_id = l.node_id and t.kind = 'signal'
      and t.status || '' = 'open' -- without this, a plan may read the whole index of open waits for one row
  ) w
  order by l.request_id, w.execution_id, w.node_id
  limit max_waits + 1
$$;

-- Sends each of these waits the lowest signal that fits and that its execution did not get yet. A wait gets a new request if
-- another transaction holds it. It also gets one if its signal went to another wait of its execution. Returns the number of
-- signals that are on their way, and of new requests.
create or replace function noetl.deliver_signals(executions bigint[], nodes text[], out delivered int, out again int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  own_executions bigint[];
  own_nodes text[];
begin
  -- In a statement of its own: the next one sees what the last holders of these rows committed.
  select array_agg(h.execution_id), array_agg(h.node_id)
  into own_executions, own_nodes
  from (
    select w.execution_id, w.node_id
    from unnest(executions, nodes) c (execution_id, node_id)
    join noetl.wait w on w.execution_id = c.execution_id and w.node_id = c.node_id
    where w.kind = 'signal' and w.status || '' = 'open' -- as in noetl.receivers
    for update of w skip locked
  ) h;
  with held as (
    select u.execution_id, u.node_id
    from unnest(own_executions, own_nodes) u (execution_id, node_id)
  ), found as materialized (
    select w.execution_id, w.node_id, w.step, w.began_at, s.signal_id, s.name, s.key, s.payload, s.sent_at, s.sent_by
    from held h
    join noetl.wait w on w.execution_id = h.execution_id and w.node_id = h.node_id
    cross join lateral (
      select s.signal_id, s.name, s.key, s.payload, s.sent_at, s.sent_by
      from noetl.signal s
      where s.key = w.key and s.name = any(w.names) and noetl.latest_sent_at(s.signal_id, s.sent_at) >= w.since_at
        and s.expires_at > clock_timestamp()
        and not exists (
          select
          from noetl.signal_taken t
          where t.execution_id = w.execution_id and t.signal_id = s.signal_id
        )
      order by s.signal_id
      limit 1
    ) s
  ), chosen as materialized (
    -- one signal comes to an execution once
    select distinct on (f.execution_id, f.signal_id) f.execution_id, f.node_id, f.step, f.signal_id, f.name, f.key, f.payload,
      f.sent_at, f.sent_by, noetl.next_id() as event_id
    from found f
    order by f.execution_id, f.signal_id, f.began_at, f.node_id
  ), marked as (
    update noetl.wait w
    set status = 'signalled'
    from chosen c
    where w.execution_id = c.execution_id and w.node_id = c.node_id
  ), taken as (
    insert into noetl.signal_taken (execution_id, signal_id, event_id)
    select execution_id, signal_id, event_id
    from chosen
  ), requests as (
    insert into noetl.match_request (execution_id, node_id)
    select c.execution_id, c.node_id
    from unnest(executions, nodes) c (execution_id, node_id)
    except
    select execution_id, node_id
    from held
    union all
    select f.execution_id, f.node_id
    from found f
    where (f.execution_id, f.node_id) not in (select c.execution_id, c.node_id from chosen c) -- hashed: linear
    returning request_id
  ), events as (
    insert into noetl.event (
      execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context
    )
    select c.execution_id, c.event_id, x.catalog_id, 'execution_signal', c.node_id, c.step, 'wait', 'RUNNING',
      jsonb_build_object(
        'name', c.name, 'key', c.key, 'payload', c.payload, 'signal_id', c.signal_id,
        'at', to_char(c.sent_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
      ) || case when c.sent_at < s.started_at
        then jsonb_build_object('before_start', date_part('epoch', s.started_at - c.sent_at)) else '{}' end
        || case when c.sent_by is null then '{}' else jsonb_build_object('by', c.sent_by) end
    from chosen c
    join noetl.execution x on x.execution_id = c.execution_id
    cross join lateral (
      select case when x.forked_from is null then x.started_at else noetl.original_start(x.execution_id) end as started_at
    ) s
    returning event_id
  )
  select (select count(*) from events), (select count(*) from requests)
  into delivered, again;
end
$$;

-- Matches signals and waits in one bounded transaction, one broker at a time. `again`: waits that are to be matched
-- once more, because another transaction held them. `late`: the seconds since the oldest request was written.
-- `has_copies`: signals of this bucket are to be copied to others.
create or replace function noetl.match_signals(
  max_waits int, out delivered int, out again int, out worked_on int, out late float8, out has_copies boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  requests bigint[];
  of_requests bigint[];
  executions bigint[];
  nodes text[];
  last bigint;
begin
  perform set_config('noetl.writer', '', true);
  perform pg_advisory_xact_lock(hashtext('noetl.lock'), 6);
  select array_agg(l.request_id order by l.request_id), coalesce(date_part('epoch', clock_timestamp() - min(l.created_at)), 0)
  into requests, late
  from (
    select k.request_id, k.created_at
    from noetl.match_request k
    where k.path is null
    order by k.request_id
    limit max_waits
  ) l;
  delivered := 0;
  again := 0;
  has_copies := false;
  if noetl.bucket_number() is not null then
    has_copies := exists (select from noetl.signal_copy);
  end if;
  worked_on := coalesce(cardinality(requests), 0);
  if worked_on = 0 then
    return;
  end if;
  select array_agg(r.request_id), array_agg(r.execution_id), array_agg(r.node_id)
  into of_requests, executions, nodes
  from noetl.receivers(requests, max_waits) r;
  if cardinality(of_requests) > max_waits then
    -- the next transactions take the rest of the last request, and all requests after it
    last := of_requests[max_waits + 1];
    of_requests := of_requests[:max_waits];
    executions := executions[:max_waits];
    nodes := nodes[:max_waits];
    requests := array(select u.request_id from unnest(requests) u (request_id) where u.request_id < last);
    update noetl.match_request k
    set last_execution_id = executions[max_waits], last_node_id = nodes[max_waits]
    where k.request_id = last and of_requests[max_waits] = last;
  end if;
  if of_requests is not null then
    select t.delivered, t.again
    into delivered, again
    from (
      select array_agg(d.execution_id) as executions, array_agg(d.node_id) as nodes
      from (select distinct u.execution_id, u.node_id from unnest(executions, nodes) u (execution_id, node_id)) d
    ) d
    cross join lateral noetl.deliver_signals(d.executions, d.nodes) t;
  end if;
  with done as (
    delete from noetl.match_request k
    where k.request_id = any(requests)
    returning k.request_id, k.signal_id
  )
  insert into noetl.match_request (signal_id, path)
  select s.signal_id, o.path
  from done d
  join noetl.signal s on s.signal_id = d.signal_id
  join noetl.on_signal o on o.name = s.name and o.since_at < noetl.latest_sent_at(s.signal_id, s.sent_at)
  order by d.request_id, o.path;
end
$$;

-- Starts an execution of the latest version of a playbook for a signal, once. Returns whether it is new.
create or replace function noetl.start_by_signal(path text, signal_id bigint) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  id bigint := noetl.next_id();
begin
  perform set_config('noetl.writer', '', true);
  with playbook as (
    select c.catalog_id, c.version, coalesce(c.name, noetl.name_of_path(c.path)) as name
    from noetl.catalog c
    where c.path = $1
    order by c.version desc
    limit 1
  ), sent as (
    select s.hops, jsonb_build_object(
      'name', s.name, 'key', s.key, 'payload', s.payload, 'at', to_char(s.sent_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    ) as signal
    from noetl.signal s
    where s.signal_id = $2
  ), taken as (
    insert into noetl.start_key (idempotency_key, path, execution_id)
    select $2::text, $1, id
    from playbook p
    cross join sent
    on conflict (idempotency_key, path) do nothing
    returning execution_id
  ), begun as (
    insert into noetl.execution (execution_id, catalog_id, path, version, idempotency_key)
    select k.execution_id, p.catalog_id, $1, p.version, $2::text
    from taken k
    cross join playbook p
    returning execution_id
  )
  insert into noetl.event (
    execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context, meta
  )
  select id, p.catalog_id, 'execution_start', id::text, p.name, 'playbook', 'STARTED',
    jsonb_build_object('path', $1, 'version', p.version, 'workload', jsonb_build_object('signal', s.signal)),
    jsonb_build_object('signal_id', $2) || case when s.hops > 0 then jsonb_build_object('hops', s.hops) else '{}' end
  from begun
  cross join playbook p
  cross join sent s;
  return found;
end
$$;

-- Deletes signals that nobody can take any more: old ones, and those of executions that ended. Of the latter it looks at
-- max_rows, from a signal id on. Returns the number of deleted signals, and where the next call goes on (0: at the
-- beginning).
create or replace function noetl.sweep_signals(max_rows int, from_id bigint, out swept int, out next_id bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from noetl.signal s
  where s.signal_id = any(array(
    select o.signal_id
    from noetl.signal o
    where o.expires_at <= clock_timestamp()
    order by o.expires_at
    limit max_rows
    for update skip locked
  ));
  get diagnostics swept = row_count;
  with part as materialized (
    select s.signal_id, s.execution_id
    from noetl.signal s
    where s.execution_id is not null and s.signal_id >= from_id
    order by s.signal_id
    limit max_rows
  ), gone as (
    delete from noetl.signal s
    using part p
    left join noetl.execution x on x.execution_id = p.execution_id
    where s.signal_id = p.signal_id
      and (
        x.execution_id is null -- dropped
        or not noetl.is_live(x.status) and x.ended_at < clock_timestamp() - interval '7 days' -- a retry may want them
      )
    returning s.signal_id
  )
  select swept + (select count(*) from gone),
    case when (select count(*) from part) < max_rows then 0 else (select max(p.signal_id) + 1 from part p) end
  into swept, next_id;
end
$$;

revoke all on function
  noetl.original_start(bigint), noetl.latest_sent_at(bigint, timestamptz), noetl.receivers(bigint[], int), noetl.deliver_signals(bigint[], text[]),
  noetl.match_signals(int), noetl.start_by_signal(text, bigint), noetl.sweep_signals(int, bigint)
  from public;
