-- name: verify_held_jobs
-- I3: a job waits for a slot of a throttle only if none is free, or its key has a request. A retry asks at its moment. With a
-- rate, slots are those of the burst.
select q.execution_id, format('job %s of %s waits for a slot of the throttle %s, which is free', q.queue_id, q.node_id, q.limit_name)
  as detail
from noetl.queue q
left join noetl.limit l on l.name = q.limit_name
cross join lateral (
  select count(*) filter (where p.status = 'leased') as leased, count(*) filter (where p.status <> 'leased') as ready
  from noetl.queue p
  where p.limit_name = q.limit_name and p.limit_key = q.limit_key and p.status in ('queued', 'retry', 'leased')
) n
where q.execution_id = any($1::bigint[]) and q.status = 'held' and q.held_for = array['limit']
  and q.available_at <= clock_timestamp()
  and (l.concurrency is null or n.leased + n.ready < l.concurrency)
  and (l.rate is null or n.ready < noetl.burst_of(row(l.*)::noetl.limit))
  and not exists (
    select from noetl.release_request k where k.name = q.limit_name and (k.key is null or k.key = q.limit_key)
  );
