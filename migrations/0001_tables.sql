-- The tables: what happened (event), what is to be done (queue), where each execution stands.
--
-- Every statement is `if not exists`, so that the file is safe on an empty database and beside the tables of a NoETL
-- server: there it adds what is missing and changes no data. Ids are time-ordered, so tables of history are partitioned by
-- ranges of execution ids, and can be cut by age; every key of theirs includes the execution. (A NoETL server's stay whole.)

create schema if not exists noetl;

create sequence if not exists noetl.id_seq cache 32;

-- 41 bits of milliseconds since 2024, 20 bits of a counter: unique, and roughly in order of time. Nothing relies on
-- that order for correctness: ids are given before commits, so the order of a history is the order of its turns.
create or replace function noetl.next_id() returns bigint
language sql volatile parallel unsafe
as $$
  select ((date_part('epoch', clock_timestamp()) * 1000)::bigint - 1704067200000) << 20
       | (nextval('noetl.id_seq'::regclass) & 1048575)
$$;

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

comment on table noetl.catalog is 'Playbooks: one row per registered version; an execution stays on the version it started with.';

create table if not exists noetl.event (
  execution_id bigint not null,
  event_id bigint not null default noetl.next_id(),
  catalog_id bigint,
  parent_event_id bigint,
  parent_execution_id bigint,
  -- no infinity, and no year that the programs which read it have no room for
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

comment on table noetl.event is 'Facts, never changed: what producers and workers reported and what the broker decided.';
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
  status text not null default 'queued'
    check (status in ('queued', 'leased', 'delegated', 'done', 'failed', 'retry', 'dead', 'cancelled')),
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
  primary key (execution_id, node_id)
) partition by range (execution_id);
alter table noetl.queue add column if not exists timeout_seconds double precision;
alter table noetl.queue add column if not exists first_leased_at timestamptz;
alter table noetl.queue add column if not exists lost_leases int not null default 0;
alter table noetl.queue add column if not exists lease_seconds int;
alter table noetl.queue add column if not exists foreign_attempt int;

comment on table noetl.queue is 'Jobs for workers: at most one per visit of a step.';
comment on column noetl.queue.status is
  'queued, leased, done, failed (until the broker has decided), retry, dead, cancelled; delegated: the broker runs it itself.';
comment on column noetl.queue.attempts is
  'How often it was leased (of a delegated job: its child was started): the fencing token of a lease, not a count of failures.';
comment on column noetl.queue.priority is 'Higher goes first.';
comment on column noetl.queue.foreign_attempt is
  'The attempt that a NoETL server leased to a worker of its, which sends no heartbeat; another attempt is of our own leases.';
comment on column noetl.queue.first_leased_at is 'First lease of the running attempt: the timeout of the step counts from here.';

create index if not exists queue_ready on noetl.queue (priority desc, available_at, queue_id)
  where status in ('queued', 'retry');
create index if not exists queue_delegated on noetl.queue (available_at) where status = 'delegated';
create index if not exists queue_leased on noetl.queue (lease_until) where status = 'leased';
create index if not exists queue_timed on noetl.queue (first_leased_at)
  where timeout_seconds is not null and first_leased_at is not null and status in ('leased', 'delegated', 'queued');

create table if not exists noetl.execution (
  execution_id bigint primary key,
  catalog_id bigint,
  path text,
  version int,
  status text not null default 'RUNNING' check (status in ('RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
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
);
alter table noetl.execution add column if not exists forked_from bigint;
create unique index if not exists execution_idempotency on noetl.execution (path, idempotency_key)
  where idempotency_key is not null;
create index if not exists execution_children on noetl.execution (parent_execution_id) where status = 'RUNNING';
create index if not exists execution_forks on noetl.execution (forked_from) where forked_from is not null;
create index if not exists execution_running on noetl.execution (execution_id) where status = 'RUNNING';

comment on table noetl.execution is 'One row per execution: for people and dashboards; written at its start and its end.';
comment on column noetl.execution.parent_node_id is 'The visit of the parent that waits for this one; null: none does.';
comment on column noetl.execution.parent_index is 'The place of this child in an iterator of its parent, from 0.';
comment on column noetl.execution.forked_from is 'The execution whose results this one took over; `fork` in the meta of its execution_start says which.';
comment on column noetl.execution.rules is 'The settings that decide, as they were at the start: an execution keeps them to its end.';
comment on column noetl.execution.workload is 'The defaults of the playbook, rendered, with the payload of the caller merged over them.';

-- The hot row of an execution, apart from the one that people read: it is rewritten at every turn, so it stays small and
-- leaves room on its page for the next version of itself (a HOT update writes no index).
create table if not exists noetl.execution_state (
  execution_id bigint primary key,
  turn int not null check (turn >= 0),
  last_at timestamptz not null,
  deadline_at timestamptz,
  tokens json not null
) with (fillfactor = 60);
create index if not exists execution_state_deadline on noetl.execution_state (deadline_at) where deadline_at is not null;

comment on table noetl.execution_state is 'What the core must know of a live execution: its tokens, its visits, its turn number.';

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

comment on table noetl.turn is 'One row per event that the broker read, in the order of the execution''s history.';
comment on column noetl.turn.outcome is 'What came of the event: decided, or the reason why it changed nothing.';
comment on column noetl.turn.facts is 'What the broker knew of the event beside its row, so that a replay knows it too.';
comment on column noetl.turn.result_event_id is
  'Where what an action or its items gave was a failure for good, its step_failed: it carries the result, no data and the error.';

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

comment on table noetl.workflow is 'One row per step of an execution: what it is, and where it stands.';
comment on column noetl.workflow.status is 'PENDING, RUNNING, COMPLETED, FAILED, CANCELLED: of the latest visit.';
comment on column noetl.workflow.result_event_id is
  'The event that carries the result of the highest-numbered visit that has one; of an action that failed, its step_failed.';

create table if not exists noetl.transition (
  execution_id bigint not null,
  from_step text not null,
  to_step text not null,
  condition text,
  with_params text
) partition by range (execution_id);
alter table noetl.transition add column if not exists ordinal int;
create unique index if not exists transition_arc on noetl.transition (execution_id, ordinal) where ordinal is not null;

comment on table noetl.transition is 'One row per arc of an execution''s workflow, by its place in the document.';

create table if not exists noetl.workbook (
  execution_id bigint not null,
  task_id text not null,
  task_name text,
  task_type text,
  raw_config text,
  primary key (execution_id, task_id)
) partition by range (execution_id);

-- The items of iterators that the broker runs: chosen once, one row each, so that the state holds counts alone. What never
-- began is WAITING for good; what was open when its iterator ended is CANCELLED.
create table if not exists noetl.iteration (
  execution_id bigint not null,
  node_id text not null,
  place int not null,
  item jsonb,
  status text not null default 'WAITING' check (status in ('WAITING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
  child_execution_id bigint,
  result_event_id bigint,
  error jsonb,
  primary key (execution_id, node_id, place)
) partition by range (execution_id);

-- Mail that the broker set aside: deciding on it failed by a fault of the program, not of the playbook.
create table if not exists noetl.dead_letter (
  event_id bigint not null,
  execution_id bigint not null,
  reason text not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (execution_id, event_id)
);

-- Late, because whoever writes an event waits from here to the end of the transaction: beside a long queue of a NoETL
-- server the indexes above take their time.
alter table noetl.catalog add column if not exists name text;
alter table noetl.event add column if not exists meta jsonb;
alter table noetl.event add column if not exists error jsonb;
alter table noetl.event add column if not exists worker_id text;
alter table noetl.event add column if not exists parent_execution_id bigint;

comment on column noetl.catalog.name is 'metadata.name of the playbook; the last part of the path where it is null.';
comment on column noetl.event.meta is 'Why: the turn that wrote it and each condition with its outcome; or job and attempt.';

-- Ids that nobody gives are made here; a NoETL server's own default stays what it is.
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
