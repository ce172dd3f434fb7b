-- Places: at most so many executions of one path and key run at once, the others wait in a line.
--
-- Whoever takes or frees places first locks their rows, and looks in the next statement. Nobody waits for such a lock: a
-- broker that does not get it postpones the mail. A row exists only while somebody holds its place or waits for it.
-- `lock_places` is a lock for rows that do not exist yet. Whoever frees a place gives it to the next one in the same
-- transaction. So no place is free while somebody could take it.

create sequence if not exists noetl.place_seq;

create table if not exists noetl.place (
  path text not null,
  key text not null,
  max_held int not null default 1 check (max_held > 0),
  version int not null default 0,
  held int not null default 0 check (held >= 0),
  is_waited_for boolean not null default false,
  is_passed boolean not null default false,
  primary key (path, key)
);

-- for the sweep: places that somebody may take
create index if not exists place_open on noetl.place (path, key) where is_waited_for and held < max_held;

comment on table noetl.place is 'Places that executions hold or wait for. A row exists only while there is one.';
comment on column noetl.place.path is 'The playbook; empty: the key is the name of a schedule.';
comment on column noetl.place.key is 'What metadata.concurrency.key gave.';
comment on column noetl.place.max_held is 'How many may hold it: the limit of the newest version of which an execution was started.';
comment on column noetl.place.version is 'That version.';
comment on column noetl.place.held is 'How many executions hold it.';
comment on column noetl.place.is_waited_for is 'Whether an execution waits for it.';
comment on column noetl.place.is_passed is 'Whether an execution that waits was passed over, because it or its playbook is paused.';

create table if not exists noetl.place_claim (
  execution_id bigint not null,
  path text not null,
  key text not null,
  number bigint not null,
  label text not null default '',
  is_pair boolean not null default false,
  is_child boolean not null default false,
  created_at timestamptz not null default clock_timestamp(),
  held_at timestamptz,
  cancelled_at timestamptz,
  primary key (execution_id, path, key)
);

create index if not exists place_claim_held on noetl.place_claim (path, key, number) where held_at is not null;
create index if not exists place_claim_waiting on noetl.place_claim (path, key, number) where held_at is null;
create index if not exists place_claim_pairs on noetl.place_claim (path, key) where held_at is null and is_pair;
create index if not exists place_claim_children on noetl.place_claim (created_at) where held_at is null and is_child;

comment on table noetl.place_claim is 'Which executions hold places or wait for them, until they end.';
comment on column noetl.place_claim.execution_id is 'The execution.';
comment on column noetl.place_claim.path is 'The place.';
comment on column noetl.place_claim.key is 'The place.';
comment on column noetl.place_claim.number is 'Its number in the line, given under the lock of the place.';
comment on column noetl.place_claim.label is 'The name of the value that the key is, as the playbook has it.';
comment on column noetl.place_claim.is_pair is 'Whether the execution claims two places: it gets both or none.';
comment on column noetl.place_claim.is_child is 'Whether the execution has a parent.';
comment on column noetl.place_claim.created_at is 'When it asked.';
comment on column noetl.place_claim.held_at is 'Since when it holds the place; null: it waits.';
comment on column noetl.place_claim.cancelled_at is 'When it was asked to cancel, so that a later execution can run.';

