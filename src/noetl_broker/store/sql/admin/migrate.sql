-- name: lock_migrations
-- Two-int keys: one-int keys are execution ids.
select pg_advisory_lock(hashtext('noetl.lock'), 2);

-- name: wait_for_migrations
select pg_advisory_xact_lock(hashtext('noetl.lock'), 2);

-- name: is_reserved_word
-- Whether SQL text cannot use the name without quotes.
select exists (
  select
  from pg_get_keywords() k
  where k.word = $1::text and k.catcode in ('R', 'T')
);

-- name: create_schema_version
create schema if not exists noetl;
create table if not exists noetl.schema_version (
  version int primary key,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default clock_timestamp(),
  serves_from int,
  program text
);
comment on table noetl.schema_version is 'Applied migrations.';
comment on column noetl.schema_version.version is 'The number at the start of the file''s name; 0: for a NoETL server; -1: of a bucket.';
comment on column noetl.schema_version.name is 'The file''s name.';
comment on column noetl.schema_version.checksum is
  'SHA-256 of the file as it was applied. The file must not change afterwards.';
comment on column noetl.schema_version.applied_at is 'When it was applied.';
comment on column noetl.schema_version.serves_from is
  'Programs that serve this version of the schema or a later one still work; null: only those that know the file.';
comment on column noetl.schema_version.program is 'The version of noetl-broker that applied it.';

-- name: database_encoding
select current_database()::text as database, current_setting('server_encoding') as encoding;

-- name: is_installation
select to_regclass('noetl.bucket') is not null;

-- name: own_bucket
select noetl.bucket_number(), noetl.bucket_count();

-- name: count_buckets
select noetl.bucket_count();

-- name: has_broker
select to_regclass('noetl.execution') is not null;

-- name: list_buckets
-- The buckets that were complete once, and whether their schemas are there.
select b.number, to_regnamespace(b.schema) is not null as is_there
from noetl.bucket b
order by b.number;

-- name: record_bucket
insert into noetl.bucket (number, schema)
values ($1::int, $2::text)
on conflict (number) do nothing;

-- name: grant_installation
-- Its functions run with the rights of their callers: the grants in the buckets say who may call which.
grant usage on schema noetl to noetl_broker, noetl_operator, noetl_worker, noetl_producer, noetl_reader, noetl_approver,
  noetl_author;
grant select on noetl.bucket, noetl.home to noetl_broker, noetl_operator, noetl_worker, noetl_producer, noetl_reader,
  noetl_approver, noetl_author;

-- name: has_schema_version
select to_regclass('noetl.schema_version') is not null;

-- name: is_superuser
select rolsuper
from pg_roles
where rolname = current_user;

-- name: has_noetl_server
-- Whether the schema has the tables of a NoETL server.
select to_regclass('noetl.resource') is not null;

-- name: is_beside_noetl
-- Whether this broker decides for a NoETL server (docs/how-to/beside-noetl.md).
select exists (
  select
  from pg_trigger t
  where t.tgrelid = to_regclass('noetl.queue') and t.tgname = 'noetl_receive_job'
);

