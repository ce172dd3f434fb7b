-- What each table, column and function is, for whoever looks with a tool of their own; docs/tables.md is made of it.
--
-- serves-from: 7
--
-- Comments that explain a choice stand beside what they explain, in the earlier files; here is the rest. A table that a
-- NoETL server made may lack a column of ours, so each comment is made only where there is something to comment on.

do $$
declare
  told record;
begin
  for told in
    select said.name, said.comment
    from (values
      ('schema_version', 'Migrations that were applied.'),
      ('workload', 'For a NoETL server''s readers: the workload of each execution; `execution` has it too.'),
      ('workbook', 'One row per named action of an execution''s playbook, as written.'),
      ('iteration', 'Items of iterators that the broker runs, and children that a worker started: one row each.'),
      ('dead_letter', 'Mail that the broker set aside: deciding on it failed by a fault of the program, not of the playbook.'),
      ('playbooks', 'For readers: the catalog without texts.'),
      ('executions', 'For readers: executions without payloads, results and errors.'),
      ('steps', 'For readers: where each step of an execution stands.'),
      ('transitions', 'For readers: the arcs of an execution''s workflow, without conditions.'),
      ('iterations', 'For readers: the items of iterators, without what they hold.'),
      ('events', 'For readers: the log without payloads.'),
      ('turns', 'For readers: what came of each event.'),
      ('jobs', 'For readers: the queue without payloads.'),
      ('unread', 'For readers: events that the broker has not decided on yet.'),
      ('dead_letters', 'For readers: mail that was set aside, without the reasons.')
    ) said (name, comment)
    join pg_class c on c.relnamespace = 'noetl'::regnamespace and c.relname = said.name and c.relkind in ('r', 'p', 'v')
  loop
    execute format(
      'comment on %s noetl.%I is %L',
      (select case when c.relkind = 'v' then 'view' else 'table' end
       from pg_class c
       where c.relnamespace = 'noetl'::regnamespace and c.relname = told.name),
      told.name, told.comment
    );
  end loop;
end
$$;

do $$
declare
  told record;
