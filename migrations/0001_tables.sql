-- The tables: events, jobs and the state of each execution.
--
-- Every statement is `if not exists`. So the file is safe on an empty database. Beside the tables of a NoETL server it adds
-- what is missing and changes no data. Ids are time-ordered, so the history is partitioned by ranges of execution ids.
-- Every key of its tables includes the execution. The tables of a NoETL server are not partitioned.

create schema if not exists noetl;

create sequence if not exists noetl.id_seq cache 32;

-- 41 bits of milliseconds since 2024, then 20 bits of a counter: unique, and roughly in order of time. Ids are assigned
-- before the commit, so nothing may rely on their order. The order of a history is the order of its turns.
create or replace function noetl.next_id() returns bigint
language sql volatile parallel unsafe
as $$
  select ((date_part('epoch', clock_timestamp()) * 1000)::bigint - 1704067200000) << 20
       | (nextval('noetl.id_seq'::regclass) & 1048575)
$$;

-- Whether an execution in this status has not ended. A plan contains its text instead of a call, so it matches the indexes
-- of live executions. `LIVE` in broker/state.py is the same list.
create or replace function noetl.is_live(status text) returns boolean
language sql immutable parallel safe
as $$
  select status in ('QUEUED', 'RUNNING', 'PAUSED', 'COMPENSATING')
$$;

-- Whether a wait in this status is not over.
create or replace function noetl.is_waiting(status text) returns boolean
language sql immutable parallel safe
as $$
  select status in ('open', 'signalled')
$$;

comment on function noetl.is_waiting(text) is 'Whether a wait in this status is not over: open, signalled.';
comment on function noetl.is_live(text) is
  'Whether an execution in this status has not ended: QUEUED, RUNNING, PAUSED, COMPENSATING.';

-- The checks of these tables call functions in plpgsql. Postgres parses and plans an expression of a check again in each
-- statement that writes a row. It plans the body of a function once a session.
create or replace function noetl.is_execution_status(status text) returns boolean
language plpgsql immutable parallel safe
as $$
begin
  return noetl.is_live(status) or status in ('COMPLETED', 'FAILED', 'CANCELLED');
end
$$;

comment on function noetl.is_execution_status(text) is 'For the check of noetl.execution: whether this is a status.';

create or replace function noetl.is_job_status(status text, is_held boolean) returns boolean
language plpgsql immutable parallel safe
as $$
begin
  return case
    when is_held then status = 'held'
    else status in ('queued', 'leased', 'delegated', 'done', 'failed', 'retry', 'dead', 'cancelled')
  end;
end
$$;

comment on function noetl.is_job_status(text, boolean) is
  'For the check of noetl.queue: whether this is the status of a job that something holds, or that nothing holds.';

create table if not exists noetl.catalog (
  catalog_id bigint primary key default noetl.next_id(),
  path text not null,
  version int not null,
  kind text not null default 'Playbook',
  content text not null,
  payload jsonb,
  meta jsonb,
  created_at timestamptz not null default clock_timestamp(),
  unique (path, version)
);

comment on table noetl.catalog is
  'Playbooks, one row per registered version. An execution keeps the version that it started with.';

create table if not exists noetl.event (
  execution_id bigint not null,
  event_id bigint not null default noetl.next_id(),
  catalog_id bigint,
  parent_event_id bigint,
  parent_execution_id bigint,
  -- no infinity, and no year that Python cannot represent
  created_at timestamptz not null default clock_timestamp() check (created_at between '1900-01-01Z' and '9999-01-01Z'),
  event_type text not null,
  node_id text,
  node_name text,
  node_type text,
  status text,
  duration double precision,
  context jsonb,
  result jsonb,
  meta jsonb,
  error jsonb,
  worker_id text,
  primary key (execution_id, event_id)
) partition by range (execution_id);

comment on table noetl.event is 'Facts that never change: what producers and workers reported, and what the broker decided.';
comment on column noetl.event.parent_event_id is 'The event that caused this one.';

