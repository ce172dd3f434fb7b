-- name: examine_server
-- The server and its clock.
select current_setting('server_version') as version,
  current_setting('server_version_num')::int as version_number,
  current_database()::text as database,
  current_user::text as role,
  pg_backend_pid() as process_id,
  current_setting('statement_timeout') as statement_timeout,
  extract(epoch from clock_timestamp())::float8 as now_seconds;

-- name: examine_read_only
-- Whether sessions may write, and where read-only is set.
select pg_is_in_recovery() as is_replica,
  s.setting = 'on' as is_read_only,
  s.source,
  quote_ident(current_user) as role,
  quote_ident(current_database()) as database
from pg_settings s
where s.name = 'default_transaction_read_only';

-- name: examine_durability
select s.name, s.setting
from pg_settings s
where s.name in ('fsync', 'full_page_writes', 'autovacuum', 'track_counts')
  and s.setting = 'off'
order by s.name;

-- name: examine_connections
select count(*) as used,
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int as most
from pg_stat_activity a
where a.backend_type = 'client backend';

-- name: examine_roles
-- The roles that a daemon may have: this session's, if it is no operator's, and the group of `migrate --roles`. Roles
-- belong to the whole server: a group that cannot use the schema was made for another database.
select r.rolname::text as role, r.rolsuper as is_superuser
from pg_roles r
where (r.rolname = current_user and not exists (
    select
    from pg_roles o
    join pg_roles b on b.rolname = 'noetl_broker'
    where o.rolname = 'noetl_operator' and pg_has_role(o.oid, 'member') and not pg_has_role(b.oid, 'member')
  ))
  or (r.rolname = 'noetl_broker' and has_schema_privilege(r.oid, 'noetl', 'usage'))
order by r.rolname <> current_user;

-- name: examine_operators
-- Whose rights are checked as an operator's: this session's role, if it is in noetl_operator. Also the group itself,
-- if `migrate --roles` made it for this database.
select r.rolname::text as role
from pg_roles r
join pg_roles o on o.rolname = 'noetl_operator'
where not r.rolsuper
  and ((r.rolname = current_user and pg_has_role(r.oid, o.oid, 'member')) or r.oid = o.oid)
  and has_schema_privilege(r.oid, 'noetl', 'usage')
order by r.rolname <> current_user;

-- name: examine_triggers
-- Triggers without which mail is lost, and which are missing or disabled.
select w.trigger_name
from unnest(array['noetl_receive_events']) w (trigger_name)
where not exists (
  select
  from pg_trigger t
  where t.tgrelid = to_regclass('noetl.event') and t.tgname = w.trigger_name and t.tgenabled in ('O', 'A')
);

-- name: examine_given_back
-- Whether a NoETL server has its own broker again: none of our triggers is left on its tables.
select to_regclass('noetl.resource') is not null and not exists (
  select
  from pg_trigger t
  where t.tgrelid in (to_regclass('noetl.event'), to_regclass('noetl.queue'), to_regclass('noetl.catalog'))
    and starts_with(t.tgname, 'noetl_')
) as given_back;

-- name: digest_settings
-- What all buckets of an installation must have alike, one digest each.
select s.setting, md5(coalesce(string_agg(s.row, chr(10) order by s.row), '')) as digest
from (
  select 'playbooks' as setting, format('%s %s %s', c.path, c.version, md5(c.content)) as row
  from noetl.catalog c
  union all
  select 'step types', t.name
  from noetl.step_type t
  union all
  select 'throttles', format('%s %s %s %s', l.name, l.concurrency, l.rate, l.burst)
  from noetl.limit l
  union all
  select 'paused playbooks', p.path
  from noetl.path_pause p
  union all
  select w.setting, ''
  from unnest(array['playbooks', 'step types', 'throttles', 'paused playbooks']) w (setting)
) s
group by s.setting;

-- name: examine_brokers
select count(*) filter (where a.application_name = 'noetl-broker bell') as listening,
  count(*) filter (where a.application_name = 'noetl-broker worker') as workers
from pg_stat_activity a
where a.datname = current_database();

-- name: examine_mail
-- The inbox is counted up to a bound.
select extract(epoch from clock_timestamp() - o.created_at)::float8 as age_seconds, o.execution_id, o.event_id,
  (select count(*) from (select from noetl.inbox limit 100000) counted) as unread
from (
  select i.execution_id, i.event_id, e.created_at::timestamptz as created_at
  from noetl.inbox i
  join noetl.event e on e.execution_id = i.execution_id and e.event_id = i.event_id
  order by i.mail_id
  limit 1
) o;

-- name: has_copies
-- Whether signals are copied from here: in a bucket.
select to_regclass('noetl.signal_copy') is not null;

-- name: examine_copies
-- Signals that are not copied yet to some buckets, since when, and those buckets. A broker copies within a second.
select count(*) as copies, date_part('epoch', clock_timestamp() - min(k.created_at)) as age_seconds,
  array_agg(distinct k.target order by k.target) as targets
from (select c.target, c.created_at from noetl.signal_copy c limit 100000) k
where k.created_at < clock_timestamp() - make_interval(secs => $1::float8);

-- name: examine_dead_letters
select count(*) as set_aside, count(distinct d.execution_id) as executions, min(d.created_at) as oldest,
  (array_agg(d.reason order by d.created_at desc))[1] as reason
from noetl.dead_letter d;

-- name: examine_periods
-- `begins_on`: the first day that is kept.
select count(*) filter (where p.dropped_at is null) as periods, count(p.dropped_at) as dropped,
  min(p.name) filter (where p.dropped_at is null) as begins_on, count(p.held_by) as held,
  (array_agg(p.name order by p.first_id) filter (where p.held_by is not null))[1] as held_period,
  (array_agg(p.held_by order by p.first_id) filter (where p.held_by is not null))[1] as held_by