begin
  for told in
    select said.table_name, said.column_name, said.comment
    from (values
      ('schema_version', 'version', 'The number that the file''s name begins with.'),
      ('schema_version', 'name', 'The file''s name.'),
      ('schema_version', 'checksum', 'SHA-256 of the file as it was applied: it may not change afterwards.'),
      ('schema_version', 'applied_at', 'When it was applied.'),
      ('schema_version', 'serves_from',
        'Programs that serve this version of the schema or a later one may go on after it; null: those that know it.'),

      ('catalog', 'catalog_id', 'The id of the version.'),
      ('catalog', 'path', 'Where playbooks are found: metadata.path, or metadata.name.'),
      ('catalog', 'version', 'Counts from 1 for each path; an execution takes the latest unless it is told.'),
      ('catalog', 'kind', 'Playbook.'),
      ('catalog', 'content', 'The text as it was registered.'),
      ('catalog', 'payload', 'The document as JSON.'),
      ('catalog', 'meta', 'For whoever registered it; nothing reads it.'),
      ('catalog', 'created_at', 'When it was registered.'),

      ('event', 'execution_id', 'The execution that it is a fact of.'),
      ('event', 'event_id', 'Unique, and roughly in order of time; the order of a history is that of its turns.'),
      ('event', 'catalog_id',
        'The version of the playbook, of its parent where a child has none; filled in where its writer leaves it out.'),
      ('event', 'parent_execution_id', 'Of an execution_start: the execution that started this one.'),
      ('event', 'created_at', 'When it was written, by the database''s clock.'),
      ('event', 'event_type', 'What happened: execution_start, action_completed, step_started, …'),
      ('event', 'node_id', 'The visit that it speaks of: execution:step, from the second visit on with #2; execution alone.'),
      ('event', 'node_name', 'The step, or the name of the playbook.'),
      ('event', 'node_type', 'The type of the step; playbook for the whole execution.'),
      ('event', 'status', 'For readers: STARTED, RUNNING, PENDING, COMPLETED, FAILED, CANCELLED.'),
      ('event', 'duration', 'Seconds, where its writer knows them.'),
      ('event', 'context', 'What it was given: the payload of a start, the reason of a cancel, the place of an item.'),
      ('event', 'result', 'What an action gave; an envelope {status, data, error, meta, duration, id} is unwrapped once.'),
      ('event', 'error', 'What went wrong: a mapping with at least `message`.'),
      ('event', 'worker_id', 'The worker that reported it.'),

      ('queue', 'queue_id', 'The id of the job.'),
      ('queue', 'execution_id', 'The execution that it is of.'),
      ('queue', 'catalog_id', 'The version of the playbook.'),
      ('queue', 'node_id', 'The visit: execution:step, from the second visit on with #2; of item 7 of an iterator step#1.7.'),
      ('queue', 'node_name', 'The step.'),
      ('queue', 'node_type', 'The type of the step: which worker can do it.'),
      ('queue', 'action', 'What is to be done, as JSON text: the step''s fields rendered, its inputs under `args`.'),
      ('queue', 'context', 'What a worker may know beside it: the workload, and what templates left to it name.'),
      ('queue', 'max_attempts', 'How often the action is tried in all; the broker decides whether there is another attempt.'),
      ('queue', 'available_at', 'Not to be leased before; the end of the pause after a failure.'),
      ('queue', 'lease_until', 'The end of the lease; a heartbeat moves it.'),
      ('queue', 'worker_id', 'The worker that holds it, or held it last.'),
      ('queue', 'last_heartbeat', 'The last sign of life of that worker.'),
      ('queue', 'parent_execution_id', 'For a NoETL server''s readers; the broker does not write it.'),
      ('queue', 'parent_event_id', 'The event that queued it.'),
      ('queue', 'event_id', 'The event that queued it.'),
      ('queue', 'created_at', 'When it was queued.'),
      ('queue', 'updated_at', 'When its status last changed.'),
      ('queue', 'timeout_seconds', 'How long an attempt may take; null: as long as it likes.'),
      ('queue', 'lost_leases', 'How often a lease ran out without an answer.'),
      ('queue', 'lease_seconds', 'The length of the lease, for heartbeats that say none; null: another program leased it.'),

      ('execution', 'execution_id', 'The id of the execution.'),
      ('execution', 'catalog_id', 'The version of the playbook that it keeps to its end.'),
      ('execution', 'path', 'The playbook''s path.'),
      ('execution', 'version', 'The playbook''s version.'),
      ('execution', 'status', 'RUNNING, COMPLETED, FAILED, CANCELLED.'),
      ('execution', 'started_at', 'When it was asked for.'),
      ('execution', 'ended_at', 'When it ended.'),
      ('execution', 'parent_execution_id', 'The execution that started this one.'),
      ('execution', 'parent_event_id', 'The event of the parent that its answer follows.'),
      ('execution', 'idempotency_key', 'The caller''s own name for it, at most 1024 bytes: the same path and key start nothing more.'),
      ('execution', 'result', 'What a completed execution gives.'),
      ('execution', 'error', 'Why it failed or was cancelled: a mapping with `message`, and the step where there is one.'),

      ('execution_state', 'execution_id', 'The execution.'),
      ('execution_state', 'turn', 'The number of the last turn.'),
      ('execution_state', 'last_at', 'The time of the last turn.'),
      ('execution_state', 'deadline_at', 'When the playbook''s deadline ends it; null: never.'),
      ('execution_state', 'tokens', 'The state of the core; the program''s own matter.'),

      ('turn', 'execution_id', 'The execution.'),
      ('turn', 'turn', 'Counts from 1 in each execution.'),
      ('turn', 'event_id', 'The event that was read.'),
      ('turn', 'note', 'More about the outcome, for people.'),
      ('turn', 'decided_at', 'The time that templates of the turn see as now.'),

      ('workload', 'execution_id', 'The execution.'),
      ('workload', 'timestamp', 'When it started.'),
      ('workload', 'data', 'Its workload.'),

      ('workflow', 'execution_id', 'The execution.'),
      ('workflow', 'step_id', 'The step''s name, which is its id.'),
      ('workflow', 'step_name', 'The step''s name.'),
      ('workflow', 'step_type', 'The type of the step.'),
      ('workflow', 'description', 'What its author says of it.'),
      ('workflow', 'raw_config', 'The step as written, as JSON text.'),
      ('workflow', 'ordinal', 'Its place in the document, from 0.'),
      ('workflow', 'visits', 'How often it was entered.'),
      ('workflow', 'started_at', 'When its latest visit began.'),
      ('workflow', 'ended_at', 'When its latest visit ended.'),
      ('workflow', 'result_visit', 'The highest visit that has a result.'),

      ('transition', 'execution_id', 'The execution.'),
      ('transition', 'from_step', 'The step that the arc leaves.'),
      ('transition', 'to_step', 'The step that it leads to.'),
      ('transition', 'condition', 'Its `when`, as written.'),
      ('transition', 'with_params', 'Its inputs as written, as JSON text.'),
      ('transition', 'ordinal', 'Its place among the arcs of the document, from 0.'),

      ('workbook', 'execution_id', 'The execution.'),
      ('workbook', 'task_id', 'The action''s name, which is its id.'),
      ('workbook', 'task_name', 'The action''s name.'),
      ('workbook', 'task_type', 'The type of the action.'),
      ('workbook', 'raw_config', 'The action as written, as JSON text.'),

      ('iteration', 'execution_id', 'The execution of the iterator.'),
      ('iteration', 'node_id', 'The visit of the iterator.'),
      ('iteration', 'place', 'The place of the item, from 0.'),
      ('iteration', 'item', 'The item; null for a child that a worker started.'),
      ('iteration', 'status',
        'WAITING, RUNNING, COMPLETED, FAILED; CANCELLED: open when its iterator ended. What never began stays WAITING.'),
      ('iteration', 'child_execution_id', 'The execution of the item, where it has one.'),
      ('iteration', 'result_event_id', 'The event that ended it, with its result.'),
      ('iteration', 'error', 'Of one that failed: its error as {{ it.failed }} tells it, cut where it is long.'),

      ('inbox', 'mail_id', 'Counts the mail; gives no order to rely on.'),
      ('inbox', 'execution_id', 'The execution that has something to read.'),
      ('inbox', 'event_id', 'The event.'),

      ('dead_letter', 'execution_id', 'The execution.'),
      ('dead_letter', 'event_id', 'The event that could not be decided on.'),
      ('dead_letter', 'reason', 'What the program raised.'),
      ('dead_letter', 'created_at', 'When it was set aside.'),

      ('ended_job', 'queue_id', 'The job.'),
      ('ended_job', 'status', 'What the server wrote: done, retry, dead.'),
      ('ended_job', 'ended_at', 'When it wrote that.'),

      ('clock', 'is_only', 'There is one row.'),
      ('clock', 'seen_at', 'The latest time that a reaper saw, twice a second at most.'),
      ('clock', 'stepped_at', 'When the last step back was noticed, by the clock after it; null: there was none.'),
      ('clock', 'behind_seconds', 'How far the clock stepped back then.'),
      ('clock', 'ahead_until', 'What is dated up to this time and ahead of the clock was written before that step.'),
      ('clock', 'steps', 'How often it stepped back.'),
      ('clock', 'is_pulling', 'Jobs that were ready before that step are still being pulled back.'),
      ('withdrawn_job', 'execution_id', 'The execution.'),
      ('withdrawn_job', 'node_id', 'The visit, or the item, that the job is of.'),

      ('period', 'name', 'What the names of its partitions end in.'),
      ('period', 'first_id', 'The first id that belongs to it.'),
      ('period', 'archived_at', 'When its history was archived; null: it is in use.'),

      ('archived', 'execution_id', 'The execution.'),
      ('archived', 'archived_at', 'When it was archived.')
    ) said (table_name, column_name, comment)
    join information_schema.columns c
      on c.table_schema = 'noetl' and c.table_name = said.table_name and c.column_name = said.column_name
  loop
    execute format('comment on column noetl.%I.%I is %L', told.table_name, told.column_name, told.comment);
  end loop;
