-- Pause and resume: of an execution, and of all new starts of a path.
--
-- A pause is an event that a turn decides. Its jobs are held in bounded turns: the status `held` keeps them from workers,
-- so the index of ready jobs does not contain them.

-- Numbers of pauses and resumes: a claim may read the newest mail first, and then an earlier one is late.
create sequence if not exists noetl.pause_seq;

create table if not exists noetl.path_pause (
  path text primary key,
  reason text,
  paused_at timestamptz not null default clock_timestamp(),
  paused_by text
);

comment on table noetl.path_pause is 'Playbooks whose new executions are queued.';
comment on column noetl.path_pause.path is 'The playbook''s path.';
comment on column noetl.path_pause.reason is 'Why it was paused.';
comment on column noetl.path_pause.paused_at is 'When it was paused.';
comment on column noetl.path_pause.paused_by is 'Who paused it: login:NAME or token:NAME.';

-- As in noetl.job_to_cancel, a turn waits for no worker.
create table if not exists noetl.unheld_job (
  execution_id bigint not null,
  node_id text not null,
  primary key (execution_id, node_id)
);

comment on table noetl.unheld_job is
  'Jobs that were locked when their execution was paused. The reaper asks the broker to hold those that were not leased.';
comment on column noetl.unheld_job.execution_id is 'The execution.';
comment on column noetl.unheld_job.node_id is 'The visit or the item of the job.';

create or replace function noetl.ask_to_hold(execution_id bigint, event_type text, reason text, by text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  execution record;
begin
  select x.status, x.catalog_id, coalesce(c.name, noetl.name_of_path(x.path)) as name
  into execution
  from noetl.execution x
  left join noetl.catalog c on c.catalog_id = x.catalog_id
  where x.execution_id = $1;
  if not found then
    perform noetl.refuse_unknown($1);
  end if;
  if not noetl.is_live(execution.status) then
    return false;
  elsif execution.status = 'COMPENSATING' then
    raise exception using errcode = 'NB409',
      message = format('execution %s is undoing what it did; that is neither paused nor resumed', $1),
      hint = noetl.how_to_end($1);
  end if;
  perform set_config('noetl.writer', '', true);
  insert into noetl.event (
    execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context, meta
  ) values (
    $1, execution.catalog_id, $2, $1::text, execution.name, 'playbook', 'PENDING',
    jsonb_strip_nulls(jsonb_build_object('reason', left($3, noetl.limit_of('reason_chars')), 'by', noetl.caller_name($4))),
    jsonb_build_object('number', noetl.next_number('noetl.pause_seq'))
  );
  return true;
end
$$;

comment on function noetl.ask_to_hold(bigint, text, text, text) is
  'For pause_execution and resume_execution: sends the event, and says whether the execution is live.';

create or replace function noetl.pause_execution(execution_id bigint, reason text default null, by text default null) returns boolean
language plpgsql
as $$
begin
  return noetl.ask_to_hold($1, 'execution_pause', $2, $3);
end
$$;

comment on function noetl.pause_execution(bigint, text, text) is
  'Asks the broker to pause an execution and its children. Returns false when it has already ended.';

create or replace function noetl.resume_execution(execution_id bigint, by text default null) returns boolean
language plpgsql
as $$
begin
  return noetl.ask_to_hold($1, 'execution_resume', null, $2);
end
$$;

comment on function noetl.resume_execution(bigint, text) is
  'Asks the broker to resume a paused execution and its children. Returns false when it has already ended.';

-- Whether a start is queued because its path is paused. An execution that undoes a step of its parent never is.
create or replace function noetl.is_path_paused(path text, meta jsonb) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from noetl.path_pause p where p.path = $1)
    and not coalesce($2 -> 'parent' ? 'undoes', false)
$$;

