-- name: write_family
-- After write_turns, where there is any: children to start, answers to parents, children to cancel. Each is an event of
-- another execution and its mail; no lock of that execution is needed for it.
with started as materialized (
  select coalesce(k.child_id, noetl.next_id()) as execution_id, noetl.next_id() as event_id,
    k.execution_id as parent_execution_id, q.event_id as parent_event_id, q.catalog_id as parent_catalog_id, k.node_id,
    k.place, p.catalog_id, k.path, coalesce(p.version, k.version) as version,
    coalesce(p.name, regexp_replace(k.path, '^.*/', '')) as name, k.payload::jsonb as payload, k.meta::jsonb as meta
  from unnest($1::bigint[], $2::text[], $3::int[], $4::text[], $5::int[], $6::text[], $7::text[], $20::bigint[])
    k (execution_id, node_id, place, path, version, payload, meta, child_id)
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
  select execution_id, event_id, coalesce(catalog_id, parent_catalog_id), parent_event_id, parent_execution_id,
    'execution_start', execution_id::text, name, 'playbook', 'STARTED',
    jsonb_build_object('path', path, 'version', version, 'workload', payload), meta
  from started
), begun as (
  -- A delegated job counts the starts of its child, as others count their leases; its timeout begins anew. (It may have
  -- passed between the end of a pause and this turn: then the reaper has set the job to `failed`.)
  update noetl.queue q
  set status = case when q.status = 'failed' then 'delegated' else q.status end,
    attempts = (s.meta #>> '{parent,attempt}')::int, available_at = 'infinity', first_leased_at = clock_timestamp()
  from started s
  where s.place is null and q.execution_id = s.parent_execution_id and q.node_id = s.node_id
), running_items as (
  update noetl.iteration i
  set status = 'RUNNING', child_execution_id = s.execution_id
  from started s
  where i.execution_id = s.parent_execution_id and i.node_id = s.node_id and i.place = s.place
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
), unborn as (
  -- Told of and not started, maybe for good: they end here. None is started at this moment, for that takes our locks.
  update noetl.execution x
  set status = 'CANCELLED', ended_at = clock_timestamp()
  where x.execution_id = any(array(select o.execution_id from orphans o where o.path is null))
), cancelled as (
  select execution_id, catalog_id, path, event_id
  from orphans
  where path is not null
), open_jobs as materialized (
  -- of the items of iterators that gave up
  select q.execution_id, q.node_id
  from (
    select i.execution_id, noetl.item_node_id(i.node_id, i.place) as node_id
    from noetl.iteration i
    join (select distinct execution_id, node_id from unnest($18::bigint[], $19::text[]) u (execution_id, node_id)) a
      on a.execution_id = i.execution_id and a.node_id = i.node_id
    where i.status = 'RUNNING'
    offset 0 -- each job by its key, as in write_posts
  ) g
  join noetl.queue q on q.execution_id = g.execution_id and q.node_id = g.node_id
  where q.status in ('queued', 'retry', 'failed')
), free_jobs as materialized (
  -- as in withdraw_jobs
  select q.execution_id, q.node_id
  from open_jobs o
  join noetl.queue q on q.execution_id = o.execution_id and q.node_id = o.node_id
  where q.status in ('queued', 'retry', 'failed')
  for update of q skip locked
), given_up_jobs as (
  update noetl.queue q
  set status = 'cancelled', updated_at = clock_timestamp()
  from free_jobs f
  where q.execution_id = f.execution_id and q.node_id = f.node_id
), held_jobs as (
  insert into noetl.withdrawn_job (execution_id, node_id)
  select execution_id, node_id from open_jobs
  except
  select execution_id, node_id from free_jobs
  on conflict do nothing
), given_up_items as (
  update noetl.iteration i
  set status = 'CANCELLED'
  from (
    select distinct e.execution_id, null as node_id
    from unnest($17::bigint[]) e (execution_id)
    union all
    select distinct u.execution_id, u.node_id
    from unnest($18::bigint[], $19::text[]) u (execution_id, node_id)
    where u.execution_id <> all($17::bigint[])
  ) g
  where i.execution_id = g.execution_id
    and (g.node_id is null or i.node_id = g.node_id)
    and i.status = 'RUNNING'
), orphan_cancels as (
  insert into noetl.event (
    execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context
  )
  select execution_id, event_id, catalog_id, 'execution_cancel', execution_id::text, regexp_replace(path, '^.*/', ''),
    'playbook', 'CANCELLED', jsonb_build_object('reason', 'its parent ended or gave it up')
  from cancelled
)
insert into noetl.inbox (execution_id, event_id)
select execution_id, event_id from started
union all
select execution_id, event_id from letters
union all
select execution_id, event_id from cancelled;

-- name: adopt_children
-- Before write_family: children that the workers of one execution started, which answer to its visits from now on. One that
-- nobody has heard of yet gets its row; one that has ended already, or cannot be had, is answered for at once. None waits
-- for itself, by way of others either: who has no parent stands above another only as its root.
with asked as materialized (
  select a.execution_id, a.node_id, a.place, a.child_id, q.event_id as cause, q.node_name
  from unnest($1::bigint[], $2::text[], $3::int[], $4::bigint[]) a (execution_id, node_id, place, child_id)
  join noetl.queue q on q.execution_id = a.execution_id and q.node_id = a.node_id
), items as (
  insert into noetl.iteration (execution_id, node_id, place, status, child_execution_id)
  select execution_id, node_id, place, 'RUNNING', child_id
  from asked
), adopted as (
  insert into noetl.execution as x (
    execution_id, parent_execution_id, parent_event_id, parent_node_id, parent_index
  )
  select distinct on (child_id) child_id, execution_id, cause, node_id, place
  from asked
  where child_id <> (select noetl.lock_root(min(k.execution_id)) from asked k)
  order by child_id, execution_id, node_id, place
  on conflict (execution_id) do update
  set parent_execution_id = excluded.parent_execution_id,
      parent_event_id = excluded.parent_event_id,
      parent_node_id = excluded.parent_node_id,
      parent_index = excluded.parent_index
  where x.parent_node_id is null
    and coalesce(x.parent_execution_id, excluded.parent_execution_id) = excluded.parent_execution_id
  returning execution_id, parent_execution_id, parent_node_id, parent_index, status, result, error
), answers as materialized (
  select noetl.next_id() as event_id, a.execution_id, a.node_id, a.node_name, a.place, a.child_id, a.cause,
    coalesce(d.status, 'FAILED') as status,
    -- the core puts what looks like an envelope itself into one too, so that its readers find it whole
    case when noetl.unwrapped(d.result) is distinct from d.result then jsonb_build_object('data', d.result)
      else d.result end as result,
    coalesce(d.error, '{"message": "it is not to be had: another execution waits for it"}') as error
  from asked a
  left join adopted d
    on d.execution_id = a.child_id
    and d.parent_execution_id = a.execution_id
    and d.parent_node_id = a.node_id
    and d.parent_index = a.place
  where d.status is distinct from 'RUNNING'
), answered as (
  insert into noetl.event (
    execution_id, event_id, parent_event_id, event_type, node_id, node_name, node_type, status, result, error, meta
  )
  select execution_id, event_id, cause,
    case when status = 'COMPLETED' then 'execution_complete' else 'execution_failed' end,
    node_id, format('%s[%s]', node_name, place), 'playbook', case when status = 'COMPLETED' then status else 'FAILED' end, result,
    -- as `error_of_child` of the core has it
    case when status <> 'COMPLETED' then error - array['step', 'at'] || jsonb_build_object(
      'message', coalesce(nullif(error ->> 'message', ''), 'the child failed'),
      'type', coalesce(nullif(nullif(error -> 'type', 'null'), '""'), to_jsonb('child_' || lower(status))),
      'child_step', error -> 'step',
      'child_execution_id', child_id
    ) || case when error ? 'at' then jsonb_build_object('child_at', error -> 'at') else '{}' end end,
    jsonb_build_object(
      'child_execution_id', child_id, 'attempt', 1, 'retryable', status <> 'CANCELLED', 'index', place
    )
  from answers
)
insert into noetl.inbox (execution_id, event_id)
select execution_id, event_id
from answers;

-- name: write_items
-- The items that iterators chose: one row each, before anything of them is started.
insert into noetl.iteration (execution_id, node_id, place, item)
select c.execution_id, c.node_id, e.place - 1, e.item
from unnest($1::bigint[], $2::text[], $3::text[]) c (execution_id, node_id, items)
cross join jsonb_array_elements(c.items::jsonb) with ordinality e (item, place);

-- name: change_items
-- After write_items: those whose jobs were queued, and those that ended.
update noetl.iteration i
set status = n.status, result_event_id = n.result_event_id, error = n.error::jsonb
from unnest($1::bigint[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::text[])
  n (execution_id, node_id, place, status, result_event_id, error)
where i.execution_id = n.execution_id and i.node_id = n.node_id and i.place = n.place;

-- name: write_posts
-- After change_items: letters of executions to themselves; `iterator_completed` carries the gathered results, which never
-- pass through the broker. A list over the limit fails the step instead.
with gathered as materialized (
  select p.execution_id, p.node_id, p.event_type, noetl.next_id() as event_id, q.event_id as cause, q.queue_id, q.node_name,
    q.node_type,
    case when p.event_type = 'iterator_completed' then (
      -- in the list a result stands uncompressed
      select coalesce(sum(
        case when pg_column_compression(e.result) is null then pg_column_size(e.result)
          else pg_column_size(jsonb_build_array(noetl.as_json(e.result))) end
      ), 0)
      from noetl.iteration i
      cross join lateral (
        -- one look by the key for each item, whatever the planner thinks of the execution: a join of two lists, of which
        -- it takes both for short ones, costs the square of them
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
        case when i.status = 'COMPLETED' then noetl.unwrapped(noetl.as_json(e.result)) end order by i.place
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
    -- through the job, as what the broker itself finds: nobody else decides what comes of it
    case when g.bytes > $4::bigint then jsonb_build_object('queue_id', g.queue_id, 'retryable', false) end
  from gathered g
)
insert into noetl.inbox (execution_id, event_id)
select execution_id, event_id
from gathered;
