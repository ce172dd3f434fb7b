-- The roles of noetl-broker and their rights. `noetl-broker migrate --roles` runs this file in one transaction.
--
-- Run it as the owner of the schema, with the right to create roles if they do not exist yet. Run it again after
-- each migrate. It revokes from the roles all rights in the schema noetl that it does not grant. The roles are
-- groups without a login: `create role broker_1 login password '…' in role noetl_broker`. docs/reference/security.md says
-- who may do what, with the reasons.

do $$
declare
  name text;
begin
  foreach name in array array[
    'noetl_broker', 'noetl_operator', 'noetl_worker', 'noetl_producer', 'noetl_reader', 'noetl_approver',
    'noetl_author'
  ] loop
    begin
      if to_regrole(name) is null then
        execute format('create role %I nologin', name);
      end if;
    exception when duplicate_object or unique_violation then
      null; -- roles belong to the whole server: another session is creating it too
    end;
  end loop;
end
$$;

-- Revoke what an earlier version of this file granted, or a person.
do $$
declare
  granted record;
begin
  for granted in
    with roles as (
      select r.oid, r.rolname
      from pg_roles r
      where r.rolname in (
        'noetl_broker', 'noetl_operator', 'noetl_worker', 'noetl_producer', 'noetl_reader', 'noetl_approver',
        'noetl_author'
      )
    ), grants as (
      select 'table' as kind, c.oid::regclass::text as thing, a.grantee
      from pg_class c
      cross join lateral aclexplode(c.relacl) a
      where c.relnamespace = 'noetl'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      union
      select 'table', c.oid::regclass::text, a.grantee
      from pg_class c
      join pg_attribute t on t.attrelid = c.oid
      cross join lateral aclexplode(t.attacl) a
      where c.relnamespace = 'noetl'::regnamespace
      union
      select 'routine', p.oid::regprocedure::text, a.grantee
      from pg_proc p
      cross join lateral aclexplode(p.proacl) a
      where p.pronamespace = 'noetl'::regnamespace
      union
      select 'schema', 'noetl', a.grantee
      from pg_namespace n
      cross join lateral aclexplode(n.nspacl) a
      where n.nspname = 'noetl'
    )
    select g.kind, g.thing, r.rolname
    from grants g
    join roles r on r.oid = g.grantee
  loop
    execute format('revoke all on %s %s from %I', granted.kind, granted.thing, granted.rolname);
  end loop;
end
$$;

grant usage on schema noetl to noetl_broker, noetl_operator, noetl_worker, noetl_producer, noetl_reader,
  noetl_approver, noetl_author;

-- The daemon. It sees everything, and can add events but not change them.
grant select on
  noetl.catalog, noetl.event, noetl.queue, noetl.execution, noetl.execution_state, noetl.turn, noetl.workload,
  noetl.workflow, noetl.transition, noetl.workbook, noetl.iteration, noetl.wait, noetl.timer, noetl.signal,
  noetl.signal_taken, noetl.match_request, noetl.on_signal, noetl.inbox,
  noetl.dead_letter, noetl.job_to_cancel, noetl.clock, noetl.schema_version, noetl.period, noetl.archived, noetl.start_schedule,
  noetl.path_pause, noetl.unheld_job, noetl.limit, noetl.throttle_bucket, noetl.release_request, noetl.log, noetl.undo, noetl.place,
  noetl.slot_claim, noetl.start_key, noetl.worker, noetl.executions, noetl.undos, noetl.figure
  to noetl_broker;
grant insert on
  noetl.event, noetl.queue, noetl.execution, noetl.execution_state, noetl.turn, noetl.workload, noetl.workflow,
  noetl.transition, noetl.workbook, noetl.iteration, noetl.wait, noetl.timer, noetl.signal,
  noetl.signal_taken, noetl.match_request, noetl.on_signal, noetl.inbox, noetl.dead_letter, noetl.job_to_cancel, noetl.clock,
  noetl.unheld_job, noetl.undo, noetl.place, noetl.slot_claim, noetl.start_key, noetl.figure
  to noetl_broker;