create table if not exists noetl.queue (
  queue_id bigint not null default noetl.next_id(),
  execution_id bigint not null,
  catalog_id bigint,
  node_id text not null,
  node_name text not null,
  node_type text not null,
  action text not null,
  context jsonb,
  status text not null default 'queued',
  priority int not null default 5,
  attempts int not null default 0,
  max_attempts int not null default 1,
  available_at timestamptz not null default clock_timestamp(),
  lease_until timestamptz,
  worker_id text,
  last_heartbeat timestamptz,
  parent_execution_id bigint,
  parent_event_id bigint,
  event_id bigint,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  held_for text[],
  primary key (execution_id, node_id),
  check (noetl.is_job_status(status, held_for is not null))
) partition by range (execution_id);
alter table noetl.queue add column if not exists timeout_seconds double precision;
alter table noetl.queue add column if not exists first_leased_at timestamptz;
alter table noetl.queue add column if not exists lost_leases int not null default 0;
alter table noetl.queue add column if not exists lease_seconds int;
-- in the table of a NoETL server, which has statuses of its own
alter table noetl.queue add column if not exists held_for text[]
  check ((status = 'held') = (held_for is not null));
alter table noetl.queue add column if not exists stop boolean not null default false;
alter table noetl.queue add column if not exists progress jsonb;
alter table noetl.queue add column if not exists awaited boolean not null default false;

comment on table noetl.queue is 'Jobs for workers, at most one per visit of a step or per iterator item.';
comment on column noetl.queue.status is
  'queued, leased, done, failed (until the broker decides), retry, dead, cancelled; held: kept from workers; delegated: the broker runs it itself.';
comment on column noetl.queue.held_for is
  'Why it is held: `pause`, `limit`. It is queued or retry again once nothing holds it.';
comment on column noetl.queue.attempts is
  'The number of the last lease, or start of its child: the fencing token, not a count of failures. The failure of an attempt that nobody leased raises it too.';
comment on column noetl.queue.priority is 'Higher goes first.';
comment on column noetl.queue.first_leased_at is
  'The first lease of the current attempt. The timeout of the step counts from here.';
comment on column noetl.queue.stop is
  'The worker of this lease shall stop: nobody wants its result. Its heartbeats are false.';
comment on column noetl.queue.awaited is
  'Its visit is over, but a late success of this lease is to be undone. It is leased once: a lost lease ends it.';
comment on column noetl.queue.progress is
  'What the worker last reported of the attempt that it names; null: nothing.';

create index if not exists queue_ready on noetl.queue (priority desc, available_at, queue_id)
  where status in ('queued', 'retry');
create index if not exists queue_delegated on noetl.queue (available_at) where status = 'delegated';
create index if not exists queue_leased on noetl.queue (lease_until) where status = 'leased';
create index if not exists queue_timed on noetl.queue (first_leased_at)
  where timeout_seconds is not null and first_leased_at is not null and status in ('leased', 'delegated', 'queued', 'held');

-- The first turn adds the workload and the rules to the row of a start. Its page has room for them, so that the update is
-- HOT and writes no index.
create table if not exists noetl.execution (
  execution_id bigint primary key,
  catalog_id bigint,
  path text,
  version int,
  status text not null default 'RUNNING'
    check (noetl.is_execution_status(status)),
  started_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  parent_execution_id bigint,
  parent_event_id bigint,
  parent_node_id text,
  parent_index int,
  idempotency_key text,
  rules json,
  workload jsonb,
  result jsonb,
  error jsonb
) with (fillfactor = 80);
alter table noetl.execution add column if not exists forked_from bigint;
alter table noetl.execution add column if not exists payload_digest bytea;
create unique index if not exists execution_idempotency on noetl.execution (path, idempotency_key)
  where idempotency_key is not null;
