-- name: write_family
-- After write_turns, where there is any: children to start, answers to parents, children to cancel. Each is an event of
-- another execution and its mail; no lock of that execution is needed for it.
with started as materialized (
  select noetl.next_id() as execution_id, noetl.next_id() as event_id,
    k.execution_id as parent_execution_id, q.event_id as parent_event_id, k.node_id, k.place,
    p.catalog_id, k.path, coalesce(p.version, k.version) as version,
    coalesce(p.name, regexp_replace(k.path, '^.*/', '')) as name, k.payload::jsonb as payload, k.meta::jsonb as meta
  from unnest($1::bigint[], $2::text[], $3::int[], $4::text[], $5::int[], $6::text[], $7::text[])
    k (execution_id, node_id, place, path, version, payload, meta)
  join noetl.queue q on q.execution_id = k.execution_id and q.node_id = k.node_id
  left join lateral (
    select c.catalog_id, c.version, c.name
    from noetl.catalog c
    where c.path = k.path and (k.version is null or c.version = k.version)
    order by c.version desc
    limit 1
  ) p on true
), children as (
  insert into noetl.execution (
    execution_id, catalog_id, path, version, parent_execution_id, parent_event_id, parent_node_id, parent_index
  )
  select execution_id, catalog_id, path, version, parent_execution_id, parent_event_id, node_id, place
  from started
), child_starts as (
  insert into noetl.event (
    execution_id, event_id, catalog_id, parent_event_id, parent_execution_id, event_type, node_id, node_name, node_type,
    status, context, meta
  )
  select execution_id, event_id, catalog_id, parent_event_id, parent_execution_id, 'execution_start',
    execution_id::text, name, 'playbook', 'STARTED',
    jsonb_build_object('path', path, 'version', version, 'workload', payload), meta
  from started
), letters as materialized (
  select noetl.next_id() as event_id, l.execution_id, l.cause, l.event_type, l.node_id, l.node_name, l.status,
    l.result::jsonb as result, l.error::jsonb as error, l.meta::jsonb as meta
  from unnest(
    $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[]
  ) l (execution_id, cause, event_type, node_id, node_name, status, result, error, meta)
), letter_events as (
  insert into noetl.event (
    execution_id, event_id, parent_event_id, event_type, node_id, node_name, node_type, status, result, error, meta
  )
  select execution_id, event_id, cause, event_type, node_id, node_name, 'playbook', status, result, error, meta
  from letters
), orphans as materialized (
  -- children of executions that ended, and of visits that gave them up
  select x.execution_id, x.catalog_id, x.path, noetl.next_id() as event_id
  from noetl.execution x
  where x.status = 'RUNNING'
    and x.parent_execution_id = any($17::bigint[])
  union all
  select x.execution_id, x.catalog_id, x.path, noetl.next_id() as event_id
  from (select distinct execution_id, node_id from unnest($18::bigint[], $19::text[]) u (execution_id, node_id)) a
  join noetl.execution x
    on x.parent_execution_id = a.execution_id and x.parent_node_id = a.node_id and x.status = 'RUNNING'
  where a.execution_id <> all($17::bigint[])
), orphan_cancels as (
  insert into noetl.event (
    execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context
  )
  select execution_id, event_id, catalog_id, 'execution_cancel', execution_id::text, regexp_replace(path, '^.*/', ''),
    'playbook', 'CANCELLED', jsonb_build_object('reason', 'its parent ended or gave it up')
  from orphans
)
insert into noetl.inbox (execution_id, event_id)
select execution_id, event_id from started
union all
select execution_id, event_id from letters
union all
select execution_id, event_id from orphans;
