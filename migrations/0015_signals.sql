-- Signals: facts that producers send, and the waits that take them.
--
-- A sender inserts a signal and a look, and matches nobody. A wait that begins, or that is open again, gets a look too. A
-- broker matches in a transaction that began after the commit of the look. So it sees the signal and the wait. Whichever of
-- both was committed last, its look finds the other. At most one signal is under way to a wait: the wait is `signalled` until
-- a turn says whether it took the signal.

-- Few rows, and they live until they are taken or too old. So they are in one table without partitions.
-- The limits are those of noetl.limit_of: a call in a check would be planned at each insert. A test compares them.
create table if not exists noetl.signal (
  signal_id bigint generated always as identity (cache 1) primary key,
  name text not null check (length(name) between 1 and 255),
  key text not null check (octet_length(key) <= 1024),
  payload jsonb,
  sent_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  idempotency_key text,
  execution_id bigint,
  hops int not null default 0
);
create unique index if not exists signal_idempotency on noetl.signal (name, key, idempotency_key)
  where idempotency_key is not null;
create index if not exists signal_key on noetl.signal (key, signal_id);
create index if not exists signal_expiry on noetl.signal (expires_at);
create index if not exists signal_of_execution on noetl.signal (signal_id) where execution_id is not null;
create index if not exists wait_for_signal on noetl.wait (key, execution_id, node_id)
  where kind = 'signal' and status = 'open';

comment on table noetl.signal is 'Signals that were sent. Send one with noetl.send_signal or noetl.signal_execution.';
comment on column noetl.signal.signal_id is 'The order in which waits take signals.';
comment on column noetl.signal.name is 'What happened.';
comment on column noetl.signal.key is 'What it is about, such as the number of an order. Of signal_execution: the execution id.';
comment on column noetl.signal.payload is 'The result of a wait that takes it.';
comment on column noetl.signal.sent_at is 'When it was sent.';
comment on column noetl.signal.expires_at is 'No wait takes it from then on. infinity: it is kept until its execution ends.';
comment on column noetl.signal.idempotency_key is 'One signal of this name and key, as long as it is kept.';
comment on column noetl.signal.execution_id is 'The execution that it was sent to; null: whoever waits for the key.';
comment on column noetl.signal.hops is 'How many executions sent signals that led to this one.';

create table if not exists noetl.look (
  look_id bigint generated always as identity primary key,
  signal_id bigint,
  execution_id bigint,
  node_id text,
  path text,
  last_execution_id bigint not null default 0,
  last_node_id text not null default '',
  created_at timestamptz not null default clock_timestamp(),
  check (num_nonnulls(signal_id, execution_id) = 1)
) with (
  -- rows live for milliseconds, as in noetl.inbox
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0
);

-- Most looks are at waits. The others are found without reading those.
create index if not exists look_starts on noetl.look (look_id) where path is not null;
create index if not exists look_waits on noetl.look (look_id) where path is null;

comment on column noetl.look.look_id is 'The order in which looks are worked on.';
comment on table noetl.look is 'What a broker still has to match: signals that were sent, and waits that are open.';
comment on column noetl.look.signal_id is 'The signal whose receivers are to be found.';
comment on column noetl.look.execution_id is 'The execution of the wait for which a signal is to be found.';
comment on column noetl.look.node_id is 'The node of that wait.';
comment on column noetl.look.path is 'A playbook that the signal may start; null: the receivers are waits.';
comment on column noetl.look.last_execution_id is 'Of a signal with many receivers: the last one that is done.';
comment on column noetl.look.last_node_id is 'The node of that receiver.';
comment on column noetl.look.created_at is 'When it was written.';

-- `metadata.on_signal` of the latest version of each playbook.
create table if not exists noetl.on_signal (
  path text not null,
  name text not null,
  condition text,
  since_at timestamptz not null default clock_timestamp(),
  primary key (path, name)
);
create index if not exists on_signal_name on noetl.on_signal (name);

comment on table noetl.on_signal is 'Playbooks that signals start, as metadata.on_signal of the latest version says.';
comment on column noetl.on_signal.path is 'The playbook.';
comment on column noetl.on_signal.name is 'The name of the signals.';
comment on column noetl.on_signal.condition is 'The `when`; null: each signal of the name.';
comment on column noetl.on_signal.since_at is 'Only signals that are sent later start executions.';

-- Wakes the brokers that sleep: lock 5 is their gate, as lock 1 is that of the mail.
create or replace function noetl.ring_looks() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('noetl.quiet', true) is distinct from 'on' and not pg_try_advisory_xact_lock_shared(1852794228, 5) then
    perform pg_notify('noetl_look', '');
  end if;
end
$$;

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

