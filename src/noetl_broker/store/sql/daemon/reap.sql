-- name: reap
-- $3: only leases that ran out in the last so many seconds; null: all. $4: seconds after which a lease that a NoETL server
-- gave is lost. `is_idle`: nothing can be lost or late before another turn; only known when all leases are read.
select requeued, lost, timed_out, $3::float8 is null
  and not exists (select from noetl.execution x where noetl.is_live(x.status))
  and not exists (select from noetl.queue q where q.status = 'leased') as is_idle
from noetl.reap(
  $1::int, $2::int, coalesce(clock_timestamp() - make_interval(secs => $3::float8), '-infinity'), $4::float8
);

-- name: sweep_slots
select admitted, swept
from noetl.sweep_slots($1::int);

-- name: check_clock
select stepped_seconds, pulled
from noetl.mind_clock($1::int, $2::boolean);

-- name: reap_ended_jobs
-- Beside a NoETL server only.
select noetl.reap_ended_jobs($1::int, $2::float8);