end
$$;

comment on function noetl.next_id() is 'A new id: 41 bits of milliseconds since 2024, 20 bits of a counter.';
comment on function noetl.unwrapped(jsonb) is 'The data of a result: an envelope {status, data, error, meta, duration, id} is unwrapped once.';
comment on function noetl.item_node_id(text, int) is 'The node_id of an item of an iterator, from the iterator''s own and the place.';
comment on function noetl.as_json(jsonb) is 'The value; for columns that are jsonb.';
comment on function noetl.as_json(text) is 'The JSON in a text, null where it is none; for columns that a NoETL server made text.';
comment on function noetl.is_broken(jsonb) is 'Whether a value is no JSON: never, of jsonb.';
comment on function noetl.is_broken(text) is 'Whether a text is no JSON; an empty one is nothing.';
comment on function noetl.weight(anyelement) is
  'About how many bytes a value is when it is read: as it is stored, ten times where it is compressed.';
comment on function noetl.is_inflated(jsonb) is
  'Whether a value is far larger as text than as it is stored, for numbers such as 1e100000: it is refused at the door.';
comment on function noetl.bytes_past_limit(jsonb) is
  'The bytes of a value as JSON text, where they are more than the 16 MiB that the broker reads of one event; else null.';
comment on function noetl.bytes_past_limit(text) is 'The same of text that holds JSON.';
comment on function noetl.shorten_error(jsonb) is
  'An error as it is; of one past 64 KiB its message, its type and its small fields, and how many `original_bytes` it had.';
