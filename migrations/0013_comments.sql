-- Comments on tables, columns and functions that the other files do not comment on. docs/tables.md is generated from them.
--
-- serves-from: 12
--
-- Only existing columns get a comment, because a table of a NoETL server may lack one.

do $$
declare
  entry record;
begin
  for entry in
    select given.name, given.comment
    from (values
      ('schema_version', 'Applied migrations.'),
      ('workload', 'The workload of each execution, for readers of a NoETL server. `execution` has it too.'),
      ('workbook', 'One row per named action of an execution''s playbook.'),
      ('iteration', 'One row per iterator item, and per child that a worker started.'),
      ('dead_letter', 'Events that the broker set aside because of a fault of the program, not of the playbook.'),
      ('playbooks', 'For readers: the catalog without texts.'),
      ('executions', 'For readers: executions without payloads, results and errors.'),
      ('steps', 'For readers: the status of each step of an execution.'),
      ('transitions', 'For readers: the transitions of an execution''s workflow, without conditions.'),
      ('iterations', 'For readers: iterator items, without their values.'),
      ('events', 'For readers: events without payloads.'),
      ('turns', 'For readers: the outcome of each event.'),
      ('jobs', 'For readers: the queue without payloads.'),
      ('waits', 'For readers: what steps wait for, without keys and titles.'),
      ('unread', 'For readers: events that the broker has not decided on yet.'),
      ('dead_letters', 'For readers: dead letters, without the reasons.')
    ) given (name, comment)
    join pg_class c on c.relnamespace = 'noetl'::regnamespace and c.relname = given.name and c.relkind in ('r', 'p', 'v')
  loop
    execute format(
      'comment on %s noetl.%I is %L',
      (select case when c.relkind = 'v' then 'view' else 'table' end
       from pg_class c
       where c.relnamespace = 'noetl'::regnamespace and c.relname = entry.name),
      entry.name, entry.comment
    );
  end loop;
end
$$;

do $$
declare
  entry record;
