-- name: look_at_limits
-- Gives places where looks were left, and says in how many seconds the next look is due.
select given, looked, extract(epoch from next_at - clock_timestamp())::float8 as next_seconds
from noetl.look_at_limits($1::int);

-- name: sweep_limits
-- Gives places that nobody gave, to at most $1 keys after a key.
select given, last_name, last_key
from noetl.sweep_limits($1::int, $2::text, $3::text);
