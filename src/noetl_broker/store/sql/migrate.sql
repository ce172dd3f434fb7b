-- name: lock_migrations
-- In the two-int key space: execution ids own the other one.
select pg_advisory_lock(1852794228, 2);

-- name: wait_for_migrations
select pg_advisory_xact_lock(1852794228, 2);

-- name: create_schema_version
create schema if not exists noetl;
create table if not exists noetl.schema_version (
  version int primary key,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default clock_timestamp()
);
alter table noetl.schema_version add column if not exists serves_from int;

-- name: database_encoding
select current_database()::text as database, current_setting('server_encoding') as encoding;

-- name: has_schema_version
select to_regclass('noetl.schema_version') is not null;

-- name: is_superuser
select rolsuper
from pg_roles
where rolname = current_user;

-- name: is_beside_noetl
-- Whether the schema was made beside the tables of a NoETL server, and that server is not given back its own broker: see
-- docs/beside-noetl.md.
select exists (
  select
  from pg_trigger t
  where t.tgrelid = to_regclass('noetl.queue') and t.tgname = 'noetl_receive_job'
);

-- name: missing_rights
-- What a daemon's role (null: our own) may not do and must; deploy/roles.sql grants the same.
with asked as (
  select coalesce($1::text, current_user)::name as role
), tables as (
  select r.right_name, unnest(r.relations) as relation
  from (
    values
      ('select', array[
        'catalog', 'event', 'queue', 'execution', 'execution_state', 'turn', 'workload', 'workflow', 'transition',
         'workbook', 'iteration', 'inbox', 'dead_letter', 'ended_job', 'withdrawn_job', 'clock', 'schema_version',
         'period', 'archived'
      ]),
      ('insert', array[
        'event', 'queue', 'execution', 'execution_state', 'turn', 'workload', 'workflow', 'transition', 'workbook',
        'iteration', 'inbox', 'dead_letter', 'withdrawn_job', 'clock'
      ]),
      ('update', array[
        'queue', 'execution', 'execution_state', 'workflow', 'iteration', 'inbox', 'dead_letter', 'ended_job',
        'clock'
      ]),
      ('delete', array['inbox', 'ended_job', 'withdrawn_job'])
  ) r (right_name, relations)
)
select t.right_name || ' on noetl.' || t.relation as missing
from tables t
cross join asked a
where not has_table_privilege(a.role, 'noetl.' || t.relation, t.right_name)
union all
select 'usage on noetl.id_seq'
from asked a
where not has_sequence_privilege(a.role, 'noetl.id_seq', 'usage')
union all
select 'select on noetl.stale_answer_seq'
from asked a
where not has_sequence_privilege(a.role, 'noetl.stale_answer_seq', 'select')
union all
select 'execute on ' || f.signature
from unnest(array[
  'noetl.take_mail(int, boolean, bigint)', 'noetl.too_large_together(bigint[], bigint[], bigint[], bigint[], boolean)',
  'noetl.mind_clock(int, boolean)',
  'noetl.reap(int, int, timestamptz, bigint, float8)',
  'noetl.is_lease_lost(bigint, text, timestamptz, timestamptz, float8)', 'noetl.reap_ended_jobs(int, float8, bigint)',
  'noetl.next_id()', 'noetl.as_json(jsonb)', 'noetl.as_json(text)', 'noetl.as_error(jsonb)', 'noetl.as_error(text)',
  'noetl.shorten_error(jsonb)', 'noetl.weight(anyelement)', 'noetl.is_broken(jsonb)', 'noetl.is_broken(text)',
  'noetl.unwrapped(jsonb)', 'noetl.item_node_id(text, int)', 'noetl.root_of(bigint)',
  'noetl.lock_root(bigint)', 'noetl.is_archived(bigint)', 'noetl.add_partition(int)'
]) f (signature)
cross join asked a
where not has_function_privilege(a.role, f.signature, 'execute');

-- name: list_migrations
select version, name, checksum, serves_from
from noetl.schema_version
order by version;

-- name: record_migration
insert into noetl.schema_version (version, name, checksum, serves_from)
values ($1::int, $2::text, $3::text, $4::int);