create or replace function noetl.check_signal(name text, key text, payload jsonb, idempotency_key text, keep interval)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if $1 is null or length($1) not between 1 and noetl.limit_of('name_chars') then
    raise exception using errcode = 'NB400',
      message = format('the name of the signal has %s characters; it must have 1 to %s',
        coalesce(length($1), 0), noetl.limit_of('name_chars')),
      hint = 'select noetl.send_signal(''payment'', ''order-42'', ''{"amount": 5}'')';
  end if;
  if $2 is null or octet_length($2) > noetl.limit_of('key_bytes') then
    raise exception using errcode = 'NB400',
      message = case when $2 is null then format('the signal %s has no key', $1)
        else format('the key of the signal %s has %s bytes; the limit is %s', $1, octet_length($2), noetl.limit_of('key_bytes')) end,
      hint = 'the key says what the signal is about, such as the number of an order';
  end if;
  if pg_column_size($3) > noetl.limit_of('small_bytes') and octet_length($3::text) > noetl.limit_of('result_bytes') then
    raise exception using errcode = 'NB400',
      message = format('the payload of the signal %s takes %s bytes; the limit is %s',
        $1, octet_length($3::text), noetl.limit_of('result_bytes')),
      hint = 'store large data elsewhere and pass its address';
  end if;
  if $3 @? '$.**{191}' or noetl.is_inflated($3) then
    raise exception using errcode = 'NB400',
      message = format('the payload of the signal %s nests deeper than 190 levels, or has numbers that are too long', $1),
      hint = 'pass such data as text';
  end if;
  if $5 is not null and ($5 <= '0' or $5 > '3660 days') then
    raise exception using errcode = 'NB400', message = format('the signal %s would be kept for %s', $1, $5),
      hint = 'give a span of up to 3660 days: keep => interval ''7 days''';
  end if;
  perform noetl.check_key($4);
end
$$;