-- name: missing_rights
-- The rights that a daemon needs and that a role (null: the session's) lacks. deploy/roles.sql grants the same.
with wanted as (
  select coalesce($1::text, current_user)::name as role
), tables as (
  select r.right_name, unnest(r.relations) as relation
  from (
    values
      ('select', array[
        'catalog', 'event', 'queue', 'execution', 'execution_state', 'turn', 'workload', 'workflow', 'transition',
         'workbook', 'iteration', 'inbox', 'dead_letter', 'job_to_cancel', 'clock', 'schema_version',
         'period', 'archived', 'start_schedule', 'path_pause', 'unheld_job', 'wait', 'timer', 'signal', 'signal_taken', 'match_request',
        'on_signal', 'log', 'undo', 'place', 'slot_claim', 'throttle_bucket', 'release_request', 'limit',
        'executions', 'undos', 'start_key', 'figure', 'worker'
      ]),
      ('insert', array[
        'event', 'queue', 'execution', 'execution_state', 'turn', 'workload', 'workflow', 'transition', 'workbook',
        'iteration', 'inbox', 'dead_letter', 'job_to_cancel', 'clock', 'unheld_job', 'wait', 'timer', 'signal',
        'signal_taken', 'match_request', 'on_signal', 'undo', 'place', 'slot_claim', 'start_key', 'figure'
      ]),
      ('update', array[
        'queue', 'execution', 'execution_state', 'workflow', 'iteration', 'inbox', 'dead_letter', 'clock', 'path_pause',
        'wait', 'timer', 'signal', 'match_request', 'on_signal', 'undo', 'place', 'slot_claim', 'throttle_bucket', 'release_request',
        'figure'
      ]),
      ('delete', array[
        'inbox', 'job_to_cancel', 'unheld_job', 'timer', 'signal', 'match_request', 'on_signal', 'place', 'slot_claim', 'start_key',
        'figure'
      ])
  ) r (right_name, relations)
)
select t.right_name || ' on noetl.' || t.relation as missing
from tables t
cross join wanted a
where not has_table_privilege(a.role, 'noetl.' || t.relation, t.right_name)
union all
select 'usage on noetl.' || s.name
from wanted a
cross join unnest(array[
  'id_seq', 'slot_seq', 'mail_seq', 'timer_seq', 'signal_seq', 'match_request_seq', 'release_request_seq'
]) s (name)
where not has_sequence_privilege(a.role, 'noetl.' || s.name, 'usage')
union all
select 'select on noetl.stale_answer_seq'
from wanted a
where not has_sequence_privilege(a.role, 'noetl.stale_answer_seq', 'select')
union all
select 'execute on noetl.' || f.signature
from unnest(array[
  'limit_of(text)', 'kind_of(text)', 'is_mail(text)', 'is_live(text)', 'is_waiting(text)', 'bucket_number()', 'other_bucket(text, bigint)', 'node_id(bigint, text, int)', 'item_node_id(text, int)',
  'is_execution_status(text)', 'is_job_status(text, boolean)',
  'parse_item(text)', 'visit_name(text, int)', 'items_prefix(text)', 'is_item(text)', 'parse_node(text)',
  'undo_step(text)', 'name_of_path(text)', 'notify(boolean, boolean)', 'notify_cancel()', 'next_id()', 'next_number(regclass)', 'next_signal_id()', 'as_json(jsonb)', 'as_json(text)',
  'as_error(jsonb)', 'as_error(text)',
  'shorten_error(jsonb)', 'weight(anyelement)', 'is_broken(jsonb)', 'is_broken(text)', 'unwrapped(jsonb)',
  'lock_mail(int, boolean, bigint)', 'lock_executions(bigint[], bigint[], boolean[])',
  'prepare_starts(bigint[], bigint[], text[], boolean[])', 'insert_started(bigint[], bigint[], text[], bigint[])',
  'executions_before_start(bigint[], bigint[])', 'too_large_together(bigint[], bigint[], bigint[], bigint[], boolean)',
  'take_mail(int, boolean, bigint)', 'is_doubled_signal(bigint, bigint, jsonb)', 'is_path_paused(text, jsonb)', 'root_of(bigint)', 'lock_root(bigint)',
  'server_job(noetl.queue)', 'is_lease_lost(noetl.queue, timestamptz, float8)',
  'reap_timeouts(int, timestamptz)', 'lock_lost_leases(int, timestamptz, timestamptz, float8)',
  'reap_leases(int, int, timestamptz, timestamptz, float8)', 
  'reap_jobs_to_cancel(int, timestamptz)', 'reap(int, int, timestamptz, float8)',
  'latest_ahead(timestamptz, timestamptz)', 'pull_back(timestamptz, timestamptz, interval)', 'mind_clock(int, boolean)',
  'live_workers()', 'unserved_jobs(int)', 'is_archived(bigint)', 'add_partition(int)', 'history_tables()', 'below_undos()', 'drop_without_period(bigint, timestamptz, int)',
  'mark_period(text, text, text)', 'drop_partition(text, text, bigint[])', 'drop_executions(bigint[])', 'notify_matchers()', 'original_start(bigint)', 'latest_sent_at(bigint, timestamptz)', 'receivers(bigint[], int)',
  'deliver_signals(bigint[], text[])', 'match_signals(int)', 'start_by_signal(text, bigint)', 'sweep_signals(int, bigint)',
  'reap_holds(int)', 'hold_jobs(bigint, text, int)', 'text_list(jsonb)', 'notify_timers(timestamptz)', 'fire_timers(int, float8)',
  'cancelled_error()', 'undo_node_id(text)', 'is_undo(text)', 'item_action(bigint, text, int)', 'is_over(bigint, text)', 'recovered_as(bigint)', 'is_undo_asked(bigint)',
  'set_statuses(bigint[], text[], boolean[], text[], int[], text[], boolean[])', 'admit_executions(text, int)',
  'lock_slots(text[], text[])', 'paired_slots(text[], text[])', 'could_run(noetl.slot_claim)', 'slots_of(bigint[])',
  'ask_slots(bigint[], text[], text[], int[])', 'lock_freed_slots(bigint[], text[], text[])', 'hand_over(text[], text[])',
  'hand_over_past(text, text)', 'count_slots(text[], text[])', 'send_to_executions(bigint[], text, jsonb, jsonb)',
  'cancel_running(bigint[], text[], text[])', 'write_slots(bigint[], text[], text[], text[], int[], bigint[], text[], text[])',
  'sweep_slots(int)', 'burst_of(noetl.limit)', 'throttle_jobs(bigint[], text[], text[], text[], int[], float8[], int[])', 'release_requested(int)', 'sweep_throttles(int, text, text)', 'throttle_wait(noetl.queue)',
  'move_schedules_again(timestamptz)', 'lock_due_schedules(int)', 'is_approver(text[], text, text)', 'caller_name(text)',
  'move_schedules(text[], timestamptz[], text[], int[], timestamptz[], timestamptz[], timestamptz[], text[])', 'first_id_at(timestamptz)'
]) f (signature)
cross join wanted a
where not has_function_privilege(a.role, 'noetl.' || f.signature, 'execute')
union all
-- in a bucket, and beside a NoETL server
select f.right_name || ' on ' || f.thing
from (
  select r.right_name, t.thing, has_table_privilege((select role from wanted), to_regclass(t.thing), r.right_name) as is_granted
  from (
    values ('noetl.signal_copy', array['select', 'insert', 'delete']), ('noetl.ended_job', array['select', 'update', 'delete'])
  ) t (thing, right_names)
  cross join unnest(t.right_names) r (right_name)
  union all
  select 'execute', p.signature, has_function_privilege((select role from wanted), to_regprocedure(p.signature), 'execute')
  from unnest(array['noetl.reap_ended_jobs(int, float8)', 'noetl.waiting_ended_jobs(bigint[])']) p (signature)
) f
where not f.is_granted;

-- name: missing_of_granted
-- Of these rights, each on the thing at the same place, those that a role (null: the session's) lacks. Things that do not exist are left out:
-- some are only made beside a NoETL server.
select g.right_name || ' on ' || g.thing as missing
from unnest($2::text[], $3::text[]) with ordinality g (right_name, thing, ordinal),
  (select coalesce($1::text, current_user)::name as role) w
where case
  when g.right_name = 'execute' then not has_function_privilege(w.role, to_regprocedure(g.thing)::oid, g.right_name)
  else not has_table_privilege(w.role, to_regclass(g.thing)::oid, g.right_name)
end
order by g.ordinal;

-- name: list_migrations
select version, name, checksum, serves_from, program
from noetl.schema_version
order by version;

-- name: record_migration
insert into noetl.schema_version (version, name, checksum, serves_from, program)
values ($1::int, $2::text, $3::text, $4::int, $5::text);
