-- Waits and timers: what a visit waits for, and the moments at which an execution gets an event.

-- Whether a wait in this status is not over.
create or replace function noetl.is_waiting(status text) returns boolean
language sql immutable parallel safe
as $$
  select status in ('open', 'signalled')
$$;

create table if not exists noetl.wait (
  execution_id bigint not null,
  node_id text not null,
  step text not null,
  kind text not null check (kind in ('timer', 'signal', 'approval')),
  status text not null default 'open' check (status in ('open', 'signalled', 'done', 'timed_out', 'cancelled')),
  request jsonb not null,
  names text[],
  key text,
  since_at timestamptz,
  details jsonb,
  began_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  primary key (execution_id, node_id)
) partition by range (execution_id);
create index if not exists wait_for_signal on noetl.wait (key, execution_id, node_id)
  where kind = 'signal' and status = 'open';
create index if not exists wait_approval on noetl.wait (execution_id) where kind = 'approval' and status = 'open';

comment on table noetl.wait is 'One row per visit of a step that waits for a moment, a signal or an approval.';
comment on column noetl.wait.execution_id is 'Its execution.';
comment on column noetl.wait.node_id is 'The visit.';
comment on column noetl.wait.step is 'The step.';
comment on column noetl.wait.kind is 'timer, signal or approval.';
comment on column noetl.wait.status is
  'open; signalled: a signal or a decision is on its way to it; done; timed_out; cancelled: its visit was cancelled or its execution ended.';
comment on column noetl.wait.request is 'The rendered inputs of the visit, which its `next` may read.';
comment on column noetl.wait.names is 'The names of signals that end it; of a timer: null.';
comment on column noetl.wait.key is 'The key of signals that end it; null: the execution.';
comment on column noetl.wait.since_at is 'Signals that are older than this do not count.';
comment on column noetl.wait.details is 'What an approval shows.';
comment on column noetl.wait.began_at is 'When it began.';
comment on column noetl.wait.ended_at is 'When it ended; null: not yet.';

-- Few rows, and they live until they are due. So they are in one table without partitions.
create sequence if not exists noetl.timer_seq;

create table if not exists noetl.timer (
  timer_id bigint primary key default noetl.next_number('noetl.timer_seq'),
  execution_id bigint not null,
  node_id text,
  step text,
  purpose text not null check (purpose in ('wait', 'timeout', 'signals', 'child', 'deadline', 'start_timeout', 'late', 'start')),
  due_at timestamptz not null,
  is_moment boolean not null default false,
  created_at timestamptz not null default clock_timestamp()
);
create index if not exists timer_due on noetl.timer (due_at);
create index if not exists timer_execution on noetl.timer (execution_id, node_id);

comment on table noetl.timer is 'Moments at which an execution gets an event. A row is deleted when it fires.';
comment on column noetl.timer.timer_id is 'Its number.';
comment on column noetl.timer.execution_id is 'Its execution.';
comment on column noetl.timer.node_id is 'The visit; null: the execution.';
comment on column noetl.timer.step is 'The step of the visit.';
comment on column noetl.timer.purpose is
  'wait: the moment that a visit waits for; timeout: of a wait; child: a failed child starts again; deadline: of the
   execution; start_timeout: of a job that no worker has leased; late: of the execution or a visit; start: a start that
   waits for its moment.';
comment on column noetl.timer.due_at is 'Its moment.';
comment on column noetl.timer.is_moment is
  'The moment was given, such as by `until`. A clock that steps back does not move it, as it moves delays.';
comment on column noetl.timer.created_at is 'When it was written.';

-- A JSON array of text as text[].
create or replace function noetl.text_list(value jsonb) returns text[]
language sql immutable parallel safe
as $$
  select case when value is not null then array(select jsonb_array_elements_text(value)) end
$$;

