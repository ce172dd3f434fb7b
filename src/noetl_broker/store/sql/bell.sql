-- name: try_gate
-- Held by a sleeping broker: writers who find it held ring the bell.
select pg_try_advisory_lock(1852794228, 1);

-- name: release_gate
select pg_advisory_unlock(1852794228, 1);

-- name: probe_bell
-- A notification to ourselves, through the whole way that the bell takes.
select pg_notify('noetl_event', $1::text);

-- name: notification_queue_usage
select pg_notification_queue_usage();

-- name: pass_on
-- Mail that a broker leaves as it stops: others may sleep over it, since letters between executions ring nobody.
select pg_notify('noetl_event', '')
where exists (select from noetl.inbox);
