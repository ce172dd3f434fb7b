-- name: take_mail
-- Claims the mail of this transaction, with what nearly every decision needs.
select mail_id, execution_id, event_id, locked, at, waited, event_type, node_id, node_name,
  context, result, result_left, error, meta, broken, bytes_over, oversize, path_paused, job_attempts, is_doubled,
  catalog_id, path, version, name, rules::text as rules, turn,
  tokens::text as tokens, parent_execution_id, parent_event_id, parent_node_id, parent_index, workload
from noetl.take_mail($1::int, $2::boolean, $3::bigint);

-- name: suppress_notifications
-- For this transaction. A notification fails the commit where the notification queue is full.
select set_config('noetl.quiet', 'on', true);

-- name: set_lock_timeout
-- For this transaction.
select set_config('lock_timeout', $1::int || 'ms', true);

-- name: move_to_dead_letters
-- Moves mail that the broker cannot decide on, because of a fault of the program, to the dead letters. Only mail that
-- is still in the inbox: another broker may have decided on it.
with read as (
  delete from noetl.inbox i
  where i.mail_id = any($1::bigint[])
  returning i.execution_id, i.event_id
)
insert into noetl.dead_letter (execution_id, event_id, reason)
select distinct execution_id, event_id, $2::text
from read
on conflict (execution_id, event_id) do update
set reason = excluded.reason, created_at = clock_timestamp()
returning execution_id;

-- name: lock_oldest_mail
-- The first mail of a claim, locked.
select i.mail_id
from noetl.inbox i
where i.mail_id >= $1
order by i.mail_id
limit 1
for update skip locked;

-- name: lock_newest_mail
-- The first mail of a claim that reads the newest first, locked.
select i.mail_id
from noetl.inbox i
where i.mail_id >= $1
order by i.mail_id desc
limit 1
for update skip locked;

-- name: first_mail
select i.mail_id
from noetl.inbox i
where i.mail_id >= $1
order by i.mail_id
limit 1;