-- Wakes the brokers that sleep until a later timer, if this timer is the next of all. Timers that are due are fired now, so
-- nobody sleeps until one of these.
create or replace function noetl.notify_timers(due_at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if $1 is not null and current_setting('noetl.quiet', true) is distinct from 'on'
    and not exists (select from noetl.timer t where t.due_at < $1 and t.due_at > clock_timestamp())
  then
    perform pg_notify('noetl_timer', '');
  end if;
end
$$;

-- Fires timers that are due: each becomes an event of its execution, in the order of their moments. It skips locked rows, so
-- it waits for nobody. Timers that were due more than `since_seconds` ago wait for another call (null: none does). While a
-- session holds an old snapshot, the index keeps the entries of fired timers. Reading them takes ever longer.
-- Returns the number, how late the oldest was, and the moment of the next timer.
create or replace function noetl.fire_timers(
  max_rows int, since_seconds float8 default null, out fired int, out late_seconds float8, out next_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off -- a plan made while the tables were small would scan all of them
as $$
declare
  at timestamptz := clock_timestamp();
  since timestamptz := coalesce(at - make_interval(secs => since_seconds), '-infinity');
begin
  perform set_config('noetl.writer', '', true);
  with due as materialized (
    delete from noetl.timer t
    where t.timer_id = any(array(
      select r.timer_id
      from noetl.timer r
      where r.due_at between since and at
      order by r.due_at
      limit max_rows
      for update skip locked
    ))
    returning t.timer_id, t.execution_id, t.node_id, t.step, t.purpose, t.due_at, t.created_at
  ), unleased as materialized (
    -- a job that is locked is being leased; `limit` is a fence: each job is looked up by its key
    select r.execution_id, r.node_id, d.due_at
    from due d
    cross join lateral (
      select q.execution_id, q.node_id
      from noetl.queue q
      where q.execution_id = d.execution_id and q.node_id = d.node_id and q.status = 'queued' and q.attempts = 0
      limit 1
      for update skip locked
    ) r
    where d.purpose = 'start_timeout'
  ), never_leased as (
    update noetl.queue q
    set status = 'failed', updated_at = at
    from unleased u
    where q.execution_id = u.execution_id and q.node_id = u.node_id
    returning q.queue_id, q.execution_id, q.catalog_id, q.event_id, q.node_id, q.node_name, q.node_type, u.due_at
  ), again as (
    -- The time counts only while a worker might lease the job. A job that was locked is checked again: its lease may fail.
    insert into noetl.timer (execution_id, node_id, step, purpose, due_at, created_at)
    select d.execution_id, d.node_id, d.step, d.purpose, n.due_at, n.due_at - (d.due_at - d.created_at)
    from due d
    cross join lateral (
      select q.status, q.attempts
      from noetl.queue q
      where q.execution_id = d.execution_id and q.node_id = d.node_id
      limit 1
    ) r
    cross join lateral (
      select at + case r.status when 'held' then d.due_at - d.created_at else '1 second' end as due_at
    ) n
    where d.purpose = 'start_timeout' and r.attempts = 0 and (r.status = 'held' or r.status = 'queued' and not exists (
      select from unleased u where u.execution_id = d.execution_id and u.node_id = d.node_id
    ))
  ), failures as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, error, meta
    )
    select n.execution_id, n.catalog_id, n.event_id, 'action_failed', n.node_id, n.node_name, n.node_type, 'FAILED',
      jsonb_build_object('message', format('start_timeout: no worker leased the job by %s',
        to_char(n.due_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')), 'type', 'start_timeout'),
      jsonb_build_object('queue_id', n.queue_id, 'attempt', 0, 'retryable', true)
    from never_leased n
  ), events as (
    insert into noetl.event (
      execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, context, meta
    )
    select d.execution_id, x.catalog_id, q.event_id, coalesce(p.event_type, 'timer_due'),
      coalesce(d.node_id, d.execution_id::text), coalesce(d.step, c.name, noetl.name_of_path(x.path)),
      coalesce(
        q.node_type, p.node_type, case when d.node_id is null then 'playbook' when w.kind = 'approval' then w.kind else 'wait' end
      ),
      coalesce(p.status, 'RUNNING'),
      case when p.event_type is null then jsonb_build_object(
        'purpose', d.purpose, 'due_at', to_char(d.due_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
      ) end,
      case when d.purpose = 'child' and q.attempts is not null then jsonb_build_object('attempt', q.attempts + 1) end
    from due d
    join noetl.execution x on x.execution_id = d.execution_id
    left join (
      values ('child', 'child_due', 'playbook', 'PENDING'), ('deadline', 'execution_deadline', 'playbook', 'FAILED'),
        ('start', 'place_free', 'playbook', 'PENDING')
    ) p (purpose, event_type, node_type, status) on p.purpose = d.purpose
    left join noetl.wait w on d.purpose in ('timeout', 'late') and w.execution_id = d.execution_id and w.node_id = d.node_id
    left join lateral (
      select r.event_id, r.node_type, r.attempts
      from noetl.queue r
      where d.purpose in ('child', 'late') and r.execution_id = d.execution_id and r.node_id = d.node_id
      limit 1
    ) q on true
    left join noetl.catalog c on d.purpose in ('deadline', 'start', 'late') and d.node_id is null and c.catalog_id = x.catalog_id
    where (noetl.is_live(x.status) or x.undo_status = 'undoing') and d.purpose <> 'start_timeout'
    order by d.due_at, d.timer_id
  )
  select count(*), extract(epoch from at - min(d.due_at))
  into fired, late_seconds
  from due d;
  select min(t.due_at)
  into next_at
  from noetl.timer t
  where t.due_at >= since;
end
$$;

revoke all on function
  noetl.is_waiting(text), noetl.text_list(jsonb), noetl.notify_timers(timestamptz), noetl.fire_timers(int, float8)
  from public;