grant update on
  noetl.queue, noetl.execution, noetl.execution_state, noetl.workflow, noetl.iteration, noetl.wait, noetl.timer, noetl.match_request,
  noetl.signal, noetl.on_signal, noetl.inbox, noetl.dead_letter, noetl.clock, noetl.path_pause, noetl.throttle_bucket,
  noetl.release_request, noetl.undo, noetl.place, noetl.slot_claim, noetl.figure
  to noetl_broker;
grant delete on
  noetl.inbox, noetl.job_to_cancel, noetl.timer, noetl.unheld_job, noetl.signal, noetl.match_request, noetl.on_signal,
  noetl.place, noetl.slot_claim, noetl.start_key, noetl.figure
  to noetl_broker;
grant usage on sequence
  noetl.id_seq, noetl.slot_seq, noetl.mail_seq, noetl.timer_seq, noetl.signal_seq, noetl.match_request_seq,
  noetl.release_request_seq
  to noetl_broker;
grant select on sequence noetl.stale_answer_seq to noetl_broker;
grant execute on function
  noetl.limit_of(text), noetl.kind_of(text), noetl.is_mail(text), noetl.is_live(text), noetl.is_waiting(text),
  noetl.is_execution_status(text), noetl.is_job_status(text, boolean),
  noetl.bucket_number(), noetl.other_bucket(text, bigint),
  noetl.node_id(bigint, text, int), noetl.item_node_id(text, int), noetl.parse_item(text),
  noetl.visit_name(text, int), noetl.items_prefix(text), noetl.is_item(text), noetl.parse_node(text), noetl.undo_step(text), noetl.name_of_path(text), noetl.next_id(),
  noetl.next_number(regclass), noetl.next_signal_id(),
  noetl.notify(boolean, boolean),
  noetl.notify_cancel(),
  noetl.as_json(jsonb), noetl.as_json(text), noetl.as_error(jsonb), noetl.as_error(text), noetl.shorten_error(jsonb),
  noetl.weight(anyelement), noetl.is_broken(jsonb), noetl.is_broken(text), noetl.unwrapped(jsonb),
  noetl.lock_mail(int, boolean, bigint), noetl.lock_executions(bigint[], bigint[], boolean[]),
  noetl.prepare_starts(bigint[], bigint[], text[], boolean[]),
  noetl.insert_started(bigint[], bigint[], text[], bigint[]), noetl.executions_before_start(bigint[], bigint[]),
  noetl.too_large_together(bigint[], bigint[], bigint[], bigint[], boolean), noetl.take_mail(int, boolean, bigint),
  noetl.is_doubled_signal(bigint, bigint, jsonb), noetl.is_path_paused(text, jsonb),
  noetl.root_of(bigint), noetl.lock_root(bigint),
  noetl.server_job(noetl.queue), noetl.is_lease_lost(noetl.queue, timestamptz, float8),
  noetl.reap_timeouts(int, timestamptz),
  noetl.lock_lost_leases(int, timestamptz, timestamptz, float8),
  noetl.reap_leases(int, int, timestamptz, timestamptz, float8), 
  noetl.reap_jobs_to_cancel(int, timestamptz),
  noetl.reap(int, int, timestamptz, float8), noetl.latest_ahead(timestamptz, timestamptz),
  noetl.pull_back(timestamptz, timestamptz, interval), noetl.mind_clock(int, boolean),
  noetl.live_workers(), noetl.unserved_jobs(int),
  noetl.is_archived(bigint), noetl.add_partition(int), noetl.history_tables(), noetl.below_undos(),
  noetl.drop_without_period(bigint, timestamptz, int), noetl.mark_period(text, text, text),
  noetl.drop_partition(text, text, bigint[]), noetl.drop_executions(bigint[]),
  noetl.reap_holds(int), noetl.hold_jobs(bigint, text, int),
  noetl.cancelled_error(), noetl.undo_node_id(text), noetl.is_undo(text), noetl.item_action(bigint, text, int),
  noetl.is_over(bigint, text), noetl.recovered_as(bigint), noetl.is_undo_asked(bigint),
  noetl.set_statuses(bigint[], text[], boolean[], text[], int[], text[], boolean[]), noetl.admit_executions(text, int),
  noetl.lock_slots(text[], text[]), noetl.paired_slots(text[], text[]), noetl.could_run(noetl.slot_claim),
  noetl.slots_of(bigint[]),
  noetl.ask_slots(bigint[], text[], text[], int[]), noetl.lock_freed_slots(bigint[], text[], text[]),
  noetl.hand_over(text[], text[]), noetl.hand_over_past(text, text), noetl.count_slots(text[], text[]),
  noetl.send_to_executions(bigint[], text, jsonb, jsonb),
  noetl.cancel_running(bigint[], text[], text[]),
  noetl.write_slots(bigint[], text[], text[], text[], int[], bigint[], text[], text[]),
  noetl.sweep_slots(int),
  noetl.text_list(jsonb), noetl.notify_timers(timestamptz), noetl.fire_timers(int, float8),
  noetl.notify_matchers(), noetl.original_start(bigint), noetl.latest_sent_at(bigint, timestamptz), noetl.receivers(bigint[], int), noetl.deliver_signals(bigint[], text[]),
  noetl.match_signals(int), noetl.start_by_signal(text, bigint), noetl.sweep_signals(int, bigint),
  noetl.burst_of(noetl.limit), noetl.throttle_jobs(bigint[], text[], text[], text[], int[], float8[], int[]),
  noetl.release_requested(int),
  noetl.sweep_throttles(int, text, text), noetl.throttle_wait(noetl.queue),
  noetl.move_schedules_again(timestamptz), noetl.lock_due_schedules(int),
  noetl.move_schedules(text[], timestamptz[], text[], int[], timestamptz[], timestamptz[], timestamptz[], text[]), noetl.first_id_at(timestamptz)
  to noetl_broker;
