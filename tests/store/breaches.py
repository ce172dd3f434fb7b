"""The invariants broken by hand: what is done to which execution, and the checks that must see it there.

A check stands under the name of its statement, or of its invariant where the core tells.
"""

from __future__ import annotations

from typing import NamedTuple


class Breach(NamedTuple):
    """What is broken of the execution of this path, everything that must be `seen` there, and how (`:id` is its id)."""

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
    Breach("the child that a visit waits for is gone", "calling", {"verify_standstill", "verify_visits"}, """
        delete from noetl.execution where parent_execution_id = :id;
        delete from noetl.execution_state s where not exists (
          select from noetl.execution x where x.execution_id = s.execution_id
        );
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
    Breach("an item that ended says that it runs", "family", {"verify_items"}, """
        update noetl.iteration set status = 'RUNNING' where execution_id = :id and place = 0"""),
    Breach("an item that its events tell of is gone", "family", {"verify_items"}, """
        delete from noetl.iteration where execution_id = :id and place = 0"""),
    Breach("an item that waits says that it failed", "family", {"verify_items"}, """
        insert into noetl.iteration (execution_id, node_id, place, status) values (:id, ':id:spread', 3, 'FAILED')"""),
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