-- Inserts a signal that was checked, with its look. Returns the id of the earlier one for a repeated idempotency key.
create or replace function noetl.insert_signal(
  name text, key text, payload jsonb, idempotency_key text, expires_at timestamptz, execution_id bigint
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  id bigint;
  earlier record;
begin
  loop
    insert into noetl.signal (name, key, payload, idempotency_key, expires_at, execution_id)
    values ($1, $2, $3, $4, $5, $6)
    on conflict (name, key, idempotency_key) where idempotency_key is not null do nothing
    returning signal_id into id;
    exit when id is not null;
    -- a signal that is too old stays until a sweep, and its key conflicts until then
    delete from noetl.signal s
    where s.name = $1 and s.key = $2 and s.idempotency_key = $4 and s.expires_at <= clock_timestamp();
    continue when found;
    select s.signal_id, s.payload into earlier
    from noetl.signal s
    where s.name = $1 and s.key = $2 and s.idempotency_key = $4;
    continue when not found;
    if earlier.payload is distinct from $3 then
      raise exception using errcode = 'NB409',
        message = format('the idempotency key %s of the signal %s is used: signal %s has another payload',
          left($4, 100), $1, earlier.signal_id),
        hint = 'send the same payload, or choose another key';
    end if;
    return earlier.signal_id;
  end loop;
  insert into noetl.look (signal_id) values (id);
  perform noetl.ring_looks();
  return id;
end
$$;

create or replace function noetl.send_signal(
  name text, key text, payload jsonb default null, idempotency_key text default null, keep interval default '7 days'
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform noetl.check_signal($1, $2, $3, $4, $5);
  return noetl.insert_signal($1, $2, $3, $4, clock_timestamp() + coalesce($5, '7 days'), null);
end
$$;

comment on function noetl.send_signal(text, text, jsonb, text, interval) is
  'Sends a signal to whoever waits for its name and key, now or until `keep` is over. Returns its id.';

create or replace function noetl.signal_execution(
  execution_id bigint, name text, payload jsonb default null, idempotency_key text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  status text;
begin
  perform noetl.check_signal($2, $1::text, $3, $4, null);
  select x.status into status
  from noetl.execution x
  where x.execution_id = $1;
  if not found then
    raise exception using errcode = 'NB404', message = format('no execution %s', coalesce($1::text, 'null')),
      hint = 'noetl-broker executions lists them';
  end if;
  if not noetl.is_live(status) then
    return null;
  end if;
  return noetl.insert_signal($2, $1::text, $3, $4, 'infinity', $1);
end
$$;

comment on function noetl.signal_execution(bigint, text, jsonb, text) is
  'Sends a signal to one execution, which is kept until that ends. Returns its id; null for an execution that has ended.';

-- The open waits for these looks, at most max_waits and one more, in the order of the looks.
create or replace function noetl.receivers(looks bigint[], max_waits int)
returns table (look_id bigint, execution_id bigint, node_id text)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select l.look_id, w.execution_id, w.node_id
  from (
    select k.look_id, k.signal_id, k.execution_id, k.node_id, k.last_execution_id, k.last_node_id, s.name, s.key, s.sent_at
    from noetl.look k
    left join noetl.signal s on s.signal_id = k.signal_id
    where k.look_id = any(looks)
    order by k.look_id
  ) l
  cross join lateral (
    (
      select t.execution_id, t.node_id
      from noetl.wait t
      where l.signal_id is not null
        and t.kind = 'signal' and t.status = 'open' and t.key = l.key
        and l.name = any(t.names) and t.since_at <= l.sent_at
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
  order by l.look_id, w.execution_id, w.node_id
  limit max_waits + 1
$$;

-- Sends each of these waits the lowest signal that fits and that its execution did not get yet. A wait gets a new look if
-- another transaction holds it. It also gets one if its signal went to another wait of its execution. Returns the number of
-- signals that are on their way, and of new looks.
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
    select w.execution_id, w.node_id, w.step, w.began_at, s.signal_id, s.name, s.key, s.payload, s.sent_at
    from held h
    join noetl.wait w on w.execution_id = h.execution_id and w.node_id = h.node_id
    cross join lateral (
      select s.signal_id, s.name, s.key, s.payload, s.sent_at
      from noetl.signal s
      where s.key = w.key and s.name = any(w.names) and s.sent_at >= w.since_at and s.expires_at > clock_timestamp()
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
      f.sent_at, noetl.next_id() as event_id
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
  ), looks as (
    insert into noetl.look (execution_id, node_id)
    select c.execution_id, c.node_id
    from unnest(executions, nodes) c (execution_id, node_id)
    except
    select execution_id, node_id
    from held
    union all
    select f.execution_id, f.node_id
    from found f
    where (f.execution_id, f.node_id) not in (select c.execution_id, c.node_id from chosen c) -- hashed: linear
    returning look_id
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
    from chosen c
    join noetl.execution x on x.execution_id = c.execution_id
    cross join lateral (
      select case when x.forked_from is null then x.started_at else noetl.original_start(x.execution_id) end as started_at
    ) s
    returning event_id
  )
  select (select count(*) from events), (select count(*) from looks)
  into delivered, again;
end
$$;

-- Matches signals and waits in one bounded transaction, one broker at a time. `again`: waits that are to be looked at
-- once more, because another transaction held them. `late`: the seconds since the oldest look was written.
create or replace function noetl.match_signals(
  max_waits int, out delivered int, out again int, out looked int, out late float8
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  looks bigint[];
  of_looks bigint[];
  executions bigint[];
  nodes text[];
  last bigint;
begin
  perform set_config('noetl.writer', '', true);
  perform pg_advisory_xact_lock(1852794228, 6);
  select array_agg(l.look_id order by l.look_id), coalesce(date_part('epoch', clock_timestamp() - min(l.created_at)), 0)
  into looks, late
  from (
    select k.look_id, k.created_at
    from noetl.look k
    where k.path is null
    order by k.look_id
    limit max_waits
  ) l;
  delivered := 0;
  again := 0;
  looked := coalesce(cardinality(looks), 0);
  if looked = 0 then
    return;
  end if;
  select array_agg(r.look_id), array_agg(r.execution_id), array_agg(r.node_id)
  into of_looks, executions, nodes
  from noetl.receivers(looks, max_waits) r;
  if cardinality(of_looks) > max_waits then
    -- the next transactions take the rest of the last look, and all looks after it
    last := of_looks[max_waits + 1];
    of_looks := of_looks[:max_waits];
    executions := executions[:max_waits];
    nodes := nodes[:max_waits];
    looks := array(select u.look_id from unnest(looks) u (look_id) where u.look_id < last);
    update noetl.look k
    set last_execution_id = executions[max_waits], last_node_id = nodes[max_waits]
    where k.look_id = last and of_looks[max_waits] = last;
  end if;
  if of_looks is not null then
    select t.delivered, t.again
    into delivered, again
    from (
      select array_agg(d.execution_id) as executions, array_agg(d.node_id) as nodes
      from (select distinct u.execution_id, u.node_id from unnest(executions, nodes) u (execution_id, node_id)) d
    ) d
    cross join lateral noetl.deliver_signals(d.executions, d.nodes) t;
  end if;
  with done as (
    delete from noetl.look k
    where k.look_id = any(looks)
    returning k.look_id, k.signal_id
  )
  insert into noetl.look (signal_id, path)
  select s.signal_id, o.path
  from done d
  join noetl.signal s on s.signal_id = d.signal_id
  join noetl.on_signal o on o.name = s.name and o.since_at < s.sent_at
  order by d.look_id, o.path;
end
$$;

comment on function noetl.match_signals(int) is
  'For the broker: brings signals to the waits that they fit, up to max_waits in one call.';

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
  ), begun as (
    insert into noetl.execution (execution_id, catalog_id, path, version, idempotency_key)
    select id, p.catalog_id, $1, p.version, $2::text
    from playbook p
    cross join sent
    on conflict (path, idempotency_key) where idempotency_key is not null do nothing
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

-- Gives a fork the signals that its source kept (of the turns `kept`), as events. Also those that were sent to the source
-- and did not arrive until turn `last_turn`. Signals that arrived until then do not come to the fork again.
create or replace function noetl.copy_signals(source_id bigint, fork_id bigint, last_turn int, kept jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  with copied as materialized (
    select t.turn, noetl.next_id() as event_id, t.event_id as source_event_id
    from noetl.turn t
    where t.execution_id = source_id and t.turn in (select k.turn::int from jsonb_array_elements_text(kept) k (turn))
  ), taken as (
    insert into noetl.signal_taken (execution_id, signal_id, event_id)
    select fork_id, k.signal_id, coalesce(c.event_id, k.event_id)
    from noetl.signal_taken k
    join noetl.turn t on t.execution_id = k.execution_id and t.event_id = k.event_id and t.turn <= last_turn
    left join copied c on c.turn = t.turn
    where k.execution_id = source_id
    returning signal_id
  ), sent as (
    insert into noetl.signal (name, key, payload, sent_at, expires_at, idempotency_key, execution_id, hops)
    select s.name, fork_id::text, s.payload, s.sent_at, 'infinity', s.idempotency_key, fork_id, s.hops
    from noetl.signal s
    where s.execution_id = source_id and s.signal_id not in (select n.signal_id from taken n)
    order by s.signal_id
    returning signal_id
  )
  insert into noetl.event (
    execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context
  )
  select fork_id, c.event_id, x.catalog_id, 'execution_signal', fork_id::text, e.node_name, 'wait', 'RUNNING',
    case when noetl.as_json(e.context) ->> 'key' = source_id::text
      then noetl.as_json(e.context) || jsonb_build_object('key', fork_id::text) else noetl.as_json(e.context) end
  from copied c
  join noetl.event e on e.execution_id = source_id and e.event_id = c.source_event_id
  join noetl.execution x on x.execution_id = fork_id
  order by c.turn;
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
    using part p, noetl.execution x
    where s.signal_id = p.signal_id and x.execution_id = p.execution_id
      and not noetl.is_live(x.status) and x.ended_at < clock_timestamp() - interval '7 days' -- a retry may want them
    returning s.signal_id
  )
  select swept + (select count(*) from gone),
    case when (select count(*) from part) < max_rows then 0 else (select max(p.signal_id) + 1 from part p) end
  into swept, next_id;
end
$$;

comment on function noetl.sweep_signals(int, bigint) is 'For the broker: deletes signals that nobody can take any more.';

comment on function noetl.ring_looks() is 'For functions that write looks: wakes sleeping brokers.';
comment on function noetl.original_start(bigint) is 'When the execution was started; of a fork, when its original was.';
comment on function noetl.check_signal(text, text, jsonb, text, interval) is 'Refuses a signal that cannot be sent.';
comment on function noetl.insert_signal(text, text, jsonb, text, timestamptz, bigint) is 'Inserts a signal that was checked.';
comment on function noetl.receivers(bigint[], int) is 'For the broker: the open waits for these looks.';
comment on function noetl.deliver_signals(bigint[], text[]) is 'For the broker: brings each of these waits its next signal.';
comment on function noetl.start_by_signal(text, bigint) is 'For the broker: starts an execution of a playbook for a signal, once.';
comment on function noetl.copy_signals(bigint, bigint, int, jsonb) is 'Gives a fork the signals of its source.';
revoke all on function
  noetl.ring_looks(), noetl.original_start(bigint), noetl.check_signal(text, text, jsonb, text, interval),
  noetl.insert_signal(text, text, jsonb, text, timestamptz, bigint), noetl.send_signal(text, text, jsonb, text, interval),
  noetl.signal_execution(bigint, text, jsonb, text), noetl.receivers(bigint[], int), noetl.deliver_signals(bigint[], text[]),
  noetl.match_signals(int), noetl.start_by_signal(text, bigint), noetl.sweep_signals(int, bigint),
  noetl.copy_signals(bigint, bigint, int, jsonb)
  from public;
