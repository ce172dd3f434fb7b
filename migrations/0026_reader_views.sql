-- The views for the role noetl_reader: names, numbers, times and statuses.
--
-- They show no column that may hold values: payload, context, result, error, meta, note, reason, text of a playbook. Each
-- view is named by the plural of its table. Tags are the exception: they are there to be seen in lists.

create or replace view noetl.playbooks as
select c.catalog_id, c.path, c.version, c.name, c.created_at
from noetl.catalog c
where c.block_of is null;

comment on view noetl.playbooks is 'For readers: the catalog without texts.';

create or replace view noetl.executions as
select x.execution_id, x.catalog_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id,
  x.parent_node_id, x.parent_index, x.forked_from, x.undo_status, x.tags, x.late_at, x.erased_at
from noetl.execution x;

comment on view noetl.executions is 'For readers: executions without payloads, results and errors.';

create or replace view noetl.steps as
select w.execution_id, w.ordinal, w.step_name, w.step_type, w.status, w.visits, w.started_at, w.ended_at
from noetl.workflow w;

comment on view noetl.steps is 'For readers: the status of each step of an execution.';

create or replace view noetl.transitions as
select t.execution_id, t.ordinal, t.from_step, t.to_step
from noetl.transition t;

comment on view noetl.transitions is 'For readers: the transitions of an execution''s workflow, without conditions.';

create or replace view noetl.iterations as
select i.execution_id, i.node_id, i.index, i.status, i.child_execution_id
from noetl.iteration i;

comment on view noetl.iterations is 'For readers: iterator items, without their values.';

create or replace view noetl.events as
select e.execution_id, e.event_id, e.parent_event_id, e.created_at, e.event_type, e.node_id, e.node_name, e.node_type,
  e.status, e.duration
from noetl.event e;

comment on view noetl.events is 'For readers: events without payloads.';

create or replace view noetl.turns as
select t.execution_id, t.turn, t.event_id, t.outcome, t.decided_at
from noetl.turn t;

comment on view noetl.turns is 'For readers: the outcome of each event.';

-- Without worker_id, because it answers for a job together with the job's id and attempt.
create or replace view noetl.jobs as
select q.queue_id, q.execution_id, q.node_id, q.node_name, q.node_type, q.status, q.priority, q.attempts, q.max_attempts,
  q.lost_leases, q.available_at, q.lease_until, q.first_leased_at, q.last_heartbeat, q.created_at, q.updated_at,
  q.stop, q.progress - array['errors', 'other_types'] as progress, q.pool
from noetl.queue q;

comment on view noetl.jobs is 'For readers: the queue without payloads.';

-- It leaves out the names and the key of a signal, and the title of an approval. These may be rendered from the payload.
create or replace view noetl.waits as
select w.execution_id, w.node_id, w.step, w.kind, w.status, w.began_at, w.ended_at, (
    select min(t.due_at)
    from noetl.timer t
    where t.execution_id = w.execution_id and t.node_id = w.node_id
  ) as due_at
from noetl.wait w;

comment on view noetl.waits is 'For readers: what steps wait for, without keys and titles.';

create or replace view noetl.unread as
select i.mail_id, i.execution_id, i.event_id
from noetl.inbox i;

comment on view noetl.unread is 'For readers: events that the broker has not decided on yet.';

create or replace view noetl.dead_letters as
select d.execution_id, d.event_id, d.created_at
from noetl.dead_letter d;

comment on view noetl.dead_letters is 'For readers: dead letters, without the reasons.';

create or replace view noetl.schedules as
select s.name, s.path, s.version, s.cron, s.every, s.timezone, s.jitter, s.catch_up, s.overlap, s.declared_in, s.paused,
  s.next_at, s.due_at, s.last_at, s.last_execution_id, s.started, s.skipped, s.error is not null as has_error
from noetl.start_schedule s;

comment on view noetl.schedules is 'For readers: schedules without payloads and errors.';

create or replace view noetl.undos as
select u.execution_id, u.node_id, u.step, u.visit, u.index, u.turn, u.status, u.children[cardinality(u.children)] as child_execution_id,
  u.ended_at
from noetl.undo u;

comment on view noetl.undos is 'For readers: what is to be undone, without values.';

-- Without the keys, which may be rendered from the payload.
create or replace view noetl.throttles as
select l.name, l.concurrency, l.rate, l.burst, l.created_at, l.updated_at
from noetl.limit l;

comment on view noetl.throttles is 'Throttles of jobs, for readers.';