begin
  for entry in
    select given.table_name, given.column_name, given.comment
    from (values
      ('schema_version', 'version', 'The number at the start of the file''s name; 0: compat_noetl.sql.'),
      ('schema_version', 'name', 'The file''s name.'),
      ('schema_version', 'checksum', 'SHA-256 of the file as it was applied. The file must not change afterwards.'),
      ('schema_version', 'applied_at', 'When it was applied.'),
      ('schema_version', 'serves_from',
        'Programs that serve this version of the schema or a later one still work; null: only those that know the file.'),

      ('catalog', 'catalog_id', 'The id of the version.'),
      ('catalog', 'path', 'metadata.path of the playbook, or metadata.name.'),
      ('catalog', 'version', 'Counts from 1 for each path. An execution takes the latest by default.'),
      ('catalog', 'kind', 'Always Playbook.'),
      ('catalog', 'content', 'The registered text.'),
      ('catalog', 'payload', 'The playbook as JSON.'),
      ('catalog', 'meta', 'For the program that registered it. The broker does not read it.'),
      ('catalog', 'created_at', 'When it was registered.'),

      ('event', 'execution_id', 'The execution.'),
      ('event', 'event_id', 'Unique, and roughly in order of time. Turn numbers order the history.'),
      ('event', 'catalog_id',
        'The version of the playbook, or of the parent''s where a child has none. Filled in where it is left out.'),
      ('event', 'parent_execution_id', 'Of an execution_start: the parent.'),
      ('event', 'created_at', 'When it was written, by the clock of the database.'),
      ('event', 'event_type', 'What happened: execution_start, action_completed, step_started, …'),
      ('event', 'node_id', 'The visit: execution:step, from the second visit on with #2; or the execution alone.'),
      ('event', 'node_name', 'The step, or the name of the playbook.'),
      ('event', 'node_type', 'The type of the step; playbook for the whole execution.'),
      ('event', 'status', 'For readers: STARTED, RUNNING, PENDING, COMPLETED, FAILED, CANCELLED.'),
      ('event', 'duration', 'Seconds, where its writer knows them.'),
      ('event', 'context', 'The input: the payload of a start, the reason of a cancel, the index of an item.'),
      ('event', 'result', 'The result of an action. An envelope {id, status, data, error, meta, duration} of NoETL''s worker is unwrapped once.'),
      ('event', 'error', 'The error: an object with at least `message`.'),
      ('event', 'worker_id', 'The worker that reported it.'),

      ('queue', 'queue_id', 'The id of the job.'),
      ('queue', 'execution_id', 'The execution.'),
      ('queue', 'catalog_id', 'The version of the playbook.'),
      ('queue', 'node_id', 'The visit: execution:step, from the second visit on with #2; of item 7 of an iterator step#1.7.'),
      ('queue', 'node_name', 'The step.'),
      ('queue', 'node_type', 'The type of the step. Workers lease by type.'),
      ('queue', 'action', 'The job as JSON text: the rendered fields of the step, with its inputs under `args`.'),
      ('queue', 'context', 'What templates may read that the worker renders: the workload and named results.'),
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
      ('queue', 'lost_leases', 'How often a lease ran out without an answer.'),
      ('queue', 'lease_seconds', 'The length of the lease, for heartbeats that name none; null: another program leased it.'),

      ('execution', 'execution_id', 'The id of the execution.'),
      ('execution', 'catalog_id', 'The version of the playbook.'),
      ('execution', 'path', 'The playbook''s path.'),
      ('execution', 'version', 'The playbook''s version.'),
      ('execution', 'status', 'Live: QUEUED, RUNNING, PAUSED, COMPENSATING. Ended: COMPLETED, FAILED, CANCELLED.'),
      ('execution', 'started_at', 'When it was requested.'),
      ('execution', 'ended_at', 'When it ended.'),
      ('execution', 'parent_execution_id', 'The execution that started this one.'),
      ('execution', 'parent_event_id', 'The event of the parent that caused it.'),
      ('execution', 'idempotency_key', 'A key of the caller, at most 1024 bytes. A second start with the same path and key starts nothing.'),
      ('execution', 'payload_digest', 'SHA-256 of the payload as sent, where there is an idempotency key: a second start must send the same. Null: any.'),
      ('execution', 'result', 'The result of a completed execution.'),
      ('execution', 'error', 'Why it failed or was cancelled: an object with `message`, and the step if there is one.'),

      ('execution_state', 'execution_id', 'The execution.'),
      ('execution_state', 'turn', 'The number of the last turn.'),
      ('execution_state', 'last_at', 'The time of the last turn.'),
      ('execution_state', 'tokens', 'The state of the core, in an internal format.'),

      ('turn', 'execution_id', 'The execution.'),
      ('turn', 'turn', 'Counts from 1 in each execution.'),
      ('turn', 'event_id', 'The event.'),
      ('turn', 'note', 'A note about the outcome, for people.'),
      ('turn', 'decided_at', 'The time of the turn, which templates read as now().'),

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
      ('workflow', 'visits', 'The number of visits.'),
      ('workflow', 'started_at', 'When its latest visit began.'),
      ('workflow', 'ended_at', 'When its latest visit ended.'),
      ('workflow', 'result_visit', 'The latest visit that has a result.'),

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
      ('workbook', 'raw_config', 'The action as written, as JSON text.'),

      ('iteration', 'execution_id', 'The execution of the iterator.'),
      ('iteration', 'node_id', 'The visit of the iterator.'),
      ('iteration', 'index', 'The index of the item, from 0.'),
      ('iteration', 'item', 'The item; null for a child that a worker started.'),
      ('iteration', 'status',
        'WAITING, RUNNING, COMPLETED, FAILED; CANCELLED: running when its iterator ended. Unstarted items stay WAITING.'),
      ('iteration', 'child_execution_id', 'The child execution of the item, if it has one.'),
      ('iteration', 'result_event_id', 'The event that ended the item, with its result.'),
      ('iteration', 'error',
        'The error of a failed item, as {{ it.failed }} has it; of an item that is tried again or caught, its last one.'),
      ('iteration', 'failures', 'How often an attempt of the item has failed.'),
      ('iteration', 'unsure', 'An attempt with a compensate failed, and may have happened.'),
      ('iteration', 'failed_attempt', 'The last attempt that failed; of a child that runs again, its failures.'),

      ('inbox', 'mail_id', 'A counter without a reliable order.'),
      ('inbox', 'execution_id', 'The execution.'),
      ('inbox', 'event_id', 'The event.'),

      ('dead_letter', 'execution_id', 'The execution.'),
      ('dead_letter', 'event_id', 'The event.'),
      ('dead_letter', 'reason', 'The error of the program.'),
      ('dead_letter', 'created_at', 'When it was set aside.'),

      ('clock', 'is_only', 'Always true: there is one row.'),
      ('clock', 'seen_at', 'The latest time that a reaper saw. Updated at most twice a second.'),
      ('clock', 'stepped_at', 'When the last step back was noticed, by the clock after it; null: never.'),
      ('clock', 'behind_seconds', 'How far the clock stepped back then.'),
      ('clock', 'ahead_until', 'Times up to this one that lie ahead of the clock were written before the step.'),
      ('clock', 'steps', 'The number of steps back.'),
      ('clock', 'is_pulling', 'Whether jobs that were ready before the step are still being pulled back.'),
      ('withdrawn_job', 'execution_id', 'The execution.'),
      ('withdrawn_job', 'node_id', 'The visit or the item of the job.')
    ) given (table_name, column_name, comment)
    join information_schema.columns c
      on c.table_schema = 'noetl' and c.table_name = given.table_name and c.column_name = given.column_name
  loop
    execute format('comment on column noetl.%I.%I is %L', entry.table_name, entry.column_name, entry.comment);
  end loop;
