-- The tables of executions: playbooks, events, jobs, state, and history. Each other family has its own tables in its file.
--
-- Every statement is `if not exists`. So the file is safe on an empty database. Beside the tables of a NoETL server it adds
-- what is missing and changes no data: its tables get our columns by `alter table`, and so do ours. Ids are time-ordered, so
-- the history is partitioned by ranges of execution ids. Every key of its tables includes the execution. The tables of a NoETL
-- server are not partitioned.

create schema if not exists noetl;

create sequence if not exists noetl.id_seq cache 32;

-- Unique, and roughly in order of time. Ids are assigned before the commit, so nothing may rely on their order. The
-- order of a history is the order of its turns.
create or replace function noetl.next_id() returns bigint
language sql volatile parallel unsafe
as $$
  select ((date_part('epoch', clock_timestamp()) * 1000)::bigint - 1704067200000) << 20
       | (nextval('noetl.id_seq'::regclass) & 1048575)
$$;

-- The next number of a sequence, for numbers that order things. citus.sql replaces it: sequences of two nodes do not order.
create or replace function noetl.next_number(of regclass) returns bigint
language sql volatile parallel unsafe
as $$
  select nextval($1)
$$;

comment on function noetl.next_id() is 'A new id: 41 bits of milliseconds since 2024, then 20 bits of a counter.';

-- The bucket that this schema is, and how many there are; null: it is no bucket. bucket.sql replaces both. A plan contains
-- their text instead of a call, so what asks for them costs nothing.
create or replace function noetl.bucket_number() returns int
language sql immutable parallel safe
as $$
  select null::int
$$;

create or replace function noetl.bucket_count() returns int
language sql immutable parallel safe
as $$
  select null::int
$$;

-- The bucket of a text, of so many. `bucket_of_text` in store/connect/buckets.py is the same.
create or replace function noetl.bucket_of_text(text text, buckets int) returns int
language sql immutable parallel safe
as $$
  select (('x' || left(md5($1), 8))::bit(32)::bigint % $2)::int
$$;

-- False, but raises NB421 for an id of another bucket. Functions call it before they say that there is no such thing.
create or replace function noetl.is_elsewhere(id bigint) returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if ($1 & 63) <> noetl.bucket_number() then
    raise exception using errcode = 'NB421',
      message = format('the id %s is of bucket %s, and this is bucket %s', $1, $1 & 63, noetl.bucket_number()),
      hint = 'call or insert in the schema of that bucket, or call in the schema without a number';
  end if;
  return false;
end
$$;