create or replace function noetl.pause_path(path text, reason text default null, by text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  if not exists (select from noetl.catalog c where c.path = $1) then
    raise exception using errcode = 'NB404', message = format('no playbook %s is registered', left($1, 200)),
      hint = 'noetl-broker register FILE adds a playbook to the catalog';
  end if;
  insert into noetl.path_pause (path, reason, paused_by)
  values ($1, left($2, noetl.limit_of('reason_chars')), noetl.caller_name($3))
  on conflict (path) do nothing;
  return found;
end
$$;

comment on function noetl.pause_path(text, text, text) is
  'New executions of a playbook are queued, children too. Returns false when they already are.';

create or replace function noetl.resume_path(path text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  was_paused boolean;
begin
  delete from noetl.path_pause p
  where p.path = $1;
  was_paused := found;
  update noetl.on_signal o
  set since_at = clock_timestamp()
  where o.path = $1 and o.since_at = 'infinity';
  return was_paused or found;
end
$$;

comment on function noetl.resume_path(text) is
  'New executions of a playbook run at once, and signals start it. The broker admits queued executions. Returns false when the path is not paused.';

create or replace function noetl.admit_executions(path text, most int) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  admitted int;
begin
  perform set_config('noetl.writer', '', true);
  with free as (
    update noetl.execution x
    set admitted_at = clock_timestamp()
    where x.execution_id = any(array(
        select q.execution_id
        from noetl.execution q
        where q.path = $1 and q.status = 'QUEUED' and q.admitted_at is null and q.waits_for_slot is null
        order by q.started_at, q.execution_id
        limit $2
        for update skip locked
      ))
      and not exists (select from noetl.path_pause p where p.path = $1)
    returning x.execution_id, x.catalog_id, x.path, x.started_at
  )
  insert into noetl.event (execution_id, catalog_id, event_type, node_id, node_name, node_type, status)
  select f.execution_id, f.catalog_id, 'place_free', f.execution_id::text, coalesce(c.name, noetl.name_of_path(f.path)),
    'playbook', 'PENDING'
  from free f
  left join noetl.catalog c on c.catalog_id = f.catalog_id
  order by f.started_at, f.execution_id;
  get diagnostics admitted = row_count;
  return admitted;
end
$$;

comment on function noetl.admit_executions(text, int) is
  'Admits up to `most` queued executions of a playbook that is not paused, the oldest first. Returns their number.';

-- What the reaper does: admits queued executions whose path is not paused, and asks the broker to hold jobs that were locked.
-- The recursion reads each path of the index once, however many executions of it are queued.
create or replace function noetl.reap_holds(max_rows int) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
as $$
declare
  waiting text[];
  admitted int := 0;
begin
  if exists (select from noetl.execution x where x.status = 'QUEUED' and x.admitted_at is null and x.waits_for_slot is null) then
    with recursive paths as (
      (select x.path from noetl.execution x where x.status = 'QUEUED' and x.admitted_at is null and x.waits_for_slot is null order by x.path limit 1)
      union all
      select (
        select x.path
        from noetl.execution x
        where x.status = 'QUEUED' and x.admitted_at is null and x.waits_for_slot is null and x.path > p.path
        order by x.path
        limit 1
      )
      from paths p
      where p.path is not null
    )
    select array_agg(p.path)
    into waiting
    from paths p
    where p.path is not null and not exists (select from noetl.path_pause s where s.path = p.path);
    select coalesce(sum(noetl.admit_executions(u.path, max_rows)), 0)
    into admitted
    from unnest(waiting) u (path);
  end if;
  if exists (select from noetl.unheld_job) then
    perform set_config('noetl.writer', '', true);
    with free as materialized (
      select q.execution_id, q.node_id, q.status
      from noetl.unheld_job u
      join noetl.queue q on q.execution_id = u.execution_id and q.node_id = u.node_id
      limit max_rows
      for update of q skip locked
    ), looked as (
      delete from noetl.unheld_job u
      where exists (select from free f where f.execution_id = u.execution_id and f.node_id = u.node_id)
        or not exists (select from noetl.queue q where q.execution_id = u.execution_id and q.node_id = u.node_id)
    )
    insert into noetl.event (execution_id, catalog_id, event_type, node_id, node_name, node_type, status)
    select distinct f.execution_id, x.catalog_id, 'holds_due', f.execution_id::text, noetl.name_of_path(x.path),
      'playbook', 'PENDING'
    from free f
    join noetl.execution x on x.execution_id = f.execution_id
    where f.status in ('queued', 'retry', 'held');
  end if;
  return admitted;
end
$$;

-- Holds jobs of a paused execution, or releases those of a resumed one: the next `most` after a node. Called by the broker
-- under the lock of the execution. If more are left, the execution sends itself `holds_due`.
create or replace function noetl.hold_jobs(execution_id bigint, after text, most int) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  own record;
  last text;
  count int;
  next_id bigint;
begin
  select x.status, x.catalog_id, x.path
  into own
  from noetl.execution x
  where x.execution_id = $1;
  if own.status in ('PAUSED', 'QUEUED') then
    with chosen as materialized (
      select q.node_id
      from noetl.queue q
      where q.execution_id = $1 and q.node_id > coalesce($2, '')
        and (q.status in ('queued', 'retry') or q.status = 'held' and 'pause' <> all(q.held_for))
      order by q.node_id
      limit $3
    ), free as materialized (
      select q.node_id
      from chosen c
      join noetl.queue q on q.execution_id = $1 and q.node_id = c.node_id
      where q.status in ('queued', 'retry') or q.status = 'held' and 'pause' <> all(q.held_for)
      for update of q skip locked
    ), held as (
      update noetl.queue q
      set status = 'held', held_for = array_append(q.held_for, 'pause'), updated_at = greatest(at, q.updated_at + interval '1 microsecond')
      from free f
      where q.execution_id = $1 and q.node_id = f.node_id
    ), locked as (
      insert into noetl.unheld_job (execution_id, node_id)
      select $1, c.node_id
      from (select node_id from chosen except select node_id from free) c
      on conflict do nothing
    )
    select max(c.node_id), count(*)
    into last, count
    from chosen c;
  elsif own.status = 'RUNNING' then
    -- a released job is available from now on: a worker may start its scans after the jobs that it has seen
    with chosen as materialized (
      select q.node_id
      from noetl.queue q
      where q.execution_id = $1 and q.status = 'held' and 'pause' = any(q.held_for)
      order by q.node_id
      limit $3
      for update
    ), released as (
      update noetl.queue q
      set held_for = nullif(array_remove(q.held_for, 'pause'), '{}'),
          status = case
            when q.held_for <> array['pause'] then 'held'
            when q.attempts > 0 and q.first_leased_at is null then 'retry'
            else 'queued'
          end,
          available_at = greatest(at, least(q.available_at, at + (q.available_at - q.updated_at))),
          updated_at = greatest(at, q.updated_at + interval '1 microsecond')
      from chosen c
      where q.execution_id = $1 and q.node_id = c.node_id
    ), start_timeouts as (
      -- they count while a worker may lease the job
      update noetl.timer t
      set due_at = at + (t.due_at - t.created_at), created_at = at
      from chosen c
      where t.execution_id = $1 and t.node_id = c.node_id and t.purpose = 'start_timeout'
    )
    select max(c.node_id), count(*)
    into last, count
    from chosen c;
    perform noetl.notify(count > 0, false);
  end if;
  if count = $3 then
    insert into noetl.event (execution_id, catalog_id, event_type, node_id, node_name, node_type, status, meta)
    values ($1, own.catalog_id, 'holds_due', $1::text, noetl.name_of_path(own.path), 'playbook', 'PENDING',
      jsonb_build_object('after', last))
    returning event_id into next_id;
    insert into noetl.inbox (execution_id, event_id)
    values ($1, next_id);
  end if;
end
$$;

-- The new statuses of executions that go on living, written by the broker. The children of a paused or resumed execution
-- get an event of the type `for_children`, with `numbers` of the turns. A queued execution whose path is not paused any more
-- is admitted: the row of the path is locked, so whoever resumes the path finds this execution. An execution that
-- waits for slots (`waits` is true) or for its moment (false) is not admitted.
create or replace function noetl.set_statuses(
  executions bigint[], statuses text[], admitted boolean[], for_children text[], numbers int[], reasons text[], waits boolean[]
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  at timestamptz := clock_timestamp();
begin
  update noetl.execution x
  set status = c.status,
      admitted_at = case
        when c.admitted then coalesce(x.admitted_at, at)
        when c.status <> 'QUEUED' then x.admitted_at
      end,
      waits_for_slot = case c.status when 'PAUSED' then x.waits_for_slot when 'QUEUED' then c.waits end
  from unnest(executions, statuses, admitted, waits) c (execution_id, status, admitted, waits)
  where x.execution_id = c.execution_id and c.status is not null and noetl.is_live(x.status);

  with children as materialized (
    select x.execution_id, x.catalog_id, x.path, noetl.next_id() as event_id, c.event_type, c.number, c.reason,
      c.execution_id as parent_execution_id
    from unnest(executions, for_children, numbers, reasons) c (execution_id, event_type, number, reason)
    join noetl.execution x on x.parent_execution_id = c.execution_id and noetl.is_live(x.status)
    where c.event_type is not null and x.path is not null
  ), sent as (
    insert into noetl.event (
      execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context, meta
    )
    select execution_id, event_id, catalog_id, event_type, execution_id::text, noetl.name_of_path(path), 'playbook',
      'PENDING', jsonb_strip_nulls(jsonb_build_object('parent_execution_id', parent_execution_id, 'reason', reason)),
      jsonb_build_object('number', number)
    from children
  )
  insert into noetl.inbox (execution_id, event_id)
  select execution_id, event_id
  from children;

  if 'QUEUED' = any(statuses) then
    with paused as materialized (
      select p.path
      from noetl.path_pause p
      where p.path in (
        select x.path
        from unnest(executions, statuses, waits) c (execution_id, status, waits)
        join noetl.execution x on x.execution_id = c.execution_id
        where c.status = 'QUEUED' and c.waits is null
      )
      for key share skip locked
    ), free as (
      update noetl.execution x
      set admitted_at = at
      from unnest(executions, statuses, waits) c (execution_id, status, waits)
      where c.status = 'QUEUED' and c.waits is null and x.execution_id = c.execution_id and x.status = 'QUEUED'
        and not exists (select from paused p where p.path = x.path)
      returning x.execution_id, x.catalog_id, x.path
    ), events as (
      insert into noetl.event (execution_id, catalog_id, event_type, node_id, node_name, node_type, status)
      select f.execution_id, f.catalog_id, 'place_free', f.execution_id::text, noetl.name_of_path(f.path), 'playbook',
        'PENDING'
      from free f
      returning execution_id, event_id
    )
    insert into noetl.inbox (execution_id, event_id)
    select e.execution_id, e.event_id
    from events e;
  end if;
end
$$;

revoke all on function
  noetl.ask_to_hold(bigint, text, text, text), noetl.pause_execution(bigint, text, text), noetl.resume_execution(bigint, text),
  noetl.is_path_paused(text, jsonb), noetl.pause_path(text, text, text), noetl.resume_path(text),
  noetl.admit_executions(text, int), noetl.reap_holds(int), noetl.hold_jobs(bigint, text, int),
  noetl.set_statuses(bigint[], text[], boolean[], text[], int[], text[], boolean[])
  from public;
