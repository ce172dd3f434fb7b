-- name: fire_timers
-- In how many seconds the next timer is due, by the clock of the database. $2: only timers that became due in the last so
-- many seconds; null: all.
select fired, late_seconds, extract(epoch from next_at - clock_timestamp())::float8 as next_seconds
from noetl.fire_timers($1::int, $2::float8);
