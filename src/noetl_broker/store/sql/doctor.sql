-- name: examine_server
-- What it is, and its clock.
select current_setting('server_version') as version,
  current_setting('server_version_num')::int as version_number,
  current_database()::text as database,
  current_user::text as role,
  pg_backend_pid() as process_id,
  current_setting('statement_timeout') as statement_timeout,
  extract(epoch from clock_timestamp())::float8 as now_seconds;

-- name: examine_read_only
-- Whether sessions may write, and where it is set that they may not.
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
-- The roles that a daemon may have: ours, and the group that `migrate --roles` made. That one is the whole server's: where it
-- may not even see the schema, it was made for another database.
select r.rolname::text as role, r.rolsuper as is_superuser
from pg_roles r
where r.rolname = current_user
  or (r.rolname = 'noetl_broker' and has_schema_privilege(r.oid, 'noetl', 'usage'))
order by r.rolname <> current_user;

-- name: examine_triggers
-- Those that put events into the inbox and hold writers to their rights; one that is switched off loses mail.
select w.trigger_name
from unnest(array['noetl_receive_events']) w (trigger_name)
where not exists (
  select
  from pg_trigger t
  where t.tgrelid = to_regclass('noetl.event') and t.tgname = w.trigger_name and t.tgenabled in ('O', 'A')
);

-- name: examine_given_back
-- Whether this is the database of a NoETL server that decides by itself again: none of our triggers is left on its tables.
select to_regclass('noetl.resource') is not null and not exists (
  select
  from pg_trigger t
  where t.tgrelid in (to_regclass('noetl.event'), to_regclass('noetl.queue'), to_regclass('noetl.catalog'))
    and starts_with(t.tgname, 'noetl_')
) as given_back;

-- name: examine_brokers
select count(*) filter (where a.application_name = 'noetl-broker bell') as listening,
  count(*) filter (where a.application_name = 'noetl-broker worker') as workers
from pg_stat_activity a
where a.datname = current_database();

-- name: examine_mail
-- The inbox is counted up to a bound: a number that large says enough.
select extract(epoch from clock_timestamp() - o.created_at)::float8 as age_seconds, o.execution_id, o.event_id,
  (select count(*) from (select from noetl.inbox limit 100000) counted) as unread
from (
  select i.execution_id, i.event_id, e.created_at::timestamptz as created_at
  from noetl.inbox i
  join noetl.event e on e.execution_id = i.execution_id and e.event_id = i.event_id
  order by i.mail_id
  limit 1
) o;

-- name: examine_dead_letters
select count(*) as set_aside, count(distinct d.execution_id) as executions, min(d.created_at) as oldest,
  (array_agg(d.reason order by d.created_at desc))[1] as reason
from noetl.dead_letter d;

-- name: examine_leases
-- A lease that ran out is put back within a second or two where any broker runs; one that a NoETL server gave is not.
select count(*) as expired, max(extract(epoch from clock_timestamp() - q.lease_until))::float8 as late_seconds
from noetl.queue q
where q.status = 'leased' and q.lease_until < clock_timestamp() - make_interval(secs => $1::float8)
  and q.foreign_attempt is distinct from q.attempts
  and (q.lease_seconds is not null or exists (select from noetl.execution x where x.execution_id = q.execution_id));

-- name: examine_clock
-- How far the server's clock is behind what brokers have seen on it, and its last step back, where that was within a week.
select extract(epoch from c.seen_at - clock_timestamp())::float8 as behind_seconds, c.steps, c.is_pulling,
  case when c.stepped_at > clock_timestamp() - interval '7 days' then c.stepped_at end as stepped_at,
  c.behind_seconds as step_seconds
from noetl.clock c;

-- name: examine_jobs
-- Jobs that any worker of their type may take, and none does.
select q.node_type as type, count(*) as waiting,
  max(extract(epoch from clock_timestamp() - q.available_at))::float8 as age_seconds
from noetl.queue q
where q.status in ('queued', 'retry') and q.available_at < clock_timestamp() - make_interval(secs => $1::float8)
group by q.node_type
order by q.node_type;

-- name: examine_bloat
-- By Postgres' own counters, which lag behind by seconds.
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
-- Who keeps vacuum from taking dead rows away, the oldest first: their age is that of their transaction.
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
-- Whether the server knows a statement of this session under the name that we gave it.
select exists (
  select
  from pg_prepared_statements p
  where p.name = $1
) as is_prepared;