create index if not exists execution_children on noetl.execution (parent_execution_id) where noetl.is_live(status);
-- children that have ended too, for pages and retries; an execution without a parent writes nothing here
create index if not exists execution_parents on noetl.execution (parent_execution_id) where parent_execution_id is not null;
create index if not exists execution_forks on noetl.execution (forked_from) where forked_from is not null;
create index if not exists execution_live on noetl.execution (execution_id) where noetl.is_live(status);
-- for lists of failed executions among many that completed; those write nothing here
create index if not exists execution_failed on noetl.execution (execution_id) where status in ('FAILED', 'CANCELLED');

comment on table noetl.execution is
  'One row per execution, for people and dashboards. It is written at the start and at the end.';
comment on column noetl.execution.parent_node_id is
  'The visit of the parent that waits for this execution; null: no visit waits.';
comment on column noetl.execution.parent_index is 'The index of this child in an iterator of its parent, from 0.';
comment on column noetl.execution.forked_from is
  'The execution that this one was forked from. `fork` in the meta of its execution_start lists the results.';
comment on column noetl.execution.rules is 'The settings that affect decisions, pinned at the start of the execution.';
comment on column noetl.execution.workload is
  'The rendered defaults of the playbook, with the payload of the caller merged over them.';

-- This row is rewritten at every turn. It is small, and its page has room for the next version. So the update is HOT and
-- writes no index.
create table if not exists noetl.execution_state (
  execution_id bigint primary key,
  turn int not null check (turn >= 0),
  last_at timestamptz not null,
  tokens json not null
) with (fillfactor = 60);

comment on table noetl.execution_state is 'The state of the core for each execution: tokens, visits, turn number.';

create table if not exists noetl.turn (
  execution_id bigint not null,
  turn int not null check (turn > 0),
  event_id bigint not null,
  outcome text not null,
  note text,
  decided_at timestamptz not null,
  facts jsonb,
  result_event_id bigint,
  primary key (execution_id, turn)
) partition by range (execution_id);

comment on table noetl.turn is 'One row per event that the broker read. Turn numbers order the history of an execution.';
comment on column noetl.turn.outcome is 'decided, or the reason why the event changed nothing.';
comment on column noetl.turn.facts is 'What the broker knew about the event beside its row. A replay reads it from here.';
comment on column noetl.turn.result_event_id is
  'The step_failed event of an action that failed for good. It carries the error as the result of the step.';

create table if not exists noetl.workload (
  execution_id bigint primary key,
  "timestamp" timestamptz not null default clock_timestamp(),
  data jsonb
) partition by range (execution_id);

create table if not exists noetl.workflow (
  execution_id bigint not null,
  step_id text not null,
  step_name text not null,
  step_type text,
  description text,
  raw_config text,
  primary key (execution_id, step_id)
) partition by range (execution_id);
alter table noetl.workflow add column if not exists ordinal int;
alter table noetl.workflow add column if not exists status text;
alter table noetl.workflow add column if not exists visits int not null default 0;
alter table noetl.workflow add column if not exists started_at timestamptz;
alter table noetl.workflow add column if not exists ended_at timestamptz;
alter table noetl.workflow add column if not exists result_visit int;
alter table noetl.workflow add column if not exists result_event_id bigint;

comment on table noetl.workflow is 'One row per step of an execution, with its current status.';
comment on column noetl.workflow.status is 'Of the latest visit: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED.';
comment on column noetl.workflow.result_event_id is
  'The event with the result of the latest visit that has one; of a failed action, its step_failed.';

create table if not exists noetl.transition (
  execution_id bigint not null,
  from_step text not null,
  to_step text not null,
  condition text,
  with_params text
) partition by range (execution_id);
alter table noetl.transition add column if not exists ordinal int;
create unique index if not exists transition_arc on noetl.transition (execution_id, ordinal) where ordinal is not null;

comment on table noetl.transition is 'One row per transition of an execution''s workflow, in the order of the playbook.';

create table if not exists noetl.workbook (
  execution_id bigint not null,
  task_id text not null,
  task_name text,
  task_type text,
  raw_config text,
  primary key (execution_id, task_id)
) partition by range (execution_id);