-- What bucket.sql makes, and compat_noetl.sql beside a NoETL server.
do $$
begin
  if to_regclass('noetl.signal_copy') is not null then
    grant select, insert, delete on noetl.signal_copy to noetl_broker;
    grant select on noetl.signal_copy to noetl_operator;
  end if;
  if to_regclass('noetl.ended_job') is not null then
    grant select, update, delete on noetl.ended_job to noetl_broker;
    grant select on noetl.ended_job to noetl_operator;
    grant execute on function noetl.reap_ended_jobs(int, float8), noetl.waiting_ended_jobs(bigint[]) to noetl_broker;
  end if;
end
$$;
-- The tables of a NoETL server make ids with sequences of its own.
do $$
declare
  own regclass;
begin
  for own in
    select c.oid::regclass
    from pg_class c
    where c.relnamespace = 'noetl'::regnamespace
      and c.relkind = 'S'
      and c.relname not in ('id_seq', 'stale_answer_seq', 'pause_seq')
      and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'i') -- of an identity column
  loop
    execute format('grant usage on sequence %s to noetl_broker', own);
  end loop;
end
$$;
-- An operator: a person, or the console for people. It reads everything, and acts through functions only: it writes no table.
-- A new action is a row of the last list.
grant select on
  noetl.catalog, noetl.event, noetl.queue, noetl.execution, noetl.execution_state, noetl.turn, noetl.workload,
  noetl.workflow, noetl.transition, noetl.workbook, noetl.iteration, noetl.wait, noetl.timer, noetl.signal,
  noetl.signal_taken, noetl.match_request, noetl.on_signal, noetl.inbox, noetl.dead_letter, noetl.job_to_cancel, noetl.clock,
  noetl.schema_version, noetl.period, noetl.archived, noetl.start_schedule, noetl.step_type, noetl.worker, noetl.path_pause,
  noetl.unheld_job, noetl.log, noetl.undo, noetl.place, noetl.slot_claim, noetl.limit, noetl.throttle_bucket, noetl.release_request,
  noetl.start_key, noetl.figure, noetl.pending_approvals,
  noetl.playbooks, noetl.executions, noetl.steps, noetl.transitions, noetl.iterations, noetl.events, noetl.turns,
  noetl.jobs, noetl.waits, noetl.unread, noetl.dead_letters, noetl.schedules, noetl.undos,
  noetl.throttles
  to noetl_operator;