-- Locks places without waiting. Says for each whether this transaction has it. 1852796012 is 'nopl', the key space of
-- these locks: two keys with the same hash only put each other off.
create or replace function noetl.lock_places(paths text[], keys text[]) returns boolean[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  locks boolean[];
begin
  select array_agg(l.is_locked order by l.ordinal)
  into locks
  from (
    select u.ordinal, pg_try_advisory_xact_lock(1852796012, hashtext(u.path || ' ' || u.key)) as is_locked
    from (select path, key, ordinal from unnest(paths, keys) with ordinality w (path, key, ordinal) order by path, key, ordinal) u
  ) l;
  insert into noetl.place (path, key)
  select distinct u.path, u.key
  from unnest(paths, keys, locks) u (path, key, is_locked)
  where u.is_locked and not exists (select from noetl.place p where p.path = u.path and p.key = u.key)
  order by u.path, u.key
  on conflict do nothing;
  -- a person may hold the row
  with wanted as (
    select distinct u.path, u.key
    from unnest(paths, keys, locks) u (path, key, is_locked)
    where u.is_locked
  ), locked as materialized (
    select p.path, p.key
    from wanted w
    join noetl.place p on p.path = w.path and p.key = w.key
    order by p.path, p.key
    for no key update of p skip locked
  )
  select array_agg(u.is_locked and exists (select from locked l where l.path = u.path and l.key = u.key) order by u.ordinal)
  into locks
  from unnest(paths, keys, locks) with ordinality u (path, key, is_locked, ordinal);
  return locks;
end
$$;

-- The other places of executions that wait for these ones and one more.
create or replace function noetl.paired_places(paths text[], keys text[]) returns table (path text, key text, other_path text, other_key text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct w.path, w.key, o.path, o.key
  from unnest($1, $2) u (path, key)
  join noetl.place_claim w on w.path = u.path and w.key = u.key and w.held_at is null and w.is_pair
  join noetl.place_claim o on o.execution_id = w.execution_id and (o.path, o.key) <> (w.path, w.key)
$$;

-- Whether an execution that waits could run now, but for the place (path, key). An execution may need two places. The other
-- place must then be free too, and no execution with a lower number may wait for it alone.
create or replace function noetl.could_run(claim noetl.place_claim) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select x.status = 'QUEUED'
    and not exists (select from noetl.path_pause s where s.path = x.path)
    and (not $1.is_pair or not exists (
      select
      from noetl.place_claim o
      join noetl.place p on p.path = o.path and p.key = o.key
      where o.execution_id = $1.execution_id and (o.path, o.key) <> ($1.path, $1.key) and p.held + (
        select count(*)
        from (
          select
          from noetl.place_claim e
          join noetl.execution y on y.execution_id = e.execution_id
          where e.path = o.path and e.key = o.key and e.number < o.number and e.held_at is null and e.cancelled_at is null
            and not e.is_pair and y.status = 'QUEUED'
            and not exists (select from noetl.path_pause s where s.path = y.path)
          limit greatest(p.max_held - p.held, 0)
        ) b
      ) >= p.max_held
    ))
  from noetl.execution x
  where x.execution_id = $1.execution_id
$$;

-- Locks places that executions want, and returns the state of each. `is_locked` false: another broker has it. `is_shared`:
-- an ancestor holds it. `is_own`: the execution has it already. `ready`: how many waiting executions would take a free
-- place first.
create or replace function noetl.ask_places(executions bigint[], paths text[], keys text[], limits int[])
returns table (
  execution_id bigint, path text, key text, is_locked boolean, is_shared boolean, is_own boolean, number bigint,
  held int, max_held int, ready int, holder bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  locks boolean[] := noetl.lock_places($2, $3);
begin
  return query
  with recursive wanted as materialized (
    select u.execution_id, u.path, u.key, u.is_locked, u.ordinal, p.held, c.number, c.held_at,
      case when coalesce(x.version, 0) >= p.version then u.most else p.max_held end as max_held,
      x.parent_execution_id, s.path is not null and c.number is not null as is_paused
    from unnest($1, $2, $3, $4, locks) with ordinality u (execution_id, path, key, most, is_locked, ordinal)
    join noetl.execution x on x.execution_id = u.execution_id
    left join noetl.place p on p.path = u.path and p.key = u.key
    left join noetl.place_claim c on c.execution_id = u.execution_id and c.path = u.path and c.key = u.key
    left join noetl.path_pause s on s.path = x.path
    where u.is_locked
  ), above as (
    select w.ordinal, w.parent_execution_id as ancestor
    from wanted w
    where w.parent_execution_id is not null
    union
    select a.ordinal, x.parent_execution_id
    from above a
    join noetl.execution x on x.execution_id = a.ancestor
    where x.parent_execution_id is not null
  )
  select u.execution_id, u.path, u.key, u.is_locked,
    exists (
      select
      from above a
      join noetl.place_claim h on h.execution_id = a.ancestor
      where a.ordinal = u.ordinal and h.path = u.path and h.key = u.key and h.held_at is not null
    ),
    w.held_at is not null, case when u.is_locked then coalesce(w.number, nextval('noetl.place_seq')) end,
    w.held, case when w.is_paused then 0 else w.max_held end,
    case when w.held < w.max_held then (
      select count(*)::int
      from (
        select
        from noetl.place_claim c
        where c.path = u.path and c.key = u.key and c.held_at is null and c.cancelled_at is null
          and c.execution_id <> u.execution_id and noetl.could_run(c)
          and not exists (select from noetl.path_pause s where s.path = u.path)
        order by c.number -- for its index, as in count_places
        limit w.max_held - w.held
      ) r
    ) else 0 end,
    (
      select c.execution_id
      from noetl.place_claim c
      where c.path = u.path and c.key = u.key and c.held_at is not null and c.execution_id <> u.execution_id
      order by c.number
      limit 1
    )
  from (
    select n.execution_id, n.path, n.key, n.is_locked, n.ordinal
    from unnest($1, $2, $3, locks) with ordinality n (execution_id, path, key, is_locked, ordinal)
    order by n.ordinal
  ) u
  left join wanted w on w.ordinal = u.ordinal
  order by u.ordinal;
end
$$;

-- Locks the places that executions will free, and the other places that the next executions wait for. Returns the
-- executions whose places are all locked.
create or replace function noetl.lock_freed_places(executions bigint[], paths text[], keys text[]) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  all_paths text[];
  all_keys text[];
  locks boolean[];
begin
  select array_agg(n.path), array_agg(n.key)
  into all_paths, all_keys
  from (
    select u.path, u.key
    from unnest($2, $3) u (path, key)
    union
    select r.other_path, r.other_key
    from noetl.paired_places($2, $3) r
    order by path, key
  ) n;
  locks := noetl.lock_places(all_paths, all_keys);
  return (
    with locked as materialized (
      select n.path, n.key
      from unnest(all_paths, all_keys, locks) n (path, key, is_locked)
      where n.is_locked
    ), pairs as materialized (
      -- under the lock: a pair may have come since
      select r.path, r.key, r.other_path, r.other_key
      from noetl.paired_places($2, $3) r
    )
    select array_agg(f.execution_id)
    from (
      select u.execution_id
      from unnest($1, $2, $3) u (execution_id, path, key)
      group by u.execution_id
      having bool_and(
        exists (select from locked l where l.path = u.path and l.key = u.key)
        and not exists (
          select
          from pairs r
          where r.path = u.path and r.key = u.key
            and not exists (select from locked l where l.path = r.other_path and l.key = r.other_key)
        )
      )
    ) f
  );
end
$$;

-- Counts who holds places, and looks whether anybody waits.
create or replace function noetl.count_places(paths text[], keys text[]) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  update noetl.place p
  set held = n.held, is_waited_for = n.is_waited_for
  from (select distinct u.path, u.key from unnest($1, $2) u (path, key)) u
  cross join lateral (
    select (
      select count(*)
      from noetl.place_claim c
      where c.path = u.path and c.key = u.key and c.held_at is not null
    ) as held, coalesce((
      -- The order tells the planner which index to use. Otherwise, and for `exists`, it may read all that wait anywhere.
      select true
      from noetl.place_claim c
      where c.path = u.path and c.key = u.key and c.held_at is null
      order by c.number
      limit 1
    ), false) as is_waited_for
  ) n
  where p.path = u.path and p.key = u.key and (p.held, p.is_waited_for) <> (n.held, n.is_waited_for)
$$;

-- Gives free places to those that wait, in their order. The caller has locked the places. It passes over paused executions,
-- and those that also wait for a place that is taken or locked. Returns how many executions it admits.
create or replace function noetl.hand_over(paths text[], keys text[]) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  open record;
  admitted bigint[];
begin
  perform noetl.count_places($1, $2);
  -- most places: nobody has to be passed over
  with open as materialized (
    select p.path, p.key, p.max_held - p.held as free
    from noetl.place p
    join (select distinct u.path, u.key from unnest($1, $2) u (path, key)) u on u.path = p.path and u.key = p.key
    where p.is_waited_for and p.held < p.max_held
  ), next as materialized (
    select o.path, o.key, n.execution_id, n.is_plain
    from open o
    cross join lateral (
      select c.execution_id, not c.is_pair and noetl.could_run(c) as is_plain
      from noetl.place_claim c
      where c.path = o.path and c.key = o.key and c.held_at is null and c.cancelled_at is null
      order by c.number
      limit o.free
    ) n
  ), plain as (
    select n.path, n.key
    from next n
    group by n.path, n.key
    having bool_and(n.is_plain)
  ), given as (
    update noetl.place_claim c
    set held_at = clock_timestamp()
    from next n
    join plain p on p.path = n.path and p.key = n.key
    where c.execution_id = n.execution_id and c.path = n.path and c.key = n.key
    returning c.execution_id, c.number
  )
  select array_agg(g.execution_id order by g.number)
  into admitted
  from given g;
  if admitted is not null then
    perform noetl.count_places($1, $2);
  end if;
  for open in
    select p.path, p.key
    from noetl.place p
    join (select distinct u.path, u.key from unnest($1, $2) u (path, key)) u on u.path = p.path and u.key = p.key
    where p.is_waited_for and p.held < p.max_held
    order by p.path, p.key
  loop
    admitted := admitted || noetl.hand_over_past(open.path, open.key);
  end loop;
  perform noetl.send_to_executions(admitted, 'place_free', '{"given": true}', '{}');
  return coalesce(cardinality(admitted), 0);
end
$$;

-- The same for one place, if waiting executions may have to be passed over. Returns the executions that it admits.
create or replace function noetl.hand_over_past(path text, key text) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  next record;
  free int;
  passed boolean := exists (select from noetl.path_pause s where s.path = $1);
  admitted bigint[] := '{}';
begin
  select p.max_held - p.held into free from noetl.place p where p.path = $1 and p.key = $2;
  if not passed then
    for next in
      select c as claim, c.execution_id, c.is_pair
      from noetl.place_claim c
      where c.path = $1 and c.key = $2 and c.held_at is null and c.cancelled_at is null
      order by c.number
    loop
      exit when free <= 0;
      if not noetl.could_run(next.claim) then
        passed := true;
        continue;
      end if;
      if next.is_pair and not (
        select bool_and(l.is_locked)
        from (
          select array_agg(o.path) as paths, array_agg(o.key) as keys
          from noetl.place_claim o
          where o.execution_id = next.execution_id
        ) o
        cross join unnest(noetl.lock_places(o.paths, o.keys)) l (is_locked)
      ) then
        continue; -- the sweep looks again
      end if;
      update noetl.place_claim c
      set held_at = clock_timestamp()
      where c.execution_id = next.execution_id;
      perform noetl.count_places(array_agg(o.path), array_agg(o.key))
      from noetl.place_claim o
      where o.execution_id = next.execution_id;
      admitted := admitted || next.execution_id;
      free := free - 1;
    end loop;
  end if;
  update noetl.place p
  set is_passed = passed
  where p.path = $1 and p.key = $2 and p.is_passed <> passed;
  return admitted;
end
$$;

-- Sends an event to executions, with its mail. The broker's own events make no mail by themselves.
create or replace function noetl.send_to_executions(executions bigint[], event_type text, meta jsonb, context jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
begin
  if coalesce(cardinality($1), 0) = 0 then
    return;
  end if;
  with sent as (
    insert into noetl.event (
      execution_id, catalog_id, event_type, node_id, node_name, node_type, status, meta, context
    )
    select x.execution_id, x.catalog_id, $2, x.execution_id::text, noetl.name_of_path(x.path), 'playbook',
      case when $2 = 'execution_cancel' then 'CANCELLED' else 'PENDING' end, nullif($3, '{}'), nullif($4, '{}')
    from unnest($1) with ordinality u (execution_id, ordinal)
    join noetl.execution x on x.execution_id = u.execution_id
    order by u.ordinal
    returning execution_id, event_id
  )
  insert into noetl.inbox (execution_id, event_id)
  select s.execution_id, s.event_id
  from sent s
  where current_setting('noetl.writer', true) = 'broker'
  order by s.event_id;
end
$$;

-- Cancels executions whose place has `cancel_running`: of each place, the latest `max_held` stay.
create or replace function noetl.cancel_running(executions bigint[], paths text[], keys text[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  newcomer record;
  old bigint[];
begin
  for newcomer in
    select u.execution_id, u.path, u.key
    from unnest($1, $2, $3) with ordinality u (execution_id, path, key, ordinal)
    order by u.ordinal
  loop
    with line as (
      select c.execution_id, c.number, p.max_held, row_number() over (order by c.number desc) as newness
      from (
        -- two parts, because each has an index
        select h.execution_id, h.number
        from noetl.place_claim h
        where h.path = newcomer.path and h.key = newcomer.key and h.held_at is not null and h.cancelled_at is null
        union all
        (
          select w.execution_id, w.number
          from noetl.place_claim w
          where w.path = newcomer.path and w.key = newcomer.key and w.held_at is null and w.cancelled_at is null
          order by w.number -- else it may read the whole primary key, where another place has a long line
        )
      ) c
      join noetl.place p on p.path = newcomer.path and p.key = newcomer.key
    ), superseded as (
      update noetl.place_claim c
      set cancelled_at = clock_timestamp()
      from line l
      where l.newness > l.max_held and l.execution_id <> newcomer.execution_id
        and c.execution_id = l.execution_id and c.path = newcomer.path and c.key = newcomer.key
      returning c.execution_id
    )
    select array_agg(t.execution_id) into old from superseded t;
    perform noetl.send_to_executions(coalesce(old, '{}'), 'execution_cancel', '{}', jsonb_build_object(
      'reason', format('execution %s took its place (on_limit: cancel_running)', newcomer.execution_id)
    ));
  end loop;
end
$$;

-- Writes what turns decided about places: held, waiting, returned or freed. After set_statuses. The turns have locked the
-- places. An execution that ends may have taken its place in the same batch.
create or replace function noetl.write_places(
  executions bigint[], whats text[], paths text[], keys text[], limits int[], numbers bigint[], on_limits text[], labels text[]
) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  admitted int;
begin
  delete from noetl.place_claim c
  using unnest($1, $2) u (execution_id, what)
  where u.what = 'freed' and c.execution_id = u.execution_id;
  update noetl.place_claim c
  set held_at = null
  from unnest($1, $2) u (execution_id, what)
  where u.what = 'returned' and c.execution_id = u.execution_id;
  insert into noetl.place_claim as c (execution_id, path, key, number, label, is_pair, is_child, held_at)
  select u.execution_id, u.path, u.key, u.number, u.label, count(*) over (partition by u.execution_id) > 1,
    x.parent_execution_id is not null, case when u.what = 'held' then clock_timestamp() end
  from unnest($1, $2, $3, $4, $6, $8) u (execution_id, what, path, key, number, label)
  join noetl.execution x on x.execution_id = u.execution_id
  where u.what in ('held', 'waiting')
  order by u.number
  on conflict (execution_id, path, key) do update
  set held_at = coalesce(excluded.held_at, c.held_at), cancelled_at = null;
  -- the newest version decides
  update noetl.place p
  set max_held = n.most, version = n.version
  from (
    select distinct on (u.path, u.key) u.path, u.key, u.most, case when u.path = '' then 0 else coalesce(x.version, 0) end as version
    from unnest($1, $2, $3, $4, $5) u (execution_id, what, path, key, most)
    join noetl.execution x on x.execution_id = u.execution_id
    where u.what in ('held', 'waiting')
    order by u.path, u.key, version desc
  ) n
  where p.path = n.path and p.key = n.key and n.version >= p.version and (n.most, n.version) <> (p.max_held, p.version);
  if 'cancel_running' = any($7) then
    perform noetl.cancel_running(array_agg(u.execution_id), array_agg(u.path), array_agg(u.key))
    from unnest($1, $2, $3, $4, $7) u (execution_id, what, path, key, on_limit)
    where u.what = 'waiting' and u.on_limit = 'cancel_running'
    having count(*) > 0;
  end if;
  admitted := noetl.hand_over($3, $4);
  delete from noetl.place p
  using (select distinct u.path, u.key from unnest($3, $4) u (path, key)) u
  where p.path = u.path and p.key = u.key and p.held = 0 and not p.is_waited_for;
  return admitted;
end
$$;

-- What the reaper does. Places that are free and waited for: a path was resumed, or a hand-over was lost (`swept`). Rings of
-- executions that wait for each other: the youngest of each fails.
create or replace function noetl.sweep_places(max_rows int, out admitted int, out swept int, out rings int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  open_paths text[];
  open_keys text[];
  passed boolean[];
  handed int;
begin
  admitted := 0;
  swept := 0;
  rings := 0;
  if exists (select from noetl.place p where p.is_waited_for and p.held < p.max_held) then
    perform set_config('noetl.writer', '', true);
    select array_agg(o.path), array_agg(o.key), array_agg(o.is_passed)
    into open_paths, open_keys, passed
    from (
      select p.path, p.key, p.is_passed
      from noetl.place p
      where p.is_waited_for and p.held < p.max_held
      order by p.path, p.key
      limit max_rows
    ) o;
    for ordinal in 1 .. coalesce(cardinality(open_paths), 0) loop
      if (noetl.lock_places(open_paths[ordinal:ordinal], open_keys[ordinal:ordinal]))[1] then
        handed := noetl.hand_over(open_paths[ordinal:ordinal], open_keys[ordinal:ordinal]);
        admitted := admitted + handed;
        swept := swept + case when passed[ordinal] then 0 else handed end;
        delete from noetl.place p
        where p.path = open_paths[ordinal] and p.key = open_keys[ordinal] and p.held = 0 and not p.is_waited_for;
      end if;
    end loop;
  end if;
  if exists (
    select
    from noetl.place_claim c
    where c.held_at is null and c.is_child and c.created_at < clock_timestamp() - interval '1 second'
  ) then
    rings := noetl.break_rings(max_rows);
  end if;
end
$$;

-- Finds executions that wait for places whose holders cannot end before them, and fails the youngest of each ring. A holder
-- cannot end before its descendants that wait. A place is stuck if each of its holders has a descendant that waits for a
-- place that is stuck. Returns the number of rings.
create or replace function noetl.break_rings(max_rows int) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  holders bigint[];
  waiters bigint[];
  wanted text[];
  stuck text[];
  still text[];
  youngest bigint;
  members jsonb;
  found_rings int := 0;
begin
  with recursive waiting as materialized (
    select c.execution_id, jsonb_build_array(c.path, c.key)::text as place, x.parent_execution_id
    from noetl.place_claim c
    join noetl.execution x on x.execution_id = c.execution_id
    where c.held_at is null and c.is_child and c.cancelled_at is null and x.status = 'QUEUED'
      and c.created_at < clock_timestamp() - interval '1 second'
    order by c.created_at
    limit max_rows
  ), above as (
    select w.execution_id, w.place, w.parent_execution_id as ancestor
    from waiting w
    where w.parent_execution_id is not null
    union
    select a.execution_id, a.place, x.parent_execution_id
    from above a
    join noetl.execution x on x.execution_id = a.ancestor
    where x.parent_execution_id is not null
  )
  select array_agg(a.ancestor), array_agg(a.execution_id), array_agg(a.place), array_agg(distinct a.place)
  into holders, waiters, wanted, stuck
  from above a
  where exists (select from noetl.place_claim h where h.execution_id = a.ancestor and h.held_at is not null);
  while stuck is not null and found_rings < 100 loop
    loop
      select array_agg(s.place)
      into still
      from unnest(stuck) s (place)
      join noetl.place p on p.path = s.place::jsonb ->> 0 and p.key = s.place::jsonb ->> 1
      where p.held >= p.max_held and not exists (
        select
        from noetl.place_claim h
        where h.path = p.path and h.key = p.key and h.held_at is not null and not exists (
          select
          from unnest(holders, wanted) e (holder, place)
          where e.holder = h.execution_id and e.place = any(stuck)
        )
      );
      exit when still is null or cardinality(still) = cardinality(stuck);
      stuck := still;
    end loop;
    exit when still is null;
    select max(e.waiter), (
      select jsonb_agg(m.waiter order by m.waiter)
      from (select distinct o.waiter from unnest(waiters, wanted) o (waiter, place) where o.place = any(stuck) limit 20) m
    )
    into youngest, members
    from unnest(waiters, wanted) e (waiter, place)
    where e.place = any(stuck);
    -- a broker may be giving it its place now
    exit when not (
      select bool_and(l.is_locked)
      from (
        select array_agg(c.path) as paths, array_agg(c.key) as keys
        from noetl.place_claim c
        where c.execution_id = youngest
      ) o
      cross join unnest(noetl.lock_places(o.paths, o.keys)) l (is_locked)
    );
    update noetl.place_claim c
    set cancelled_at = clock_timestamp()
    where c.execution_id = youngest and c.held_at is null and c.cancelled_at is null;
    if found then
      perform set_config('noetl.writer', '', true);
      perform noetl.send_to_executions(array[youngest], 'place_ring', '{}', jsonb_build_object('executions', members));
      found_rings := found_rings + 1;
    end if;
    select array_agg(e.holder), array_agg(e.waiter), array_agg(e.place), array_agg(distinct e.place)
    into holders, waiters, wanted, stuck
    from unnest(holders, waiters, wanted) e (holder, waiter, place)
    where e.waiter <> youngest;
  end loop;
  return found_rings;
end
$$;

-- Of executions: the places that they hold or wait for, who holds them, and how many wait before them.
create or replace function noetl.places_of(executions bigint[]) returns table (
  execution_id bigint, path text, key text, label text, number bigint, held_at timestamptz, since timestamptz, max_held int, before bigint,
  waiting bigint, holders bigint[]
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select c.execution_id, c.path, c.key, c.label, c.number, c.held_at, c.created_at, p.max_held,
    case when c.held_at is null then (
      select count(*)
      from noetl.place_claim b
      where b.path = c.path and b.key = c.key and b.held_at is null and b.number < c.number
    ) end,
    (select count(*) from noetl.place_claim b where b.path = c.path and b.key = c.key and b.held_at is null),
    array(
      select b.execution_id
      from noetl.place_claim b
      where b.path = c.path and b.key = c.key and b.held_at is not null
      order by b.number
      limit 10
    )
  from unnest($1) u (execution_id)
  join noetl.place_claim c on c.execution_id = u.execution_id
  join noetl.place p on p.path = c.path and p.key = c.key
  order by c.execution_id, c.path, c.key
$$;

comment on function noetl.lock_places(text[], text[]) is
  'For the broker: locks places without waiting, and says which it got.';
comment on function noetl.paired_places(text[], text[]) is
  'The other places of executions that wait for these ones and one more.';
comment on function noetl.could_run(noetl.place_claim) is
  'Whether an execution that waits for a place is not held by anything else.';
comment on function noetl.ask_places(bigint[], text[], text[], int[]) is
  'For the broker: locks the places that executions want, and says how they stand.';
comment on function noetl.lock_freed_places(bigint[], text[], text[]) is
  'For the broker: locks the places that executions will free; returns the executions whose places it got.';
comment on function noetl.hand_over(text[], text[]) is
  'For the broker: gives free places to those that wait. Returns how many it admits.';
comment on function noetl.hand_over_past(text, text) is
  'For hand_over: one place where somebody may have to be passed over.';
comment on function noetl.count_places(text[], text[]) is
  'For hand_over: counts who holds places, and looks whether anybody waits.';
comment on function noetl.send_to_executions(bigint[], text, jsonb, jsonb) is
  'For the broker: sends an event to executions, with its mail.';
comment on function noetl.cancel_running(bigint[], text[], text[]) is
  'For the broker: cancels earlier executions, so that new ones get their places.';
comment on function noetl.write_places(bigint[], text[], text[], text[], int[], bigint[], text[], text[]) is
  'For the broker: writes which executions hold places, wait, or freed theirs. Returns how many it admits.';
comment on function noetl.sweep_places(int) is
  'For the reaper: admits those that a resumed path or a lost hand-over left waiting, and breaks rings.';
comment on function noetl.break_rings(int) is
  'For the reaper: fails the youngest of executions that wait for each other. Returns the number of rings.';
comment on function noetl.places_of(bigint[]) is
  'The places of executions: who holds them, and how many wait before them.';

revoke all on function
  noetl.lock_places(text[], text[]), noetl.paired_places(text[], text[]), noetl.could_run(noetl.place_claim),
  noetl.ask_places(bigint[], text[], text[], int[]), noetl.lock_freed_places(bigint[], text[], text[]),
  noetl.hand_over(text[], text[]), noetl.hand_over_past(text, text), noetl.count_places(text[], text[]),
  noetl.send_to_executions(bigint[], text, jsonb, jsonb),
  noetl.cancel_running(bigint[], text[], text[]),
  noetl.write_places(bigint[], text[], text[], text[], int[], bigint[], text[], text[]),
  noetl.sweep_places(int), noetl.break_rings(int), noetl.places_of(bigint[])
  from public;
