"""The tables of a NoETL server before `migrate`, and the rows that the server writes.

JSON is in text columns, times have no zone. The server has its own function for ids, keys and defaults.
"""

from __future__ import annotations

TABLES = """
create schema noetl;
create sequence noetl.snowflake_seq;
create function noetl.snowflake_id() returns bigint language plpgsql as $$
begin
  return (((date_part('epoch', clock_timestamp()) * 1000)::bigint - 1704067200000) << 23)
    | (1 << 18) | (nextval('noetl.snowflake_seq') % 1024);
end
$$;

create table noetl.resource (name varchar primary key, meta jsonb);
create table noetl.catalog (
  catalog_id bigint primary key default noetl.snowflake_id(),
  path text not null,
  version smallserial not null,
  kind varchar not null references noetl.resource (name),
  content text,
  layout jsonb,
  payload jsonb,
  meta jsonb,
  created_at timestamp not null default current_timestamp,
  credential_id integer,
  unique (path, version)
);
create table noetl.schedule (
  schedule_id bigserial primary key,
  playbook_path text not null,
  cron text,
  next_run_at timestamptz
);
create table noetl.workload (
  execution_id bigint primary key,
  created_at timestamp not null default current_timestamp,
  data jsonb
);
create table noetl.event (
  execution_id bigint,
  catalog_id bigint not null references noetl.catalog (catalog_id),
  event_id bigint,
  parent_event_id bigint,
  parent_execution_id bigint,
  created_at timestamp not null default current_timestamp,
  event_type varchar,
  node_id varchar,
  node_name varchar,
  node_type varchar,
  status varchar,
  duration double precision,
  context text,
  result text,
  meta jsonb,
  error text,
  current_index integer,
  current_item text,
  worker_id varchar,
  stack_trace text,
  primary key (execution_id, event_id)
);
create view noetl.event_log as select * from noetl.event;
create table noetl.workflow (
  execution_id bigint, step_id varchar, step_name varchar, step_type varchar, description text, raw_config text,
  primary key (execution_id, step_id)
);
create table noetl.workbook (
  execution_id bigint, task_id varchar, task_name varchar, task_type varchar, raw_config text,
  primary key (execution_id, task_id)
);
create table noetl.transition (
  execution_id bigint, from_step varchar, to_step varchar, condition text, with_params text,
  primary key (execution_id, from_step, to_step, condition)
);
create table noetl.queue (
  queue_id bigint primary key default noetl.snowflake_id(),
  execution_id bigint not null,
  catalog_id bigint not null references noetl.catalog (catalog_id),
  node_id varchar not null,
  action text not null,
  context jsonb,
  status text not null default 'queued',
  priority integer not null default 0,
  attempts integer not null default 0,
  max_attempts integer not null default 5,
  available_at timestamptz,
  lease_until timestamptz,
  worker_id text,
  last_heartbeat timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  parent_execution_id bigint,
  parent_event_id bigint,
  event_id bigint,
  node_name varchar,
  node_type varchar,
  unique (execution_id, node_id)
);
"""

# An execution from before the migration that has ended.
OLD = 5
HISTORY = """
insert into noetl.resource (name) values ('Playbook');
insert into noetl.catalog (catalog_id, path, version, kind, content)
values (77, 'old', 1, 'Playbook', 'nothing of ours');
insert into noetl.event (execution_id, catalog_id, event_id, event_type, node_name, context, result, error) values
  (5, 77, 1, 'execution_start', 'old', '{"path": "old", "version": "1", "workload": {}}', null, null),
  (5, 77, 2, 'action_started', 'a', '{}', 'null', null),
  (5, 77, 3, 'action_completed', 'a', null, '{"id": "x", "status": "success", "data": [1, 2]}', null),
  (5, 77, 4, 'execution_complete', 'old', '{broken', '', 'not JSON');
insert into noetl.queue (execution_id, catalog_id, node_id, action, status, available_at)
values (5, 77, '5:a', '{}', 'done', now());
insert into noetl.workload (execution_id, data) values (5, '{"a": 1}');
insert into noetl.workflow (execution_id, step_id, step_name) values (5, 'a', 'a');
insert into noetl.workbook (execution_id, task_id) values (5, 't');
insert into noetl.transition (execution_id, from_step, to_step, condition) values (5, 'start', 'a', '');
"""

# The server starts an execution: it writes its own rows, then the event without an id of ours.
START = """
insert into noetl.workload (execution_id, data) values ({execution_id}, '{{"from": "the server"}}');
insert into noetl.workflow (execution_id, step_id, step_name, step_type, raw_config)
values ({execution_id}, 'start', 'start', 'start', '{{}}'), ({execution_id}, 'a', 'a', 'python', '{{}}');
insert into noetl.transition (execution_id, from_step, to_step, condition, with_params)
values ({execution_id}, 'start', 'a', '', '{{}}');
insert into noetl.event (
  execution_id, catalog_id, event_id, event_type, node_id, node_name, node_type, status, context, result, meta
) values (
  {execution_id}, 78, noetl.snowflake_id(), 'execution_start', '{execution_id}', 'mine', 'playbook', 'STARTED',
  '{{"path": "mine", "version": "1", "workload": {{"n": 20}}}}', '{{}}', '{{}}'
);
"""

PLAYBOOK = """
apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: mine, path: mine}
workload: {n: 1}
workflow:
- {step: start, next: a}
- step: a
  type: python
  code: "def main(n): return n + 1"
  args: {n: "{{ workload.n }}"}
  next:
  - {when: "{{ a.n > 20 }}", step: b}
  - {else: [{step: end}]}
- {step: b, type: python, code: "def main(): return 1", next: end}
- {step: end, result: {answer: "{{ a.n }}"}}
"""