-- What the statements of reading commands call.
grant execute on function
  noetl.limit_of(text), noetl.kind_of(text), noetl.is_mail(text), noetl.is_live(text), noetl.is_waiting(text),
  noetl.node_id(bigint, text, int), noetl.item_node_id(text, int), noetl.parse_item(text),
  noetl.visit_name(text, int), noetl.items_prefix(text), noetl.is_item(text), noetl.parse_node(text), noetl.undo_step(text), noetl.name_of_path(text),
  noetl.as_json(jsonb), noetl.as_json(text), noetl.as_error(jsonb), noetl.as_error(text), noetl.shorten_error(jsonb),
  noetl.weight(anyelement), noetl.is_broken(jsonb), noetl.is_broken(text), noetl.unwrapped(jsonb),
  noetl.bucket_number(),
  noetl.root_of(bigint), noetl.traceparent(bigint, text), noetl.is_archived(bigint), noetl.original_start(bigint),
  noetl.live_workers(), noetl.unserved_jobs(int), noetl.latest_sent_at(bigint, timestamptz),
  noetl.undo_node_id(text), noetl.is_undo(text), noetl.recovered_as(bigint), noetl.live_ancestor(bigint),
  noetl.is_undo_asked(bigint), noetl.is_over(bigint, text),
  noetl.slots_of(bigint[]), noetl.could_run(noetl.slot_claim),
  noetl.server_job(noetl.queue), noetl.is_lease_lost(noetl.queue, timestamptz, float8),
  noetl.throttle_wait(noetl.queue), noetl.burst_of(noetl.limit), noetl.decision_of(bigint, text, int), noetl.is_approver(text[], text, text), noetl.caller_name(text),
  noetl.schedule_key(text, timestamptz), noetl.first_id_at(timestamptz)
  to noetl_operator;
grant execute on function
  noetl.start_execution(text, jsonb, int, text, jsonb), noetl.start_executions(text, jsonb[], text[], int, jsonb),
  noetl.check_starts(text, jsonb[], text[]), noetl.cancel_execution(bigint, text, text),
  noetl.send_signal(text, text, jsonb, text, interval, text), noetl.signal_execution(bigint, text, jsonb, text, text),
  noetl.decide_approval(bigint, text, boolean, text, jsonb, text, text),
  noetl.ask_to_hold(bigint, text, text, text), noetl.pause_execution(bigint, text, text), noetl.resume_execution(bigint, text),
  noetl.pause_path(text, text, text), noetl.resume_path(text), noetl.admit_executions(text, int),
  noetl.put_back(bigint), noetl.undo_execution(bigint, boolean, int, text), noetl.settle_undo(bigint, text, text, text),
  noetl.abandon_execution(bigint, text, text), noetl.erase_execution(bigint, boolean, text), noetl.erase_executions(bigint[], text),
  noetl.fork_execution(bigint, jsonb, bigint, text),
  noetl.put_schedule(text, text, text, interval, jsonb, text, int, interval, interval, text, text, jsonb, text),
  noetl.pause_schedule(text, text), noetl.resume_schedule(text, text), noetl.delete_schedule(text),
  noetl.start_scheduled(text, timestamptz, text, boolean, text),
  noetl.put_throttle(text, int, float8, int, text), noetl.delete_throttle(text),
  noetl.announce_step_types(text[], text), noetl.remove_step_types(text[]),
  noetl.check_api_token(bytea), noetl.outcome(bigint, text)
  to noetl_operator;