end
$$;

comment on function noetl.next_id() is 'A new id: 41 bits of milliseconds since 2024, then 20 bits of a counter.';
comment on function noetl.limit_of(text) is 'A limit by its name, as the program has it.';
comment on function noetl.kind_of(text) is 'The canonical name of an event type.';
comment on function noetl.is_mail(text) is 'Whether the broker decides on events of this type.';
comment on function noetl.node_id(bigint, text, int) is 'The node_id of a visit of a step.';
comment on function noetl.item_node_id(text, int) is
  'The node_id of an iterator item, from the node_id of the iterator and the index.';
comment on function noetl.parse_item(text) is 'The node_id of the iterator and the index, from the node_id of an item.';
comment on function noetl.as_json(jsonb) is 'The value, for columns that are jsonb.';
comment on function noetl.as_json(text) is 'The value of JSON text, null where it is not JSON, for columns of a NoETL server.';
comment on function noetl.is_broken(jsonb) is 'Whether a value is not JSON: never.';
comment on function noetl.is_broken(text) is 'Whether a text is neither JSON nor empty.';
comment on function noetl.weight(anyelement) is
  'The approximate size of a value in memory: its stored size, tenfold if it is compressed.';
comment on function noetl.is_inflated(jsonb) is
  'Whether a value is far larger as text than stored, because of numbers such as 1e100000.';
comment on function noetl.bytes_past_limit(jsonb) is
  'The size of a value as JSON text if it is over 16 MiB, else null. The broker reads no larger event.';
comment on function noetl.bytes_past_limit(text) is 'The same for JSON text.';
comment on function noetl.shorten_error(jsonb) is
  'An error; where it is over 64 KiB, its message, type, smallest fields and `original_bytes`.';
comment on function noetl.as_error(jsonb) is 'The error of an event, shortened where it is over 64 KiB.';
comment on function noetl.as_error(text) is 'The same for text; text that is not JSON is a string.';
comment on function noetl.unwrapped(jsonb) is
  'The data of a result. An envelope {id, status, data, error, meta, duration} of NoETL''s worker is unwrapped once.';
comment on function noetl.oversize_of(text, int, int, int) is
  'The part of an event that is too large for the broker, and its size; null: none.';
comment on function noetl.receive_events() is 'Trigger: puts events that need the broker into the inbox, and notifies it.';
comment on function noetl.notify(boolean, boolean) is 'For the broker: notifies workers of jobs, and clients of ends.';
comment on function noetl.notify_cancel() is 'For the broker: tells workers to look for jobs that they shall stop.';
comment on function noetl.fill_catalog_id() is 'Trigger: sets the catalog_id of an event to the one of its execution.';
comment on function noetl.check_producer() is 'Trigger: producers may insert starts and cancels only.';
comment on function noetl.check_digits() is
  'Trigger: events of producers must not be too large, or have numbers that are too long.';
