-- The roles of noetl-broker and what each may do: `noetl-broker migrate --roles` runs this file in one transaction.
--
-- Run it as the owner of the schema, who may create roles; where the four are there already, owning the schema is enough.
-- Again after each migrate: rights in the schema noetl that are not in this file are taken from the four roles.
-- They are groups without a login: `create role broker_1 login password '…' in role noetl_broker`.
-- docs/security.md has the same as a table, and says why.

do $$
declare
  name text;
begin
  foreach name in array array['noetl_broker', 'noetl_worker', 'noetl_producer', 'noetl_reader'] loop
    begin
      if to_regrole(name) is null then
        execute format('create role %I nologin', name);
      end if;
    exception when duplicate_object or unique_violation then
      null; -- roles belong to all databases of a server: somebody is doing the same beside us
    end;
  end loop;
end
$$;

-- What an earlier version of this file granted, or somebody by hand.
do $$
declare
  granted record;
begin
  for granted in
    with roles as (
      select r.oid, r.rolname
      from pg_roles r
      where r.rolname in ('noetl_broker', 'noetl_worker', 'noetl_producer', 'noetl_reader')
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

grant usage on schema noetl to noetl_broker, noetl_worker, noetl_producer, noetl_reader;

-- The daemon, and the commands that read: it decides, so it sees everything; facts it can add and not change.
grant select on
  noetl.catalog, noetl.event, noetl.queue, noetl.execution, noetl.execution_state, noetl.turn, noetl.workload,
  noetl.workflow, noetl.transition, noetl.workbook, noetl.iteration, noetl.inbox, noetl.dead_letter, noetl.ended_job,
  noetl.withdrawn_job, noetl.clock, noetl.schema_version, noetl.period, noetl.archived
  to noetl_broker;
grant insert on
  noetl.event, noetl.queue, noetl.execution, noetl.execution_state, noetl.turn, noetl.workload, noetl.workflow,
  noetl.transition, noetl.workbook, noetl.iteration, noetl.inbox, noetl.dead_letter, noetl.withdrawn_job, noetl.clock
  to noetl_broker;
grant update on
  noetl.queue, noetl.execution, noetl.execution_state, noetl.workflow, noetl.iteration, noetl.inbox, noetl.dead_letter,
  noetl.ended_job, noetl.clock
  to noetl_broker;
grant delete on noetl.inbox, noetl.ended_job, noetl.withdrawn_job to noetl_broker;
grant usage on sequence noetl.id_seq to noetl_broker;
grant select on sequence noetl.stale_answer_seq to noetl_broker;
grant execute on function
  noetl.take_mail(int, boolean, bigint), noetl.too_large_together(bigint[], bigint[], bigint[], bigint[], boolean),
  noetl.mind_clock(int, boolean),
  noetl.reap(int, int, timestamptz, bigint, float8),
  noetl.is_lease_lost(bigint, text, timestamptz, timestamptz, float8), noetl.reap_ended_jobs(int, float8, bigint),
  noetl.next_id(),
  noetl.as_json(jsonb), noetl.as_json(text), noetl.as_error(jsonb), noetl.as_error(text),
  noetl.shorten_error(jsonb), noetl.weight(anyelement),
  noetl.is_broken(jsonb), noetl.is_broken(text), noetl.unwrapped(jsonb), noetl.item_node_id(text, int),
  noetl.root_of(bigint), noetl.lock_root(bigint),
  noetl.is_archived(bigint), noetl.add_partition(int)
  to noetl_broker;
-- The tables of a NoETL server make their ids with functions and sequences of its own; without such a server there are none.
do $$
declare
  own regclass;
begin
  for own in
    select c.oid::regclass
    from pg_class c
    where c.relnamespace = 'noetl'::regnamespace
      and c.relkind = 'S'
      and c.relname not in ('id_seq', 'stale_answer_seq')
      and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'i') -- of an identity column
  loop
    execute format('grant usage on sequence %s to noetl_broker', own);
  end loop;
end
$$;
-- For people whose login is a member: mail back to the broker, and executions that take over results.
grant execute on function noetl.put_back(bigint), noetl.fork_execution(bigint, jsonb, bigint, text) to noetl_broker;

-- A worker: its own jobs, through functions alone.
grant execute on function
  noetl.lease_jobs(text, int, int, text[]), noetl.lease_singly(text, int, int, text[]),
  noetl.heartbeat_job(bigint, text, int, int),
  noetl.complete_job(bigint, text, int, jsonb), noetl.complete_jobs(text, bigint[], int[], jsonb[]),
  noetl.fail_job(bigint, text, int, jsonb, boolean),
  noetl.wait_for_child(bigint, text, int, bigint, int), noetl.traceparent(bigint, text)
  to noetl_worker;

-- A producer: starts and cancels, by function or by event. A trigger holds the events to their types; the columns leave
-- out what would speak for somebody else (a parent, a turn, a result) or choose ids and times.
grant execute on function
  noetl.start_execution(text, jsonb, int, text), noetl.cancel_execution(bigint, text)
  to noetl_producer;
grant insert (execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context) on noetl.event
  to noetl_producer;
grant execute on function noetl.next_id() to noetl_producer;
grant usage on sequence noetl.id_seq to noetl_producer;

-- A reader: the views without payloads.
grant select on
  noetl.playbooks, noetl.executions, noetl.steps, noetl.transitions, noetl.iterations, noetl.events, noetl.turns,
  noetl.jobs, noetl.unread, noetl.dead_letters
  to noetl_reader;