comment on function noetl.as_error(jsonb) is 'The error of an event as JSON; past 64 KiB it is shortened.';
comment on function noetl.as_error(text) is 'The error of an event as JSON; a text that is none is a string.';
comment on function noetl.receive_events() is 'Trigger: puts events that need the broker into the inbox, and rings.';
comment on function noetl.fill_catalog_id() is 'Trigger: an event whose writer names no version gets that of its execution.';
comment on function noetl.check_producer() is 'Trigger: a producer may insert starts and cancels into the log, and nothing else.';
comment on function noetl.check_digits() is 'Trigger: what a producer inserts is not too large, and holds no number of a hundred thousand digits.';
comment on function noetl.too_large_together(bigint[], bigint[], bigint[], bigint[], boolean) is
  'For take_mail: the mail that is left for another claim.';
comment on function noetl.take_mail(int, boolean, bigint) is 'For the broker: claims up to max_mail events under the locks of their executions.';
comment on function noetl.is_lease_lost(bigint, text, timestamptz, timestamptz, float8) is
  'For the broker: whether a lease that a NoETL server gave, and that ran out, is lost: by its pool''s heartbeat, or after the grace.';
comment on function noetl.reap(int, int, timestamptz, bigint, float8) is
  'For the broker: leases and timeouts that ran out, deadlines, pauses that are over.';
comment on function noetl.check_large_result(bigint, jsonb) is
  'For complete_job and complete_jobs: refuses a result that takes more than 2 MiB, and warns past 256 KiB.';

comment on function noetl.end_jobs(text, bigint[], int[], text, text, jsonb[], jsonb[], boolean[]) is
  'For complete_jobs and fail_job: ends the leases and writes the events, in one transaction.';
comment on function noetl.root_of(bigint) is 'The execution at the top of the family that an execution is of.';
comment on function noetl.lock_root(bigint) is 'For the broker: the execution at the top of a family, locked until the transaction ends.';
comment on function noetl.traceparent(bigint, text) is
  'The W3C traceparent of a visit: one trace for an execution, its children and the attempts of workers.';
comment on function noetl.receive_job() is
  'Trigger: keeps what a NoETL server writes about the end of a job, until it is clear whether its event came.';
comment on function noetl.show_status() is
  'Trigger: beside a NoETL server, has the latest event of an execution say how it stands, for that is what its API shows.';
comment on function noetl.know_kind() is 'Trigger: beside a NoETL server, tells its catalog of the kind Playbook before the first row of it.';
comment on function noetl.mind_clock(int, boolean) is
  'For the broker: where the clock of the server has stepped back, pulls back what was due; says by how many seconds.';
comment on function noetl.reap_ended_jobs(int, float8, bigint) is
  'For the broker: decides by the row where a NoETL server ended a job and its event has not come; returns how many.';
