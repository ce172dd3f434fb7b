"""Breaches of the invariants, and the checks that must report each.

A check is named by its SQL statement, or by its invariant if the core checks it.
"""

from __future__ import annotations

from typing import NamedTuple


class Breach(NamedTuple):
    """A fault that is written into the execution of `path`.

    `statements` write it; `:id` is the execution. `seen` has all checks that must report it.
    """

    what: str
    path: str
    seen: set[str]
    statements: str


BREACHES = (
    Breach("an event lost its mail", "done", {"verify_turns"}, """
        set noetl.writer = 'broker';
        insert into noetl.event (execution_id, event_type) values (:id, 'execution_cancel')"""),
    Breach("the answer of a worker lost its mail", "half", {"verify_standstill", "verify_turns", "verify_visits"}, """
        select noetl.complete_job(queue_id, 'w', attempts)
        from noetl.lease_jobs('w', 9)
        where execution_id = :id;
        delete from noetl.inbox where execution_id = :id"""),
    Breach("the start of an execution lost its mail", "done", {"verify_standstill", "verify_turns"}, """
        select noetl.start_execution('done');
        delete from noetl.inbox"""),
    Breach("a schedule is due and no broker moves it", "done", {"verify_schedules"}, """
        select noetl.put_schedule('late', 'done', '@daily');
        update noetl.start_schedule set last_execution_id = :id, updated_at = now() - interval '1 hour'"""),
    Breach("a declared schedule is not in its playbook", "done", {"verify_schedules"}, """
        update noetl.catalog set payload = '{"metadata": {"schedule": [{"name": "a"}]}}' where path = 'done';
        select noetl.put_schedule('done#' || n, 'done', '@daily', declared_in => 'done') from unnest(array['a', 'b']) n;
        update noetl.start_schedule set last_execution_id = :id where name = 'done#b'"""),
    Breach("an execution that ended holds a slot", "done", {"verify_slots"}, """
        insert into noetl.place (path, key, held) values ('done', 'a', 1);
        insert into noetl.slot_claim (execution_id, path, key, number, held_at)
        values (:id, 'done', 'a', 1, now())"""),
    Breach("an execution is queued for a slot without a number", "cooling", {"verify_slots", "verify_rows"}, """
        update noetl.execution set status = 'QUEUED', waits_for_slot = true where execution_id = :id;
        insert into noetl.place (path, key, held) values ('fresh', 'a', 1);
        insert into noetl.slot_claim (execution_id, path, key, number, held_at)
        select execution_id, path, 'a', 1, now()
        from noetl.execution
        where path = 'fresh'"""),
    Breach("a slot is free and waited for", "cooling", {"verify_slots", "verify_rows"}, """
        insert into noetl.place (path, key, is_waited_for) values ('cooling', 'a', true);
        insert into noetl.slot_claim (execution_id, path, key, number) values (:id, 'cooling', 'a', 1);
        update noetl.execution set status = 'QUEUED', waits_for_slot = true where execution_id = :id"""),
    Breach("a job waits for a slot that is free", "fresh", {"verify_held_jobs"}, """
        insert into noetl.limit (name, concurrency) values ('api', 1);
        update noetl.queue set status = 'held', held_for = array['limit'], limit_name = 'api', limit_key = ''
        where execution_id = :id"""),
    Breach("an execution lost its row", "done", {"verify_rows"}, """
        delete from noetl.execution where execution_id = :id"""),
    Breach("an event has two turns", "done", {"verify_turns"}, """
        insert into noetl.turn
        select execution_id, turn + 1, event_id, 'duplicate', null, decided_at
        from noetl.turn
        where execution_id = :id
        order by turn desc
        limit 1;
        update noetl.execution_state set turn = turn + 1 where execution_id = :id"""),
    Breach("an event that was read lost its turn", "late", {"verify_turn_numbers", "verify_turns"}, """
        delete from noetl.turn
        where execution_id = :id
          and turn = (select min(turn) from noetl.turn where execution_id = :id and outcome = 'after_end')"""),
    Breach("a visit ended twice", "done", {"verify_ends_of_visits", "verify_transactions"}, """
        set noetl.writer = 'broker';
        insert into noetl.event (execution_id, event_type, node_id, node_name, parent_event_id, meta, result)
        select execution_id, event_type, node_id, node_name, parent_event_id, meta, result
        from noetl.event
        where execution_id = :id
          and event_type = 'step_completed'
          and node_name = 'last'"""),
    Breach("a visit whose action ended has no end", "done", {"verify_ends_of_visits"}, """
        delete from noetl.event
        where execution_id = :id
          and event_type = 'step_completed'
          and node_name = 'last'"""),
    Breach("an item that ended has no end", "family", {"verify_ends_of_visits", "verify_items"}, """
        delete from noetl.event
        where execution_id = :id
          and event_type = 'iteration_completed'
          and node_name = 'spread'"""),
    Breach("a job has no step_started", "done", {"verify_jobs"}, """
        update noetl.queue set event_id = 1 where execution_id = :id and node_name = 'last'"""),
    Breach("a job of an item has no iteration_started", "family", {"verify_jobs"}, """
        update noetl.queue
        set event_id = e.event_id
        from noetl.event e
        where e.execution_id = :id and e.event_type = 'step_started' and e.node_name = 'spread'
          and queue.execution_id = :id and queue.node_id like '%spread#1.0'"""),
    Breach("a job was never decided on", "done", {"verify_jobs"}, """
        insert into noetl.queue (execution_id, node_id, node_name, node_type, action, status)
        values (:id, ':id:nowhere', 'nowhere', 'python', '{}', 'done')"""),
    Breach("a visit has no job", "fresh", {"verify_jobs", "verify_visits"}, """
        delete from noetl.queue where execution_id = :id and node_name = 'b'"""),
    Breach("the job of a live visit was taken away", "fresh", {"verify_visits"}, """
        update noetl.queue set status = 'cancelled' where execution_id = :id and node_name = 'b'"""),
    Breach("a live visit has a job whose end nobody told", "fresh", {"verify_visits"}, """
        update noetl.queue set status = 'done' where execution_id = :id and node_name = 'b'"""),
    Breach("the job of a cancelled visit was left", "half", {"verify_cancelled_visits", "verify_transactions"}, """
        update noetl.event
        set event_type = 'step_cancelled'
        where execution_id = :id and event_type = 'step_completed' and node_name = 'a';
        update noetl.queue set status = 'leased' where execution_id = :id and node_name = 'a'"""),
    Breach("the timer of a wait is gone", "cooling", {"verify_standstill", "verify_visits"}, """
        delete from noetl.timer where execution_id = :id"""),
    Breach("a timer is left after the end", "cooled", {"verify_waits"}, """
        insert into noetl.timer (execution_id, node_id, step, purpose, due_at)
        values (:id, ':id:cool', 'cool', 'wait', clock_timestamp())"""),
    Breach("a wait is open after the end", "cooled", {"verify_waits"}, """
        update noetl.wait set status = 'open' where execution_id = :id"""),
    Breach("a wait says that it is over, and its visit lives", "cooling", {"verify_waits"}, """
        update noetl.wait set status = 'done' where execution_id = :id"""),
    Breach("a timer is due and nobody fires it", "cooling", {"verify_silence"}, """
        update noetl.timer
        set due_at = due_at - interval '4 days', created_at = created_at - interval '4 days'
        where execution_id = :id"""),
    Breach("a timer of a visit has no wait", "cooling", {"verify_waits"}, """
        insert into noetl.timer (execution_id, node_id, step, purpose, due_at)
        values (:id, ':id:nowhere', 'nowhere', 'wait', clock_timestamp())"""),
    Breach("a wait is signalled, and the signal never comes", "cooling", {"verify_signals"}, """
        update noetl.wait set kind = 'signal', status = 'signalled', names = '{a}', key = 'k'
        where execution_id = :id"""),
    Breach("signals are forgotten, and a request is for another one", "cooling", {"verify_signals"}, """
        select noetl.send_signal('a', 'k') from generate_series(1, 2);
        delete from noetl.match_request;
        select noetl.send_signal('a', 'other');
        update noetl.wait
        set kind = 'signal', names = '{a}', key = 'k', since_at = '2026-01-01T00:00:00Z'
        where execution_id = :id"""),
    Breach("a wait that should time out has no timer", "cooling", {"verify_waits"}, """
        update noetl.wait
        set kind = 'signal', details = '{"times_out_at": "2026-01-01T00:00:00.000000Z"}'
        where execution_id = :id;
        delete from noetl.timer where execution_id = :id"""),
    Breach("the child of a cancelled visit runs", "calling", {"verify_cancelled_visits"}, """
        delete from noetl.inbox;
        insert into noetl.event (execution_id, event_type, node_id, node_name, parent_event_id, meta)
        select execution_id, 'step_cancelled', node_id, node_name, parent_event_id, meta
        from noetl.event
        where execution_id = :id and event_type = 'step_started' and node_name = 'call'"""),
    Breach("the child that a visit waits for is gone", "calling", {"verify_standstill", "verify_visits"}, """
        delete from noetl.execution where parent_execution_id = :id;
        delete from noetl.execution_state s where not exists (
          select from noetl.execution x where x.execution_id = s.execution_id
        );
        delete from noetl.inbox"""),
    Breach("the child that runs is of another visit", "calling", {"verify_visits"}, """
        update noetl.execution set parent_node_id = ':id:other' where parent_execution_id = :id;
        delete from noetl.inbox"""),
    Breach("the child that a worker started is gone", "waiting", {"verify_standstill", "verify_visits"}, """
        delete from noetl.execution where parent_execution_id = :id"""),
    Breach("an execution has two ends", "done", {"verify_ends", "verify_transactions"}, """
        set noetl.writer = 'broker';
        insert into noetl.event (execution_id, event_type, node_id, node_name, parent_event_id, meta, result)
        select execution_id, event_type, node_id, node_name, parent_event_id, meta, result
        from noetl.event
        where execution_id = :id
          and event_type = 'execution_complete'"""),
    Breach("an execution ended and has no end", "done", {"verify_ends"}, """
        delete from noetl.event where execution_id = :id and event_type = 'execution_complete'"""),
    Breach("an execution says that it ended otherwise", "failed", {"verify_ends"}, """
        update noetl.execution set status = 'COMPLETED' where execution_id = :id"""),
    Breach("an execution says that it runs", "done", {"verify_ends", "verify_standstill"}, """
        update noetl.execution set status = 'RUNNING' where execution_id = :id"""),
    Breach("an execution has nothing left to do", "half", {"verify_standstill"}, """
        update noetl.execution_state
        set tokens = '{"status": "RUNNING", "seen": "0", "total": 1}'
        where execution_id = :id;
        update noetl.queue set status = 'done' where execution_id = :id"""),
    Breach("something was decided after the end", "late", {"verify_after_end"}, """
        update noetl.turn
        set outcome = 'decided'
        where execution_id = :id
          and outcome = 'after_end'
          and turn = (select max(turn) from noetl.turn where execution_id = :id)"""),
    Breach("something is written after the end", "late", {"verify_after_end", "verify_jobs", "verify_transactions"}, """
        set noetl.writer = 'broker';
        insert into noetl.event (execution_id, event_type, node_name, parent_event_id, meta)
        select execution_id, 'step_started', 'a', event_id, jsonb_build_object('turn', turn)
        from noetl.turn
        where execution_id = :id
        order by turn desc
        limit 1"""),
    Breach("a job was left when an execution ended", "cancelled", {"verify_after_end"}, """
        update noetl.queue set status = 'queued' where execution_id = :id and status = 'cancelled'"""),
    Breach("a worker works on after the end, and nobody stops it", "done", {"verify_after_end"}, """
        update noetl.queue set status = 'leased', stop = false where execution_id = :id and node_name = 'b'"""),
    Breach("a job is to be tried again after the end", "done", {"verify_after_end"}, """
        update noetl.queue set status = 'retry' where execution_id = :id and node_name = 'b'"""),
    Breach("mail of an event that was read is still there", "done", {"verify_mail"}, """
        insert into noetl.inbox (execution_id, event_id)
        select execution_id, event_id
        from noetl.turn
        where execution_id = :id and turn = 2"""),
    Breach("mail waits and nobody reads", "half", {"verify_silence"}, """
        insert into noetl.event (execution_id, event_type, created_at)
        values (:id, 'execution_cancel', clock_timestamp() - interval '10 minutes');
        update noetl.execution_state set last_at = last_at - interval '10 minutes'"""),
    Breach("an undo that no event tells of is done", "done", {"verify_undos"}, """
        insert into noetl.undo (execution_id, node_id, step, visit, turn, status)
        values (:id, ':id:b', 'b', 1, 2, 'done')"""),
    Breach("an undo runs in an execution that has ended", "done", {"verify_undos"}, """
        insert into noetl.undo (execution_id, node_id, step, visit, turn, status)
        values (:id, ':id:b', 'b', 1, 2, 'running')"""),
    Breach("all is undone, and a row is open", "done", {"verify_undos"}, """
        insert into noetl.undo (execution_id, node_id, step, visit, turn) values (:id, ':id:b', 'b', 1, 2);
        update noetl.execution set undo_status = 'undone' where execution_id = :id"""),
    Breach("something is left, and no row says what", "done", {"verify_undos"}, """
        update noetl.execution set undo_status = 'left' where execution_id = :id"""),
    Breach("an item that ended says that it runs", "family", {"verify_items"}, """
        update noetl.iteration set status = 'RUNNING' where execution_id = :id and index = 0"""),
    Breach("an item that its events tell of is gone", "family", {"verify_items"}, """
        delete from noetl.iteration where execution_id = :id and index = 0"""),
    Breach("an item that waits says that it failed", "family", {"verify_items"}, """
        insert into noetl.iteration (execution_id, node_id, index, status) values (:id, ':id:spread', 3, 'FAILED')"""),
    Breach("a turn has the wrong number", "late", {"verify_turn_numbers"}, """
        update noetl.turn set turn = turn + 5 where execution_id = :id and outcome = 'after_end'"""),
    Breach("the state stands at another turn", "half", {"verify_turn_numbers"}, """
        update noetl.execution_state set turn = turn - 1 where execution_id = :id"""),
    Breach("the broker names a parent that is not there", "cancelled", {"verify_causes"}, """
        delete from noetl.event where execution_id = :id and event_type = 'execution_cancel'"""),
    Breach("a worker's answer names a parent that is not there", "done", {"verify_causes"}, """
        update noetl.event
        set parent_event_id = 5
        where execution_id = :id
          and event_type = 'action_completed'"""),
    Breach("an answer names a parent that came later", "done", {"verify_causes"}, """
        update noetl.event
        set parent_event_id = e.event_id
        from noetl.event e
        where e.execution_id = :id and e.event_type = 'execution_complete'
          and event.execution_id = :id and event.event_type = 'action_completed'"""),
    Breach("a child names a parent that is not there", "child", {"verify_causes"}, """
        update noetl.execution set parent_event_id = 5 where execution_id = :id"""),
    Breach("an attempt ended twice", "done", {"verify_answers"}, """
        set noetl.writer = 'broker';
        insert into noetl.event
          (execution_id, event_type, node_id, node_name, parent_event_id, meta, worker_id)
        select execution_id, event_type, node_id, node_name, parent_event_id, meta, worker_id
        from noetl.event
        where execution_id = :id and event_type = 'action_failed';
        insert into noetl.turn
        select e.execution_id, s.turn + 1, e.event_id, 'duplicate', null, now()
        from noetl.event e
        join noetl.execution_state s using (execution_id)
        left join noetl.turn t using (execution_id, event_id)
        where execution_id = :id
          and event_type = 'action_failed'
          and t.turn is null;
        update noetl.execution_state set turn = turn + 1 where execution_id = :id"""),
    Breach("more visits than are allowed", "done", {"verify_limits"}, """
        update noetl.execution set rules = (rules::jsonb || '{"max_visits": 2}')::json where execution_id = :id"""),
    Breach("more open jobs than are allowed", "fresh", {"verify_limits"}, """
        update noetl.execution set rules = (rules::jsonb || '{"max_open_jobs": 1}')::json where execution_id = :id"""),
    Breach("a log is longer than is allowed", "done", {"verify_logs"}, """
        insert into noetl.log (execution_id, node_id, attempt, ordinal, step, level, first_byte, message)
        select execution_id, node_id, attempts, 1, node_name, 'info', 0, repeat('x', 65537)
        from noetl.queue
        where execution_id = :id
        limit 1"""),
    Breach("a log has no job", "done", {"verify_logs"}, """
        insert into noetl.log (execution_id, node_id, attempt, ordinal, step, level, first_byte, message)
        values (:id, :id::text || ':gone', 1, 1, 'gone', 'info', 0, 'x')"""),
    Breach("an event of a turn was written by another transaction", "done", {"verify_transactions"}, """
        update noetl.event set status = status where execution_id = :id and event_type = 'step_started'"""),
    Breach("an event claims a turn that did not write it", "done", {"verify_ends_of_visits", "verify_transactions"}, """
        update noetl.event
        set meta = meta || '{"turn": 1}'
        where execution_id = :id
          and event_type = 'step_completed'
          and node_name = 'last'"""),
    Breach("a join was released twice for one arrival", "done", {"verify_joins", "verify_transactions"}, """
        update noetl.event
        set meta = event.meta || jsonb_build_object('arcs', e.meta -> 'arcs')
        from noetl.event e
        where e.node_id = ':id:j' and e.event_type = 'step_started'
          and event.execution_id = :id and event.node_id = ':id:j#2' and event.event_type = 'step_started'"""),
    Breach("an execution was begun twice", "done", {"verify_joins", "verify_transactions"}, """
        update noetl.event set meta = meta || '{"arcs": [-1]}'
        where execution_id = :id and event_type = 'step_started' and node_name in ('a', 'b')"""),
)  # fmt: skip

DEEP_BREACHES = (
    Breach("a tracking row", "half", {"I6"}, """
        update noetl.workflow set status = 'FAILED' where execution_id = :id"""),
    Breach("a result", "family", {"I6"}, """
        update noetl.execution set result = '1' where execution_id = :id"""),
    Breach("a state", "done", {"I6"}, """
        update noetl.execution_state
        set tokens = '{"status": "COMPLETED", "seen": "0", "total": 1}'
        where execution_id = :id"""),
    Breach("what a condition gave", "done", {"I12", "verify_transactions"}, """
        update noetl.event
        set meta = jsonb_set(meta, '{next,0,outcome}', 'false')
        where execution_id = :id
          and event_type = 'step_completed'
          and node_name = 'b'"""),
    Breach("what a condition saw", "done", {"I12", "I6"}, """
        update noetl.event
        set result = '{"ok": false}'
        where execution_id = :id
          and event_type = 'action_completed'
          and node_name = 'b'"""),
    Breach("the playbook", "done", {"I12", "I6"}, """
        update noetl.catalog set content = replace(content, 'b.ok', 'not b.ok') where path = 'done'"""),
)  # fmt: skip