comment on function noetl.check_start(text, jsonb, text) is 'For start_execution: checks its arguments.';
comment on function noetl.check_starts(text, jsonb[], text[]) is 'For start_executions: checks its arguments.';
comment on function noetl.find_playbook(text, int) is 'For start_execution and start_executions: the version of a playbook; NB404 if there is none.';
comment on function noetl.refuse_key(text, text, text, bigint, bigint) is
  'For start_execution and start_executions: raises the error of an idempotency key that is used.';
comment on function noetl.check_key(text) is 'For start_execution and fork_execution: checks the size of an idempotency key.';
comment on function noetl.end_jobs(text, bigint[], int[], text, text, jsonb[], jsonb[], boolean[]) is
  'For complete_jobs and fail_job: ends leases and writes the events.';
comment on function noetl.check_large_result(bigint, jsonb) is
  'For complete_job and complete_jobs: refuses a result over 2 MiB, and warns over 256 KiB.';
comment on function noetl.lock_mail(int, boolean, bigint) is 'For take_mail: locks rows of the inbox.';
comment on function noetl.lock_executions(bigint[], bigint[], boolean[]) is 'For take_mail: locks the executions of the mail.';
comment on function noetl.prepare_starts(bigint[], bigint[], text[], boolean[]) is
  'For take_mail: prepares executions that have taken no turn.';
comment on function noetl.insert_started(bigint[], bigint[], text[], bigint[]) is
  'For take_mail: inserts the rows of started executions.';
comment on function noetl.executions_before_start(bigint[], bigint[]) is
  'For take_mail: executions whose start is not decided on yet.';
comment on function noetl.too_large_together(bigint[], bigint[], bigint[], bigint[], boolean) is
  'For take_mail: the mail that is left for another claim.';
comment on function noetl.take_mail(int, boolean, bigint) is
  'For the broker: claims up to max_mail events and locks their executions.';
comment on function noetl.root_of(bigint) is 'The root execution of a family.';
comment on function noetl.lock_root(bigint) is
  'For the broker: the root execution of a family, locked until the transaction ends.';
comment on function noetl.traceparent(bigint, text) is
  'The W3C traceparent of a visit. An execution, its children and the attempts of workers share one trace.';
comment on function noetl.server_job(noetl.queue) is 'What a NoETL server did to a job; no row without such a server.';
comment on function noetl.is_lease_lost(noetl.queue, timestamptz, float8) is
  'For the broker: whether a lease that ran out is lost.';
comment on function noetl.reap(int, int, timestamptz, float8) is
  'For the broker: handles lost leases, timeouts and withdrawn jobs.';
comment on function noetl.reap_timeouts(int, timestamptz) is 'For reap: fails actions that ran too long.';
comment on function noetl.lock_lost_leases(int, timestamptz, timestamptz, float8) is
  'For reap_leases: locks the jobs of lost leases.';
comment on function noetl.reap_leases(int, int, timestamptz, timestamptz, float8) is
  'For reap: queues the jobs of lost leases again, or fails them.';
comment on function noetl.reap_withdrawn_jobs(int, timestamptz) is
  'For reap: closes jobs that were locked when the broker withdrew them.';
comment on function noetl.mind_clock(int, boolean) is
  'For the broker: moves due times back if the server''s clock has stepped back. Returns by how many seconds.';
comment on function noetl.latest_ahead(timestamptz, timestamptz) is
  'For mind_clock: the latest time on jobs that lies ahead of the clock.';
comment on function noetl.pull_back(timestamptz, timestamptz, interval) is
  'For mind_clock: moves due times back that lie in the future of the clock.';
comment on function noetl.copy_items(bigint, bigint, bigint, bigint, timestamptz, jsonb) is
  'Copies the items of iterators into a fork: results of completed ones, the others to be run again.';
comment on function noetl.copy_results(bigint, bigint, bigint, bigint, timestamptz, jsonb) is
  'For fork_execution: copies results into a fork, and returns the list with the new events.';
