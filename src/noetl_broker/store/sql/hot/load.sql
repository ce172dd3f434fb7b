-- name: load_results
-- Results that templates name: of steps, of earlier turns, and of large events of this transaction. This statement and
-- the next ones load at most batch_bytes for whole executions; the first execution always fits. What does not fit waits
-- for another transaction. Errors here were shortened when their event was read.
select execution_id, step_name, result_visit, turn, event_id, event_type, fits,
  case when fits then noetl.as_json(result) end as result, case when fits then noetl.as_json(error) end as error
from (
  select w.*, w.together <= noetl.limit_of('batch_bytes') or w.together = w.own as fits
  from (
    select k.*, e.event_type, e.result, e.error,
      sum(noetl.weight(e.result)) over (order by k.execution_id) as together,
      sum(noetl.weight(e.result)) over (partition by k.execution_id) as own
    from (
      select s.execution_id, s.step_name, w.result_visit, null::int as turn, w.result_event_id as event_id
      from unnest($1::bigint[], $2::text[]) s (execution_id, step_name)
      join noetl.workflow w on w.execution_id = s.execution_id and w.step_id = s.step_name
      union all
      select t.execution_id, null, null, t.turn, coalesce(t.result_event_id, t.event_id)
      from unnest($3::bigint[], $4::int[]) wanted (execution_id, turn)
      join noetl.turn t on t.execution_id = wanted.execution_id and t.turn = wanted.turn
      union all
      select v.execution_id, null, null, null, v.event_id
      from unnest($5::bigint[], $6::bigint[]) v (execution_id, event_id)
    ) k
    join noetl.event e on e.execution_id = k.execution_id and e.event_id = k.event_id
  ) w
) found;

-- name: load_workloads
select execution_id, fits, case when fits then workload end as workload
from (
  select w.*, w.together <= noetl.limit_of('batch_bytes') or w.together = noetl.weight(w.workload) as fits
  from (
    select x.execution_id, x.workload, sum(noetl.weight(x.workload)) over (order by x.execution_id) as together
    from noetl.execution x
    where x.execution_id = any($1::bigint[])
  ) w
) found;

-- name: load_actions
-- The action of a visit's job, or the request of its wait. Both have the rendered inputs under `args`.
select execution_id, node_id, fits, case when fits then action::jsonb end as action
from (
  select w.*, w.together <= noetl.limit_of('batch_bytes') or w.together = w.own as fits
  from (
    select q.execution_id, q.node_id, q.action,
      sum(noetl.weight(q.action)) over (order by q.execution_id) as together,
      sum(noetl.weight(q.action)) over (partition by q.execution_id) as own
    from (
      select q.execution_id, q.node_id, q.action
      from unnest($1::bigint[], $2::text[]) wanted (execution_id, node_id)
      join noetl.queue q on q.execution_id = wanted.execution_id and q.node_id = wanted.node_id
      union all
      select w.execution_id, w.node_id, w.request::text
      from unnest($1::bigint[], $2::text[]) wanted (execution_id, node_id)
      join noetl.wait w on w.execution_id = wanted.execution_id and w.node_id = wanted.node_id
    ) q
  ) w
) found;

-- name: load_items
with wanted as materialized (
  select w.execution_id, w.node_id, w.first, w.count, coalesce(sum(noetl.weight(i.item)), 0) as bytes
  from unnest($1::bigint[], $2::text[], $3::int[], $4::int[]) w (execution_id, node_id, first, count)
  left join noetl.iteration i
    on i.execution_id = w.execution_id and i.node_id = w.node_id and i.index >= w.first and i.index < w.first + w.count
  group by w.execution_id, w.node_id, w.first, w.count
), weighed as (
  select w.*, sum(w.bytes) over (order by w.execution_id) as together,
    sum(w.bytes) over (partition by w.execution_id) as own
  from wanted w
)
select w.execution_id, w.node_id, w.first, w.count, f.fits,
  case when f.fits then coalesce((
    select jsonb_agg(i.item order by i.index)
    from noetl.iteration i
    where i.execution_id = w.execution_id and i.node_id = w.node_id
      and i.index >= w.first and i.index < w.first + w.count
  ), '[]') end as items
from weighed w
cross join lateral (select w.together <= noetl.limit_of('batch_bytes') or w.together = w.own as fits) f;

-- name: load_item_statuses
select i.execution_id, i.node_id, i.index, i.status, i.failures, coalesce(i.failed_attempt, 0) as failed_attempt,
  i.unsure
from unnest($1::bigint[], $2::text[], $3::int[]) wanted (execution_id, node_id, index)
join noetl.iteration i
  on i.execution_id = wanted.execution_id and i.node_id = wanted.node_id and i.index = wanted.index;

-- name: load_open_items
-- Only an abandoned undo asks for them.
select w.execution_id, w.node_id, array(
  select i.index
  from noetl.iteration i
  where i.execution_id = w.execution_id and i.node_id = w.node_id and i.status in ('RUNNING', 'CANCELLED')
  order by i.index
) as indexes
from unnest($1::bigint[], $2::text[]) w (execution_id, node_id);

-- name: load_failed
-- The failed items of iterators by index, with the errors of the first item_errors. A visit that a fork copied has no
-- item rows: the event of its result lists them.
with found as materialized (
  select w.execution_id, w.node_id, coalesce(
    (
      select coalesce(
        jsonb_agg(
          jsonb_build_object('index', f.index, 'error', case when f.number <= noetl.limit_of('item_errors') then f.error end) order by f.index
        ) filter (where f.failed),
        '[]'
      )
      from (
        select i.index, i.error, i.status = 'FAILED' as failed,
          count(*) filter (where i.status = 'FAILED') over (order by i.index) as number
        from noetl.iteration i
        where i.execution_id = w.execution_id and i.node_id = w.node_id
        offset 0 -- a fence: looked up by the key, as in write_posts
      ) f
      having count(*) > 0
    ),
    (
      select noetl.as_json(e.context) -> 'failed'
      from noetl.workflow s
      join noetl.event e on e.execution_id = s.execution_id and e.event_id = s.result_event_id
      where s.execution_id = w.execution_id and s.step_id = w.step and s.result_visit = w.visit
        and e.event_type = 'step_result'
    ),
    '[]'
  ) as failed
  from unnest($1::bigint[], $2::text[], $3::text[], $4::int[]) w (execution_id, node_id, step, visit)
)
select execution_id, node_id, fits, case when fits then failed end as failed
from (
  select w.*, w.together <= noetl.limit_of('batch_bytes') or w.together = w.own as fits
  from (
    select f.*, sum(pg_column_size(f.failed)) over (order by f.execution_id) as together,
      sum(pg_column_size(f.failed)) over (partition by f.execution_id) as own
    from found f
  ) w
) weighed;

-- name: load_children
select wanted.execution_id, wanted.node_id, wanted.child_id
from unnest($1::bigint[], $2::text[], $3::bigint[]) wanted (execution_id, node_id, child_id)
join noetl.execution x
  on x.execution_id = wanted.child_id and x.parent_execution_id = wanted.execution_id and x.parent_node_id = wanted.node_id;

-- name: load_content
select c.path, octet_length(c.content) as bytes,
  case when octet_length(c.content) <= $2::int then c.content end as content
from noetl.catalog c
where c.catalog_id = $1::bigint;
