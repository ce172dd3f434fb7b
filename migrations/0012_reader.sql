-- The views for the role noetl_reader: names, numbers, times and statuses.
--
-- They show no column that may hold values: payload, context, result, error, meta, note, reason, text of a playbook. Each
-- view is named by the plural of its table.

create or replace view noetl.playbooks as
select c.catalog_id, c.path, c.version, c.name, c.created_at
from noetl.catalog c
where c.block_of is null;

create or replace view noetl.executions as
select x.execution_id, x.catalog_id, x.path, x.version, x.status, x.started_at, x.ended_at, x.parent_execution_id,
  x.parent_node_id, x.parent_index, x.forked_from
from noetl.execution x;

create or replace view noetl.steps as
select w.execution_id, w.ordinal, w.step_name, w.step_type, w.status, w.visits, w.started_at, w.ended_at
from noetl.workflow w;

create or replace view noetl.transitions as
select t.execution_id, t.ordinal, t.from_step, t.to_step
from noetl.transition t;

create or replace view noetl.iterations as
select i.execution_id, i.node_id, i.index, i.status, i.child_execution_id
from noetl.iteration i;

create or replace view noetl.events as
select e.execution_id, e.event_id, e.parent_event_id, e.created_at, e.event_type, e.node_id, e.node_name, e.node_type,
  e.status, e.duration
from noetl.event e;

create or replace view noetl.turns as
select t.execution_id, t.turn, t.event_id, t.outcome, t.decided_at
from noetl.turn t;

-- Without worker_id, because it answers for a job together with the job's id and attempt.
create or replace view noetl.jobs as
select q.queue_id, q.execution_id, q.node_id, q.node_name, q.node_type, q.status, q.priority, q.attempts, q.max_attempts,
  q.lost_leases, q.available_at, q.lease_until, q.first_leased_at, q.last_heartbeat, q.created_at, q.updated_at,
  q.stop, q.progress - array['errors', 'other_types'] as progress
from noetl.queue q;

-- It leaves out the names and the key of a signal, and the title of an approval. These may be rendered from the payload.
create or replace view noetl.waits as
select w.execution_id, w.node_id, w.step, w.kind, w.status, w.began_at, w.ended_at, (
    select min(t.due_at)
    from noetl.timer t
    where t.execution_id = w.execution_id and t.node_id = w.node_id
  ) as due_at
from noetl.wait w;

create or replace view noetl.unread as
select i.mail_id, i.execution_id, i.event_id
from noetl.inbox i;

create or replace view noetl.dead_letters as
select d.execution_id, d.event_id, d.created_at
from noetl.dead_letter d;
