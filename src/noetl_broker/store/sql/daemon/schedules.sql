-- name: lock_due_schedules
-- `now` is read after the rows are locked.
select s.name, s.cron, s.every, s.timezone, s.jitter, s.catch_up, s.paused, s.paused_at, s.resumed_at, s.since_at,
  s.next_at, s.due_at, s.moved_at, clock_timestamp() as now
from noetl.lock_due_schedules($1::int) s;

-- name: clock
select clock_timestamp();

-- name: move_schedules
select m.name, m.execution_id, m.is_new, m.fault
from noetl.move_schedules(
  $1::text[], $2::timestamptz[], $3::text[], $4::int[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[], $8::text[]
) m;

-- name: seconds_to_schedule
-- Until the next schedule is due; null: there is none.
select extract(epoch from s.due_at - clock_timestamp())::float8
from noetl.start_schedule s
where s.due_at < 'infinity'
order by s.due_at
limit 1;