from noetl.period p;

-- name: examine_leases
-- Where a broker runs, a job whose lease is lost is queued again within two seconds.
select count(*) as expired, max(extract(epoch from clock_timestamp() - q.lease_until))::float8 as late_seconds
from noetl.queue q
where q.status = 'leased' and q.lease_until < clock_timestamp() - make_interval(secs => $1::float8)
  and noetl.is_lease_lost(row(q.*)::noetl.queue, clock_timestamp(), null);

-- name: examine_clock
-- How far the server's clock is behind the latest recorded time, and its last step back within a week.
select extract(epoch from c.seen_at - clock_timestamp())::float8 as behind_seconds, c.steps, c.is_pulling,
  case when c.stepped_at > clock_timestamp() - interval '7 days' then c.stepped_at end as stepped_at,
  c.behind_seconds as step_seconds
from noetl.clock c;

-- name: examine_jobs
-- Jobs that are ready and that no worker leases.
select q.node_type as type, q.pool, count(*) as waiting,
  max(extract(epoch from clock_timestamp() - q.available_at))::float8 as age_seconds
from noetl.queue q
where q.status in ('queued', 'retry') and q.available_at < clock_timestamp() - make_interval(secs => $1::float8)
group by q.node_type, q.pool
order by q.node_type, q.pool;

-- name: examine_bloat
-- The counters of Postgres lag behind by seconds.
select c.relname::text as table, s.n_live_tup as live, s.n_dead_tup as dead, pg_relation_size(c.oid) as bytes,
  s.last_autovacuum,
  exists (
    select
    from pg_options_to_table(c.reloptions) o
    where o.option_name = 'autovacuum_enabled' and not o.option_value::boolean
  ) as is_never_vacuumed
from pg_class c
join pg_stat_all_tables s on s.relid = c.oid
where c.relnamespace = to_regnamespace('noetl') and c.relkind = 'r'
order by s.n_dead_tup desc, c.relname;

-- name: examine_snapshots
-- Sessions that keep vacuum from removing dead rows, the oldest first, by the age of their transaction.
select a.pid as process_id, a.application_name, a.usename::text as role, a.state,
  extract(epoch from clock_timestamp() - a.xact_start)::float8 as age_seconds
from pg_stat_activity a
where a.datname = current_database()
  and a.pid <> pg_backend_pid()
  and a.backend_type = 'client backend'
  and a.xact_start < clock_timestamp() - make_interval(secs => $1::float8)
order by a.xact_start
limit 5;

-- name: examine_prepared
select p.gid as name, p.owner::text as role, extract(epoch from clock_timestamp() - p.prepared)::float8 as age_seconds
from pg_prepared_xacts p
where p.database = current_database()
  and p.prepared < clock_timestamp() - make_interval(secs => $1::float8)
order by p.prepared
limit 5;

-- name: process_of_session
select pg_backend_pid() as process_id;

-- name: is_prepared
-- Whether this session has a prepared statement of that name.
select exists (
  select
  from pg_prepared_statements p
  where p.name = $1
) as is_prepared;

-- name: examine_schedules
-- Schedules that are due for more than $1 seconds are overdue; one of those with an error is named.
select count(*) as schedules, count(*) filter (where s.paused) as paused, count(s.error) as failing,
  count(*) filter (where l.is_late) as overdue,
  min(greatest(s.due_at, s.updated_at)) filter (where l.is_late) as first_due_at,
  min(s.next_at) filter (where not s.paused and s.next_at > clock_timestamp()) as next_at,
  (array_agg(s.name order by s.error_at desc) filter (where s.error is not null))[1] as name,
  (array_agg(s.error order by s.error_at desc) filter (where s.error is not null))[1] as error
from noetl.start_schedule s
cross join lateral (
  select s.due_at < clock_timestamp() and greatest(s.due_at, s.updated_at) < clock_timestamp() - make_interval(secs => $1::float8)
    as is_late
) l;

-- name: examine_pauses
-- Paused executions and paths, the latter with the number of their queued executions; and what is queued without a pause.
select (select count(*) from noetl.execution x where x.status = 'PAUSED') as paused,
  count(p.path) filter (where p.paused_at is not null) as paths, coalesce(sum(p.queued), 0)::bigint as queued,
  coalesce(sum(p.queued) filter (where p.paused_at is null), 0)::bigint as stranded,
  (array_agg(p.path order by p.paused_at, p.path) filter (where p.paused_at is not null))[1] as path,
  min(p.paused_at) as since
from (
  select coalesce(s.path, q.path) as path, s.paused_at, coalesce(q.queued, 0) as queued
  from noetl.path_pause s
  full join (
    select x.path, count(*) as queued
    from noetl.execution x
    where x.status = 'QUEUED' and x.admitted_at is null and x.waits_for_slot is null
    group by x.path
  ) q on q.path = s.path
) p;

-- name: examine_undos
-- What is left undone in executions that failed or were cancelled, and the latest of them.
select count(distinct u.execution_id) as executions, count(*) filter (where u.status = 'open') as open,
  count(*) filter (where u.status = 'failed') as failed, count(*) filter (where u.status = 'unknown') as unknown,
  max(u.execution_id) filter (where u.status <> 'unknown') as execution_id, max(u.execution_id) as doubtful_id,
  max(u.execution_id) filter (where u.status = 'failed' and u.error ? 'template') as to_mend
from noetl.execution x
join noetl.undo u on u.execution_id = x.execution_id and u.status in ('open', 'failed', 'unknown')
where x.undo_status = 'left';

-- name: examine_approvals
select count(*) as approvals, min(a.since) as since, min(a.times_out_at) as times_out_at
from noetl.pending_approvals a;