-- Items are rows, so that the state of the core holds counts only. An item that never started stays WAITING. An item that
-- was running when its iterator ended is CANCELLED.
create table if not exists noetl.iteration (
  execution_id bigint not null,
  node_id text not null,
  index int not null,
  item jsonb,
  status text not null default 'WAITING' check (status in ('WAITING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
  child_execution_id bigint,
  result_event_id bigint,
  error jsonb,
  failures int not null default 0,
  failed_attempt int,
  unsure boolean not null default false,
  primary key (execution_id, node_id, index)
) partition by range (execution_id);

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

comment on table noetl.wait is 'One row per visit of a step that waits for a moment, a signal or an approval.';
comment on column noetl.wait.status is
  'open; signalled: a signal or a decision is on its way to it; done; timed_out; cancelled: its visit was closed or its execution ended.';
comment on column noetl.wait.request is 'The rendered inputs of the visit, which its `next` may read.';
comment on column noetl.wait.since_at is 'Signals that are older than this do not count.';
comment on column noetl.wait.execution_id is 'Its execution.';
comment on column noetl.wait.node_id is 'The visit.';
comment on column noetl.wait.step is 'The step.';
comment on column noetl.wait.kind is 'timer, signal or approval.';
comment on column noetl.wait.names is 'The names of signals that end it; of a timer: null.';
comment on column noetl.wait.key is 'The key of signals that end it; null: the execution.';
comment on column noetl.wait.details is 'What an approval shows.';
comment on column noetl.wait.began_at is 'When it began.';
comment on column noetl.wait.ended_at is 'When it ended; null: not yet.';

-- Partitioned, because the rows live as long as the history of their execution.
create table if not exists noetl.signal_taken (
  execution_id bigint not null,
  signal_id bigint not null,
  event_id bigint not null,
  primary key (execution_id, signal_id)
) partition by range (execution_id);

comment on table noetl.signal_taken is 'The signals that each execution got. Each signal comes to an execution once.';
comment on column noetl.signal_taken.execution_id is 'The execution.';
comment on column noetl.signal_taken.signal_id is 'The signal.';
comment on column noetl.signal_taken.event_id is 'The execution_signal event that brought it. Any other one is doubled.';

-- What an attempt of a job prints or logs. noetl.log_job keeps its first and its last part. `first_byte` counts what is missing
-- too. So the gap between two rows says how much that is.
create table if not exists noetl.log (
  execution_id bigint not null,
  node_id text not null,
  attempt int not null,
  ordinal int not null check (ordinal > 0),
  step text not null,
  level text not null check (level in ('debug', 'info', 'warning', 'error')),
  created_at timestamptz not null default clock_timestamp(),
  first_byte bigint not null check (first_byte >= 0),
  message text not null,
  primary key (execution_id, node_id, attempt, ordinal)
) partition by range (execution_id);

comment on table noetl.log is
  'What each attempt of a job printed or logged, without the secrets of its worker. At most 64 KiB an attempt: its first and its last part.';
comment on column noetl.log.execution_id is 'The execution.';
comment on column noetl.log.node_id is 'The visit or the item.';
comment on column noetl.log.attempt is 'The attempt: `attempts` of the job''s lease.';
comment on column noetl.log.ordinal is 'Its place in the log of the attempt, from 1.';
comment on column noetl.log.step is 'The step.';
comment on column noetl.log.level is 'debug, info, warning, error. What a step prints is info, on stdout and on stderr.';
comment on column noetl.log.created_at is 'When the database got it. The reference worker sends twice a second.';
comment on column noetl.log.first_byte is
  'How many bytes the attempt had printed before. A gap after the end of the row before is missing.';
comment on column noetl.log.message is 'The text as it was printed, with its ends of lines. The end may be in the next row.';

-- Few rows, and they live until they are due. So they are in one table without partitions.
create table if not exists noetl.timer (
  timer_id bigint generated always as identity primary key,
  execution_id bigint not null,
  node_id text,
  step text,
  purpose text not null check (purpose in ('wait', 'timeout', 'signals', 'child', 'deadline', 'start_timeout')),
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
   execution; start_timeout: of a job that no worker has leased.';
comment on column noetl.timer.due_at is 'Its moment.';
comment on column noetl.timer.is_moment is
  'The moment was given, such as by `until`. A clock that steps back does not move it, as it moves delays.';
comment on column noetl.timer.created_at is 'When it was written.';

-- Events that the broker set aside because of a fault of the program, not of the playbook.
create table if not exists noetl.dead_letter (
  event_id bigint not null,
  execution_id bigint not null,
  reason text not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (execution_id, event_id)
);

create table if not exists noetl.inbox (
  mail_id bigint generated always as identity primary key,
  execution_id bigint not null,
  event_id bigint not null,
  adopts boolean not null default false,
  oversize text
) with (
  -- rows live for milliseconds: vacuum by count, never by a share of the table
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0
);
-- Each claim looks for these few rows, among any number of rows of the same execution.
create index if not exists inbox_adopts on noetl.inbox (execution_id) where adopts;

comment on table noetl.inbox is 'Events that the broker has not decided on yet.';
comment on column noetl.inbox.oversize is
  'The part of the event that is larger than the broker reads, and its size in bytes: `context 50000012`.';
comment on column noetl.inbox.adopts is
  'The event says that a worker started a child. Later answers of that worker wait until it is decided on.';

-- A turn never waits for a worker that holds a job. So a job that is locked at its withdrawal is recorded here. Once it is
-- free, the reaper cancels it, or tells its worker to stop.
create table if not exists noetl.withdrawn_job (
  execution_id bigint not null,
  node_id text not null,
  awaited boolean not null default false,
  primary key (execution_id, node_id)
);

comment on table noetl.withdrawn_job is
  'Jobs that were locked when the broker withdrew them. The reaper cancels them, or tells their workers to stop.';
comment on column noetl.withdrawn_job.awaited is
  'Its execution undoes nothing before the job has ended. So its worker is not told to stop.';

-- After the server's clock steps back (it was wrong, or another server took over), due times lie in the future. Nothing
-- else reveals it. The first look of a reaper inserts the row.
create table if not exists noetl.clock (
  is_only boolean primary key default true check (is_only),
  seen_at timestamptz not null default clock_timestamp(),
  stepped_at timestamptz,
  behind_seconds double precision,
  ahead_until timestamptz,
  steps int not null default 0,
  is_pulling boolean not null default false
);

comment on table noetl.clock is
  'One row: the latest time that a broker saw on the server''s clock, and the clock''s last step back.';

-- These come last, because they lock noetl.event until the end of the transaction. The indexes above may take long.
alter table noetl.catalog add column if not exists name text;
alter table noetl.catalog add column if not exists block_of bigint;
alter table noetl.event add column if not exists meta jsonb;
alter table noetl.event add column if not exists error jsonb;
alter table noetl.event add column if not exists worker_id text;
alter table noetl.event add column if not exists parent_execution_id bigint;

comment on column noetl.catalog.name is 'metadata.name of the playbook; null: the last part of the path.';
comment on column noetl.catalog.block_of is
  'Of a block, a step''s steps in the same document: the catalog_id of its playbook. null: a playbook.';
comment on column noetl.event.meta is
  'The turn that wrote the event and the conditions that it evaluated; or the job and the attempt.';

-- A NoETL server's own defaults of ids stay as they are.
do $$
declare
  missing record;
begin
  for missing in
    select c.table_name, c.column_name
    from information_schema.columns c
    where c.table_schema = 'noetl'
      and (c.table_name, c.column_name) in (('catalog', 'catalog_id'), ('event', 'event_id'), ('queue', 'queue_id'))
      and c.column_default is null
      and c.is_identity = 'NO'
  loop
    execute format('alter table noetl.%I alter column %I set default noetl.next_id()', missing.table_name, missing.column_name);
  end loop;
end
$$;

revoke all on function
  noetl.next_id(), noetl.is_live(text), noetl.is_waiting(text), noetl.is_execution_status(text),
  noetl.is_job_status(text, boolean)
  from public;
