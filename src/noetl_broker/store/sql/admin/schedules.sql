-- name: put_schedule
select noetl.put_schedule(
  name => $1::text, path => $2::text, cron => $3::text, every => $4::interval, payload => $5::text::jsonb,
  timezone => $6::text, version => $7::int, jitter => $8::interval, catch_up => $9::interval, overlap => $10::text,
  declared_in => $11::text, options => $12::text::jsonb, by => $13::text
);

-- name: list_schedules
select s.name, s.path, s.version, s.cron, s.every, s.timezone, s.paused, s.since_at, s.next_at, s.last_at,
  s.last_execution_id, s.started, s.skipped, s.error, s.error_at, p.paused_at as path_paused_at,
  p.reason as path_pause_reason
from noetl.start_schedule s
left join noetl.path_pause p on p.path = s.path
order by s.name;

-- name: has_schedule
select exists (select from noetl.start_schedule s where s.name = $1::text);

-- name: find_schedule
select s.name, s.path, s.version, s.payload, s.cron, s.every, s.timezone, s.jitter, s.catch_up, s.overlap, s.declared_in,
  s.options -> 'tags' as tags, (s.options ->> 'priority')::int as priority, s.paused, s.paused_at, s.resumed_at, s.since_at,
  s.next_at, s.due_at, s.last_at, s.last_execution_id, s.started, s.skipped, s.error, s.error_at, s.created_at, p.paused_at as path_paused_at, p.reason as path_pause_reason,
  clock_timestamp() as now
from noetl.start_schedule s
left join noetl.path_pause p on p.path = s.path
where s.name = $1::text;

-- name: started_moments
select m.moment, x.execution_id, x.status, x.error
from noetl.start_schedule s
cross join unnest($2::timestamptz[]) m (moment)
join noetl.start_key k on k.path = s.path and k.idempotency_key = noetl.schedule_key(s.name, m.moment)
join noetl.execution x on x.execution_id = k.execution_id
where s.name = $1::text;

-- name: start_scheduled
select s.execution_id, s.is_new
from noetl.start_scheduled($1::text, $2::timestamptz, $3::text, false, $4::text) s;
