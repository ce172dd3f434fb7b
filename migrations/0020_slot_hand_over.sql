-- How slots go from one execution to the next.

-- Counts who holds slots, and looks whether anybody waits.
create or replace function noetl.count_slots(paths text[], keys text[]) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  update noetl.place p
  set held = n.held, is_waited_for = n.is_waited_for
  from (select distinct u.path, u.key from unnest($1, $2) u (path, key)) u
  cross join lateral (
    select (
      select count(*)
      from noetl.slot_claim c
      where c.path = u.path and c.key = u.key and c.held_at is not null
    ) as held, coalesce((
      -- The order tells the planner which index to use. Otherwise, and for `exists`, it may read all that wait anywhere.
      select true
      from noetl.slot_claim c
      where c.path = u.path and c.key = u.key and c.held_at is null
      order by c.number
      limit 1
    ), false) as is_waited_for
  ) n
  where p.path = u.path and p.key = u.key and (p.held, p.is_waited_for) <> (n.held, n.is_waited_for)
$$;

-- Gives free slots to those that wait, in their order. The caller has locked the slots. It passes over paused executions,
-- and those that also wait for a slot that is taken or locked. Returns how many executions it admits.
create or replace function noetl.hand_over(paths text[], keys text[]) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  open record;
  admitted bigint[];
begin
  perform noetl.count_slots($1, $2);
  -- most slots: nobody has to be passed over
  with open as materialized (
    select p.path, p.key, p.max_held - p.held as free
    from noetl.place p
    join (select distinct u.path, u.key from unnest($1, $2) u (path, key)) u on u.path = p.path and u.key = p.key
    where p.is_waited_for and p.held < p.max_held
  ), next as materialized (
    select o.path, o.key, n.execution_id, n.is_plain
    from open o
    cross join lateral (
      select c.execution_id, not c.is_pair and noetl.could_run(row(c.*)::noetl.slot_claim) as is_plain
      from noetl.slot_claim c
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
    update noetl.slot_claim c
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
    perform noetl.count_slots($1, $2);
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

-- The same for one slot, if waiting executions may have to be passed over. Returns the executions that it admits.
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
      select row(c.*)::noetl.slot_claim as claim, c.execution_id, c.is_pair
      from noetl.slot_claim c
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
          from noetl.slot_claim o
          where o.execution_id = next.execution_id
        ) o
        cross join unnest(noetl.lock_slots(o.paths, o.keys)) l (is_locked)
      ) then
        continue; -- the sweep looks again
      end if;
      update noetl.slot_claim c
      set held_at = clock_timestamp()
      where c.execution_id = next.execution_id;
      perform noetl.count_slots(array_agg(o.path), array_agg(o.key))
      from noetl.slot_claim o
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

-- Cancels executions whose slot has `cancel_running`: of each slot, the latest `max_held` stay.
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
        from noetl.slot_claim h
        where h.path = newcomer.path and h.key = newcomer.key and h.held_at is not null and h.cancelled_at is null
        union all
        (
          select w.execution_id, w.number
          from noetl.slot_claim w
          where w.path = newcomer.path and w.key = newcomer.key and w.held_at is null and w.cancelled_at is null
          order by w.number -- else it may read the whole primary key, where another slot has a long line
        )
      ) c
      join noetl.place p on p.path = newcomer.path and p.key = newcomer.key
    ), superseded as (
      update noetl.slot_claim c
      set cancelled_at = clock_timestamp()
      from line l
      where l.newness > l.max_held and l.execution_id <> newcomer.execution_id
        and c.execution_id = l.execution_id and c.path = newcomer.path and c.key = newcomer.key
      returning c.execution_id
    )
    select array_agg(t.execution_id) into old from superseded t;
    perform noetl.send_to_executions(coalesce(old, '{}'), 'execution_cancel', '{}', jsonb_build_object(
      'reason', format('execution %s took its slot (on_limit: cancel_running)', newcomer.execution_id)
    ));
  end loop;
end
$$;

-- Writes what turns decided about slots: held, waiting, returned or freed. After set_statuses. The turns have locked the
-- slots. An execution that ends may have taken its slot in the same batch.
create or replace function noetl.write_slots(
  executions bigint[], whats text[], paths text[], keys text[], limits int[], numbers bigint[], on_limits text[], labels text[]
) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  admitted int;
begin
  delete from noetl.slot_claim c
  using unnest($1, $2) u (execution_id, what)
  where u.what = 'freed' and c.execution_id = u.execution_id;
  update noetl.slot_claim c
  set held_at = null
  from unnest($1, $2) u (execution_id, what)
  where u.what = 'returned' and c.execution_id = u.execution_id;
  insert into noetl.slot_claim as c (execution_id, path, key, number, label, is_pair, held_at)
  select u.execution_id, u.path, u.key, u.number, u.label, count(*) over (partition by u.execution_id) > 1,
    case when u.what = 'held' then clock_timestamp() end
  from unnest($1, $2, $3, $4, $6, $8) u (execution_id, what, path, key, number, label)
  join noetl.execution x on x.execution_id = u.execution_id
  where u.what in ('held', 'waiting')
  order by u.number
  on conflict (execution_id, path, key) do update
  set held_at = coalesce(excluded.held_at, c.held_at), cancelled_at = null;
  insert into noetl.place (path, key)
  select distinct u.path, u.key
  from unnest($2, $3, $4) u (what, path, key)
  where u.what in ('held', 'waiting') and not exists (select from noetl.place p where p.path = u.path and p.key = u.key)
  order by u.path, u.key;
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

-- What the reaper does: it gives slots that are free and waited for. A path was resumed, or a hand-over was lost (`swept`).
create or replace function noetl.sweep_slots(max_rows int, out admitted int, out swept int)
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
      if (noetl.lock_slots(open_paths[ordinal:ordinal], open_keys[ordinal:ordinal]))[1] then
        handed := noetl.hand_over(open_paths[ordinal:ordinal], open_keys[ordinal:ordinal]);
        admitted := admitted + handed;
        swept := swept + case when passed[ordinal] then 0 else handed end;
        delete from noetl.place p
        where p.path = open_paths[ordinal] and p.key = open_keys[ordinal] and p.held = 0 and not p.is_waited_for;
      end if;
    end loop;
  end if;
end
$$;

revoke all on function
  noetl.count_slots(text[], text[]), noetl.hand_over(text[], text[]), noetl.hand_over_past(text, text),
  noetl.send_to_executions(bigint[], text, jsonb, jsonb), noetl.cancel_running(bigint[], text[], text[]),
  noetl.write_slots(bigint[], text[], text[], text[], int[], bigint[], text[], text[]), noetl.sweep_slots(int)
  from public;
