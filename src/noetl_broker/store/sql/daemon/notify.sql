-- name: try_gate
-- A sleeping broker holds the gate. A writer that finds it held notifies.
select pg_try_advisory_lock(hashtext('noetl.lock'), 1);

-- name: release_gate
select pg_advisory_unlock(hashtext('noetl.lock'), 1);

-- name: probe_listener
-- A notification to this process, which shows that LISTEN works.
select pg_notify('noetl_event', $1::text);

-- name: notification_queue_usage
select pg_notification_queue_usage();

-- name: wake_other_brokers
-- Wakes other brokers where a broker leaves mail as it stops. Events between executions notify nobody.
select pg_notify('noetl_event', '')
where exists (select from noetl.inbox);
