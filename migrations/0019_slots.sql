-- Slots: at most so many executions of one path and key run at once, the others wait in a line.
--
-- Whoever takes or frees slots first locks their rows, and looks in the next statement. Nobody waits for such a lock: a
-- broker that does not get it postpones the mail. A row exists only while somebody holds its slot or waits for it.
-- `lock_slots` is a lock for rows that do not exist yet. Whoever frees a slot gives it to the next one in the same
-- transaction. So no slot is free while somebody could take it.

create sequence if not exists noetl.slot_seq;

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
-- for the sweep: slots that somebody may take
create index if not exists slot_open on noetl.place (path, key) where is_waited_for and held < max_held;

comment on table noetl.place is 'Slots that executions hold or wait for. A row exists only while there is one.';
comment on column noetl.place.path is 'The playbook; empty: the key is the name of a schedule.';
comment on column noetl.place.key is 'What metadata.concurrency.key gave.';
comment on column noetl.place.max_held is
  'How many may hold it: the limit of the newest version of which an execution was started.';
comment on column noetl.place.version is 'That version.';
comment on column noetl.place.held is 'How many executions hold it.';
comment on column noetl.place.is_waited_for is 'Whether an execution waits for it.';
comment on column noetl.place.is_passed is
  'Whether an execution that waits was passed over, because it or its playbook is paused.';

create table if not exists noetl.slot_claim (
  execution_id bigint not null,
  path text not null,
  key text not null,
  number bigint not null,
  label text not null default '',
  is_pair boolean not null default false,
  created_at timestamptz not null default clock_timestamp(),
  held_at timestamptz,
  cancelled_at timestamptz,
  primary key (execution_id, path, key)
);
create index if not exists slot_claim_held on noetl.slot_claim (path, key, number) where held_at is not null;
create index if not exists slot_claim_waiting on noetl.slot_claim (path, key, number) where held_at is null;
create index if not exists slot_claim_pairs on noetl.slot_claim (path, key) where held_at is null and is_pair;

comment on table noetl.slot_claim is 'Which executions hold slots or wait for them, until they end.';
comment on column noetl.slot_claim.execution_id is 'The execution.';
comment on column noetl.slot_claim.path is 'The slot.';
comment on column noetl.slot_claim.key is 'The slot.';
comment on column noetl.slot_claim.number is 'Its number in the line, given under the lock of the slot.';
comment on column noetl.slot_claim.label is 'The name of the value that the key is, as the playbook has it.';
comment on column noetl.slot_claim.is_pair is 'Whether the execution claims two slots: it gets both or none.';
comment on column noetl.slot_claim.created_at is 'When it asked.';
comment on column noetl.slot_claim.held_at is 'Since when it holds the slot; null: it waits.';
comment on column noetl.slot_claim.cancelled_at is 'When it was asked to cancel, so that a later execution can run.';

