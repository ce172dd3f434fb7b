-- How the broker claims mail: lock rows, then executions, then read.

-- The first rows of the inbox that no other transaction holds, locked. Arrays, because a set of rows costs a claim of one
-- mail a tenth. They are null if there is no row.
create or replace function noetl.lock_mail(
  max_mail int, newest boolean, from_mail_id bigint,
  out mails bigint[], out executions bigint[], out events bigint[], out adopting boolean[], out sizes text[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
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
end
$$;

-- For each mail, whether this transaction holds the lock of its execution. An event about a child that a worker started
-- sets the child's parent, so it needs the child's lock too.
create or replace function noetl.lock_executions(executions bigint[], events bigint[], adopting boolean[]) returns boolean[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  locks boolean[];
begin
  -- All mail of an execution or none: its holder may release the lock between two tries.
  select array_agg(l.is_held order by l.ordinal)
  into locks
  from (
    select u.ordinal, bool_and(pg_try_advisory_xact_lock(u.execution_id)) over (partition by u.execution_id) as is_held
    from unnest(executions) with ordinality u (execution_id, ordinal)
  ) l;
  if true = any(adopting) then
    select array_agg(u.is_held and coalesce(pg_try_advisory_xact_lock(c.child_id), true) order by u.ordinal)
    into locks
    from unnest(executions, events, locks, adopting) with ordinality u (execution_id, event_id, is_held, adopts, ordinal)
    left join lateral (
      select (noetl.as_json(e.context) ->> 'child_execution_id')::bigint as child_id
      from noetl.event e
      where u.is_held and u.adopts and e.execution_id = u.execution_id and e.event_id = u.event_id
        and noetl.as_json(e.context) ->> 'child_execution_id' ~ '^[0-9]{1,18}$'
    ) c on true;
  end if;
  return locks;
end
$$;

-- Inserts the rows of executions whose execution_start was inserted by hand. Completes rows that a parent made for a child.
-- Returns the executions whose parent another broker holds: they wait. Such an execution is cancelled where its parent has
-- ended or cancelled it.
create or replace function noetl.insert_started(executions bigint[], events bigint[], sizes text[], fresh bigint[])
returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  starting bigint[];
  start_events bigint[];
  start_sizes text[];
  parents bigint[];
  held bigint[];
begin
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
    where noetl.kind_of(v.event_type) = 'execution_start'
      and v.execution_id = any(fresh)
      and x.path is null
  ) h;
  if starting is null then
    return null;
  end if;

  -- A session that ends the parent or cancels the child holds the parent's lock. The lock here is shared: a parent may
  -- start many children at once.
  select array_agg(u.execution_id)
  into held
  from unnest(starting, parents) u (execution_id, parent_execution_id)
  where not pg_try_advisory_xact_lock_shared(u.parent_execution_id);

  with begun as (
    insert into noetl.execution as x (execution_id, catalog_id, path, version, started_at, parent_execution_id)
    select distinct on (e.execution_id)
      e.execution_id, c.catalog_id, coalesce(c.path, e.path), coalesce(c.version, e.version), e.created_at,
      e.parent_execution_id
    from (
      select b.execution_id, b.event_id, v.catalog_id, b.parent_execution_id,
        least(greatest(v.created_at::timestamptz, '1900-01-01Z'), '9000-01-01Z') as created_at,
        case when length(v.context ->> 'path') <= noetl.limit_of('path_chars') then v.context ->> 'path' end as path,
        case when v.context ->> 'version' ~ '^[0-9]{1,9}$' then (v.context ->> 'version')::int end as version
      from unnest(starting, start_events, parents, start_sizes) b (execution_id, event_id, parent_execution_id, oversize)
      join lateral (
        select w.catalog_id, w.created_at, case when b.oversize is null then noetl.as_json(w.context) end as context
        from noetl.event w
        where w.execution_id = b.execution_id and w.event_id = b.event_id
      ) v on true
      where (b.execution_id = any(held)) is not true
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
    where x.path is null and x.status <> 'FAILED' -- it failed because its start named no path
    returning execution_id, catalog_id, path, ended_at, parent_execution_id, error
  ), cancels as (
    insert into noetl.event (
      execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context
    )
    select b.execution_id, noetl.next_id(), b.catalog_id, 'execution_cancel', b.execution_id::text,
      noetl.name_of_path(b.path), 'playbook', 'CANCELLED',
      jsonb_build_object('reason', coalesce(b.error ->> 'message', 'its parent ended or cancelled it'))
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
  return held;
end
$$;

-- Which of these executions have not started and have their start outside these events: another broker claims it, or it is
-- not claimed yet.
create or replace function noetl.executions_before_start(fresh bigint[], events bigint[]) returns bigint[]
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(b.execution_id)
  from (
    select distinct f.execution_id
    from unnest(fresh) f (execution_id)
    where not exists (select from noetl.execution_state s where s.execution_id = f.execution_id)
    offset 0 -- a fence: an execution that never starts may have many events
  ) n
  join noetl.event b on b.execution_id = n.execution_id
  where noetl.kind_of(b.event_type) = 'execution_start'
    and b.event_id <> all(events)
    and not exists (
      select
      from noetl.dead_letter d
      where d.execution_id = b.execution_id and d.event_id = b.event_id
    )
    -- beside a NoETL server, the start of an execution from before this broker was never mail
    and (
      exists (select from noetl.execution x where x.execution_id = b.execution_id)
      or exists (select from noetl.inbox i where i.execution_id = b.execution_id and i.event_id = b.event_id)
    )
$$;

-- What a claim does for executions that have taken no turn. `held_up`: another broker holds their parent. `early`:
-- their start is not decided on yet, so only the start itself may be.
create or replace function noetl.prepare_starts(
  executions bigint[], events bigint[], sizes text[], locks boolean[], out held_up bigint[], out early bigint[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  fresh bigint[];
  are_inserted boolean;
  are_starts boolean;
begin
  select array_agg(u.execution_id), bool_and(x.path is not null),
    bool_and(coalesce((
      select noetl.kind_of(e.event_type) = 'execution_start'
      from noetl.event e
      where e.execution_id = u.execution_id and e.event_id = u.event_id
    ), false))
  into fresh, are_inserted, are_starts
  from unnest(executions, events, locks) u (execution_id, event_id, is_held)
  left join noetl.execution x on x.execution_id = u.execution_id
  where u.is_held and x.rules is null;
  -- noetl.start_execution has inserted the rows of most executions, and their first mail is their start alone
  if not are_inserted then
    held_up := noetl.insert_started(executions, events, sizes, fresh);
  end if;
  if not are_starts then
    early := noetl.executions_before_start(fresh, events);
  end if;
end
$$;

-- The mail that does not fit into one transaction. Executions that carry more than 16 KiB share batch_bytes, and the first
-- of them always fits. The results beside failures of one execution share batch_bytes too, in the order of the mail. It is
-- a separate function, because few claims need it. To plan its query would make a claim of one mail slower by a tenth.
create or replace function noetl.too_large_together(
  executions bigint[], mails bigint[], bytes bigint[], results bigint[], newest boolean
) returns bigint[]
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as materialized (
    select u.execution_id, u.mail_id, u.bytes, r.so_far > noetl.limit_of('batch_bytes') and r.so_far > u.result_bytes as is_deferred
    from unnest(executions, mails, bytes, results) u (execution_id, mail_id, bytes, result_bytes)
    join (
      select w.mail_id, sum(w.result_bytes) over (partition by w.execution_id order by w.mail_id) as so_far
      from unnest(executions, mails, results) w (execution_id, mail_id, result_bytes)
    ) r on r.mail_id = u.mail_id
  ), deferred_executions as (
    select o.execution_id
    from (
      select g.execution_id, g.bytes,
        sum(g.bytes) over (order by case when newest then - g.first_mail else g.first_mail end) as together
      from (
        select k.execution_id, sum(k.bytes) as bytes, min(k.mail_id) as first_mail
        from given k
        where not k.is_deferred
        group by k.execution_id
        having sum(k.bytes) > 16384
      ) g
    ) o
    where o.together > noetl.limit_of('batch_bytes') and o.together > o.bytes
  )
  select array_agg(k.mail_id)
  from given k
  where k.is_deferred or k.execution_id in (select x.execution_id from deferred_executions x)
$$;

-- Whether the execution got this signal with another event.
create or replace function noetl.is_doubled_signal(execution_id bigint, event_id bigint, signal_id jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select
    from noetl.signal_taken k
    where k.execution_id = $1 and k.event_id <> $2
      and k.signal_id = case when $3 #>> '{}' ~ '^[0-9]{1,18}$' then ($3 #>> '{}')::bigint end
  );
end
$$;

-- The one statement sequence of a claim. Under READ COMMITTED each statement has its own snapshot. So the last one sees
-- what the previous lock holder committed.
--
-- Mail comes back with `locked` false, and stays in the inbox, where
-- - another broker holds its execution, or the parent or child whose row it reads or writes;
-- - it belongs to an execution whose start is not decided on yet, so that a cancel is not lost;
-- - it is the end of an action, and an earlier event about a child of its worker is undecided;
-- - it does not fit into the memory of one batch.
-- So a claim that locks nothing does not mean an empty inbox.
create or replace function noetl.take_mail(max_mail int, newest boolean, from_mail_id bigint)
returns table (
  mail_id bigint, execution_id bigint, event_id bigint, locked boolean, at timestamptz, waited float8,
  event_type text, node_id text, node_name text,
  context jsonb, result jsonb, result_left boolean, error jsonb, meta jsonb, broken boolean, bytes_over int, oversize text,
  path_paused boolean, job_attempts int, is_doubled boolean, catalog_id bigint, path text, version int, name text, rules json,
  turn int, tokens json,
  parent_execution_id bigint, parent_event_id bigint, parent_node_id text, parent_index int, workload jsonb
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  claimed record;
  mails bigint[];
  executions bigint[];
  events bigint[];
  sizes text[];
  locks boolean[];
  behind bigint[];
  starts record;
begin
  perform set_config('noetl.writer', 'broker', true);
  claimed := noetl.lock_mail(max_mail, newest, from_mail_id);
  mails := claimed.mails;
  if mails is null then
    return;
  end if;
  executions := claimed.executions;
  events := claimed.events;
  sizes := claimed.sizes;
  locks := noetl.lock_executions(executions, events, claimed.adopting);
  select array_agg(i.execution_id) into behind
  from noetl.inbox i
  where i.adopts
    and i.execution_id = any(executions)
    and i.mail_id <> all(array(select u.mail_id from unnest(mails, locks) u (mail_id, is_held) where u.is_held));
  starts := noetl.prepare_starts(executions, events, sizes, locks);
  return query
  with found as materialized (
    select u.mail_id, u.execution_id, u.event_id, u.is_held, u.oversize, noetl.kind_of(e.event_type) as kind, e.event_type,
      e.node_id, e.node_name, e.context, e.result, e.error, e.meta, s.turn, s.last_at, s.tokens,
      -- a NoETL server's column is unbounded, and one cannot calculate with infinity
      case when e.created_at is not null
        then least(greatest(e.created_at::timestamptz, '1900-01-01Z'), '9000-01-01Z') end as created_at
    from unnest(mails, executions, events, locks, sizes) u (mail_id, execution_id, event_id, is_held, oversize)
    left join noetl.event e on e.execution_id = u.execution_id and e.event_id = u.event_id
    left join noetl.execution_state s on s.execution_id = u.execution_id
  ), weighed as materialized (
    select f.execution_id, f.mail_id,
      case when f.is_held and f.kind = 'action_failed' then noetl.weight(f.result) else 0 end as result_bytes,
      case when f.is_held then noetl.weight(f.tokens) else 0 end + case
        when not f.is_held or f.oversize is not null then 0
        when f.kind = 'action_failed' then noetl.weight(f.result)
        when (f.kind like 'action%') is not true then noetl.weight(f.context) else 0
      end as bytes
    from found f
  ), large as (
    select case
      when sum(w.bytes::float8) > noetl.limit_of('batch_bytes') then noetl.too_large_together(
        array(select w.execution_id from weighed w), array(select w.mail_id from weighed w), array(select w.bytes from weighed w),
        array(select w.result_bytes from weighed w), newest
      )
    end as mails
    from weighed w
  )
  select m.mail_id, m.execution_id, m.event_id,
    m.comes and not (w.is_held_up or w.waits_for_earlier or w.comes_too_early),
    -- later than the event and than the last turn, also where the clock steps back
    greatest(clock_timestamp(), m.created_at + interval '1 microsecond', m.last_at + interval '1 microsecond'),
    -- beside a NoETL server, an event after the end is dated before the end
    coalesce(case when x.ended_at is null then date_part('epoch', clock_timestamp() - m.created_at) end, 0),
    left(m.event_type, noetl.limit_of('type_chars')), left(m.node_id, noetl.limit_of('node_chars')),
    left(m.node_name, noetl.limit_of('node_chars')),
    case when m.comes and m.oversize is null and m.kind not like 'action%' then noetl.as_json(m.context) end,
    -- a large result is loaded where a template names it; a failure is decided on together with its result
    case
      when pg_column_size(m.result) <= noetl.limit_of('small_bytes')
        or m.comes and m.kind = 'action_failed' and octet_length(m.result::text) <= noetl.limit_of('result_bytes')
        then noetl.as_json(m.result)
    end,
    coalesce(pg_column_size(m.result) > noetl.limit_of('small_bytes') and m.kind <> 'action_failed', false),
    case
      when m.oversize is null or m.error is null then noetl.as_error(m.error)
      else jsonb_build_object('message', format('the error was not read: the event is too large (%s bytes)', m.oversize))
    end,
    case when m.oversize is null then noetl.as_json(m.meta) end,
    noetl.is_broken(m.result) or m.oversize is null and noetl.is_broken(m.context),
    -- an event that was inserted without noetl.complete_job
    case
      when m.comes and pg_column_size(m.result) > noetl.limit_of('small_bytes')
        and m.kind in ('action_completed', 'action_failed') and octet_length(m.result::text) > noetl.limit_of('result_bytes')
        then octet_length(m.result::text)
    end,
    case when m.comes then m.oversize end,
    case when m.kind = 'execution_start' then noetl.is_path_paused(x.path, noetl.as_json(m.meta)) end,
    case when m.kind = 'action_failed' then (
      select q.attempts from noetl.queue q where q.execution_id = m.execution_id and q.node_id = m.node_id
    ) end,
    case when m.kind = 'execution_signal' and m.comes
      then noetl.is_doubled_signal(m.execution_id, m.event_id, noetl.as_json(m.context) -> 'signal_id') end,
    coalesce(x.undo_catalog_id, x.catalog_id), x.path, case when x.undo_catalog_id is null then x.version else c.version end, coalesce(c.name, noetl.name_of_path(x.path)), x.rules,
    m.turn, case when m.comes then m.tokens end, x.parent_execution_id, x.parent_event_id, x.parent_node_id, x.parent_index,
    -- most playbooks read a small workload in every turn; a large one is loaded where a template names it
    case when pg_column_size(x.workload) <= 2048 then x.workload end
  from (
    select f.*, f.is_held and (f.mail_id = any((select l.mails from large l)::bigint[])) is not true as comes
    from found f
    offset 0 -- a fence: the planner would repeat this expression, and each repetition reads all mail
  ) m
  cross join lateral (
    select (m.execution_id = any(starts.held_up)) is true as is_held_up,
      (m.execution_id = any(behind) and m.kind in ('action_completed', 'action_failed')) is true as waits_for_earlier,
      (m.execution_id = any(starts.early) and m.kind is distinct from 'execution_start') is true as comes_too_early
  ) w
  left join noetl.execution x on x.execution_id = m.execution_id
  left join noetl.catalog c on c.catalog_id = coalesce(x.undo_catalog_id, x.catalog_id);
end
$$;

revoke all on function
  noetl.lock_mail(int, boolean, bigint), noetl.lock_executions(bigint[], bigint[], boolean[]),
  noetl.insert_started(bigint[], bigint[], text[], bigint[]), noetl.executions_before_start(bigint[], bigint[]),
  noetl.prepare_starts(bigint[], bigint[], text[], boolean[]),
  noetl.too_large_together(bigint[], bigint[], bigint[], bigint[], boolean),
  noetl.is_doubled_signal(bigint, bigint, jsonb), noetl.take_mail(int, boolean, bigint)
  from public;
