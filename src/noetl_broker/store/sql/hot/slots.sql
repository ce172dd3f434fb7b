-- name: ask_slots
-- Locks slots that executions want, and says how they stand.
select execution_id, path, key, is_locked, is_shared, is_own, number, held, max_held, ready, holder
from noetl.ask_slots($1::bigint[], $2::text[], $3::text[], $4::int[]);

-- name: lock_freed_slots
select noetl.lock_freed_slots($1::bigint[], $2::text[], $3::text[]);

-- name: write_slots
-- After set_statuses: who holds slots, waits, or freed them. Returns how many executions it admits.
select noetl.write_slots($1::bigint[], $2::text[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::text[], $8::text[]);