-- Locks slots without waiting. Says for each whether this transaction has it. Two keys with the same hash only put each
-- other off.
create or replace function noetl.lock_slots(paths text[], keys text[]) returns boolean[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  locks boolean[];
begin
  select array_agg(l.is_locked order by l.ordinal)
  into locks
  from (
    select u.ordinal, pg_try_advisory_xact_lock(hashtext('noetl.slot_lock'), hashtext(u.path || ' ' || u.key)) as is_locked
    from (select path, key, ordinal from unnest(paths, keys) with ordinality w (path, key, ordinal) order by path, key, ordinal) u
  ) l;
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
  select array_agg(u.is_locked and (
    exists (select from locked l where l.path = u.path and l.key = u.key)
    or not exists (select from noetl.place p where p.path = u.path and p.key = u.key)
  ) order by u.ordinal)
  into locks
  from unnest(paths, keys, locks) with ordinality u (path, key, is_locked, ordinal);
  return locks;
end
$$;

-- The other slots of executions that wait for these ones and one more.
create or replace function noetl.paired_slots(paths text[], keys text[]) returns table (path text, key text, other_path text, other_key text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct w.path, w.key, o.path, o.key
  from unnest($1, $2) u (path, key)
  join noetl.slot_claim w on w.path = u.path and w.key = u.key and w.held_at is null and w.is_pair
  join noetl.slot_claim o on o.execution_id = w.execution_id and (o.path, o.key) <> (w.path, w.key)
$$;

-- Whether an execution that waits could run now, but for the slot (path, key). An execution may need two slots. The other
-- slot must then be free too, and no execution with a lower number may wait for it alone.
create or replace function noetl.could_run(claim noetl.slot_claim) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select x.status = 'QUEUED'
    and not exists (select from noetl.path_pause s where s.path = x.path)
    and (not $1.is_pair or not exists (
      select
      from noetl.slot_claim o
      join noetl.place p on p.path = o.path and p.key = o.key
      where o.execution_id = $1.execution_id and (o.path, o.key) <> ($1.path, $1.key) and p.held + (
        select count(*)
        from (
          select
          from noetl.slot_claim e
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

-- Locks slots that executions want, and returns the state of each. `is_locked` false: another broker has it. `is_shared`:
-- an ancestor holds it. `is_own`: the execution has it already. `ready`: how many waiting executions would take a free
-- slot first.
create or replace function noetl.ask_slots(executions bigint[], paths text[], keys text[], limits int[])
returns table (
  execution_id bigint, path text, key text, is_locked boolean, is_shared boolean, is_own boolean, number bigint,
  held int, max_held int, ready int, holder bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  locks boolean[] := noetl.lock_slots($2, $3);
begin
  return query
  with recursive wanted as materialized (
    select u.execution_id, u.path, u.key, u.is_locked, u.ordinal, coalesce(p.held, 0) as held, c.number, c.held_at,
      case when coalesce(x.version, 0) >= coalesce(p.version, 0) then u.most else p.max_held end as max_held,
      x.parent_execution_id, s.path is not null and c.number is not null as is_paused
    from unnest($1, $2, $3, $4, locks) with ordinality u (execution_id, path, key, most, is_locked, ordinal)
    join noetl.execution x on x.execution_id = u.execution_id
    left join noetl.place p on p.path = u.path and p.key = u.key
    left join noetl.slot_claim c on c.execution_id = u.execution_id and c.path = u.path and c.key = u.key
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
      join noetl.slot_claim h on h.execution_id = a.ancestor
      where a.ordinal = u.ordinal and h.path = u.path and h.key = u.key and h.held_at is not null
    ),
    w.held_at is not null, case when u.is_locked then coalesce(w.number, noetl.next_number('noetl.slot_seq')) end,
    w.held, case when w.is_paused then 0 else w.max_held end,
    case when w.held < w.max_held then (
      select count(*)::int
      from (
        select
        from noetl.slot_claim c
        where c.path = u.path and c.key = u.key and c.held_at is null and c.cancelled_at is null
          and c.execution_id <> u.execution_id and noetl.could_run(row(c.*)::noetl.slot_claim)
          and not exists (select from noetl.path_pause s where s.path = u.path)
        order by c.number -- for its index, as in count_slots
        limit w.max_held - w.held
      ) r
    ) else 0 end,
    (
      select c.execution_id
      from noetl.slot_claim c
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

-- Locks the slots that executions will free, and the other slots that the next executions wait for. Returns the
-- executions whose slots are all locked.
create or replace function noetl.lock_freed_slots(executions bigint[], paths text[], keys text[]) returns bigint[]
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
    from noetl.paired_slots($2, $3) r
    order by path, key
  ) n;
  locks := noetl.lock_slots(all_paths, all_keys);
  return (
    with locked as materialized (
      select n.path, n.key
      from unnest(all_paths, all_keys, locks) n (path, key, is_locked)
      where n.is_locked
    ), pairs as materialized (
      -- under the lock: a pair may have come since
      select r.path, r.key, r.other_path, r.other_key
      from noetl.paired_slots($2, $3) r
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

-- Of executions: the slots that they hold or wait for, who holds them, and how many wait before them.
create or replace function noetl.slots_of(executions bigint[]) returns table (
  execution_id bigint, path text, key text, label text, number bigint, held_at timestamptz, since timestamptz, max_held int, before bigint,
  waiting bigint, holders bigint[]
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select c.execution_id, c.path, c.key, c.label, c.number, c.held_at, c.created_at, p.max_held,
    case when c.held_at is null then (
      select count(*)
      from noetl.slot_claim b
      where b.path = c.path and b.key = c.key and b.held_at is null and b.number < c.number
    ) end,
    (select count(*) from noetl.slot_claim b where b.path = c.path and b.key = c.key and b.held_at is null),
    array(
      select b.execution_id
      from noetl.slot_claim b
      where b.path = c.path and b.key = c.key and b.held_at is not null
      order by b.number
      limit 10
    )
  from unnest($1) u (execution_id)
  join noetl.slot_claim c on c.execution_id = u.execution_id
  join noetl.place p on p.path = c.path and p.key = c.key
  order by c.execution_id, c.path, c.key
$$;

revoke all on function
  noetl.lock_slots(text[], text[]), noetl.paired_slots(text[], text[]), noetl.could_run(noetl.slot_claim),
  noetl.ask_slots(bigint[], text[], text[], int[]), noetl.lock_freed_slots(bigint[], text[], text[]),
  noetl.slots_of(bigint[])
  from public;