-- A worker: its own jobs, only through functions.
grant execute on function
  noetl.lease_jobs(text, int, int, text[], text[]),
  noetl.heartbeat_job(bigint, text, int, int),
  noetl.complete_job(bigint, text, int, jsonb, boolean), noetl.complete_jobs(text, bigint[], int[], jsonb[]),
  noetl.attempt_status(bigint, text, int),
  noetl.complete_and_lease(bigint, text, int, jsonb, int, text[], text[]),
  noetl.complete_jobs_and_lease(text, bigint[], int[], jsonb[], int, int, text[], text[]),
  noetl.fail_job(bigint, text, int, jsonb, boolean),
  noetl.wait_for_child(bigint, text, int, bigint, int), noetl.traceparent(bigint, text),
  noetl.log_job(bigint, text, int, text, text, bigint), noetl.report_progress(bigint, text, int, jsonb),
  noetl.announce_step_types(text[], text), noetl.announce_worker(text, text[], text[], int, int, text, text, boolean)
  to noetl_worker;

-- A producer: starts and cancels, by function or by event. A trigger checks the types of its events. It may not insert
-- the columns for parents, results, ids and times.
grant execute on function
  noetl.start_execution(text, jsonb, int, text, jsonb), noetl.start_executions(text, jsonb[], text[], int, jsonb),
  noetl.check_starts(text, jsonb[], text[]), noetl.cancel_execution(bigint, text, text),
  noetl.send_signal(text, text, jsonb, text, interval, text), noetl.signal_execution(bigint, text, jsonb, text, text),
  noetl.outcome(bigint, text)
  to noetl_producer;
grant insert (execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context) on noetl.event
  to noetl_producer;
grant execute on function noetl.next_id() to noetl_producer;
grant usage on sequence noetl.id_seq to noetl_producer;

-- A reader: the views without payloads.
grant select on
  noetl.playbooks, noetl.executions, noetl.steps, noetl.transitions, noetl.iterations, noetl.events, noetl.turns,
  noetl.jobs, noetl.waits, noetl.unread, noetl.dead_letters, noetl.schedules, noetl.undos, noetl.throttles
  to noetl_reader;
grant execute on function noetl.is_live(text), noetl.is_waiting(text) to noetl_reader;

-- An approver: sees what waits for a person, and decides. The broker's login calls doctor, which counts what waits.
grant select on noetl.pending_approvals to noetl_approver, noetl_broker;
grant execute on function noetl.decide_approval(bigint, text, boolean, text, jsonb, text, text), noetl.decision_of(bigint, text, int)
  to noetl_approver;
grant execute on function noetl.is_approver(text[], text, text), noetl.caller_name(text) to noetl_approver, noetl_broker;

-- An author registers playbooks. A console whose login has this role too registers them for its users.
grant select on noetl.catalog, noetl.step_type, noetl.start_schedule, noetl.on_signal, noetl.limit, noetl.throttle_bucket
  to noetl_author;
grant insert on noetl.catalog, noetl.on_signal, noetl.limit to noetl_author;
grant update, delete on noetl.on_signal to noetl_author;
grant usage on sequence noetl.id_seq to noetl_author;
grant execute on function
  noetl.next_id(), noetl.limit_of(text), noetl.bucket_number(), noetl.bucket_count(), noetl.name_of_path(text),
  noetl.burst_of(noetl.limit), noetl.caller_name(text),
  noetl.put_schedule(text, text, text, interval, jsonb, text, int, interval, interval, text, text, jsonb, text),
  noetl.pause_schedule(text, text), noetl.drop_undeclared_schedules(text, text[])
  to noetl_author;

-- On Citus a view has the rights of its caller, not of its owner. So readers and approvers may read the columns that their
-- views use. A default is inserted with the rights of the producer.
do $$
declare
  used record;
begin
  if to_regclass('noetl.sequences') is null then
    return;
  end if;
  grant insert (event_id, created_at) on noetl.event to noetl_producer; -- with the defaults; a trigger sets them
  for used in
    select g.grantee as role, u.table_name as name, string_agg(distinct quote_ident(u.column_name), ', ') as columns
    from information_schema.view_column_usage u
    join information_schema.role_table_grants g
      on g.table_schema = u.view_schema and g.table_name = u.view_name and g.privilege_type = 'SELECT'
    where u.view_schema = 'noetl' and u.table_schema = 'noetl' and g.grantee in ('noetl_reader', 'noetl_approver')
    group by 1, 2
  loop
    execute format('grant select (%s) on noetl.%I to %I', used.columns, used.name, used.role);
  end loop;
end
$$;