-- Raises the error of an id that no execution has.
create or replace function noetl.refuse_unknown(execution_id bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  dropped date;
begin
  perform noetl.is_elsewhere($1);
  select coalesce(p.dropped_at, p.dropping_at) into dropped
  from noetl.period p
  where p.first_id <= $1 and $1 < p.next_id;
  if dropped is not null then
    raise exception using errcode = 'NB404', message = format('execution %s was dropped on %s', $1, dropped),
      hint = 'it ended longer ago than the setting keep';
  end if;
  raise exception using errcode = 'NB404', message = format('no execution %s', coalesce($1::text, 'null')),
    hint = 'noetl-broker executions lists them';
end
$$;

-- Whether an execution in this status has not ended. A plan contains its text instead of a call, so it matches the
-- indexes of live executions. `LIVE` in broker/state/state.py is the same list.
create or replace function noetl.is_live(status text) returns boolean
language sql immutable parallel safe
as $$
  select status in ('QUEUED', 'RUNNING', 'PAUSED', 'COMPENSATING')
$$;

-- The checks of these tables call functions in plpgsql. Postgres parses and plans an expression of a check again in each
-- statement that writes a row. It plans the body of a function once a session.
create or replace function noetl.is_execution_status(status text) returns boolean
language plpgsql immutable parallel safe
as $$
begin
  return noetl.is_live(status) or status in ('COMPLETED', 'FAILED', 'CANCELLED');
end
$$;

-- Whether this is the status of a job that something holds, or that nothing holds.
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

comment on table noetl.event is
  'Facts that never change: what producers and workers reported, and what the broker decided.';

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
alter table noetl.queue add column if not exists held_for text[];
do $$
begin
  if not exists (
    select from pg_constraint c where c.conrelid = 'noetl.queue'::regclass and pg_get_constraintdef(c.oid) like '%held_for%'
  ) then
    alter table noetl.queue add constraint queue_held_for_check check ((status = 'held') = (held_for is not null));
  end if;
end
$$;
alter table noetl.queue add column if not exists stop boolean not null default false;
alter table noetl.queue add column if not exists progress jsonb;
alter table noetl.queue add column if not exists draining boolean not null default false;
alter table noetl.queue add column if not exists limit_name text;
alter table noetl.queue add column if not exists limit_key text;
alter table noetl.queue add column if not exists pool text not null default 'default';

comment on table noetl.queue is 'Jobs for workers, at most one per visit of a step or per iterator item.';

create index if not exists queue_ready on noetl.queue (pool, priority desc, available_at, queue_id)
  where status in ('queued', 'retry');
create index if not exists queue_delegated on noetl.queue (available_at) where status = 'delegated';
create index if not exists queue_leased on noetl.queue (lease_until) where status = 'leased';
create index if not exists queue_timed on noetl.queue (first_leased_at)
  where timeout_seconds is not null and first_leased_at is not null and status in ('leased', 'delegated', 'queued', 'held');
create index if not exists queue_held on noetl.queue (execution_id, node_id) where status = 'held';
create index if not exists queue_throttled on noetl.queue (limit_name, limit_key)
  where limit_name is not null and status in ('queued', 'retry', 'leased');
create index if not exists queue_throttle_held on noetl.queue (limit_name, limit_key, priority desc, available_at, queue_id)
  where limit_name is not null and status = 'held' and held_for = array['limit'];

-- Workers name a job by its id alone. In the table of a NoETL server, which is not partitioned, it is the primary key.
do $$
begin
  if exists (select from pg_class c where c.oid = 'noetl.queue'::regclass and c.relkind = 'p') then
    create index if not exists queue_by_id on noetl.queue (queue_id);
  end if;
end
$$;

create table if not exists noetl.workload (
  execution_id bigint primary key,
  "timestamp" timestamptz not null default clock_timestamp(),
  data jsonb
) partition by range (execution_id);

comment on table noetl.workload is 'The workload of each execution, for readers of a NoETL server. `execution` has it too.';

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

comment on table noetl.workbook is 'One row per named action of an execution''s playbook.';

-- The first turn adds the workload and the rules to the row of a start. Its page has room for them, so that the update is
-- HOT and writes no index.
create table if not exists noetl.execution (
  execution_id bigint primary key,
  catalog_id bigint,
  path text,
  version int,
  status text not null default 'RUNNING' check (noetl.is_execution_status(status)),
  started_at timestamptz not null default clock_timestamp(),
  admitted_at timestamptz,
  waits_for_slot boolean,
  ended_at timestamptz,
  late_at timestamptz,
  parent_execution_id bigint,
  parent_event_id bigint,
  parent_node_id text,
  parent_index int,
  forked_from bigint,
  idempotency_key text,
  rules json,
  workload jsonb,
  result jsonb,
  error jsonb,
  undo_status text check (undo_status in ('undoing', 'undone', 'left')),
  undo_catalog_id bigint,
  tags jsonb,
  erased_at timestamptz,
  started_by text,
  erased_by text
) with (fillfactor = 80);
create index if not exists execution_children on noetl.execution (parent_execution_id) where noetl.is_live(status);
-- children that have ended too, for pages and retries; an execution without a parent writes nothing here
create index if not exists execution_parents on noetl.execution (parent_execution_id) where parent_execution_id is not null;
create index if not exists execution_forks on noetl.execution (forked_from) where forked_from is not null;
create index if not exists execution_live on noetl.execution (execution_id) where noetl.is_live(status);
-- for lists of failed executions among many that completed; those write nothing here
create index if not exists execution_failed on noetl.execution (execution_id) where status in ('FAILED', 'CANCELLED');
-- ended executions that undo something, or left something to undo
create index if not exists execution_undo on noetl.execution (execution_id) where undo_status in ('undoing', 'left');
create index if not exists execution_queued on noetl.execution (path, started_at, execution_id)
  where status = 'QUEUED' and admitted_at is null and waits_for_slot is null;
-- executions by tag; one without tags writes nothing here. The short list of new entries bounds what one start must sort in.
create index if not exists execution_tags on noetl.execution using gin (tags jsonb_path_ops)
  with (gin_pending_list_limit = 256) where tags is not null;
-- for metrics, `doctor` and `archive`
create index if not exists execution_held on noetl.execution (status) where status in ('PAUSED', 'QUEUED', 'COMPENSATING');

comment on table noetl.execution is
  'One row per execution, for people and dashboards. It is written at the start and at the end.';
comment on column noetl.execution.execution_id is 'The id of the execution.';
comment on column noetl.execution.catalog_id is 'The version of the playbook.';
comment on column noetl.execution.path is 'The playbook''s path.';
comment on column noetl.execution.version is 'The playbook''s version.';
comment on column noetl.execution.status is
  'Live: QUEUED, RUNNING, PAUSED, COMPENSATING. Ended: COMPLETED, FAILED, CANCELLED.';
comment on column noetl.execution.started_at is 'When it was requested.';
comment on column noetl.execution.admitted_at is 'When it was admitted, if it was queued.';
comment on column noetl.execution.waits_for_slot is
  'true: it is queued for a slot; false: for the moment of its start; null: for neither.';
comment on column noetl.execution.ended_at is 'When it ended.';
comment on column noetl.execution.late_at is 'When it, or a step of it, was first reported late (late_after); null: never.';
comment on column noetl.execution.parent_execution_id is 'The execution that started this one.';
comment on column noetl.execution.parent_event_id is 'The event of the parent that caused it.';
comment on column noetl.execution.parent_node_id is
  'The visit of the parent that waits for this execution; null: no visit waits.';
comment on column noetl.execution.parent_index is 'The index of this child in an iterator of its parent, from 0.';
comment on column noetl.execution.forked_from is
  'The execution that this one was forked from. `fork` in the meta of its execution_start lists the results.';
comment on column noetl.execution.idempotency_key is
  'A key of the caller, at most 1024 bytes. A second start with the same path and key starts nothing: see noetl.start_key.';
comment on column noetl.execution.rules is 'The settings that affect decisions, pinned at the start of the execution.';
comment on column noetl.execution.workload is
  'The rendered defaults of the playbook, with the payload of the caller merged over them.';
comment on column noetl.execution.result is 'The result of a completed execution.';
comment on column noetl.execution.error is
  'Why it failed or was cancelled: an object with `message`, and the step if there is one.';
comment on column noetl.execution.undo_status is
  'How its undo stands after its end: undoing, undone, or left (something is left to undo); null: nothing is known to undo.';
comment on column noetl.execution.undo_catalog_id is
  'The version whose `compensate` undoes it, if an operator chose another one.';
comment on column noetl.execution.tags is
  'What lists find it by, {name: text}. No decision reads them. null: it has none.';
comment on column noetl.execution.erased_at is 'When its values were erased; null: they are there.';
comment on column noetl.execution.erased_by is 'Who erased it: login:NAME or token:NAME.';
comment on column noetl.execution.started_by is
  'Who started it: login:NAME or token:NAME. Null: the broker, for a child, a schedule or a signal, or an inserted event.';

-- A key may outlive its execution. Begins with the key, so that a list finds executions by it alone.
create table if not exists noetl.start_key (
  idempotency_key text,
  path text,
  digest bytea,
  execution_id bigint not null,
  created_at timestamptz not null default clock_timestamp(),
  repeated_by text[],
  primary key (idempotency_key, path)
);

comment on table noetl.start_key is 'The idempotency keys of starts and forks. A start without a key has no row.';
comment on column noetl.start_key.idempotency_key is 'The key of the caller, or of what the broker starts itself.';
comment on column noetl.start_key.path is 'The playbook''s path.';
comment on column noetl.start_key.digest is
  'SHA-256 of the payload as sent, or of the execution that is forked: a second start must send the same. Null: any.';
comment on column noetl.start_key.execution_id is 'The execution that the first start began.';
comment on column noetl.start_key.created_at is 'When it was written, with its execution.';
comment on column noetl.start_key.repeated_by is
  'Who else sent the same start, at most 100: they see its outcome too. Null: nobody.';

-- This row is rewritten at every turn. It is small, and its page has room for the next version. So the update is HOT and
-- writes no index.
create table if not exists noetl.execution_state (
  execution_id bigint primary key,
  turn int not null check (turn >= 0),
  last_at timestamptz not null,
  tokens json not null
) with (fillfactor = 60);

comment on table noetl.execution_state is 'The state of the core for each execution: tokens, visits, turn number.';
comment on column noetl.execution_state.execution_id is 'The execution.';
comment on column noetl.execution_state.turn is 'The number of the last turn.';
comment on column noetl.execution_state.last_at is 'The time of the last turn.';
comment on column noetl.execution_state.tokens is 'The state of the core, in an internal format.';

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
comment on column noetl.turn.execution_id is 'The execution.';
comment on column noetl.turn.turn is 'Counts from 1 in each execution.';
comment on column noetl.turn.event_id is 'The event.';
comment on column noetl.turn.outcome is 'decided, or the reason why the event changed nothing.';
comment on column noetl.turn.note is 'A note about the outcome, for people.';
comment on column noetl.turn.decided_at is 'The time of the turn, which templates read as now().';
comment on column noetl.turn.facts is 'What the broker knew about the event beside its row. A replay reads it from here.';
comment on column noetl.turn.result_event_id is
  'The step_failed event of an action that failed for good. It carries the error as the result of the step.';

-- Items are rows, so that the state of the core holds counts only.
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

comment on table noetl.iteration is 'One row per iterator item, and per child that a worker started.';
comment on column noetl.iteration.execution_id is 'The execution of the iterator.';
comment on column noetl.iteration.node_id is 'The visit of the iterator.';
comment on column noetl.iteration.index is 'The index of the item, from 0.';
comment on column noetl.iteration.item is 'The item; null for a child that a worker started.';
comment on column noetl.iteration.status is
  'WAITING, RUNNING, COMPLETED, FAILED; CANCELLED: running when its iterator ended. Unstarted items stay WAITING.';
comment on column noetl.iteration.child_execution_id is 'The child execution of the item, if it has one.';
comment on column noetl.iteration.result_event_id is 'The event that ended the item, with its result.';
comment on column noetl.iteration.error is
  'The error of a failed item, as {{ it.failed }} has it; of an item that is tried again or caught, its last one.';
comment on column noetl.iteration.failures is 'How often an attempt of the item has failed.';
comment on column noetl.iteration.failed_attempt is
  'The last attempt that failed; of a child that runs again, its failures.';
comment on column noetl.iteration.unsure is 'An attempt with a compensate failed, and may have happened.';

-- A broker sums hours that are over, beside the turns. A page about a month reads these rows instead of a million executions.
create table if not exists noetl.figure (
  path text not null,
  hour timestamptz not null,
  version int not null,
  step text not null,
  sampled real not null,
  counts jsonb not null,
  summed_at timestamptz not null default clock_timestamp(),
  primary key (path, hour, version, step)
);

comment on table noetl.figure is
  'What became of the executions that started in one hour: sums for `stats` and for the charts. Kept for 60 days.';
comment on column noetl.figure.path is 'The playbook''s path; empty: all playbooks together.';
comment on column noetl.figure.hour is 'When the hour begins.';
comment on column noetl.figure.version is 'The playbook''s version; 0: all playbooks together.';
comment on column noetl.figure.step is 'The step; empty: the executions themselves.';
comment on column noetl.figure.sampled is 'The part of the executions that was read for this row: 1 is all.';
comment on column noetl.figure.counts is
  'Numbers by kind and key: status, error, visit, retry, path; ended by hours after this one; duration and wait by class of length.';
comment on column noetl.figure.summed_at is 'When it was summed. An hour is summed again if fewer of its executions are live now.';

-- These come late, because they lock noetl.event until the end of the transaction. The indexes above may take long.
alter table noetl.catalog add column if not exists name text;
alter table noetl.catalog add column if not exists bucket text;
alter table noetl.catalog add column if not exists block_of bigint;
alter table noetl.catalog add column if not exists registered_by text;
alter table noetl.event add column if not exists meta jsonb;
alter table noetl.event add column if not exists error jsonb;
alter table noetl.event add column if not exists worker_id text;
alter table noetl.event add column if not exists parent_execution_id bigint;

-- The columns of the tables that a NoETL server has too. Only existing ones get a comment, because its tables may lack some.
do $$
declare
  entry record;
begin
  for entry in
    select given.table_name, given.column_name, given.comment
    from (values
      ('catalog', 'catalog_id', 'The id of the version.'),
      ('catalog', 'path', 'metadata.path of the playbook, or metadata.name.'),
      ('catalog', 'version', 'Counts from 1 for each path. An execution takes the latest by default.'),
      ('catalog', 'kind', 'Always Playbook.'),
      ('catalog', 'content', 'The registered text.'),
      ('catalog', 'payload', 'The playbook as JSON.'),
      ('catalog', 'meta', 'For the program that registered it. The broker does not read it.'),
      ('catalog', 'bucket', 'metadata.bucket of the playbook: its executions live in the bucket of this text.'),
      ('catalog', 'created_at', 'When it was registered.'),
      ('catalog', 'registered_by', 'Who registered it: login:NAME or token:NAME. Null: before this column, or another program.'),
      ('catalog', 'name', 'metadata.name of the playbook; null: the last part of the path.'),
      ('catalog', 'block_of',
        'Of a block, a step''s steps in the same document: the catalog_id of its playbook. null: a playbook.'),

      ('event', 'execution_id', 'The execution.'),
      ('event', 'event_id', 'Unique, and roughly in order of time. Turn numbers order the history.'),
      ('event', 'catalog_id',
        'The version of the playbook, or of the parent''s where a child has none. Filled in where it is left out.'),
      ('event', 'parent_event_id', 'The event that caused this one.'),
      ('event', 'parent_execution_id', 'Of an execution_start: the parent.'),
      ('event', 'created_at', 'When it was written, by the clock of the database.'),
      ('event', 'event_type', 'What happened: execution_start, action_completed, step_started, …'),
      ('event', 'node_id', 'The visit: execution:step, from the second visit on with #2; or the execution alone.'),
      ('event', 'node_name', 'The step, or the name of the playbook.'),
      ('event', 'node_type', 'The type of the step; playbook for the whole execution.'),
      ('event', 'status', 'For readers: STARTED, RUNNING, PENDING, COMPLETED, FAILED, CANCELLED.'),
      ('event', 'duration', 'Seconds, where its writer knows them.'),
      ('event', 'context', 'The input: the payload of a start, the reason of a cancel, the index of an item.'),
      ('event', 'result',
        'The result of an action. An envelope {id, status, data, error, meta, duration} of NoETL''s worker is unwrapped once.'),
      ('event', 'meta', 'The turn that wrote the event and the conditions that it evaluated; or the job and the attempt.'),
      ('event', 'error', 'The error: an object with at least `message`.'),
      ('event', 'worker_id', 'The worker that reported it.'),

      ('queue', 'queue_id', 'The id of the job.'),
      ('queue', 'execution_id', 'The execution.'),
      ('queue', 'catalog_id', 'The version of the playbook.'),
      ('queue', 'node_id',
        'The visit: execution:step, from the second visit on with #2; of item 7 of an iterator step#1.7.'),
      ('queue', 'node_name', 'The step.'),
      ('queue', 'node_type', 'The type of the step. Workers lease by type.'),
      ('queue', 'action', 'The job as JSON text: the rendered fields of the step, with its inputs under `args`.'),
      ('queue', 'context', 'What templates may read that the worker renders: the workload and named results.'),
      ('queue', 'status',
        'queued, leased, done, failed (until the broker decides), retry, dead, cancelled; held: kept from workers; delegated: the broker runs it itself.'),
      ('queue', 'priority', 'Higher goes first.'),
      ('queue', 'pool', 'The pool of workers that may lease it.'),
      ('queue', 'attempts',
        'The number of the last lease, or start of its child: the fencing token, not a count of failures. The failure of an attempt that nobody leased raises it too.'),
      ('queue', 'max_attempts', 'The most attempts. The broker decides whether there is another one.'),
      ('queue', 'available_at', 'Not leased before this time: the end of the pause after a failure.'),
      ('queue', 'lease_until', 'The end of the lease. A heartbeat moves it.'),
      ('queue', 'worker_id', 'The worker that holds it, or held it last.'),
      ('queue', 'last_heartbeat', 'The last heartbeat of that worker.'),
      ('queue', 'parent_execution_id', 'For readers of a NoETL server. The broker does not write it.'),
      ('queue', 'parent_event_id', 'The event that queued it.'),
      ('queue', 'event_id', 'The event that queued it.'),
      ('queue', 'created_at', 'When it was queued.'),
      ('queue', 'updated_at', 'When its status last changed.'),
      ('queue', 'timeout_seconds', 'How long an attempt may take; null: no limit.'),
      ('queue', 'first_leased_at', 'The first lease of the current attempt. The timeout of the step counts from here.'),
      ('queue', 'lost_leases', 'How often a lease ran out without an answer.'),
      ('queue', 'lease_seconds', 'The length of the lease, for heartbeats that name none; null: another program leased it.'),
      ('queue', 'held_for', 'Why it is held: `pause`, `limit`. It is queued or retry again once nothing holds it.'),
      ('queue', 'stop', 'The worker of this lease shall stop: nobody wants its result. Its heartbeats are false.'),
      ('queue', 'progress', 'What the worker last reported of the attempt that it names; null: nothing.'),
      ('queue', 'draining',
        'Its visit is over, but a late success of this lease is to be undone. It is leased once: a lost lease ends it.'),
      ('queue', 'limit_name', 'The throttle that the job counts for; null: none.'),
      ('queue', 'limit_key', 'What the throttle counts by: its `key` in the step.'),

      ('workload', 'execution_id', 'The execution.'),
      ('workload', 'timestamp', 'When it started.'),
      ('workload', 'data', 'Its workload.'),

      ('workflow', 'execution_id', 'The execution.'),
      ('workflow', 'step_id', 'The step''s name, which is its id.'),
      ('workflow', 'step_name', 'The step''s name.'),
      ('workflow', 'step_type', 'The type of the step.'),
      ('workflow', 'description', 'The description in the playbook.'),
      ('workflow', 'raw_config', 'The step as written, as JSON text.'),
      ('workflow', 'ordinal', 'Its position in the playbook, from 0.'),
      ('workflow', 'status', 'Of the latest visit: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED.'),
      ('workflow', 'visits', 'The number of visits.'),
      ('workflow', 'started_at', 'When its latest visit began.'),
      ('workflow', 'ended_at', 'When its latest visit ended.'),
      ('workflow', 'result_visit', 'The latest visit that has a result.'),
      ('workflow', 'result_event_id',
        'The event with the result of the latest visit that has one; of a failed action, its step_failed.'),

      ('transition', 'execution_id', 'The execution.'),
      ('transition', 'from_step', 'The source step.'),
      ('transition', 'to_step', 'The target step.'),
      ('transition', 'condition', 'Its `when`, as written.'),
      ('transition', 'with_params', 'Its inputs as written, as JSON text.'),
      ('transition', 'ordinal', 'Its position among the transitions of the playbook, from 0.'),

      ('workbook', 'execution_id', 'The execution.'),
      ('workbook', 'task_id', 'The action''s name, which is its id.'),
      ('workbook', 'task_name', 'The action''s name.'),
      ('workbook', 'task_type', 'The type of the action.'),
      ('workbook', 'raw_config', 'The action as written, as JSON text.')
    ) given (table_name, column_name, comment)
    join information_schema.columns c
      on c.table_schema = 'noetl' and c.table_name = given.table_name and c.column_name = given.column_name
  loop
    execute format('comment on column noetl.%I.%I is %L', entry.table_name, entry.column_name, entry.comment);
  end loop;
end
$$;

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
  noetl.next_id(), noetl.next_number(regclass), noetl.bucket_number(), noetl.bucket_count(), noetl.bucket_of_text(text, int), noetl.is_elsewhere(bigint), noetl.refuse_unknown(bigint),
  noetl.is_live(text), noetl.is_execution_status(text), noetl.is_job_status(text, boolean)
  from public;
