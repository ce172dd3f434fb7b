-- name: write_family
-- After write_turns: children to start ($1 to $8), answers to parents ($9 to $17), children to cancel. Each is an event of
-- another execution and its mail, which needs no lock of that execution. Which children stop is said by `Stops.child` of
-- broker/model/stops.py: all of an execution ($18), or those of a visit ($19, $20), which undo nothing. No undo has begun
-- where an execution in $18 goes on. Items of draining visits ($21, $22) end by an event each. In a bucket, the start of a
-- child whose playbook has another metadata.bucket than its parent's says so, and fails.
with started as materialized (
  select coalesce(k.child_id, noetl.next_id()) as execution_id, noetl.next_id() as event_id,
    k.execution_id as parent_execution_id, q.event_id as parent_event_id, q.catalog_id as parent_catalog_id, k.node_id,
    k.index, p.catalog_id, k.path, coalesce(p.version, nullif(k.version, 0)) as version,
    coalesce(p.name, noetl.name_of_path(k.path)) as name, k.payload::jsonb as payload,
    case when noetl.bucket_number() is null then k.meta::jsonb
      else k.meta::jsonb || coalesce(noetl.other_bucket(p.bucket, q.catalog_id), '{}') end as meta,
    (select x.tags from noetl.execution x where x.execution_id = k.execution_id) as tags
  from unnest($1::bigint[], $2::text[], $3::int[], $4::text[], $5::int[], $6::text[], $7::text[], $8::bigint[])
    k (execution_id, node_id, index, path, version, payload, meta, child_id)
  join noetl.queue q on q.execution_id = k.execution_id and q.node_id = k.node_id
  left join lateral (
    select c.catalog_id, c.version, c.name, c.bucket
    from noetl.catalog c
    -- version 0: a block, in the version of its parent
    where c.path = k.path and (
      k.version is null
      or c.version = case when k.version > 0 then k.version
        else (select o.version from noetl.catalog o where o.catalog_id = q.catalog_id) end
    )
    order by c.version desc
    limit 1
  ) p on true
), children as (
  insert into noetl.execution (
    execution_id, catalog_id, path, version, parent_execution_id, parent_event_id, parent_node_id, parent_index, tags
  )
  select execution_id, catalog_id, path, version, parent_execution_id, parent_event_id, node_id, index, tags
  from started
), child_starts as (
  insert into noetl.event (
    execution_id, event_id, catalog_id, parent_event_id, parent_execution_id, event_type, node_id, node_name, node_type,
    status, context, meta
  )
  select execution_id, event_id, coalesce(catalog_id, parent_catalog_id), parent_event_id, parent_execution_id,
    'execution_start', execution_id::text, name, 'playbook', 'STARTED',
    jsonb_build_object('path', path, 'version', version, 'workload', payload),
    case when tags is null then meta else meta || jsonb_build_object('tags', tags) end
  from started
), begun as (
  -- A delegated job counts the starts of its child, and its timeout begins anew. The reaper has set it to `failed` where the
  -- timeout passed between the end of a pause and this turn.
  update noetl.queue q
  set status = case when q.status = 'failed' then 'delegated' else q.status end,
    attempts = (s.meta #>> '{parent,attempt}')::int, available_at = 'infinity', first_leased_at = clock_timestamp()
  from started s
  where q.execution_id = s.parent_execution_id
    and q.node_id = case when s.index is null then s.node_id else noetl.item_node_id(s.node_id, s.index) end
), running_items as (
  update noetl.iteration i
  set status = 'RUNNING', child_execution_id = s.execution_id
  from started s
  where i.execution_id = s.parent_execution_id and i.node_id = s.node_id and i.index = s.index
), answers as materialized (
  select noetl.next_id() as event_id, l.execution_id, l.cause, l.event_type, l.node_id, l.node_name, l.status,
    l.result::jsonb as result, l.error::jsonb as error, l.meta::jsonb as meta
  from unnest(
    $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[]
  ) l (execution_id, cause, event_type, node_id, node_name, status, result, error, meta)
), answer_events as (
  insert into noetl.event (
    execution_id, event_id, parent_event_id, event_type, node_id, node_name, node_type, status, result, error, meta
  )
  select execution_id, event_id, cause, event_type, node_id, node_name, 'playbook', status, result, error, meta
  from answers
), orphans as materialized (
  select x.execution_id, x.catalog_id, x.path, noetl.next_id() as event_id
  from noetl.execution x
  where noetl.is_live(x.status) and x.parent_execution_id = any($18::bigint[])
  union all
  select x.execution_id, x.catalog_id, x.path, noetl.next_id()
  from unnest($19::bigint[], $20::text[]) v (execution_id, node_id)
  join noetl.execution x
    on x.parent_execution_id = v.execution_id and x.parent_node_id = v.node_id and noetl.is_live(x.status)
), announced as (
  -- A worker announced them and nobody started them: they end here. A start needs our locks, so none happens now.
  update noetl.execution x
  set status = 'CANCELLED', ended_at = clock_timestamp()
  where x.execution_id = any(array(select o.execution_id from orphans o where o.path is null))
), cancelled as (
  select execution_id, catalog_id, path, event_id
  from orphans
  where path is not null
), stopped_items as (
  update noetl.iteration i
  set status = 'CANCELLED'
  from (
    select a.execution_id, null as node_id
    from unnest($18::bigint[]) a (execution_id)
    union all
    select v.execution_id, v.node_id
    from unnest($19::bigint[], $20::text[]) v (execution_id, node_id)
  ) g
  where i.execution_id = g.execution_id
    and (g.node_id is null or i.node_id = g.node_id)
    and i.status = 'RUNNING'
    and not exists (
      select
      from unnest($21::bigint[], $22::text[]) a (execution_id, node_id)
      where a.execution_id = i.execution_id and a.node_id = i.node_id
    )
), orphan_cancels as (
  insert into noetl.event (
    execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context
  )
  select execution_id, event_id, catalog_id, 'execution_cancel', execution_id::text, noetl.name_of_path(path), 'playbook',
    'CANCELLED', jsonb_build_object('reason', 'its parent ended or cancelled it')
  from cancelled
)
insert into noetl.inbox (execution_id, event_id)
select execution_id, event_id from started
union all select execution_id, event_id from answers
union all select execution_id, event_id from cancelled;

-- name: cancel_late_children
-- Children that timed out: of items (`Stops.item_children`) and of undos (`Stops.undos`, which have no index). A second
-- cancel of a child changes nothing.
with cancelled as materialized (
  select x.execution_id, x.catalog_id, x.path, noetl.next_id() as event_id
  from unnest($1::bigint[], $2::text[], $3::int[]) d (execution_id, node_id, index)
  join noetl.execution x
    on x.parent_execution_id = d.execution_id and x.parent_node_id = d.node_id
    and x.parent_index is not distinct from d.index
  where noetl.is_live(x.status) and x.path is not null
), cancels as (
  insert into noetl.event (
    execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context
  )
  select execution_id, event_id, catalog_id, 'execution_cancel', execution_id::text, noetl.name_of_path(path), 'playbook',
    'CANCELLED',
    jsonb_build_object('reason', 'its parent cancelled it')
  from cancelled
)
insert into noetl.inbox (execution_id, event_id)
select execution_id, event_id from cancelled;

-- name: adopt_children
-- Before write_family: the children that workers of one execution started answer to its visits from now on. A child
-- that is not started yet gets its row. An execution never waits for itself or an ancestor: one without a parent can
-- only be the root of its descendants. Gives the children whose parent must be answered now.
with wanted as materialized (
  select a.execution_id, a.node_id, a.index, a.child_id, q.event_id as cause, q.node_name
  from unnest($1::bigint[], $2::text[], $3::int[], $4::bigint[]) a (execution_id, node_id, index, child_id)
  join noetl.queue q on q.execution_id = a.execution_id and q.node_id = a.node_id
), items as (
  insert into noetl.iteration (execution_id, node_id, index, status, child_execution_id)
  select execution_id, node_id, index, 'RUNNING', child_id
  from wanted
), adopted as (
  insert into noetl.execution as x (
    execution_id, parent_execution_id, parent_event_id, parent_node_id, parent_index, tags
  )
  select distinct on (child_id) child_id, execution_id, cause, node_id, index,
    (select p.tags from noetl.execution p where p.execution_id = wanted.execution_id)
  from wanted
  where child_id <> (select noetl.lock_root(min(k.execution_id)) from wanted k)
  order by child_id, execution_id, node_id, index
  on conflict (execution_id) do update
  set parent_execution_id = excluded.parent_execution_id,
      parent_event_id = excluded.parent_event_id,
      parent_node_id = excluded.parent_node_id,
      parent_index = excluded.parent_index,
      tags = coalesce(x.tags, excluded.tags)
  where x.parent_node_id is null
    and coalesce(x.parent_execution_id, excluded.parent_execution_id) = excluded.parent_execution_id
  returning execution_id, parent_execution_id, parent_node_id, parent_index, status, result, error
)
-- a child that has ended already, or that another execution waits for: its parent is answered in the same transaction.
select a.execution_id, a.cause, a.node_id, a.index, a.child_id, coalesce(d.status, 'FAILED') as status,
  noetl.as_json(d.result) as result, noetl.as_json(d.error) as error,
  exists (
    select from noetl.undo u where u.execution_id = a.child_id and u.status in ('open', 'failed')
  ) as undo
from wanted a
left join adopted d
  on d.execution_id = a.child_id
  and d.parent_execution_id = a.execution_id
  and d.parent_node_id = a.node_id
  and d.parent_index = a.index
where noetl.is_live(d.status) is not true
order by a.execution_id, a.node_id, a.index;

-- name: write_items
-- The items of iterators, one row each. None is started yet.
insert into noetl.iteration (execution_id, node_id, index, item)
select c.execution_id, c.node_id, e.ordinal - 1, e.item
from unnest($1::bigint[], $2::text[], $3::text[]) c (execution_id, node_id, items)
cross join jsonb_array_elements(c.items::jsonb) with ordinality e (item, ordinal);

-- name: change_items
-- After write_items: items whose jobs were queued, items that failed and are tried again, and items that ended. An item
-- that is started again keeps its last error.
update noetl.iteration i
set status = n.status, result_event_id = n.result_event_id,
    error = case when n.status = 'RUNNING' then coalesce(n.error::jsonb, i.error) else n.error::jsonb end,
    failures = coalesce(n.failures, i.failures), failed_attempt = coalesce(n.failed_attempt, i.failed_attempt),
    unsure = coalesce(n.unsure, i.unsure)
from unnest($1::bigint[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::text[], $7::int[], $8::int[],
  $9::boolean[]) n (execution_id, node_id, index, status, result_event_id, error, failures, failed_attempt, unsure)
where i.execution_id = n.execution_id and i.node_id = n.node_id and i.index = n.index;

-- name: write_posts
-- After change_items: events that executions write to themselves. `iterator_completed` has the gathered results, which
-- never pass through the broker. If they are over the limit, the step fails instead.
with gathered as materialized (
  select p.execution_id, p.node_id, p.event_type, noetl.next_id() as event_id, q.event_id as cause, q.queue_id, q.node_name,
    q.node_type,
    case when p.event_type = 'iterator_completed' then (
      -- results are not compressed within the list
      select coalesce(sum(
        case when pg_column_compression(e.result) is null then pg_column_size(e.result)
          else pg_column_size(jsonb_build_array(noetl.as_json(e.result))) end
      ), 0)
      from noetl.iteration i
      cross join lateral (
        -- a lookup by the key for each item: the planner underestimates both lists, and their join would cost the square
        select v.result
        from noetl.event v
        where v.execution_id = i.execution_id and v.event_id = i.result_event_id
        limit 1
      ) e
      where i.execution_id = p.execution_id and i.node_id = p.node_id and i.status = 'COMPLETED'
    ) end as bytes
  from unnest($1::bigint[], $2::text[], $3::text[]) p (execution_id, node_id, event_type)
  join noetl.queue q on q.execution_id = p.execution_id and q.node_id = p.node_id
), posted as (
  insert into noetl.event (
    execution_id, event_id, parent_event_id, event_type, node_id, node_name, node_type, status, result, error, meta
  )
  select g.execution_id, g.event_id, g.cause,
    case when g.bytes > $4::bigint then 'action_failed' else g.event_type end,
    g.node_id, g.node_name, g.node_type,
    case when g.bytes > $4::bigint then 'FAILED' when g.bytes is null then 'PENDING' else 'COMPLETED' end,
    case when g.bytes <= $4::bigint then (
      select coalesce(jsonb_agg(
        case when i.status = 'COMPLETED' then noetl.unwrapped(noetl.as_json(e.result)) end order by i.index
      ), '[]')
      from noetl.iteration i
      left join lateral (
        select v.result
        from noetl.event v
        where v.execution_id = i.execution_id and v.event_id = i.result_event_id
        limit 1
      ) e on true
      where i.execution_id = g.execution_id and i.node_id = g.node_id
    ) end,
    case when g.bytes > $4::bigint then jsonb_build_object(
      'message', format('the gathered results take %s bytes; the limit max_gathered_bytes is %s', g.bytes, $4::bigint),
      'type', 'max_gathered_bytes'
    ) end,
    -- with a queue_id, so that the core treats it as a failure of the job
    case when g.bytes > $4::bigint then jsonb_build_object('queue_id', g.queue_id, 'retryable', false) end
  from gathered g
)
insert into noetl.inbox (execution_id, event_id)
select execution_id, event_id
from gathered;

-- name: start_on_failure
-- What starts because executions failed or are late, or because an undo failed that began after the end. It is no child,
-- because it outlives them. It has the tags of what failed, as a child has those of its parent. $4 and $5 make its idempotency
-- key: the cause, and a late visit or the turn of an undo. A path that is not registered gets an execution too, which
-- fails with that reason. In a bucket, so does one whose playbook has another metadata.bucket than that of the execution.
with failed as materialized (
  select noetl.next_id() as execution_id, f.execution_id as failed_id, p.catalog_id, f.path, p.version,
    coalesce(p.name, noetl.name_of_path(f.path)) as name, f.payload::jsonb as payload,
    f.rest, f.word, (select x.tags from noetl.execution x where x.execution_id = f.execution_id) as tags,
    case when noetl.bucket_number() is not null then (
      select noetl.other_bucket(p.bucket, x.catalog_id)
      from noetl.execution x
      where x.execution_id = f.execution_id
    ) end as other_bucket
  from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) f (execution_id, path, payload, rest, word)
  left join lateral (
    select c.catalog_id, c.version, c.name, c.bucket
    from noetl.catalog c
    where c.path = f.path and c.block_of is null
    order by c.version desc
    limit 1
  ) p on true
), taken as (
  insert into noetl.start_key (idempotency_key, path, execution_id)
  select concat_ws(' ', word, failed_id, rest), path, execution_id
  from failed
  on conflict (idempotency_key, path) do nothing
  returning execution_id, idempotency_key
), begun as (
  insert into noetl.execution (execution_id, catalog_id, path, version, idempotency_key, tags)
  select f.execution_id, f.catalog_id, f.path, f.version, k.idempotency_key, f.tags
  from taken k
  join failed f on f.execution_id = k.execution_id
  returning execution_id
), starts as (
  insert into noetl.event (
    execution_id, catalog_id, event_type, node_id, node_name, node_type, status, context, meta
  )
  select f.execution_id, f.catalog_id, 'execution_start', f.execution_id::text, f.name, 'playbook', 'STARTED',
    jsonb_build_object('path', f.path, 'version', f.version, 'workload', f.payload),
    jsonb_build_object(f.word, f.failed_id) || coalesce(f.other_bucket, '{}')
      || case when f.tags is not null then jsonb_build_object('tags', f.tags) else '{}' end
  from failed f
  join begun b on b.execution_id = f.execution_id
  returning execution_id, event_id
)
insert into noetl.inbox (execution_id, event_id)
select execution_id, event_id
from starts;
