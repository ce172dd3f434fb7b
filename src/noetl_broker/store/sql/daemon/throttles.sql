-- name: release_requested
-- Gives slots where requests were left, and says in how many seconds the next request is due.
select released, worked_on, extract(epoch from next_at - clock_timestamp())::float8 as next_seconds
from noetl.release_requested($1::int);

-- name: sweep_throttles
-- Gives slots that nobody gave, to at most $1 keys after a key.
select released, last_name, last_key
from noetl.sweep_throttles($1::int, $2::text, $3::text);
